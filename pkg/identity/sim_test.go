package identity

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"

	"github.com/weft-cdp/weft/pkg/event"
)

// The simulation: several stitchers over one store, switched at every single read and write of a node by a
// seeded scheduler that also crashes them, wakes zombies, loses answers and lets writes land late. An
// oracle checks what they publish while they do and what the graph is in the end.

// mutation breaks one clause of the protocol, to show that the oracle sees it.
type mutation struct {
	ownMergesOnly bool // no confirmation: only the record that made a link publishes its merge
	confirmEarly  bool // links are marked as published before the batch is stored
	allConfirmed  bool // every link reads as confirmed: shortcuts and caches skip unpublished ones
	hideJoining   bool // a joining root reads as a plain one: nobody completes it before linking
	blindWrites   bool // compare-and-set sets without comparing
	noSlot        bool // outputs leave without being stored first as one decision
	noEpoch       bool // the epoch always reads as the first one
	tellsEarly    bool // a split is told before what was decided ahead of it is published
	mergesUntold  bool // a split says that it has published merges, and has not
}

// misreads says whether Load shows something else than is stored.
func (m mutation) misreads() bool { return m.allConfirmed || m.hideJoining }

type simRecord struct {
	ids     []Identifier
	cause   Cause
	source  string
	trusted bool

	operator  bool
	partition int
	place     int // in its partition
}

type simOutput struct {
	seq    int
	merge  *Merge
	key    Node
	record simRecord
	aside  []SetAside
}

type simSlot struct {
	input   []simRecord
	arrived int // of input
	applied int
	outbox  []simOutput
	nextSeq int
}

type sim struct {
	rng       *rand.Rand
	mut       mutation
	kv        map[Node][]byte
	seen      map[string]bool // every value ever written
	slots     []*simSlot
	actors    []*simActor
	late      []Swap
	faults    int
	published map[Node]Node           // loser to winner
	made      map[Node]Cause          // loser to the cause of its link
	causes    map[Node]map[string]int // loser to the cause sources published for it
	redirects map[string][]Merge      // every publication that lists a member
	keys      map[string]Node         // record, by its cause, to the profile it was published under
	crossed   int                     // merges published by records that did not make the link
	steps     int
	injected  int // faults: errors, lost answers, late writes, crashes, zombies
	bad       string
	law
	undone
}

type simActor struct {
	s        *sim
	slot     *simSlot // nil: the operator
	order    *simOrder
	resolver *Resolver
	next     func() (struct{}, bool)
	stop     func()
	yield    func(struct{}) bool
}

var (
	errSimFault = errors.New("injected")
	errSimCrash = errors.New("crashed")
)

func (s *sim) violate(format string, args ...any) {
	if s.bad == "" {
		s.bad = fmt.Sprintf(format, args...)
	}
}

// step is a point where the scheduler may switch; false: the actor has crashed.
func (a *simActor) step() bool { return a.yield(struct{}{}) && !a.superseded() }

// Load implements Store: every node is read at a moment of its own.
func (a *simActor) Load(_ context.Context, nodes []Node) ([][]byte, error) {
	out := make([][]byte, len(nodes))
	for i, n := range nodes {
		if !a.step() {
			return nil, errSimCrash
		}
		out[i] = a.s.kv[n]
		if a.s.mut.noEpoch && n == epochNode && a.slot != nil {
			out[i] = nil
		}
		if a.s.mut.misreads() && out[i] != nil {
			v, err := decode(n, out[i])
			if err != nil {
				return nil, err
			}
			v.confirmed = v.confirmed || a.s.mut.allConfirmed && v.linked
			v.joining = v.joining && !a.s.mut.hideJoining
			v.trusted = v.trusted && v.joining
			out[i] = v.encode()
		}
	}
	if a.s.fault(40) {
		return nil, errSimFault
	}
	return out, nil
}

