package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ErrChanged means that a component is not what an order to split it was made for: it is to be made anew.
var ErrChanged = errors.New("the person has changed since the command was made")

// ErrOnePerson means that two identifiers that must not be one person are one.
var ErrOnePerson = errors.New("the two are one person: split it first")

// maxParts bounds a split: each part names each other one as not to be one with it, so that a split writes their square.
const maxParts = 256

// SplitOrder is what Split does.
type SplitOrder struct {
	Members []Node   // all of the component, in any order
	Parts   [][]Node // what it becomes, two at least; each member stands in one
	// Part is the node of a part in a generation: Rules.Part of the command.
	Part func(part int, generation uint64) Node
}

// PartedNode says where a member of a component went that was split.
type PartedNode struct {
	Node, Into Node
	Part       int    // Into is its node
	Generation uint64 // of Into
	Day        uint16 // on which Node was first linked; 0: not known
	Degree     uint8  // how many links name it, without the first
}

// undo is a split as it is carried out.
type undo struct {
	members []Node // in order
	part    []int  // of each
	parts   int
	forget  bool
	node    func(part int, generation uint64) Node
}

// Split takes a component apart: each part gets a node of its own, before all others, so that it is the profile id of the
// part's person, and each member becomes a link to its part's node. No id that ever was handed out is an id again, and each
// leads to its part. The parts must not be one person again (Release). It answers for each member, in order, where it went.
//
// Merges within the component that are not known to be published are given to publish first, which publishes them; they are
// confirmed then. It may be called again after any error or crash, and when it is done already: it answers the same.
// ErrChanged: the component has other members.
func (r *Resolver) Split(ctx context.Context, o SplitOrder, publish func(ctx context.Context, merges []Merge) error) ([]PartedNode, error) {
	if len(o.Parts) < 2 || len(o.Parts) > maxParts {
		return nil, fmt.Errorf("split: %d parts, want 2 to %d", len(o.Parts), maxParts)
	}
	u := undo{members: slices.SortedFunc(slices.Values(o.Members), Node.Compare), parts: len(o.Parts), node: o.Part}
	u.part = make([]int, len(u.members))
	left := len(u.members)
	for p, nodes := range o.Parts {
		for _, n := range nodes {
			i, ok := slices.BinarySearchFunc(u.members, n, Node.Compare)
			if !ok {
				return nil, fmt.Errorf("split: part %d: %s is no member", p, n)
			}
			u.part[i] = p
			left--
		}
	}
	if left != 0 || len(slices.Compact(slices.Clone(u.members))) != len(u.members) {
		return nil, errors.New("split: each member must stand once among the members, and in one part")
	}
	return r.undo(ctx, &u, publish)
}

// Forget takes a component apart into its members, for an erasure. Each becomes a link to a new node of its own, of which
// nothing is known: that they were one person, their days and how often they were named is forgotten. Their own ids can not
// be profiles again, since the stages behind have dropped what they held of them for good; so an identifier that comes again
// is a new profile, whose id is the new node. It is to be called, and answers, as Split does.
func (r *Resolver) Forget(ctx context.Context, members []Node, part func(part int, generation uint64) Node,
	publish func(ctx context.Context, merges []Merge) error,
) ([]PartedNode, error) {
	u := undo{members: slices.SortedFunc(slices.Values(members), Node.Compare), forget: true, node: part}
	u.members = slices.Compact(u.members)
	u.parts = len(u.members)
	if u.parts == 0 {
		return nil, errors.New("forget: no members")
	}
	for i := range u.members {
		u.part = append(u.part, i)
	}
	return r.undo(ctx, &u, publish)
}

// alone runs work as the only lane on the graph.
func (r *Resolver) alone(ctx context.Context, work func(s *stitch) error) error {
	return runLanes(ctx, r.store, []func(*lane) error{func(l *lane) error {
		return work(&stitch{lane: l, view: newView(l), cache: r.cache, policy: &r.policy, rates: r.rates, clean: true})
	}})
}

func (r *Resolver) undo(ctx context.Context, u *undo, publish func(ctx context.Context, merges []Merge) error) ([]PartedNode, error) {
	var out []PartedNode
	for range maxAttempts {
		var merges []Merge
		err := r.alone(ctx, func(s *stitch) (err error) {
			out, merges, err = s.undo(ctx, u)
			return err
		})
		if err == nil && len(merges) > 0 {
			err = r.told(ctx, merges, publish)
		}
		if err != nil {
			return nil, fmt.Errorf("split a component of %d: %w", len(u.members), err)
		}
		if out != nil {
			return out, r.raise(ctx)
		}
	}
	return nil, fmt.Errorf("%w: a component of %d is not split after %d attempts", ErrCorrupt, len(u.members), maxAttempts)
}

