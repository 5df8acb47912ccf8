package simulate

import (
	"context"
	"fmt"
	"hash"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse/memory"
)

// partitions is the count of every topic: the fewest with which keys of one person lie apart.
const partitions = 2

// world is all of one schedule: servers, processes, and what was seen of them.
type world struct {
	seed   uint64
	shape  *shape
	files  files
	topics topic.Set
	log    *zap.Logger

	kafka    *kfake.Cluster
	kafkaNet *kfake.VirtualNetwork
	redis    *miniredis.Miniredis

	clickhouse *memory.Server
	door       *process
	doors      clients
	script     func(p *process, m *message, v *verdict) // of a directed schedule, instead of the seed's plan
	acts       []*sentEvent                             // of a directed schedule, instead of the seed's load
	last       func(w *world) error                     // of a directed schedule: looks when all is settled
	began      time.Time
	ctx        context.Context //nolint:containedctx // of the schedule, which the world is
	stop       context.CancelFunc
	running    sync.WaitGroup

	mu         sync.Mutex
	calm       bool
	processes  map[string]*process // by service and owner
	leaving    map[*process]bool
	violations []string
	sent       []delivered
	events     []*sentEvent
	journal    []string
	acked      map[string]time.Time   // when a door took responsibility for an event, by message id
	tries      map[string]int         // calls with an event that left
	heard      map[string]int         // what sources heard
	ackedThen  map[string]time.Time   // acked, when the last look began
	stored     map[string]storedEvent // what the collector's topic held then, by message id
	digest     hash.Hash64
	steps      int
	injected   map[string]int
	seen       map[string]int                // what the last look found
	befell     []string                      // faults, with whom and what they befell
	stopped    map[string]error              // services that stopped for good, by process
	held       map[string]int                // services that are not to be started again yet
	logs       map[string]*[partitions]logOf // what was read of each topic
	losers     []loser                       // of what went back with Redis
}

// delivered is a message that reached its channel.
type delivered struct {
	id, by string
	at     time.Time
}

// newWorld makes the servers of a schedule. It must be called in its bubble.
func newWorld(s *shape, seed uint64, f files) (*world, error) {
	w := &world{
		seed: seed, shape: s, files: f, topics: topic.Set{Prefix: "w.", Partitions: partitions}, log: zap.NewNop(),
		kafkaNet: &kfake.VirtualNetwork{}, redis: miniredis.NewMiniRedis(), clickhouse: memory.NewServer(memory.Options{}), began: time.Now(), digest: fnv.New64a(),
		processes: map[string]*process{}, leaving: map[*process]bool{}, injected: map[string]int{}, seen: map[string]int{}, stopped: map[string]error{}, held: map[string]int{},
		acked: map[string]time.Time{}, tries: map[string]int{}, heard: map[string]int{}, logs: map[string]*[partitions]logOf{},
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.redis.ClockTTL(true)
	var names []string
	for _, t := range w.topics.Specs() {
		names = append(names, t.Name)
	}
	var err error
	w.kafka, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.kafkaNet.Listen),
		kfake.SeedTopics(partitions, names...), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		return nil, err
	}
	w.door = w.newProcess("door", 0, 0)
	w.door.safe = true
	w.doors, err = w.door.connect(w.config(w.door))
	return w, err
}

// close ends everything. No goroutine of the schedule is left.
func (w *world) close() {
	w.stop()
	w.mu.Lock()
	var ps []*process
	for _, p := range w.processes {
		ps = append(ps, p)
	}
	for p := range w.leaving {
		ps = append(ps, p)
	}
	w.mu.Unlock()
	for _, p := range ps {
		p.crash()
	}
	w.running.Wait()
	w.doors.stream.Close()
	_ = w.doors.store.Close()
	w.door.crash()
	w.kafka.Close()
	w.redis.Close()
	time.Sleep(unwinding)
}

// unwinding is what timers and requests under way may take to end once everything is closed.
const unwinding = time.Minute

// config is what a process is started with.
func (w *world) config(p *process) config.Config {
	c := config.Defaults()
	c.Kafka = config.Kafka{Brokers: []string{"127.0.0.1:9092"}, ClientID: p.name, SessionTimeout: session, RebalanceTime: session}
	c.Redis = config.Redis{Addresses: []string{"127.0.0.1:6379"}, AllowNonDurable: true}
	c.Topics.Prefix, c.Topics.Partitions = w.topics.Prefix, w.topics.Partitions
	c.Identity.KeyFile, c.Identity.RulesFile = w.files.identity, w.files.limits
	c.Collector.UnsubscribeSecret = w.files.unsubscribe
	c.Collector.Sources, c.Collector.ProduceTimeout, c.Collector.DrainDelay = sources, produceTimeout, 0
	c.Collector.SpoolDir, c.Collector.SpoolAfter, c.Collector.SpoolMaxBytes = w.files.spools, spoolAfter, spoolBytes
	c.Activator.Journeys = w.files.journeys
	c.Activator.FencePoll = 50 * time.Millisecond
	batch := 500
	if w.shape.batch > 0 {
		batch = 1 + w.upTo(w.shape.batch, p.name, "batch")
	}
	c.Stitcher.BatchRecords, c.Builder.BatchRecords, c.Activator.BatchRecords = batch, batch, batch
	c.Stitcher.CacheEntries = []int{0, 4, 1000}[w.upTo(3, p.name, "cache")]
	return c
}

