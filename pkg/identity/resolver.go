package identity

import (
	"context"
	"errors"
	"fmt"
)

// Request is one record to resolve: its identifiers, at least one, and what a link that it makes is to name
// as its cause.
type Request struct {
	Identifiers []Identifier
	Cause       Cause
}

// Result is whose record a Request was.
type Result struct {
	// Profile is the profile id. It may be one that has been merged away since: a reader follows merges.
	Profile Node
	// Merges are to be published before the record. A merge that the batch needs more than once stands with
	// the first record that needs it only.
	Merges []Merge
}

// Resolver finds and links identifiers. Safe for concurrent use; any number of them may share a store.
type Resolver struct {
	store Store
	cache *cache
}

// NewResolver works on store and keeps the profiles of about cacheEntries identifiers in memory.
func NewResolver(store Store, cacheEntries int) *Resolver {
	return &Resolver{store: store, cache: newCache(cacheEntries)}
}

// Resolve says whose each record of a batch is, linking the identifiers that a record carries together. The
// links are made at once, whatever becomes of the batch, and stay: so the results of the batch must be
// stored as one decision and published in order, and then Confirm called for the losers of its merges. If
// it fails or the batch is refused, Resolve is called again for the records, and hands out anew every merge
// not yet confirmed. An error leaves nothing to publish; it is transient unless it is ErrNewerVersion or
// ErrCorrupt.
func (r *Resolver) Resolve(ctx context.Context, batch []Request) ([]Result, error) {
	view := newView(r.store)
	ids := make([][]Identifier, len(batch))
	var unknown []Node
	for i, q := range batch {
		if len(q.Identifiers) == 0 {
			return nil, fmt.Errorf("resolve record %d of %d: it has no identifier", i, len(batch))
		}
		ids[i] = sorted(q.Identifiers)
		if _, ok := r.cache.root(ids[i]); ok {
			continue
		}
		for _, id := range ids[i] {
			unknown = append(unknown, id.Node)
		}
	}
	if err := view.loadPaths(ctx, unknown); err != nil {
		return nil, err
	}
	results := make([]Result, len(batch))
	published := make(map[Node]bool)
	for i, q := range batch {
		// Asked again, because a link made for an earlier record may have taken the answer back.
		if root, ok := r.cache.root(ids[i]); ok {
			results[i].Profile = root
			continue
		}
		s := &stitch{view: view, cache: r.cache, cause: q.Cause, clean: true}
		root, err := s.resolve(ctx, ids[i])
		if err != nil {
			return nil, fmt.Errorf("resolve record %d of %d: %w", i, len(batch), err)
		}
		results[i].Profile = root
		for _, loser := range s.crossed {
			if published[loser] {
				continue
			}
			m, err := s.merge(ctx, loser)
			if err != nil {
				return nil, fmt.Errorf("resolve record %d of %d: %w", i, len(batch), err)
			}
			published[loser] = true
			results[i].Merges = append(results[i].Merges, m)
		}
	}
	return results, nil
}

// resolve links all ids, which are in order, and returns their root.
func (s *stitch) resolve(ctx context.Context, ids []Identifier) (Node, error) {
	root, _, err := s.find(ctx, ids[0].Node)
	for _, id := range ids[1:] {
		if err != nil {
			return Node{}, err
		}
		root, err = s.join(ctx, ids[0], id)
	}
	if err != nil {
		return Node{}, err
	}
	if s.clean {
		s.cache.put(ids, root)
	}
	return root, nil
}

// Confirm notes that the merges of these losers are in Kafka; from then on nobody publishes them again, and
// shortcuts may skip their links. It may be called more than once. The evidence, being in Kafka, leaves the
// store.
func (r *Resolver) Confirm(ctx context.Context, losers []Node) error {
	view := newView(r.store)
	for attempt := 0; len(losers) > 0; attempt++ {
		if attempt == maxAttempts {
			return fmt.Errorf("confirm %d links: %w: no end after %d attempts", len(losers), ErrCorrupt, attempt)
		}
		if missing := view.missing(losers); len(missing) > 0 {
			if err := view.load(ctx, missing); err != nil {
				return fmt.Errorf("confirm %d links: %w", len(losers), err)
			}
		}
		var again []Node
		for _, l := range losers {
			v := view.values[l]
			if v == nil {
				again = append(again, l) // lost a moment ago, as a repeat in losers
				continue
			}
			if !v.linked || v.confirmed {
				continue
			}
			next := *v
			next.confirmed, next.evidence = true, nil
			ok, err := view.swap(ctx, l, v, next)
			if err != nil {
				return fmt.Errorf("confirm %d links: %w", len(losers), err)
			}
			if !ok {
				again = append(again, l)
			}
		}
		losers = again
	}
	return nil
}

// Lookup returns the profile id that each node belongs to now, without linking, compressing or caching
// anything: for readers. A node that was never linked is its own profile, whether it was ever seen or not.
func Lookup(ctx context.Context, store Store, nodes ...Node) ([]Node, error) {
	view := newView(store)
	if err := view.loadPaths(ctx, nodes); err != nil {
		return nil, fmt.Errorf("look up %d identifiers: %w", len(nodes), err)
	}
	roots := make([]Node, len(nodes))
	for i, n := range nodes {
		for v := view.values[n]; v.linked; v = view.values[n] {
			n = v.parent
		}
		roots[i] = n
	}
	return roots, nil
}

// Members returns every node of the profile that node belongs to now, in order, itself included.
func Members(ctx context.Context, store Store, node Node) ([]Node, error) {
	view := newView(store)
	if err := view.loadPaths(ctx, []Node{node}); err != nil {
		return nil, fmt.Errorf("list the members of a profile: %w", err)
	}
	v := view.values[node]
	for v.linked {
		v = view.values[v.parent]
	}
	out := make([]Node, v.size())
	for i := range out {
		out[i] = v.member(i)
	}
	return out, nil
}

// IsPermanent says whether an error of Resolve or Confirm will come back however often it is tried.
func IsPermanent(err error) bool { return errors.Is(err, ErrNewerVersion) || errors.Is(err, ErrCorrupt) }
