package simulate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// trouble starts what befalls the world beside single requests.
func (w *world) trouble() {
	for i := range w.shape.rebalances {
		w.at("rebalance", i, func(n string) {
			services := w.shape.services
			p := w.process(services[w.upTo(len(services), "leaves", n)], w.upTo(max(1, w.shape.owners), "which", n))
			if p != nil {
				w.trace("%s leaves", p.name)
				p.leave()
			}
		})
	}
	for i := range w.shape.recreate {
		w.at("recreate", i, w.recreateGroup)
	}
	for i := range w.shape.config {
		w.at("config", i, func(n string) {
			text := fmt.Sprintf(journeyFile, delay+time.Duration(w.upTo(3, "longer", n))*time.Second)
			w.trace("the journey changes")
			if err := os.WriteFile(filepath.Join(w.files.journeys, "cart.yaml"), []byte(text), 0o600); err != nil {
				w.violate("%v", err)
			}
		})
	}
	if w.shape.regress != never {
		w.running.Go(w.goBack)
	}
}

// at runs f at an instant of the seed, within the time of faults.
func (w *world) at(what string, i int, f func(n string)) {
	n := fmt.Sprintf("%s %d", what, i)
	when := w.between(time.Second, w.shape.trouble, n)
	w.running.Go(func() {
		if w.rest(when) {
			w.mu.Lock()
			w.injected[what]++
			w.mu.Unlock()
			f(n)
		}
	})
}

// process is who runs a service at the moment.
func (w *world) process(service string, owner int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.processes[fmt.Sprintf("%s-%d", service, owner)]
}

// leave ends a process in order.
func (p *process) leave() {
	p.mu.Lock()
	cancel := p.cancel
	p.mu.Unlock()
	cancel()
}

// stages are the stages of a service, with what each reads.
func (w *world) stages(service string) map[string]string {
	switch service {
	case collect:
		return map[string]string{topic.StageCollector: w.topics.EventsInbox()}
	case stitch:
		return map[string]string{topic.StageStitcher: w.topics.EventsCollected()}
	case build:
		return map[string]string{topic.StageBuilder: w.topics.EventsIdentified()}
	case activate:
		return map[string]string{topic.StageDecide: w.topics.EventsIdentified(), topic.StageDeliver: w.topics.ActivationsRequested()}
	}
	return nil
}

// recreateGroup kills all processes of a service and deletes its groups, as an operator may.
func (w *world) recreateGroup(n string) {
	services := slices.DeleteFunc(slices.Clone(w.shape.services), func(s string) bool { return w.stages(s) == nil })
	service := services[w.upTo(len(services), "whose group", n)]
	w.hold(service, true)
	defer w.hold(service, false)
	for o := range max(1, w.shape.owners) {
		if p := w.process(service, o); p != nil {
			w.trace("%s is killed, its group goes", p.name)
			p.crash()
		}
	}
	for stage, input := range w.stages(service) {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{w.topics.Group(stage, input)}
		for w.rest(session / 2) {
			res, err := w.ask(req)
			if err != nil {
				w.violate("delete the group of %s: %v", stage, err)
				return
			}
			r, _ := res.(*kmsg.DeleteGroupsResponse)
			if code := r.Groups[0].ErrorCode; code != kerr.NonEmptyGroup.Code {
				w.trace("group of %s deleted: %v", stage, kerr.ErrorForCode(code))
				break
			}
		}
	}
}

// hold keeps a service from being started again.
func (w *world) hold(service string, yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if yes {
		w.held[service]++
	} else {
		w.held[service]--
	}
}

func (w *world) isHeld(service string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held[service] > 0
}

// ask sends a request to Kafka past all faults.
func (w *world) ask(req kmsg.Request) (kmsg.Response, error) {
	conn, err := w.kafkaNet.DialContext(w.ctx, "tcp", "127.0.0.1:9092")
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	defer context.AfterFunc(w.ctx, func() { _ = conn.Close() })()
	f := kmsg.NewRequestFormatter()
	if _, err := conn.Write(f.AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	b = b[4:] // the correlation id
	res := req.ResponseKind()
	if res.IsFlexible() {
		b = b[1:]
	}
	return res, res.ReadFrom(b)
}

// snapshot is Redis at a moment: what brings each key back.
type snapshot map[string]func(m *miniredis.Miniredis) error

// remember takes a snapshot.
func (w *world) remember() (snapshot, error) {
	s := snapshot{}
	for _, key := range w.redis.Keys() {
		switch kind := w.redis.Type(key); kind {
		case "string":
			v, err := w.redis.Get(key)
			if err != nil {
				return nil, err
			}
			s[key] = func(m *miniredis.Miniredis) error { return m.Set(key, v) }
		case "hash":
			fields, err := w.redis.HKeys(key)
			if err != nil {
				return nil, err
			}
			var all []string
			for _, f := range fields {
				all = append(all, f, w.redis.HGet(key, f))
			}
			s[key] = func(m *miniredis.Miniredis) error { m.HSet(key, all...); return nil }
		case "list":
			vs, err := w.redis.List(key)
			if err != nil {
				return nil, err
			}
			s[key] = func(m *miniredis.Miniredis) error { _, err := m.Push(key, vs...); return err }
		case "set":
			vs, err := w.redis.Members(key)
			if err != nil {
				return nil, err
			}
			s[key] = func(m *miniredis.Miniredis) error { _, err := m.SAdd(key, vs...); return err }
		case "zset":
			vs, err := w.redis.SortedSet(key)
			if err != nil {
				return nil, err
			}
			s[key] = func(m *miniredis.Miniredis) error {
				for member, score := range vs {
					if _, err := m.ZAdd(key, score, member); err != nil {
						return err
					}
				}
				return nil
			}
		default:
			return nil, fmt.Errorf("key %s is a %s", key, kind)
		}
	}
	return s, nil
}

// nodes is how many nodes the cluster of shape oneNode has.
const nodes = 3

// node is the node of a cluster that a key lives on.
func node(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(tagOf(key))) // never fails
	return int(h.Sum32() % nodes)
}

