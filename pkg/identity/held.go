package identity

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// heldDevice is a device of a record that has a state.
type heldDevice struct {
	id     Identifier
	reason Reason // why the record is resolved without it; empty: it counts
}

// devices is what a record's work knows of devices.
type devices struct {
	ids     []Identifier // of the record
	at      int64        // when it happened, ms
	logOut  bool
	sharers *sharers
	holds   bool        // one of its devices has a state, so that nothing of it may be cached
	states  []NodeState // to be published with it
}

// record resolves one record: as resolve does, but for devices that are shared, or whose owner has logged out. Their state
// stands in the value of their own node, so that it is read with the device, and changed by compare-and-set there; the
// protocol of joins knows nothing of it. A device that is shared for one stitcher, and not yet for another whose batch began
// before, is as if the other's records had come first.
func (s *stitch) record(ctx context.Context, ids []Identifier) (Node, error) {
	if s.policy.Devices == nil {
		return s.resolve(ctx, ids)
	}
	for range maxAttempts {
		root, ok, err := s.attempt(ctx, ids)
		if err != nil || ok {
			return root, err
		}
	}
	return Node{}, fmt.Errorf("%w: the devices of a record change after %d attempts", ErrCorrupt, maxAttempts)
}

// attempt is record, unless a device has changed meanwhile, or shows to be shared by this very record: then it says false, and
// the record is resolved anew.
func (s *stitch) attempt(ctx context.Context, ids []Identifier) (Node, bool, error) {
	s.aside, s.stopped, s.states = nil, nil, nil
	use, held, err := s.apart(ctx, ids)
	if err != nil {
		return Node{}, false, err
	}
	var root Node
	if len(use) > 0 {
		if root, err = s.resolve(ctx, use); err != nil {
			return Node{}, false, err
		}
		if ok, err := s.conflicts(ctx, use); err != nil || !ok {
			return Node{}, false, err
		}
	}
	for i, h := range held {
		number, ok, err := s.see(ctx, h, root)
		if err != nil || !ok {
			return Node{}, false, err
		}
		if i == 0 && len(use) == 0 {
			root = s.policy.Devices.Slice(h.id.Node, number)
		}
	}
	for _, h := range held {
		if h.reason != "" {
			s.aside = append(s.aside, SetAside{Identifier: h.id, Reason: h.reason})
		}
	}
	if s.logOut && !s.policy.Devices.KeepOwner {
		ok, err := s.leave(ctx, use)
		return root, ok, err
	}
	return root, true, nil
}

// apart parts a record's identifiers into those that count and, the dearest first, the devices that have a state, some of
// which count as well.
func (s *stitch) apart(ctx context.Context, ids []Identifier) (use []Identifier, held []heldDevice, err error) {
	s.holds = false
	for _, id := range ids {
		if !s.policy.TypeOf(id.Node).Device {
			continue
		}
		v, err := s.view.get(ctx, id.Node)
		if err != nil {
			return nil, nil, err
		}
		d := v.shared
		if d == nil {
			continue
		}
		s.holds = true
		h := heldDevice{id: id}
		switch {
		case d.kind == deviceShared:
			h.reason = ReasonSharedDevice
		case d.kind == deviceLoggedOut && !s.policy.named(ids) && s.at >= d.since: // what was before it is the owner's
			h.reason = ReasonLoggedOut
		}
		held = append(held, h)
	}
	if len(held) == 0 {
		return ids, nil, nil
	}
	use = slices.DeleteFunc(slices.Clone(ids), func(id Identifier) bool {
		return slices.ContainsFunc(held, func(h heldDevice) bool { return h.id.Node == id.Node && h.reason != "" })
	})
	slices.SortStableFunc(held, func(a, b heldDevice) int {
		return s.policy.TypeOf(a.id.Node).Priority - s.policy.TypeOf(b.id.Node).Priority
	})
	return use, held, nil
}

