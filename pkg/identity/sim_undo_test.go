package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Undoing in a simulation: an operator who takes people apart while stitchers work, crashes like them, and is replaced while
// he lives on; and the oracle of it, which follows the graph write by write.

// simOrder is one thing that the operator does. It is made once, and carried out until it is done.
type simOrder struct {
	kind    CommandKind
	nodes   []Node
	parts   [][]Node
	seen    []int // of each slot, what had arrived when the graph was done with it
	decided bool  // the graph is done with it, and refused it unless went is set
	went    []PartedNode
	done    bool
}

// undone is what the oracle knows of what was undone.
type undone struct {
	all      []Identifier
	orders   int // to come
	begun    int // so far
	order    *simOrder
	splits   [][]Node               // parts of splits that can be released
	comp     map[Node]map[Node]bool // who is one person, by every member; absent: alone
	into     map[Node]Node          // where the last split puts a member
	edges    map[Node]map[Node]bool // ways on which an event may have come to its profile
	told     map[Node]bool          // members whose split was told: nothing is published under them any more
	cuts     map[cut]bool           // pairs that certainly are no person now
	blocks   map[Node][]int         // who certainly counts for nobody: from which records on
	behind   map[Node]bool          // see noteBehind
	carried  map[CommandKind]int    // orders done
	setAside map[Reason]int         // for what records were set aside meanwhile
}

func newUndone() undone {
	return undone{comp: map[Node]map[Node]bool{}, into: map[Node]Node{}, edges: map[Node]map[Node]bool{}, told: map[Node]bool{}, cuts: map[cut]bool{},
		blocks: map[Node][]int{}, behind: map[Node]bool{}, carried: map[CommandKind]int{}, setAside: map[Reason]int{}}
}

// people counts identifiers.
func people(ns []Node) (n int) {
	for _, x := range ns {
		if x[0] != rankPart {
			n++
		}
	}
	return n
}

// arrive lets a record arrive now and then.
func (s *sim) arrive() {
	if !s.regime.undoes() || s.rng.IntN(8) > 0 {
		return
	}
	slot := s.slots[s.rng.IntN(len(s.slots))]
	slot.arrived = min(slot.arrived+1, len(slot.input))
}

// superseded says whether an operator works on, late, on an order that others have carried out, and whose opposite may have
// been ordered since: he is the one thing that has no compare-and-set to stop him, so the service sees to it that he is not.
func (a *simActor) superseded() bool {
	if a.order == nil || !a.order.done {
		return false
	}
	switch a.order.kind {
	case CommandRelease, CommandReject, CommandBlock, CommandUnblock:
		return a.s.order != a.order
	}
	return false
}

// operate carries out orders, one after the other.
func (a *simActor) operate(ctx context.Context) {
	s := a.s
	for a.step() {
		if s.order == nil {
			if s.begun == s.orders {
				return
			}
			if o := a.plan(ctx); o != nil && s.order == nil { // else another operator was faster, or a read failed
				s.order = o
				s.begun++
			}
			continue
		}
		o, number := s.order, s.begun
		a.order = o
		if err := a.carryOut(ctx, o, number); errors.Is(err, errSimCrash) {
			return
		} else if err != nil && !errors.Is(err, errSimFault) {
			s.violate("order %d, %s: %v", number, o.kind, err)
			return
		}
		if o.done && s.order == o {
			s.order = nil
		}
	}
}