// restore takes Redis, or one node of it, back.
func (w *world) restore(s snapshot, gone func(key string) bool) error {
	for _, key := range w.redis.Keys() {
		if gone(key) {
			w.redis.Del(key)
		}
	}
	for key, put := range s {
		if gone(key) {
			if err := put(w.redis); err != nil {
				return err
			}
		}
	}
	return nil
}

// goBack takes Redis back to an earlier moment, once some slot has lost by it.
func (w *world) goBack() {
	if !w.rest(w.between(2*time.Second, w.shape.trouble/2, "remember")) {
		return
	}
	before, graphBefore := w.counts(), w.graphWrites()
	s, err := w.remember()
	if err != nil {
		w.violate("%v", err)
		return
	}
	// What an owner has not met yet, nobody can miss: a count is known to Kafka soon after the owner's next look.
	when := w.between(time.Second, 4*time.Second, "go back")
	early := max(0, when-lookAndTell)
	if !w.rest(early) {
		return
	}
	known, graphKnown := w.counts(), w.graphWrites()
	if !w.rest(when - early) {
		return
	}
	lost := w.upTo(nodes, "which node")
	gone := func(key string) bool { return w.shape.regress == allOf || node(key) == lost }
	now := w.counts()
	var losers []loser
	for _, slot := range sortedKeys(now) {
		was := before[slot]
		if gone("{"+w.topics.Prefix+slot+"}") && (now[slot].applied > was.applied || known[slot].writes > was.writes) {
			losers = append(losers, loser{slot[:strings.LastIndexByte(slot, ':')], "slot " + slot})
		}
	}
	slots := len(losers)
	for _, key := range sortedKeys(graphKnown) {
		if gone(key) && graphKnown[key] > graphBefore[key] {
			losers = append(losers, loser{topic.StageStitcher, "the graph's " + key})
		}
	}
	w.mu.Lock()
	w.losers = losers
	switch {
	case slots > 0:
		w.injected["slots lost"]++
	case len(losers) > 0:
		w.injected["nothing but nodes of the graph lost"]++
	}
	w.mu.Unlock()
	w.trace("redis goes back: %v lose", losers)
	if err := w.restore(s, gone); err != nil {
		w.violate("%v", err)
	}
	w.mu.Lock()
	w.injected["redis went back"]++
	w.mu.Unlock()
}

// lookAndTell is within what an owner meets what others have written into its slot, and tells Kafka of it, while
// nothing is in its way.
const lookAndTell = 2 * time.Second

// loser is a stage, and what of it went back with Redis.
type loser struct{ stage, what string }

// graphTag begins the hash tags of the identity graph.
func (w *world) graphTag() string { return "{" + w.topics.Prefix + "g:" }

// graphWrites are the counts of writes of the graph's buckets, by their keys.
func (w *world) graphWrites() map[string]int64 {
	m := map[string]int64{}
	for _, key := range w.redis.Keys() {
		if !strings.HasPrefix(key, w.graphTag()) || !strings.HasSuffix(key, "}writes") {
			continue
		}
		text, err := w.redis.Get(key)
		if err == nil {
			writes, _, _ := strings.Cut(text, "/") // pages and nodes follow
			m[key], err = strconv.ParseInt(writes, 10, 64)
		}
		if err != nil {
			w.violate("%s: %v", key, err)
		}
	}
	return m
}

// count is how far a slot is, and how many scripts it has accepted.
type count struct{ applied, writes int64 }

// counts are those of each slot, as "stage:partition".
func (w *world) counts() map[string]count {
	m := map[string]count{}
	for _, service := range w.shape.services {
		for stage := range w.stages(service) {
			for p := range partitions {
				key := keyed.SlotTag(w.topics, stage, p) + "meta"
				number := func(field string) int64 {
					n, err := strconv.ParseInt(w.redis.HGet(key, field), 10, 64)
					if err != nil {
						return -1 // it is not there yet
					}
					return n
				}
				m[fmt.Sprintf("%s:%d", stage, p)] = count{number("applied"), number("writes")}
			}
		}
	}
	return m
}

// checkLost: every stage that lost something has stopped, for that reason.
func (w *world) checkLost() {
	w.mu.Lock()
	losers, stopped := w.losers, w.stopped
	w.mu.Unlock()
	for _, l := range losers {
		found := false
		for _, service := range w.shape.services {
			for stage := range w.stages(service) {
				if l.stage != stage {
					continue
				}
				for o := range max(1, w.shape.owners) {
					p := w.process(service, o)
					found = found || p != nil && errors.Is(stopped[p.name], keyed.ErrStateLost)
				}
			}
		}
		if !found {
			w.violate("%s has lost what redis acknowledged, and nobody stopped (%v)", l.what, stopped)
		}
	}
}
