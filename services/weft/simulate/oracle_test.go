package simulate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// people is the plain sequential program: who is whom after some events.
type people struct {
	rules  *identity.Rules
	parent map[identity.Node]identity.Node
}

func newPeople(r *identity.Rules) *people {
	return &people{rules: r, parent: map[identity.Node]identity.Node{}}
}

func (p *people) node(id event.Identifier) identity.Node {
	n, ok := p.rules.Node(id)
	if !ok {
		panic("the load has identifiers that name somebody")
	}
	return n
}

// root is the first node of a component.
func (p *people) root(n identity.Node) identity.Node {
	for {
		up, ok := p.parent[n]
		if !ok {
			return n
		}
		n = up
	}
}

// take joins the identifiers of an event.
func (p *people) take(e *sentEvent) {
	first := p.root(p.node(e.ids[0]))
	for _, id := range e.ids[1:] {
		other := p.root(p.node(id))
		switch c := identity.Node.Compare(first, other); {
		case c < 0:
			p.parent[other] = first
		case c > 0:
			p.parent[first] = other
			first = other
		}
	}
}

func (p *people) of(e *sentEvent) string { return p.root(p.node(e.ids[0])).String() }

// expected is what must come of the events.
type expected struct {
	people *people
	events map[string]*sentEvent // by message id
	counts map[string]int64      // by profile
	names  map[string]map[string]int64
	orders map[string]int64
}

// expect runs the events that the collector's topic holds, one after the other, as far as f says. What was acknowledged
// must be there; what was not may be, and then counts like any other.
func (w *world) expect(f func(*sentEvent) bool) *expected {
	x := &expected{
		people: newPeople(w.files.rules), events: map[string]*sentEvent{}, counts: map[string]int64{},
		names: map[string]map[string]int64{}, orders: map[string]int64{},
	}
	for _, e := range w.events {
		if _, ok := w.stored[e.id]; ok && e.counts() && f(e) {
			x.events[e.id] = e
			x.people.take(e)
		}
	}
	for _, e := range x.events {
		id := x.people.of(e)
		x.counts[id]++
		if e.name != "" {
			if x.names[id] == nil {
				x.names[id] = map[string]int64{}
			}
			x.names[id][e.name]++
		}
		if e.ordered {
			x.orders[id]++
		}
	}
	return x
}

// findings gathers what is not as it must be. What is missing may still come; what is wrong stays wrong.
type findings struct{ missing, wrong []string }

func (f *findings) miss(format string, args ...any) {
	f.missing = append(f.missing, fmt.Sprintf(format, args...))
}

func (f *findings) bad(format string, args ...any) {
	f.wrong = append(f.wrong, fmt.Sprintf(format, args...))
}

// look compares the world with what must be. It takes a while: if meanwhile the collector's topic has grown, the look is not
// steady, and says nothing of what is wrong. What is wrong stays so, for the next look.
func (w *world) look() (missing, wrong []string, steady bool) {
	var f findings
	collected := w.topics.EventsCollected()
	before := [partitions]int64{w.end(collected, 0), w.end(collected, 1)}
	if err := w.readStored(&f); err != nil {
		f.miss("the world can not be read: %v", err)
		return f.missing, nil, false
	}
	all := w.expect(func(*sentEvent) bool { return true })
	checks := []func(*findings, *expected) error{w.checkIdentified, w.checkRejected, w.checkCommits, w.checkPositions, w.checkRows}
	if w.shape.has(build) {
		checks = append(checks, w.checkProfiles)
	}
	if w.shape.has(activate) {
		checks = append(checks, w.checkMessages)
	}
	for _, check := range checks {
		if err := check(&f, all); err != nil {
			f.miss("the world can not be read: %v", err)
		}
	}
	w.seen["events"], w.seen["profiles"], w.seen["carts"] = len(all.events), len(all.counts), len(all.carts())
	if before != [partitions]int64{w.end(collected, 0), w.end(collected, 1)} {
		f.miss("events arrived while it was looked at them")
		return f.missing, nil, false
	}
	slices.Sort(f.missing)
	slices.Sort(f.wrong)
	return f.missing, f.wrong, true
}

// storedEvent is what the collector's topic holds of an event.
type storedEvent struct {
	copies   int       // that the stitcher must tell apart by their message id
	received time.Time // at the door, by its clock: the first
}