// told publishes merges and confirms them.
func (r *Resolver) told(ctx context.Context, merges []Merge, publish func(ctx context.Context, merges []Merge) error) error {
	if err := publish(ctx, merges); err != nil {
		return err
	}
	losers := make([]Node, len(merges))
	for i, m := range merges {
		var err error
		if losers[i], err = ParseNode(m.Loser); err != nil {
			return err
		}
	}
	return r.Confirm(ctx, losers)
}

// undo is one attempt: it answers, or hands out merges to publish before the next one, or nothing if others were faster.
func (s *stitch) undo(ctx context.Context, u *undo) ([]PartedNode, []Merge, error) {
	first := u.members[0]
	r, vr, err := s.settled(ctx, first)
	if err != nil {
		return nil, nil, err
	}
	if r != first { // the root is the first of the members
		out, err := s.parted(ctx, u)
		return out, nil, err
	}
	if !slices.EqualFunc(u.members, every(vr.size()), func(n Node, i int) bool { return vr.member(i) == n }) {
		return nil, nil, fmt.Errorf("%w: %s has %d members", ErrChanged, first, vr.size())
	}
	merges, ready, err := s.ready(ctx, r, u)
	if err != nil || !ready {
		return nil, merges, err
	}
	generation := vr.incarnation + 1
	if generation > maxGeneration {
		return nil, nil, fmt.Errorf("%s is of generation %d already: it can not be split any more", r, vr.incarnation)
	}
	next := *vr
	next.order = &order{forget: u.forget, part: u.part}
	for p := range u.parts {
		next.order.into = append(next.order.into, u.node(p, generation))
	}
	if ok, err := s.swap(ctx, r, vr, next); err != nil || !ok {
		return nil, nil, err
	}
	if err := s.complete(ctx, r, s.view.values[r]); err != nil {
		return nil, nil, err
	}
	out, err := s.parted(ctx, u)
	return out, nil, err
}

// unname takes out of forgotten nodes which root they were split from: the split is complete, and nobody asks for it.
func (s *stitch) unname(ctx context.Context, u *undo) error {
	return s.each(ctx, u.members, func(n Node, v *value) *value {
		i, _ := slices.BinarySearchFunc(u.members, n, Node.Compare)
		if !v.parted || v.origin == n || v.link != u.node(u.part[i], v.incarnation) {
			return nil
		}
		next := *v
		next.origin = n
		return &next
	})
}

// ready says whether a component that the root lists can be frozen: all others are linked, and their merges known to be
// published. The root was read before; if it is as it was read when it is frozen, nothing of this has changed: who is linked
// and confirmed stays so, and the others would have been taken in by the root.
func (s *stitch) ready(ctx context.Context, r Node, u *undo) ([]Merge, bool, error) {
	rest := slices.DeleteFunc(slices.Clone(u.members), func(n Node) bool { return n == r })
	if err := s.view.load(ctx, rest); err != nil {
		return nil, false, err
	}
	var merges []Merge
	for _, n := range rest {
		v := s.view.values[n]
		switch {
		case v.joining: // the root has taken it in, and nobody has come to linking it yet
			_, err := s.finish(ctx, n, v)
			return nil, false, err
		case !v.linked, !slices.Contains(u.members, v.parent):
			was := s.view.values[r].revision
			if now, err := s.view.fresh(ctx, r); err != nil || now.revision != was {
				return nil, false, err // somebody else has split them meanwhile
			}
			return nil, false, fmt.Errorf("%w: %s is listed, and not linked yet: the record that links it will be read again", ErrChanged, n)
		case !v.confirmed:
			m, err := s.merge(ctx, n)
			if err != nil {
				return nil, false, err
			}
			if m != nil {
				merges = append(merges, *m)
			}
		}
	}
	return merges, len(merges) == 0, nil
}

// complete carries out the order in the value of root r, whoever gave it. Several may, at once, from wherever others stopped:
// each step is a compare-and-set that only he wins who found the step not done.
func (s *stitch) complete(ctx context.Context, r Node, vr *value) error {
	o, generation := vr.order, vr.incarnation+1
	rest := make([]Node, 0, vr.size())
	for i := range vr.size() {
		if n := vr.member(i); n != r {
			rest = append(rest, n)
		}
	}
	// The parts first, so that whoever is linked to one finds it. Each is created once: it has a value from then on.
	if err := s.each(ctx, o.into, func(n Node, v *value) *value {
		if v.raw != nil {
			return nil
		}
		p := vr.made(slices.Index(o.into, n))
		p.incarnation = generation
		return p
	}); err != nil {
		return err
	}
	// Then all members but the root. Who was parted since, by this or by a later split, is not touched: generations tell.
	if err := s.each(ctx, rest, func(n Node, v *value) *value {
		if v.parted && v.incarnation >= generation {
			return nil
		}
		return vr.part(r, n, v)
	}); err != nil {
		return err
	}
	// The root last: until then whoever meets it does all this again.
	if err := s.each(ctx, []Node{r}, func(_ Node, v *value) *value {
		if v.order == nil { // others were faster
			return nil
		}
		return v.part(r, r, v)
	}); err != nil {
		return err
	}
	for _, n := range append(rest, append(o.into, r)...) {
		delete(s.view.values, n)
	}
	return nil
}