// CompareAndSet implements Store: in any order, each at a moment of its own, and after an error any of them
// may have happened, or happen yet.
func (a *simActor) CompareAndSet(_ context.Context, swaps []Swap) ([]bool, error) {
	out := make([]bool, len(swaps))
	for _, i := range a.s.rng.Perm(len(swaps)) {
		if !a.step() {
			return nil, errSimCrash
		}
		if a.s.fault(30) {
			switch a.s.rng.IntN(3) {
			case 0:
				a.s.set(swaps[i])
			case 1:
				a.s.late = append(a.s.late, swaps[i])
			}
			return nil, errSimFault
		}
		out[i] = a.s.set(swaps[i])
	}
	return out, nil
}

func (s *sim) fault(oneIn int) bool {
	if s.faults > 0 && s.rng.IntN(oneIn) == 0 {
		s.faults--
		s.injected++
		return true
	}
	return false
}

// set does one swap and checks what a write may do.
func (s *sim) set(w Swap) bool {
	cur := s.kv[w.Node]
	if cur != nil && string(cur) == string(w.New) {
		return true
	}
	if !s.mut.blindWrites && !s.mut.misreads() && (string(cur) != string(w.Old) || (cur == nil) != (w.Old == nil)) {
		return false
	}
	if s.mut.misreads() && cur != nil { // what was read is not what is stored: compare the revision
		if w.Old == nil || revisionOf(w.Node, cur) != revisionOf(w.Node, w.Old) {
			return false
		}
	}
	v, err := decode(w.Node, w.New)
	if err != nil {
		s.violate("a broken value is written: %v", err)
		return false
	}
	if s.seen[string(w.New)] {
		s.violate("a value is written twice")
	}
	s.seen[string(w.New)] = true
	if v.parted {
		delete(s.made, w.Node)
	} else if v.confirmed {
		if made, ok := s.made[w.Node]; !ok || s.causes[w.Node][made.Source] == 0 {
			s.violate("%s is confirmed before its merge is published with its cause", w.Node)
		}
	} else if v.linked {
		s.made[w.Node] = v.cause
	}
	if cur != nil {
		if old, err := decode(w.Node, cur); err == nil && !s.mut.blindWrites {
			if old.linked && !old.confirmed && v.parted {
				s.violate("the link of %s is undone, and was never published", w.Node)
			}
			if old.linked && !s.parts(old, v) && (!v.linked || v.link != old.link || old.confirmed && !v.confirmed || !v.confirmed && v.cause != old.cause) {
				s.violate("the link of %s changes", w.Node)
			}
		}
	}
	s.kv[w.Node] = w.New
	if w.Node != epochNode {
		s.watch(w.Node, v)
	}
	return true
}

func revisionOf(n Node, raw []byte) [8]byte {
	v, err := decode(n, raw)
	if err != nil {
		panic(err)
	}
	return v.revision
}

// run is a stitcher on one partition: finish what the slot holds, decide a batch, store it, go on.
func (a *simActor) run() {
	ctx := context.Background()
	if a.slot == nil {
		a.operate(ctx)
		return
	}
	for {
		if !a.step() {
			return
		}
		if len(a.slot.outbox) > 0 {
			out := slices.Clone(a.slot.outbox)
			if !a.publish(ctx, out) {
				continue
			}
			if !a.step() {
				return
			}
			upto := out[len(out)-1].seq
			a.slot.outbox = slices.DeleteFunc(slices.Clone(a.slot.outbox), func(o simOutput) bool { return o.seq <= upto })
		}
		from := a.slot.applied
		if from == len(a.slot.input) {
			if len(a.slot.outbox) == 0 {
				return
			}
			continue
		}
		if from >= a.slot.arrived {
			continue
		}
		batch := a.slot.input[from:min(a.slot.arrived, from+1+a.s.rng.IntN(4))]
		out, err := a.decide(ctx, batch)
		if errors.Is(err, errSimCrash) {
			return
		}
		if err != nil {
			if !errors.Is(err, errSimFault) {
				a.s.violate("resolve: %v", err)
				return
			}
			continue
		}
		if !a.step() {
			return
		}
		if a.s.mut.noSlot && !a.publish(ctx, out) {
			continue
		}
		if a.slot.applied != from {
			continue // refused: another owner was faster
		}
		for i := range out {
			out[i].seq = a.slot.nextSeq
			a.slot.nextSeq++
		}
		a.slot.applied += len(batch)
		a.slot.outbox = append(a.slot.outbox, out...)
	}
}