// readStored reads the collector's topic: what was acknowledged is there (P1), and all that is there was sent.
func (w *world) readStored(f *findings) error {
	w.mu.Lock()
	w.ackedThen = maps.Clone(w.acked)
	var waiting []string
	for _, e := range w.events {
		if !e.settled {
			waiting = append(waiting, e.id)
		}
	}
	events := w.events
	w.mu.Unlock()
	for _, id := range waiting {
		f.miss("event %s is neither acknowledged nor given up", id)
	}
	recs, _, err := w.read(w.topics.EventsCollected())
	if err != nil {
		return err
	}
	w.stored = map[string]storedEvent{}
	for i := range recs {
		id := header(&recs[i], topic.HeaderMessageID)
		s, again := w.stored[id]
		if s.copies++; !again {
			meta, err := topic.ParseMeta(recs[i].Headers)
			if err != nil {
				return err
			}
			s.received = meta.ReceivedAt
		}
		w.stored[id] = s
	}
	for _, e := range events {
		_, acked := w.ackedThen[e.id]
		_, there := w.stored[e.id]
		switch {
		case e.poison && w.knocks(), !acked || there:
		case e.inlet && w.knocks():
			f.miss("event %s is in the inbox and not on events.collected", e.id)
		case w.spools():
			f.miss("event %s was acknowledged, and no spool has been drained of it yet", e.id)
		default:
			f.bad("event %s was acknowledged and is not on events.collected", e.id)
		}
	}
	for _, id := range sortedKeys(w.stored) {
		if w.heardOf(id) == 0 {
			f.bad("events.collected has %q, which nobody sent", id)
		}
	}
	return nil
}

func header(r *stream.Record, key string) string {
	v, _ := topic.Get(r.Headers, key)
	return v
}

// checkIdentified: each accepted event once, under a profile that today is the one it must be.
func (w *world) checkIdentified(f *findings, all *expected) error {
	recs, repeated, err := w.read(w.topics.EventsIdentified())
	if err != nil {
		return err
	}
	w.seen["records published twice"] = repeated
	into := map[string]string{}
	for i := range recs {
		if header(&recs[i], topic.HeaderKind) != string(topic.KindMerge) {
			continue
		}
		m, err := identity.ParseMerge(recs[i].Value)
		if err != nil {
			f.bad("merge record at %d/%d: %v", recs[i].Partition, recs[i].Offset, err)
			continue
		}
		if old, ok := into[m.Loser]; ok && old != m.Winner {
			f.bad("%s is merged into %s and %s", m.Loser, old, m.Winner)
		}
		into[m.Loser] = m.Winner
	}
	w.seen["merges"] = len(into)
	seen := map[string]int{}
	for i := range recs {
		if header(&recs[i], topic.HeaderKind) == string(topic.KindMerge) {
			continue
		}
		id := header(&recs[i], topic.HeaderMessageID)
		e := all.events[id]
		if e == nil {
			f.bad("events.identified has %q, which was never accepted", id)
			continue
		}
		if seen[id]++; seen[id] > 1 {
			f.bad("events.identified has event %s %d times", id, seen[id])
		}
		if string(recs[i].Value) != e.body {
			f.bad("event %s has another body than was sent", id)
		}
		at := string(recs[i].Key)
		for hops := 0; hops < 100; hops++ {
			next, ok := into[at]
			if !ok {
				break
			}
			at = next
		}
		if want := all.people.of(e); at != want {
			f.miss("event %s is of %s, must be of %s", id, at, want)
		}
	}
	for id := range all.events {
		if seen[id] == 0 {
			f.miss("event %s is not identified", id)
		}
	}
	return nil
}

// document is what is compared of a profile.
type document struct {
	Counts struct {
		Events int64            `json:"events"`
		ByName map[string]int64 `json:"byName"`
	} `json:"counts"`
	Orders int64 `json:"orders"`
}