// now is how long the schedule has run.
func (w *world) now() time.Duration { return time.Since(w.began) }

// troubled says whether there are still faults.
func (w *world) troubled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.calm
}

// trace writes down what happened.
func (w *world) trace(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(fmt.Sprintf(format, args...))
}

func (w *world) note(what string) {
	line := fmt.Sprintf("%11.6f %s", w.now().Seconds(), what)
	_, _ = w.digest.Write([]byte(line)) // never fails
	w.journal = append(w.journal, line)
}

// violate notes a broken promise.
func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	w.violations = append(w.violations, text)
	w.note("VIOLATION " + text)
}

func (w *world) broken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violations
}

// before asks the plan about a request and lets it travel.
func (w *world) before(p *process, m *message) verdict {
	n := p.nth(m.label)
	v := w.judge(p, m, n)
	w.mu.Lock()
	w.steps++
	if v.fault != none {
		w.injected[string(v.fault)]++
		w.befell = append(w.befell, fmt.Sprintf("%s %s %s: %s", p.name, m.label, n, v.fault))
	}
	if v.fault != none || m.class != idles {
		text := p.name + " > " + m.label
		if v.fault != none {
			text += " [" + string(v.fault) + "]"
		}
		w.note(text)
	}
	w.mu.Unlock()
	time.Sleep(v.there)
	return v
}

// after lets an answer travel.
func (w *world) after(p *process, m *message, v verdict) {
	time.Sleep(v.back)
	if m.class != idles {
		w.trace("%s < %s", p.name, m.label)
	}
}

// start keeps a service running: whenever it dies, another one starts later.
func (w *world) start(service string, owner int) {
	w.running.Go(func() {
		for incarnation := 0; w.ctx.Err() == nil; incarnation++ {
			p := w.newProcess(service, owner, incarnation)
			key := fmt.Sprintf("%s-%d", service, owner)
			w.mu.Lock()
			w.processes[key] = p
			w.mu.Unlock()
			w.trace("%s starts", p.name)
			err := p.run(w.ctx)
			w.trace("%s ended: %v", p.name, err)
			if w.ctx.Err() != nil {
				return
			}
			if err != nil {
				w.mu.Lock()
				w.stopped[p.name] = err
				w.mu.Unlock()
				if w.shape.regress == never {
					w.violate("%s stopped: %v", p.name, err)
				}
				return
			}
			if !w.rest(w.between(50*time.Millisecond, 2*session, p.name, "restart")) {
				return
			}
			for w.isHeld(service) {
				if !w.rest(lookEvery) {
					return
				}
			}
		}
	})
}

// rest sleeps until the time is over or the schedule ends.
func (w *world) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// received notes a message that reached the channel.
func (w *world) received(p *process, m connector.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, delivered{id: m.ID, by: p.name, at: time.Now()})
}

// run plays the schedule to its end and returns what was violated.
func (w *world) run() []string {
	defer w.close()
	for _, s := range w.shape.services {
		for o := range max(1, w.shape.owners) {
			w.start(s, o)
		}
	}
	w.running.Go(w.produce)
	w.trouble()
	w.watch()
	w.calmDown()
	if w.shape.regress != never {
		w.watchLoss()
		return w.broken()
	}
	w.settle()
	return w.broken()
}

// calmDown ends all faults.
func (w *world) calmDown() {
	w.mu.Lock()
	w.calm = true
	w.note("faults are over")
	w.mu.Unlock()
}

const (
	// patience is how long a calm world may take until everything is where it belongs: the longest back-off,
	// session time-outs, journeys that wait, several times over.
	patience = 90 * time.Second
	// lookEvery is the pause between two looks.
	lookEvery = time.Second
	// afterwards is how long a world is watched that has settled: for what comes too much, or late.
	afterwards = 3 * time.Second
)

