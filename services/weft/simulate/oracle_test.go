package simulate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
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

// expect runs the events, one after the other, as far as f says.
func (w *world) expect(f func(*sentEvent) bool) *expected {
	x := &expected{
		people: newPeople(w.files.rules), events: map[string]*sentEvent{}, counts: map[string]int64{},
		names: map[string]map[string]int64{}, orders: map[string]int64{},
	}
	for _, e := range w.events {
		if e.counts() && !e.acked.IsZero() && f(e) {
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

// look compares the world with what must be. It takes a while: what is wrong is told only if the oracle knew of all that
// was sent, so if from before it on nothing was on its way to be acknowledged. What is wrong stays so, for the next look.
func (w *world) look() (missing, wrong []string) {
	var f findings
	before, some := w.sentSoFar()
	all := w.expect(func(*sentEvent) bool { return true })
	for _, e := range w.events {
		if e.acked.IsZero() {
			f.miss("event %s is not acknowledged", e.id)
		}
	}
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
	if after, more := w.sentSoFar(); some || more || before != after {
		f.miss("events were on their way to be acknowledged")
		f.wrong = nil
	}
	slices.Sort(f.missing)
	slices.Sort(f.wrong)
	return f.missing, f.wrong
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
			if !w.unanswered(id) {
				f.bad("events.identified has %q, which was never accepted", id)
			}
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

// unanswered says whether an event was sent and its acknowledgement has not come yet.
func (w *world) unanswered(id string) bool {
	return slices.ContainsFunc(w.events, func(e *sentEvent) bool { return e.id == id && e.acked.IsZero() })
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

// checkRejected: each poison record once, each duplicate once, nothing else.
func (w *world) checkRejected(f *findings, _ *expected) error {
	recs, _, err := w.read(w.topics.EventsRejected())
	if err != nil {
		return err
	}
	want := map[string]int{}
	for _, e := range w.events {
		switch {
		case e.acked.IsZero():
		case e.poison:
			want["poison "+e.id]++
		case e.double:
			want["duplicate "+e.id]++
		}
	}
	got := map[string]int{}
	for i := range recs {
		why := "poison "
		if header(&recs[i], topic.HeaderReason) == "duplicate" {
			why = "duplicate "
		}
		got[why+header(&recs[i], topic.HeaderMessageID)]++
	}
	for k, n := range want {
		if got[k] < n {
			f.miss("events.rejected has %s %d times, must have it %d times", k, got[k], n)
		}
	}
	for k, n := range got {
		id := k[strings.IndexByte(k, ' ')+1:]
		if n > want[k] && !w.unanswered(id) {
			f.bad("events.rejected has %s %d times, must have it %d times", k, n, want[k])
		}
	}
	return nil
}

// cartOf is what the oracle knows of one cart.
type cartOf struct {
	first, last time.Duration
	by          *sentEvent
}

func (x *expected) carts() map[string]*cartOf {
	cs := map[string]*cartOf{}
	for _, e := range x.events {
		if e.cart == "" {
			continue
		}
		c := cs[e.cart]
		if c == nil {
			c = &cartOf{first: e.stamp, last: e.stamp, by: e}
			cs[e.cart] = c
		}
		c.first, c.last = min(c.first, e.stamp), max(c.last, e.stamp)
	}
	return cs
}

// checkMessages: no message for a cart that was bought before its decision, one receipt per eligible cart,
// and each message to its channel at most once.
func (w *world) checkMessages(f *findings, all *expected) error {
	requests, _, err := w.read(w.topics.ActivationsRequested())
	if err != nil {
		return err
	}
	settled, _, err := w.read(w.topics.ActivationsSettled())
	if err != nil {
		return err
	}
	asked := map[string]*journey.Request{}
	for i := range requests {
		r, err := journey.DecodeRequest(requests[i].Value)
		if err != nil {
			f.bad("request: %v", err)
			continue
		}
		if asked[r.ID] != nil {
			f.bad("message %s for cart %s is requested twice", r.ID, r.Cart.ID)
		}
		asked[r.ID] = r
		w.checkRequest(f, r)
	}
	receipts := map[string]journey.Receipt{}
	ends := map[string]map[string]int{} // cart -> reason
	maps.DeleteFunc(w.seen, func(k string, _ int) bool { return strings.HasPrefix(k, "receipt ") })
	for i := range settled {
		var r journey.Receipt
		if err := json.Unmarshal(settled[i].Value, &r); err != nil {
			f.bad("receipt: %v", err)
			continue
		}
		if _, ok := receipts[r.Receipt]; ok {
			f.bad("receipt %s of cart %s twice", r.Receipt, r.Cart.ID)
		}
		receipts[r.Receipt] = r
		if ends[r.Cart.ID] == nil {
			ends[r.Cart.ID] = map[string]int{}
		}
		ends[r.Cart.ID][r.Reason]++
		w.seen["receipt "+r.Reason]++
	}
	w.seen["messages"] = len(asked)
	for _, r := range asked {
		if _, ok := receipts[r.Receipt]; !ok {
			f.miss("message %s for cart %s has no receipt", r.ID, r.Cart.ID)
		}
	}
	w.checkCarts(f, all, ends)
	w.checkSent(f, asked, receipts)
	return nil
}

// checkRequest: what was acknowledged before the timer was seen due has had its effect.
func (w *world) checkRequest(f *findings, r *journey.Request) {
	decided := time.UnixMilli(r.DecidedAt)
	if r.DueAt > r.DecidedAt {
		f.bad("message for cart %s is decided at %d, due at %d", r.Cart.ID, r.DecidedAt, r.DueAt)
	}
	then := w.expect(func(e *sentEvent) bool { return e.acked.Before(decided) })
	c := then.carts()[r.Cart.ID]
	if c == nil {
		f.bad("message for cart %s, which nobody had filled", r.Cart.ID)
		return
	}
	id := then.people.of(c.by)
	changed := time.UnixMilli(r.ChangedAt).Sub(w.began)
	for _, e := range then.events {
		if e.ordered && then.people.of(e) == id && e.stamp >= changed {
			f.bad("message for cart %s is decided at %s, and order %s was acknowledged at %s", r.Cart.ID,
				decided.Sub(w.began), e.id, e.acked.Sub(w.began))
		}
	}
}

// checkCarts: a cart that nobody bought ends once; one that was bought may have been bought before it armed.
func (w *world) checkCarts(f *findings, all *expected, ends map[string]map[string]int) {
	for id, c := range all.carts() {
		who := all.people.of(c.by)
		var bought, between bool
		for _, e := range all.events {
			if e.ordered && all.people.of(e) == who {
				bought = bought || e.stamp.Truncate(time.Millisecond) >= c.last.Truncate(time.Millisecond)
				between = between || e.stamp >= c.first.Truncate(time.Millisecond) && e.stamp <= c.last
			}
		}
		n := 0
		for reason, k := range ends[id] {
			if reason != journey.ReasonMerged && (reason != journey.ReasonPurchased || !bought && !between) {
				n += k
			}
		}
		switch {
		case n == 0 && !bought:
			f.miss("cart %s has no receipt (%v)", id, ends[id])
		case n > 1:
			f.bad("cart %s has %d receipts: %v", id, n, ends[id])
		}
	}
}

// checkSent: what reached the channel was requested, once, and its receipt does not deny it.
func (w *world) checkSent(f *findings, asked map[string]*journey.Request, receipts map[string]journey.Receipt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	times := map[string]int{}
	for _, d := range w.sent {
		times[d.id]++
		if times[d.id] > 1 && !w.shape.idempotent {
			f.bad("message %s was sent %d times", d.id, times[d.id])
		}
	}
	for _, r := range asked {
		end, ok := receipts[r.Receipt]
		if !ok {
			continue
		}
		switch sent := times[r.ID] > 0; {
		case end.Outcome == journey.Delivered && !sent:
			f.bad("message %s has the receipt delivered and was never sent", r.ID)
		case end.Outcome == journey.Suppressed && sent:
			f.bad("message %s has the receipt suppressed and was sent", r.ID)
		}
	}
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
			what := fmt.Sprintf("%s %d %s %s", spec.Name, recs[i].Partition, recs[i].Key, recs[i].Value)
			if old, ok := said[pos]; ok && old != what {
				f.bad("position %s says two things: %.200s and %.200s", pos, old, what)
			}
			said[pos] = what
		}
	}
	return nil
}