// checkProfiles: the live profiles are the components, with each event once.
func (w *world) checkProfiles(f *findings, all *expected) error {
	recs, _, err := w.read(w.topics.ProfilesChanged())
	if err != nil {
		return err
	}
	live := map[string]*document{}
	for i := range recs {
		key := string(recs[i].Key)
		if recs[i].Value == nil {
			delete(live, key)
			continue
		}
		var d document
		if err := json.Unmarshal(recs[i].Value, &d); err != nil {
			f.bad("profile %s: %v", key, err)
		}
		live[key] = &d
	}
	for id, d := range live {
		want, ok := all.counts[id]
		switch {
		case !ok:
			f.miss("profile %s with %d events is nobody", id, d.Counts.Events)
		case d.Counts.Events > want:
			f.bad("profile %s has %d events, must have %d", id, d.Counts.Events, want)
		case d.Counts.Events < want:
			f.miss("profile %s has %d events, must have %d", id, d.Counts.Events, want)
		case !maps.Equal(d.Counts.ByName, all.names[id]) && len(d.Counts.ByName)+len(all.names[id]) > 0:
			f.bad("profile %s has counts %v, must have %v", id, d.Counts.ByName, all.names[id])
		case d.Orders != all.orders[id]:
			f.bad("profile %s has %d orders, must have %d", id, d.Orders, all.orders[id])
		}
	}
	for id := range all.counts {
		if live[id] == nil {
			f.miss("profile %s is not there", id)
		}
	}
	return nil
}

// checkRejected: each poison record and each duplicate that the stitcher met once, each poison event that a door took
// at least once, nothing else.
func (w *world) checkRejected(f *findings, _ *expected) error {
	recs, _, err := w.read(w.topics.EventsRejected())
	if err != nil {
		return err
	}
	want, poison := map[string]int{}, map[string]bool{}
	for _, e := range w.events {
		n := w.stored[e.id].copies
		_, acked := w.ackedThen[e.id]
		switch {
		case e.poison && w.knocks():
			poison[e.id] = acked
		case e.poison:
			want["poison "+e.id] = n
		case n > 1:
			want["duplicate "+e.id] = n - 1
		}
	}
	got, atDoor := map[string]int{}, map[string]int{}
	for i := range recs {
		id, why := header(&recs[i], topic.HeaderMessageID), "poison "
		if header(&recs[i], topic.HeaderReason) == "duplicate" {
			why = "duplicate "
		}
		if header(&recs[i], topic.HeaderService) == topic.StageCollector {
			atDoor[id]++
			continue
		}
		got[why+id]++
	}
	for k, n := range want {
		if got[k] < n {
			f.miss("events.rejected has %s %d times, must have it %d times", k, got[k], n)
		}
	}
	for k, n := range got {
		if n > want[k] {
			f.bad("events.rejected has %s %d times, must have it %d times", k, n, want[k])
		}
	}
	for id, n := range atDoor {
		// What Kafka wrote though it was given up, and the spool handed on once more, is there more often than it was heard.
		if _, ok := poison[id]; !ok || n > w.heardOf(id) && !w.spools() {
			f.bad("events.rejected has %q %d times from the door, which heard it %d times", id, n, w.heardOf(id))
		}
	}
	for id, acked := range poison {
		if acked && atDoor[id] == 0 && w.spools() {
			f.miss("event %s was acknowledged, and no spool has been drained of it yet", id)
		} else if acked && atDoor[id] == 0 {
			f.bad("event %s was acknowledged and is not on events.rejected", id)
		}
	}
	return nil
}

// checkCommits: every stage has told Kafka that it has read all, and its slots are empty.
func (w *world) checkCommits(f *findings, _ *expected) error {
	for _, service := range w.shape.services {
		for stage, input := range w.stages(service) {
			group := w.kafka.GroupInfo(w.topics.Group(stage, input))
			for p := range int32(partitions) {
				end := w.kafka.PartitionInfo(input, p).HighWatermark
				switch {
				case end == 0:
				case group == nil:
					f.miss("%s has no group yet", stage)
				case group.Commits[input][p].Offset != end:
					f.miss("%s has committed %d of %d of %s/%d", stage, group.Commits[input][p].Offset, end, input, p)
				}
			}
		}
	}
	return nil
}

// checkPositions: a source position says the same thing however often it is published (rule 1).
func (w *world) checkPositions(f *findings, _ *expected) error {
	said := map[string]string{}
	for _, spec := range w.topics.Specs() {
		if spec.Name == w.topics.EventsCollected() {
			continue
		}
		recs, err := w.raw(spec.Name)
		if err != nil {
			return err
		}
		for i := range recs {
			pos := header(&recs[i], topic.HeaderPosition)
			if pos == "" { // of a foreign producer, or rejected at the HTTP door
				continue
			}
			what := fmt.Sprintf("%s %d %s %s", spec.Name, recs[i].Partition, recs[i].Key, recs[i].Value)
			if old, ok := said[pos]; ok && old != what {
				f.bad("position %s says two things: %.200s and %.200s", pos, old, what)
			}
			said[pos] = what
		}
	}
	return nil
}