// settle waits until nothing is missing any more and then looks for what is too much.
func (w *world) settle() {
	var missing []string
	for end := w.now() + patience; w.now() < end; {
		if !w.rest(lookEvery) || len(w.broken()) > 0 {
			return
		}
		var wrong []string
		if missing, wrong, _ = w.look(); len(wrong) > 0 {
			for _, x := range wrong {
				w.violate("%s", x)
			}
			return
		}
		if len(missing) > 0 {
			continue
		}
		w.rest(afterwards)
		if missing, wrong, _ = w.look(); len(wrong) > 0 {
			for _, x := range wrong {
				w.violate("after all was settled: %s", x)
			}
		}
		if len(missing) > 0 { // a cart that was bought, filled once more and is due only now, for one
			continue
		}
		if w.last != nil {
			if err := w.last(w); err != nil {
				w.violate("%v", err)
			}
		}
		return
	}
	for _, x := range missing {
		w.violate("stuck: %s", x)
	}
}

// lookAmid is the pause between two looks while there are faults.
const lookAmid = 4 * time.Second

// watch lets the time of faults pass and looks now and then for what is wrong already.
func (w *world) watch() {
	for w.now() < w.shape.trouble && w.rest(min(lookAmid, w.shape.trouble-w.now())) {
		if w.shape.regress != never {
			continue
		}
		if _, wrong, _ := w.look(); len(wrong) > 0 {
			w.violate("amid the faults: %s", strings.Join(wrong, "; "))
			return
		}
	}
}

// noticing is what a stage may take to see that Redis went back: the longest back-off and a hand-over.
const noticing = 12 * time.Second

// watchLoss looks whether those who lost something stop, and say nothing wrong.
func (w *world) watchLoss() {
	w.rest(noticing)
	w.checkLost()
	_, wrong, steady := w.look()
	for end := w.now() + patience; !steady && w.now() < end && w.rest(lookEvery); {
		_, wrong, steady = w.look()
	}
	if !steady {
		w.violate("events still arrive, long after the last fault")
	}
	for _, x := range wrong {
		w.violate("%s", x)
	}
}

// sortedKeys are a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// logOf is what was read of a partition. Logs only grow, so nothing is read twice.
type logOf struct {
	recs []stream.Record
	next int64
}

// raw returns all records of a topic, partition by partition. They must not be changed.
func (w *world) raw(topicName string) ([]stream.Record, error) {
	logs := w.logs[topicName]
	if logs == nil {
		logs = new([partitions]logOf)
		w.logs[topicName] = logs
	}
	var recs []stream.Record
	for p := range logs {
		if err := w.readOn(topicName, p, &logs[p]); err != nil {
			return nil, err
		}
		recs = append(recs, logs[p].recs...)
	}
	return recs, nil
}

// readOn reads what a partition has got since the last time.
func (w *world) readOn(topicName string, p int, l *logOf) error {
	end := w.end(topicName, p)
	if l.next >= end {
		return nil
	}
	f := w.doors.stream.NewFetcher(topicName, p, l.next, stream.FetchOptions{})
	defer f.Close()
	for l.next < end {
		b, err := f.Fetch(w.ctx, time.Second)
		if err != nil {
			return err
		}
		l.next = b.Next
		for _, r := range b.Records {
			l.recs = append(l.recs, own(r))
		}
	}
	return nil
}

// end is the offset behind the last record of a partition.
func (w *world) end(topicName string, p int) int64 {
	info := w.kafka.PartitionInfo(topicName, int32(p)) //nolint:gosec // two
	if info == nil {
		return 0
	}
	return info.HighWatermark
}

// read returns all records of a topic as a reader by rule 1 sees them, and how many it dropped.
func (w *world) read(topicName string) (recs []stream.Record, repeated int, err error) {
	all, err := w.raw(topicName)
	if err != nil {
		return nil, 0, err
	}
	high := map[string]int64{}
	for _, r := range all {
		text, ok := topic.Get(r.Headers, topic.HeaderPosition)
		if !ok {
			recs = append(recs, r)
			continue
		}
		pos, err := topic.ParsePosition(text)
		if err != nil {
			return nil, 0, err
		}
		source := fmt.Sprintf("%d %s", r.Partition, pos.Source())
		if last, ok := high[source]; ok && pos.Seq <= last {
			repeated++
			continue
		}
		high[source] = pos.Seq
		recs = append(recs, r)
	}
	return recs, repeated, nil
}

// own copies what is only valid until the next Fetch.
func own(r stream.Record) stream.Record {
	hs := make([]topic.Header, len(r.Headers))
	for i, h := range r.Headers {
		hs[i] = topic.Header{Key: strings.Clone(h.Key), Value: append([]byte(nil), h.Value...)}
	}
	r.Headers = hs
	r.Key = append([]byte(nil), r.Key...)
	if r.Value != nil {
		r.Value = append([]byte{}, r.Value...)
	}
	return r
}
