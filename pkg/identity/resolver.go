package identity

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Request is one record to resolve: its identifiers, at least one, and what a link that it makes is to name
// as its cause.
type Request struct {
	Identifiers []Identifier
	Cause       Cause
	Source      string // name of the source that sent it, whose merges are counted; may be empty
	Trusted     bool   // the source may join two known people
	Operator    bool   // somebody who may has said so: caps do not count. What limits and cuts are against is refused all the same
	// At is when it happened, which says into which slice of a shared device's time it falls; zero: when it was received.
	// LogOut says that somebody has logged out of its devices.
	At     time.Time
	LogOut bool
}

// Result is whose record a Request was.
type Result struct {
	// Profile is the profile id. It may be one that has been merged away since: a reader follows merges. It is zero if all
	// identifiers are blocked: the record is a profile of its own then (Rules.EventIdentifier).
	Profile Node
	// Merges are to be published before the record. A merge that a batch needs more than once may stand with
	// the first record that needs it only.
	Merges []Merge
	// SetAside are the identifiers that the record was resolved without, in the order of their nodes.
	SetAside []SetAside
	// Suspended are links that a cap has stopped, to be published before the record; not those known to be published.
	Suspended []Suspension
	// States are what has become of its devices, to be published before the record; not what is known to be published.
	States []NodeState
}

// SetAside is an identifier that a record was resolved without.
type SetAside struct {
	Identifier Identifier
	Reason     Reason
}

// at is when a record happened, in milliseconds; not later than it was received.
func (q *Request) at() int64 {
	if q.At.IsZero() || q.At.After(q.Cause.Time) {
		return q.Cause.Time.UnixMilli()
	}
	return q.At.UnixMilli()
}

// Resolver finds and links identifiers. Safe for concurrent use; any number of them may share a store.
type Resolver struct {
	store     Store
	policy    Policy
	cache     *cache
	suspended *suspended
	rates     *rates
	sharers   *sharers
}

// NewResolver works on store by a policy, and keeps the profiles of about cacheEntries identifiers in memory. All who work
// on one store at the same time must have the same policy.
func NewResolver(store Store, cacheEntries int, policy Policy) *Resolver {
	return &Resolver{store: store, policy: policy, cache: newCache(cacheEntries), suspended: newSuspended(), rates: newRates(policy.Caps), sharers: newSharers()}
}

// Resolve says whose each record of a batch is, linking the identifiers that a record carries together. The
// links are made at once, whatever becomes of the batch, and stay: so the results of the batch must be
// stored as one decision and published in order, and then Confirm called for the losers of its merges. If
// it fails or the batch is refused, Resolve is called again for the records, and hands out anew every merge
// not yet confirmed. An error leaves nothing to publish; it is transient unless it is ErrNewerVersion or ErrCorrupt.
//
// Identifiers that the cache does not know cost one Load per level of the graph for the whole batch.
func (r *Resolver) Resolve(ctx context.Context, batch []Request) ([]Result, error) {
	b := &batchWork{resolver: r, requests: batch, view: newView(r.store), results: make([]Result, len(batch)),
		ids: make([][]Identifier, len(batch)), lanes: make(map[Node]Node), epoch: r.cache.now()}
	if err := b.read(ctx); err != nil {
		return nil, fmt.Errorf("resolve %d records: %w", len(batch), err)
	}
	works := b.split(ctx)
	if len(works) > 0 {
		if err := runLanes(ctx, r.store, works); err != nil {
			return nil, fmt.Errorf("resolve %d records: %w", len(batch), err)
		}
	}
	if b.shares() {
		if err := r.raise(ctx); err != nil {
			return nil, fmt.Errorf("resolve %d records: %w", len(batch), err)
		}
	}
	return b.results, nil
}

// batchWork is one call of Resolve.
type batchWork struct {
	resolver *Resolver
	requests []Request
	results  []Result
	ids      [][]Identifier // of each request, in node order
	view     *view          // the ways to the root of all identifiers that the cache did not know
	lanes    map[Node]Node  // union-find over roots: those that one lane must handle; absent: nobody touches it
	epoch    uint64         // of the graph, when the batch began
	blocked  map[int][]Node // of some requests, what counts for nobody
}

