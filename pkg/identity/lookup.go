package identity

import (
	"context"
	"fmt"
	"slices"
)

// Lookup returns the profile id that each node belongs to now, without linking, compressing or caching
// anything: for readers. A node that was never linked is its own profile, whether it was ever seen or not.
func Lookup(ctx context.Context, loader Loader, nodes ...Node) ([]Node, error) {
	view := newView(loader)
	if err := view.loadPaths(ctx, nodes); err != nil {
		return nil, fmt.Errorf("look up %d identifiers: %w", len(nodes), err)
	}
	roots := make([]Node, len(nodes))
	for i, n := range nodes {
		var err error
		if roots[i], _, err = view.person(ctx, n); err != nil {
			return nil, fmt.Errorf("look up %d identifiers: %w", len(nodes), err)
		}
	}
	return roots, nil
}

// Members returns every node of the profile that node belongs to now, in order, itself included.
func Members(ctx context.Context, loader Loader, node Node) ([]Node, error) {
	_, v, err := newView(loader).person(ctx, node)
	if err != nil {
		return nil, fmt.Errorf("list the members of a profile: %w", err)
	}
	out := make([]Node, v.size())
	for i := range out {
		out[i] = v.member(i)
	}
	return out, nil
}

// person is the root of n and its value, for who changes nothing: a split that is not complete yet counts as if it were.
func (v *view) person(ctx context.Context, n Node) (Node, *value, error) {
	for range maxAttempts {
		root, x, err := v.follow(ctx, n)
		if err != nil || x != nil {
			return root, x, err
		}
		v.forget(n) // a way of which a part was read before a split, and the rest behind it
	}
	return Node{}, nil, fmt.Errorf("%w: no way to the root of %s after %d attempts", ErrCorrupt, n, maxAttempts)
}

// follow is one attempt of person; no value: see stitch.walk.
func (v *view) follow(ctx context.Context, n Node) (Node, *value, error) {
	from := n // who leads to n
	x, err := v.get(ctx, n)
	for ; err == nil; x, err = v.get(ctx, n) {
		split := x
		switch {
		case x.parted && from != n:
			if split, err = v.fresh(ctx, x.origin); err != nil || split.order == nil {
				return Node{}, nil, err
			}
		case x.linked:
			from, n = n, x.parent
			continue
		case x.order == nil:
			return n, x, nil
		}
		part, ok := split.partOf(from)
		if !ok {
			return Node{}, nil, nil
		}
		p, err := v.fresh(ctx, part)
		if err == nil && p.raw == nil { // it is not created yet
			return part, split.made(slices.Index(split.order.into, part)), nil
		}
		from, n = part, part
	}
	return Node{}, nil, err
}