func (a *simActor) decide(ctx context.Context, batch []simRecord) ([]simOutput, error) {
	reqs := make([]Request, len(batch))
	own := map[string]bool{}
	for i, r := range batch {
		reqs[i] = Request{Identifiers: r.ids, Cause: r.cause, Source: r.source, Trusted: r.trusted, Operator: r.operator}
		own[r.cause.Source] = true
	}
	res, err := a.resolver.Resolve(ctx, reqs)
	if err != nil {
		return nil, err
	}
	var out []simOutput
	var losers []Node
	for i, r := range res {
		for _, m := range r.Merges {
			if !own[m.Cause.Source] {
				a.s.crossed++
				if a.s.mut.ownMergesOnly {
					continue
				}
			}
			loser, err := ParseNode(m.Loser)
			if err != nil {
				return nil, err
			}
			losers = append(losers, loser)
			out = append(out, simOutput{merge: &m, key: loser})
		}
		out = append(out, simOutput{key: r.Profile, record: batch[i], aside: r.SetAside})
	}
	if a.s.mut.confirmEarly {
		if err := a.resolver.Confirm(ctx, losers); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// publish sends an outbox in order and confirms its merges; false: it must be done again.
func (a *simActor) publish(ctx context.Context, out []simOutput) bool {
	var losers []Node
	for _, o := range out {
		if !a.step() {
			return false
		}
		if o.merge != nil {
			losers = append(losers, o.key)
			a.s.publishMerge(*o.merge)
			continue
		}
		if key, ok := a.s.keys[o.record.cause.Source]; ok && key != o.key {
			a.s.violate("record %s is published under two profiles", o.record.cause.Source)
		}
		if _, again := a.s.keys[o.record.cause.Source]; !again {
			a.s.checkEvent(&o)
		}
		a.s.keys[o.record.cause.Source] = o.key
		a.s.asides[o.record.cause.Source] = o.aside
	}
	return a.resolver.Confirm(ctx, losers) == nil
}

func (s *sim) publishMerge(m Merge) {
	b, err := m.Encode()
	if err != nil {
		s.violate("%v", err)
		return
	}
	if m, err = ParseMerge(b); err != nil {
		s.violate("a merge that does not parse: %v", err)
		return
	}
	loser, _ := ParseNode(m.Loser)
	winner, _ := ParseNode(m.Winner)
	if s.told[loser] { // an older owner sends once more what was sent before the split
		if s.causes[loser][m.Cause.Source] == 0 {
			s.violate("the merge of %s is published behind its split", loser)
		}
		return
	}
	if w, ok := s.published[loser]; ok && w != winner {
		s.violate("%s is merged into two", loser)
	}
	s.published[loser] = winner
	s.leads(loser, winner)
	if s.causes[loser] == nil {
		s.causes[loser] = map[string]int{}
	}
	s.causes[loser][m.Cause.Source]++
	for _, n := range m.Members {
		s.redirects[n] = append(s.redirects[n], m)
	}
}

// spawn puts an owner on a slot, in one of two processes whose caches live on, or in a new one.
func (s *sim) spawn(slot *simSlot, procs []*Resolver) {
	a := &simActor{s: s, slot: slot}
	shared := NewResolver(nil, 16, s.policy)
	if i := s.rng.IntN(3); i < len(procs) {
		shared.cache = procs[i].cache
	}
	shared.store = a
	a.resolver = shared
	a.next, a.stop = iter.Pull(func(yield func(struct{}) bool) { a.yield = yield; a.run() })
	s.actors = append(s.actors, a)
}

// simIdentifiers are few, so that links meet: index is the fixed order.
func simIdentifiers(perType int) []Identifier {
	rules, err := NewRules(make([]byte, KeyBytes), Options{})
	if err != nil {
		panic(err)
	}
	var ids []Identifier
	for _, typ := range []string{event.UserID, event.Email, "loyalty_id", event.AnonymousID} {
		for i := range perType {
			id, why := rules.Identify(event.Identifier{Type: typ, Value: fmt.Sprintf("v%d@sim.example", i)})
			if why != "" {
				panic(why)
			}
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b Identifier) int { return a.Node.Compare(b.Node) })
	return ids
}

// simulate runs one seed without limits; an empty bad means that nothing was violated.
func simulate(seed uint64, mut mutation) *sim { return simulateUnder(seed, mut, free) }

// simulateUnder runs one seed under a law.
func simulateUnder(seed uint64, mut mutation, under regime) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 7)), mut: mut, kv: map[Node][]byte{}, seen: map[string]bool{}, //nolint:gosec // a simulation
		published: map[Node]Node{}, made: map[Node]Cause{}, causes: map[Node]map[string]int{}, redirects: map[string][]Merge{}, keys: map[string]Node{}, undone: newUndone()}
	s.law = newLaw(s.rng, under)
	s.faults = s.rng.IntN(6)
	crashes := s.rng.IntN(4)
	all := simIdentifiers(s.perType)
	procs := []*Resolver{NewResolver(nil, 64, s.policy), NewResolver(nil, 8, s.policy)}
	if under.undoes() {
		s.orders = 1 + s.rng.IntN(6)
	}
	for p := range 1 + s.rng.IntN(3) {
		slot := &simSlot{}
		for i := range 1 + s.rng.IntN(6*s.perType/3) {
			r := simRecord{cause: Cause{Source: fmt.Sprintf("%d:%d", p, i), MessageID: "m", Rule: RuleSameEvent, Time: s.time(s.rng)},
				source: "s", trusted: s.rng.IntN(2) == 0, partition: p, place: i}
			for range 1 + []int{0, 1, 1, 1, 2}[s.rng.IntN(5)] {
				r.ids = append(r.ids, all[s.rng.IntN(len(all))])
			}
			slot.input = append(slot.input, r)
			s.records[r.cause.Source] = r
		}
		if slot.arrived = len(slot.input); under.undoes() {
			slot.arrived = s.rng.IntN(len(slot.input) + 1)
		}
		s.slots = append(s.slots, slot)
		s.spawn(slot, procs)
	}
	s.all = all
	if s.orders > 0 {
		s.spawn(nil, procs)
	}
	stick := s.rng.IntN(12)
	var cur *simActor
	for ; len(s.actors) > 0 && s.bad == ""; s.steps++ {
		if s.steps > 100_000*s.perType {
			s.violate("it does not end")
		}
		if len(s.late) > 0 && s.rng.IntN(10) == 0 {
			s.set(s.late[0])
			s.late = s.late[1:]
		}
		s.arrive()
		if cur == nil || !slices.Contains(s.actors, cur) || s.rng.IntN(1+stick) == 0 {
			cur = s.actors[s.rng.IntN(len(s.actors))]
		}
		if crashes > 0 && s.rng.IntN(60) == 0 {
			crashes--
			s.injected++
			if s.rng.IntN(2) == 0 { // else the old owner lives on as a zombie
				s.remove(cur)
			}
			s.spawn(cur.slot, procs)
			continue
		}
		if _, ok := cur.next(); !ok {
			s.remove(cur)
		}
	}
	for len(s.actors) > 0 {
		s.remove(s.actors[0])
	}
	for _, w := range s.late {
		s.set(w)
	}
	if s.bad == "" {
		s.check(all)
	}
	return s
}

func (s *sim) remove(a *simActor) {
	a.stop()
	s.actors = slices.DeleteFunc(s.actors, func(x *simActor) bool { return x == a })
}