// see notes the record with a device that has a state, and returns the number of the slice that it belongs to if nothing else
// says whose it is; false: somebody else was faster.
func (s *stitch) see(ctx context.Context, h heldDevice, root Node) (int64, bool, error) {
	v, err := s.view.get(ctx, h.id.Node)
	if err != nil || v.shared == nil {
		return 0, false, err
	}
	d, idle := *v.shared, s.policy.Devices.Idle
	next, named := d, s.policy.named(s.ids)
	switch {
	case d.kind == devicePlain:
	case d.kind == deviceLoggedOut && named && !s.logOut && s.at >= d.since && !isSetAside(s.aside, h.id.Node):
		next.become(devicePlain, d.since) // its person is back, or whoever it is now
	case h.reason == "": // a record of before the log-out
	default:
		var who Node
		if named {
			if who, err = s.same(ctx, d.owner, root); err != nil {
				return 0, false, err
			}
		}
		next = d.see(s.at, who, s.logOut, idle)
	}
	if next != d {
		if ok, err := s.setDevice(ctx, h.id.Node, v, next); err != nil || !ok {
			return 0, false, err
		}
	}
	s.tell(h.id.Node, &next)
	if s.logOut && d.slice.number != 0 {
		return d.number(s.at, idle), true, nil // it ends the slice that it belongs to
	}
	return next.number(s.at, idle), true, nil
}

// same is owner if its person is root's, else root: a profile id may have changed since.
func (s *stitch) same(ctx context.Context, owner, root Node) (Node, error) {
	if owner.IsZero() || owner == root {
		return root, nil
	}
	now, _, err := s.find(ctx, owner)
	if now == root {
		return owner, err
	}
	return root, err
}

// conflicts looks for devices that this record shows to be shared: it names somebody known, and nobody whose the device is,
// and they may not be one. False: there was one, which is marked now, or has changed.
func (s *stitch) conflicts(ctx context.Context, ids []Identifier) (bool, error) {
	if len(s.aside) == 0 || !s.policy.named(ids) {
		return true, nil
	}
	by, people, err := s.people(ctx, ids)
	if err != nil || by.Node.IsZero() {
		return true, err
	}
	ok := true
	for _, id := range ids {
		if !s.policy.TypeOf(id.Node).Device {
			continue
		}
		root, owner, err := s.find(ctx, id.Node)
		if err != nil {
			return false, err
		}
		if slices.Contains(people, root) || !s.policy.known(&owner.group) || !s.sharers.take(by.Node) {
			continue
		}
		v, err := s.view.get(ctx, id.Node)
		if err != nil {
			return false, err
		}
		next := sharedDevice{}
		if v.shared != nil {
			next = *v.shared
		}
		next.become(deviceShared, s.at)
		next.begin(s.at, people[0])
		if _, err := s.setDevice(ctx, id.Node, v, next); err != nil {
			return false, err
		}
		ok = false
	}
	return ok, nil
}

// people are the dearest known identifier of a record and whose its known identifiers are, the dearest first; no identifier if
// all that was refused them is for other reasons than who they are.
func (s *stitch) people(ctx context.Context, ids []Identifier) (by Identifier, people []Node, err error) {
	for _, id := range s.policy.byPriority(ids) {
		if !s.policy.TypeOf(id.Node).Known {
			continue
		}
		root, v, err := s.find(ctx, id.Node)
		if err != nil {
			return Identifier{}, nil, err
		}
		if len(people) == 0 && (v.size() > 1 || slices.ContainsFunc(s.aside, func(a SetAside) bool { return a.Reason == ReasonLimit || a.Reason == ReasonCut })) {
			by = id
		}
		people = append(people, root)
	}
	return by, people, nil
}

// leave notes a log-out on those devices of a record that are somebody's.
func (s *stitch) leave(ctx context.Context, ids []Identifier) (bool, error) {
	for _, id := range ids {
		if !s.policy.TypeOf(id.Node).Device || isSetAside(s.aside, id.Node) {
			continue
		}
		_, owner, err := s.find(ctx, id.Node)
		if err != nil {
			return false, err
		}
		v, err := s.view.get(ctx, id.Node)
		if err != nil {
			return false, err
		}
		var next sharedDevice
		if v.shared != nil {
			next = *v.shared
		}
		if next.kind != devicePlain || !s.policy.known(&owner.group) {
			continue
		}
		next.become(deviceLoggedOut, s.at)
		next.begin(s.at, Node{})
		if ok, err := s.setDevice(ctx, id.Node, v, next); err != nil || !ok {
			return false, err
		}
		s.tell(id.Node, &next)
	}
	return true, nil
}