// plan makes an order of what the graph is.
func (a *simActor) plan(ctx context.Context) *simOrder {
	s := a.s
	one := func() Node { return s.all[s.rng.IntN(len(s.all))].Node }
	o := &simOrder{kind: []CommandKind{CommandSplit, CommandSplit, CommandSplit, CommandSplit, CommandErase, CommandRelease, CommandRelease,
		CommandReject, CommandBlock, CommandUnblock, CommandLink}[s.rng.IntN(11)], nodes: []Node{one()}}
	switch o.kind {
	case CommandSplit, CommandErase:
		members, err := Members(ctx, a, o.nodes[0])
		if err != nil {
			return nil
		}
		o.nodes = members
		if o.kind == CommandErase {
			return o
		}
		if len(members) < 2 {
			return nil
		}
		o.parts = make([][]Node, 2+s.rng.IntN(min(2, len(members)-1)))
		for i, n := range members {
			p := i // so that none is empty
			if i >= len(o.parts) {
				p = s.rng.IntN(len(o.parts))
			}
			o.parts[p] = append(o.parts[p], n)
		}
	case CommandRelease:
		if len(s.splits) == 0 {
			return nil
		}
		o.nodes = s.splits[s.rng.IntN(len(s.splits))]
	case CommandReject, CommandLink:
		if other := one(); other != o.nodes[0] {
			o.nodes = append(o.nodes, other)
		} else {
			return nil
		}
	}
	return o
}

// carryOut does what is left to do of an order.
func (a *simActor) carryOut(ctx context.Context, o *simOrder, number int) error {
	s := a.s
	if !o.decided {
		s.lift(o)
		went, err := a.decideOrder(ctx, o, number)
		if err != nil && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrOnePerson) {
			return err
		}
		if o.decided { // by another operator meanwhile
			if err == nil && !slices.Equal(went, o.went) {
				s.violate("two operators have two answers: %+v\n %+v", went, o.went)
			}
			return nil
		}
		o.decided, o.went = true, went
		for _, slot := range s.slots {
			o.seen = append(o.seen, slot.arrived)
		}
		if err == nil {
			s.enforce(o)
		}
		if !a.step() {
			return errSimCrash
		}
	}
	for i, slot := range s.slots {
		for !s.mut.tellsEarly && (slot.applied < o.seen[i] || len(slot.outbox) > 0) {
			if !a.step() {
				return errSimCrash
			}
		}
	}
	if o.done {
		return nil
	}
	for _, p := range o.went { // told at once, as records with positions are
		s.published[p.Node] = p.Into
		s.edges[p.Node] = map[Node]bool{p.Into: true}
		s.told[p.Node] = true
		s.redirects[p.Node.String()] = append(s.redirects[p.Node.String()],
			Merge{Winner: p.Into.String(), Version: version(p.Generation, 0)})
	}
	s.carried[o.kind]++
	o.done = true
	return nil
}

// lift notes that what an order takes away is not certain any more.
func (s *sim) lift(o *simOrder) {
	switch o.kind {
	case CommandRelease:
		for c := range maps.Clone(s.cuts) {
			if slices.Contains(o.nodes, c[0]) && slices.Contains(o.nodes, c[1]) {
				delete(s.cuts, c)
			}
		}
	case CommandUnblock:
		delete(s.blocks, o.nodes[0])
	}
}

// enforce notes what is certain from now on.
func (s *sim) enforce(o *simOrder) {
	switch o.kind {
	case CommandReject:
		s.cuts[newCut(o.nodes[0], o.nodes[1])] = true
	case CommandBlock:
		s.blocks[o.nodes[0]] = o.seen
	}
}