// read answers what the cache knows and reads the ways of all else. The epoch travels with what is read first; if there is
// another one, what the cache knew is nothing.
func (b *batchWork) read(ctx context.Context) error {
	for i, q := range b.requests {
		if len(q.Identifiers) == 0 {
			return fmt.Errorf("record %d has no identifier", i)
		}
		b.ids[i], b.results[i].SetAside = b.resolver.policy.strong(sorted(q.Identifiers))
	}
	epoch, err := b.view.loadWithEpoch(ctx, b.unknown())
	if err != nil {
		return err
	}
	if epoch != b.epoch { // what was read with it may be older than it
		b.epoch, b.view = epoch, newView(b.resolver.store)
		b.resolver.cache.begin(epoch)
	}
	if err := b.view.loadPaths(ctx, b.unknown()); err != nil {
		return err
	}
	for i := range b.requests {
		if b.results[i].Profile.IsZero() {
			b.setBlockedAside(i)
		}
	}
	return nil
}

// unknown are the identifiers of the records that the cache does not answer; the others are answered.
func (b *batchWork) unknown() []Node {
	var unknown []Node
	for i := range b.requests {
		root, ok := b.resolver.cache.root(b.ids[i], b.epoch)
		if b.requests[i].LogOut { // changes the state of its devices, which must be read
			root, ok = Node{}, false
		}
		if b.results[i].Profile = root; ok {
			continue
		}
		for _, id := range b.ids[i] {
			unknown = append(unknown, id.Node)
		}
	}
	return unknown
}

// setBlockedAside takes what counts for nobody out of a record.
func (b *batchWork) setBlockedAside(i int) {
	blocked := func(id Identifier) bool { return b.view.values[id.Node].blocked }
	if !slices.ContainsFunc(b.ids[i], blocked) {
		return
	}
	var rest []Identifier
	if b.blocked == nil {
		b.blocked = map[int][]Node{}
	}
	for _, id := range b.ids[i] {
		if blocked(id) {
			b.blocked[i] = append(b.blocked[i], id.Node)
			b.results[i].SetAside = append(b.results[i].SetAside, SetAside{Identifier: id, Reason: ReasonBlocked})
		} else {
			rest = append(rest, id)
		}
	}
	b.ids[i] = rest
	sortAside(b.results[i].SetAside)
}

func sortAside(aside []SetAside) {
	slices.SortFunc(aside, func(x, y SetAside) int { return x.Identifier.Node.Compare(y.Identifier.Node) })
}

// split answers the records whose identifiers have one root already, and makes lanes of the others: records
// that need to link, to publish or to compress, and all records of the components these touch, so that a
// record behind a link sees it.
func (b *batchWork) split(ctx context.Context) []func(*lane) error {
	unsettled := make([]bool, len(b.requests))
	for i, ids := range b.ids {
		if !b.results[i].Profile.IsZero() {
			continue
		}
		var first Node
		settled := true
		for _, n := range b.blocked[i] { // its merge is to be published all the same
			root, ok := b.view.root(n)
			first, settled = root, settled && ok
		}
		if len(ids) == 0 && settled {
			continue
		}
		if len(ids) > 0 {
			root, ok := b.view.root(ids[0].Node)
			first, settled = root, settled && ok
		}
		for _, id := range ids[min(1, len(ids)):] {
			root, ok := b.view.root(id.Node)
			settled = settled && ok && root == first
		}
		b.results[i].Profile = first
		if settled && !b.holds(i) {
			b.resolver.cache.put(ids, first, b.epoch)
			continue
		}
		unsettled[i] = true
		b.touch(first, first)
		for _, id := range ids {
			root, _ := b.view.root(id.Node)
			b.touch(first, root)
			if v := b.view.values[root]; v.joining {
				target, _ := b.view.root(v.target)
				b.touch(first, target)
			}
		}
	}
	members := make(map[Node][]int)
	var order []Node
	for i := range b.requests {
		root, touched := b.results[i].Profile, unsettled[i]
		if _, ok := b.lanes[root]; ok {
			touched = true
		}
		if !touched {
			continue
		}
		root = b.laneOf(root)
		if members[root] == nil {
			order = append(order, root)
		}
		members[root] = append(members[root], i)
	}
	works := make([]func(*lane) error, len(order))
	for i, root := range order {
		works[i] = func(l *lane) error { return b.run(ctx, l, members[root]) }
	}
	return works
}

// holds says whether a device of a record has a state of its own, or may get one.
func (b *batchWork) holds(i int) bool {
	if b.resolver.policy.Devices == nil {
		return false
	}
	return b.requests[i].LogOut || slices.ContainsFunc(b.ids[i], func(id Identifier) bool { return b.view.values[id.Node].shared != nil })
}

// shares says whether a device has become shared: no cache may know it as somebody's any more. It is asked until that is known
// to be published, so that it does not matter who dies in between. A log-out is not worth to empty all caches for: events of
// one browser lie in one partition, so that it is other devices' ids alone that a stitcher may take for the owner's yet.
func (b *batchWork) shares() bool {
	return slices.ContainsFunc(b.results, func(r Result) bool {
		return slices.ContainsFunc(r.States, func(s NodeState) bool { return s.Shared != nil })
	})
}