// each writes values of nodes, until next, which is given the value as it stands, has none to write for any of them.
func (s *stitch) each(ctx context.Context, nodes []Node, next func(n Node, v *value) *value) error {
	for range maxAttempts {
		if len(nodes) == 0 {
			return nil
		}
		if err := s.view.load(ctx, nodes); err != nil {
			return err
		}
		var swaps []Swap
		for _, n := range nodes {
			v := s.view.values[n]
			to := next(n, v)
			if to == nil {
				continue
			}
			if err := to.stamp(); err != nil {
				return err
			}
			swaps = append(swaps, Swap{Node: n, Old: v.raw, New: to.raw})
		}
		if len(swaps) == 0 {
			return nil
		}
		done, err := s.lane.swaps(ctx, swaps)
		if err != nil {
			return fmt.Errorf("set %d graph nodes: %w", len(swaps), err)
		}
		nodes = nodes[:0:0]
		for i, w := range swaps {
			if delete(s.view.values, w.Node); !done[i] {
				nodes = append(nodes, w.Node)
			}
		}
	}
	return fmt.Errorf("%w: %d nodes are not set after %d attempts", ErrCorrupt, len(nodes), maxAttempts)
}

// made is a new part of what v, a root that is being split, becomes: its members, and who must not be one with it.
func (v *value) made(part int) *value {
	o := v.order
	n := o.into[part]
	p := &value{group: group{members: append([]byte(nil), n[:]...)}}
	for i := range v.size() {
		if o.part[i] != part {
			continue
		}
		m := v.member(i)
		one := group{members: m[:]}
		if !o.forget {
			one.days = sameDays(v.day(i), 1)
			if len(v.degrees) > 0 && v.degrees[i] > 0 {
				one.degrees = []byte{v.degrees[i]}
			}
		}
		p.group = union(p.group, one)
	}
	if o.forget {
		return p
	}
	for _, c := range v.cuts {
		if p.has(c[0]) || p.has(c[1]) {
			p.cuts = append(p.cuts, c)
		}
	}
	for i, other := range o.into {
		if i != part {
			p.cuts = append(p.cuts, newCut(n, other))
		}
	}
	p.cuts = slices.Compact(slices.SortedFunc(slices.Values(p.cuts), cut.compare))
	return p
}

func newCut(a, b Node) cut {
	if b.Before(a) {
		a, b = b, a
	}
	return cut{a, b}
}

// part is the value of member n, now old, when v, the root r, is split.
func (v *value) part(r, n Node, old *value) *value {
	i, _ := v.find(n)
	into := v.order.into[v.order.part[i]]
	next := &value{linked: true, confirmed: true, parent: into, link: into, group: group{members: n[:]}, incarnation: v.incarnation + 1,
		parted: true, origin: r, blocked: old.blocked, shared: old.shared}
	if v.order.forget {
		if next.shared != nil {
			next.shared = old.shared.forgotten()
		}
		return next
	}
	next.days = sameDays(v.day(i), 1)
	if len(v.degrees) > 0 && v.degrees[i] > 0 {
		next.degrees = []byte{v.degrees[i]}
	}
	return next
}

// parted reads where the members went, or says that this split is not what has become of them.
func (s *stitch) parted(ctx context.Context, u *undo) ([]PartedNode, error) {
	if err := s.view.load(ctx, u.members); err != nil {
		return nil, err
	}
	out := make([]PartedNode, len(u.members))
	for i, n := range u.members {
		v := s.view.values[n]
		if !v.parted || v.link != u.node(u.part[i], v.incarnation) {
			return nil, fmt.Errorf("%w: %s stands elsewhere", ErrChanged, n)
		}
		out[i] = PartedNode{Node: n, Into: v.link, Part: u.part[i], Generation: v.incarnation, Day: v.day(0)}
		if len(v.degrees) > 0 {
			out[i].Degree = v.degrees[0]
		}
	}
	if u.forget {
		return out, s.unname(ctx, u)
	}
	return out, nil
}

// mend is for what walk has met: a split that is not complete is completed, and what was read of the way is forgotten.
func (s *stitch) mend(ctx context.Context, way []Node, v *value) error {
	root := way[len(way)-1]
	if v.order == nil {
		root = v.origin
	}
	now, err := s.view.fresh(ctx, root)
	if err == nil && now.order != nil {
		err = s.complete(ctx, root, now)
	}
	for _, n := range way {
		delete(s.view.values, n)
	}
	return err
}