func (a *simActor) decideOrder(ctx context.Context, o *simOrder, number int) ([]PartedNode, error) {
	s, r := a.s, a.resolver
	part := func(i int, generation uint64) Node { return simPart(number, i, generation) }
	publish := func(_ context.Context, ms []Merge) error {
		for _, m := range ms {
			if !a.step() {
				return errSimCrash
			}
			if !s.mut.mergesUntold {
				s.publishMerge(m)
			}
		}
		return nil
	}
	switch o.kind {
	case CommandSplit:
		went, err := r.Split(ctx, SplitOrder{Members: o.nodes, Parts: o.parts, Part: part}, publish)
		if err == nil && !o.decided {
			var nodes []Node
			for _, p := range went {
				nodes = append(nodes, p.Into)
			}
			slices.SortFunc(nodes, Node.Compare)
			s.splits = append(s.splits, slices.Compact(nodes))
		}
		return went, err
	case CommandErase:
		return r.Forget(ctx, o.nodes, part, publish)
	case CommandRelease:
		_, err := r.Release(ctx, o.nodes)
		return nil, err
	case CommandReject:
		return nil, r.Cut(ctx, o.nodes[0], o.nodes[1])
	case CommandBlock, CommandUnblock:
		return nil, r.SetBlocked(ctx, o.nodes[0], o.kind == CommandBlock)
	}
	rec := simRecord{cause: Cause{Source: fmt.Sprintf("order:%d", number), MessageID: "m", Rule: RuleOperator, Time: simEpoch}, trusted: true, operator: true}
	for _, n := range o.nodes {
		rec.ids = append(rec.ids, s.all[slices.IndexFunc(s.all, func(id Identifier) bool { return id.Node == n })])
	}
	s.records[rec.cause.Source] = rec
	got, err := r.Resolve(ctx, []Request{{Identifiers: rec.ids, Cause: rec.cause, Trusted: true, Operator: true}})
	if err != nil {
		return nil, err
	}
	if err := publish(ctx, got[0].Merges); err != nil {
		return nil, err
	}
	var losers []Node
	for _, m := range got[0].Merges {
		n, _ := ParseNode(m.Loser)
		losers = append(losers, n)
	}
	return nil, r.Confirm(ctx, losers)
}

// simPart is what Rules.Part is.
func simPart(number, part int, generation uint64) Node {
	behind := maxGeneration - generation
	return Node{0: rankPart, 1: byte(behind >> 16), 2: byte(behind >> 8), 3: byte(behind), 6: 0x80, 8: 0x80, //nolint:gosec // cut on purpose
		13: byte(97 * number), 14: byte(number), 15: byte(part + 1)} //nolint:gosec // small
}

// parts says whether a link may be replaced: by a split, of a later generation.
func (s *sim) parts(old, v *value) bool {
	return v.parted && (!old.parted || v.incarnation > old.incarnation)
}

// leads notes a way.
func (s *sim) leads(from, to Node) {
	if s.edges[from] == nil {
		s.edges[from] = map[Node]bool{}
	}
	s.edges[from][to] = true
}

// checkEvent looks at an event when it is published first: ways that were published before lead to its profile from each of
// its identifiers; after a split was told, only those of after; and who is blocked is set aside.
func (s *sim) checkEvent(o *simOutput) {
	for _, x := range o.aside {
		s.setAside[x.Reason]++
	}
	for _, id := range o.record.ids {
		if from, ok := s.blocks[id.Node]; ok && o.record.place >= from[o.record.partition] && !isAside(o.aside, id.Node) {
			s.violate("record %s counts %s, which is blocked", o.record.cause.Source, id.Node)
		}
		if isAside(o.aside, id.Node) {
			continue
		}
		reached := map[Node]bool{id.Node: true}
		for todo := []Node{id.Node}; len(todo) > 0; todo = todo[1:] {
			for to := range s.edges[todo[0]] {
				if !reached[to] {
					reached[to] = true
					todo = append(todo, to)
				}
			}
		}
		if !reached[o.key] {
			s.violate("an event of %s is published under %s before the merges that lead there", id.Node, o.key)
		}
	}
	if s.told[o.key] {
		s.violate("record %s is published under %s, whose split was told", o.record.cause.Source, o.key)
	}
}

// noteBehind notes joins that are made or go on behind the publication of their record: by one who worked on it too, and was
// too late. The record was decided without the link, because of a limit, or before people were split who are released since,
// or before somebody was blocked; so it may be that no record meets the link again, or not before long.
func (s *sim) noteBehind(n Node, old, v *value) {
	if _, decided := s.keys[v.cause.Source]; decided && s.regime != free && v.caused() && !old.linked {
		s.behind[n] = true
	}
}