// touch puts two roots into one lane.
func (b *batchWork) touch(x, y Node) {
	for _, n := range [...]Node{x, y} {
		if _, ok := b.lanes[n]; !ok {
			b.lanes[n] = n
		}
	}
	b.lanes[b.laneOf(x)] = b.laneOf(y)
}

// laneOf is the root that stands for the lane of a touched root.
func (b *batchWork) laneOf(n Node) Node {
	for b.lanes[n] != n {
		b.lanes[n] = b.lanes[b.lanes[n]]
		n = b.lanes[n]
	}
	return n
}

// run works on the records of one lane, in order.
func (b *batchWork) run(ctx context.Context, l *lane, records []int) error {
	view := &view{loader: l, values: make(map[Node]*value)}
	published := make(map[Node]bool)
	told := make(map[string]NodeState)
	for _, i := range records {
		for _, id := range b.ids[i] {
			b.hand(view, id.Node)
		}
		for _, n := range b.blocked[i] {
			b.hand(view, n)
		}
	}
	for _, i := range records {
		q := &b.requests[i]
		s := &stitch{lane: l, view: view, cache: b.resolver.cache, policy: &b.resolver.policy, rates: b.resolver.rates,
			source: q.Source, cause: q.Cause, trusted: q.Trusted, caps: !q.Operator, epoch: b.epoch, clean: true,
			devices: devices{ids: b.ids[i], at: q.at(), logOut: q.LogOut, sharers: b.resolver.sharers}}
		for _, n := range b.blocked[i] {
			if _, _, err := s.settled(ctx, n); err != nil {
				return fmt.Errorf("record %d: %w", i, err)
			}
		}
		root, err := s.record(ctx, b.ids[i])
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		b.results[i].Profile = root
		b.note(i, s)
		for _, x := range s.states {
			if was, ok := told[x.Node]; !ok || !was.same(&x) {
				told[x.Node] = x
				b.results[i].States = append(b.results[i].States, x)
			}
		}
		for _, loser := range s.crossed {
			if published[loser] {
				continue
			}
			m, err := s.merge(ctx, loser)
			if err != nil {
				return fmt.Errorf("record %d: %w", i, err)
			}
			published[loser] = true
			if m != nil {
				b.results[i].Merges = append(b.results[i].Merges, *m)
			}
		}
	}
	return nil
}

// hand gives a lane's view what the batch has read of the way from n.
func (b *batchWork) hand(to *view, n Node) {
	for {
		v, ok := b.view.values[n]
		if !ok {
			return
		}
		to.values[n] = v
		switch {
		case v.linked:
			n = v.parent
		case v.joining:
			n = v.target
		default:
			return
		}
	}
}

// note takes in what a record was resolved without.
func (b *batchWork) note(i int, s *stitch) {
	if len(s.aside) == 0 {
		return
	}
	r := &b.results[i]
	r.SetAside = append(r.SetAside, s.aside...)
	sortAside(r.SetAside)
	for _, x := range s.stopped {
		if !b.resolver.suspended.has(x.Key()) {
			r.Suspended = append(r.Suspended, x)
		}
	}
}

// Confirm notes that the merges of these losers are in Kafka; from then on nobody publishes them again, and
// shortcuts may skip their links. It may be called more than once. The evidence, being in Kafka, leaves the
// store.
func (r *Resolver) Confirm(ctx context.Context, losers []Node) error {
	view := newView(r.store)
	for range maxAttempts {
		losers = view.missing(losers) // all that were not found confirmed
		if len(losers) == 0 {
			return nil
		}
		if err := view.load(ctx, losers); err != nil {
			return fmt.Errorf("confirm %d links: %w", len(losers), err)
		}
		var swaps []Swap
		for _, l := range losers {
			v := view.values[l]
			if !v.linked || v.confirmed {
				continue
			}
			next := *v
			next.confirmed, next.evidence = true, nil
			if err := next.stamp(); err != nil {
				return fmt.Errorf("confirm link of %s: %w", l, err)
			}
			swaps = append(swaps, Swap{Node: l, Old: v.raw, New: next.raw})
		}
		if len(swaps) == 0 {
			return nil
		}
		done, err := r.store.CompareAndSet(ctx, swaps)
		if err != nil {
			return fmt.Errorf("confirm %d links: %w", len(swaps), err)
		}
		for i, s := range swaps {
			if !done[i] {
				delete(view.values, s.Node) // somebody changed it: once more
			}
		}
	}
	return fmt.Errorf("%w: %d links are not confirmed after %d attempts", ErrCorrupt, len(losers), maxAttempts)
}