// setDevice changes the state of a device; false: somebody else was faster.
func (s *stitch) setDevice(ctx context.Context, n Node, v *value, state sharedDevice) (bool, error) {
	next := *v
	next.shared = &state
	s.holds = true
	s.cache.forget(n)
	return s.swap(ctx, n, v, next)
}

// tell hands a device's state to be published with this record, unless that is known to have been done.
func (s *stitch) tell(n Node, d *sharedDevice) {
	if !d.told {
		s.states = append(s.states, d.state(n))
	}
}

func isSetAside(aside []SetAside, n Node) bool {
	return slices.ContainsFunc(aside, func(a SetAside) bool { return a.Identifier.Node == n })
}

// named says whether an identifier names a person.
func (p *Policy) named(ids []Identifier) bool {
	return slices.ContainsFunc(ids, func(id Identifier) bool { return p.TypeOf(id.Node).Known })
}

// known says whether a component is a person who is known.
func (p *Policy) known(g *group) bool {
	for i := range g.size() {
		if p.TypeOf(g.member(i)).Known {
			return true
		}
	}
	return false
}

// Told notes that these states are in Kafka.
func (r *Resolver) Told(ctx context.Context, states []NodeState) error {
	for range maxAttempts {
		swaps, tried, err := r.noted(ctx, states)
		if err != nil || len(swaps) == 0 {
			return err
		}
		done, err := r.store.CompareAndSet(ctx, swaps)
		if err != nil {
			return fmt.Errorf("note %d published states: %w", len(swaps), err)
		}
		states = states[:0:0]
		for i, ok := range done {
			if !ok { // somebody changed it: once more
				states = append(states, tried[i])
			}
		}
	}
	return fmt.Errorf("%w: the states of devices change after %d attempts", ErrCorrupt, maxAttempts)
}

// noted is what published states change, and by which of them.
func (r *Resolver) noted(ctx context.Context, states []NodeState) (swaps []Swap, tried []NodeState, err error) {
	if len(states) == 0 {
		return nil, nil, nil
	}
	nodes := make([]Node, len(states))
	for i := range states {
		if nodes[i], err = ParseNode(states[i].Node); err != nil {
			return nil, nil, fmt.Errorf("states that were published: %w", err)
		}
	}
	view := newView(r.store)
	if err := view.load(ctx, nodes); err != nil {
		return nil, nil, fmt.Errorf("note %d published states: %w", len(states), err)
	}
	for i := range states {
		v, was := view.values[nodes[i]], sharedDevice{told: true, round: states[i].Round}
		if v.shared != nil {
			was = *v.shared
		}
		d := was.published(&states[i])
		if d == was {
			continue
		}
		next := *v
		if next.shared = &d; d.told && d.kind == devicePlain {
			next.shared = nil
		}
		if err := next.stamp(); err != nil {
			return nil, nil, fmt.Errorf("note the state of %s: %w", nodes[i], err)
		}
		swaps, tried = append(swaps, Swap{Node: nodes[i], Old: v.raw, New: next.raw}), append(tried, states[i])
	}
	return swaps, tried, nil
}

// maxSharedBy is how many devices one identifier may show to be shared, as far as this process remembers: a clerk at the
// tablets of a shop is below, a user id that everybody's browser sends far above, and each of those would take a person's
// device away.
const maxSharedBy = 20

// sharers count, by the identifier of the record that showed it, how many devices were found to be shared. They are
// remembered in two generations, as in cache.
type sharers struct {
	mu         sync.Mutex
	young, old map[Node]int
}

// sharersKept is how many identifiers are remembered, at most: about 4 MB.
const sharersKept = 1 << 16

func newSharers() *sharers { return &sharers{young: map[Node]int{}} }

// take counts one more, or says that it is one too many.
func (s *sharers) take(by Node) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.young[by] + s.old[by]
	if n >= maxSharedBy {
		return false
	}
	if len(s.young) >= sharersKept/2 {
		s.old, s.young = s.young, map[Node]int{}
	}
	s.young[by]++
	return true
}