// latent says whether there is such a link on the way of n: it is published when somebody meets it.
func (s *sim) latent(n Node) bool {
	for v := s.valueOf(n); ; n, v = v.link, s.valueOf(v.link) {
		without := slices.ContainsFunc(v.evidence, func(id Identifier) bool { return isAside(s.asides[v.cause.Source], id.Node) })
		if v.caused() && (s.behind[n] || without) {
			return true
		}
		if !v.linked {
			return false
		}
	}
}

// with is who is one person with n.
func (s *sim) with(n Node) map[Node]bool {
	if c := s.comp[n]; c != nil {
		return c
	}
	return map[Node]bool{n: true}
}

// checkCut: nobody joins whom an order in force keeps apart.
func (s *sim) checkCut(a, b Node) {
	x, y := s.with(a), s.with(b)
	for c := range s.cuts {
		if x[c[0]] && y[c[1]] || x[c[1]] && y[c[0]] {
			s.violate("%s and %s become one person, which is cut", c[0], c[1])
		}
	}
}

// unite makes two people one.
func (s *sim) unite(a, b Node) {
	all := maps.Clone(s.with(a))
	maps.Copy(all, s.with(b))
	for n := range all {
		s.comp[n] = all
	}
}

// watchSplit looks at a write of a split.
func (s *sim) watchSplit(n Node, old, v *value) {
	switch {
	case v.order != nil && old.order == nil:
		s.freeze(n, v)
	case v.parted:
		if v.link != s.into[n] && v.link != n {
			s.violate("%s is linked to %s by a split that says %s", n, v.link, s.into[n])
		}
	case n[0] == rankPart && old.raw == nil:
		want := s.with(n)
		if v.size() != len(want) || slices.ContainsFunc(nodes(v), func(m Node) bool { return !want[m] }) {
			s.violate("part %s begins with other members than the split says", n)
		}
	default:
		s.violate("%s changes while it is being split", n)
	}
}

// freeze is the moment at which people are split.
func (s *sim) freeze(r Node, v *value) {
	was := s.with(r)
	if v.size() != len(was) {
		s.violate("%s is split with %d members, it has %d", r, v.size(), len(was))
	}
	parts := map[Node]map[Node]bool{}
	for _, p := range v.order.into {
		if s.comp[p] != nil {
			s.violate("part %s is made twice", p)
		}
		parts[p] = map[Node]bool{p: true}
		for _, q := range v.order.into {
			if !v.order.forget && p != q {
				s.cuts[newCut(p, q)] = true
			}
		}
	}
	for i := range v.size() {
		m, p := v.member(i), v.order.into[v.order.part[i]]
		if !was[m] {
			s.violate("%s is split with %s, which is no member", r, m)
		}
		parts[p][m] = true
		s.into[m] = p
		s.leads(m, p)
		if v.order.forget {
			s.days[m], s.degrees[m] = 0, 1
			for c := range maps.Clone(s.cuts) {
				if c[0] == m || c[1] == m {
					delete(s.cuts, c)
				}
			}
		}
	}
	for _, c := range parts {
		for m := range c {
			s.comp[m] = c
		}
	}
}

// people are the roots of all, by who is one person.
func (s *sim) people(all []Identifier) map[Node]Node {
	root := map[Node]Node{}
	for _, id := range all {
		root[id.Node] = slices.MinFunc(slices.Collect(maps.Keys(s.with(id.Node))), Node.Compare)
	}
	return root
}

// withParts are identifiers and the parts that splits have made.
func (s *sim) withParts(all []Identifier) []Identifier {
	for n := range s.now {
		if n[0] == rankPart {
			all = append(all, Identifier{Node: n})
		}
	}
	slices.SortFunc(all, func(a, b Identifier) int { return a.Node.Compare(b.Node) })
	return all
}
