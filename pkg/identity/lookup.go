package identity

import (
	"context"
	"fmt"
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
		roots[i], _ = view.root(n)
	}
	return roots, nil
}

// Members returns every node of the profile that node belongs to now, in order, itself included.
func Members(ctx context.Context, loader Loader, node Node) ([]Node, error) {
	view := newView(loader)
	if err := view.loadPaths(ctx, []Node{node}); err != nil {
		return nil, fmt.Errorf("list the members of a profile: %w", err)
	}
	root, _ := view.root(node)
	v := view.values[root]
	out := make([]Node, v.size())
	for i := range out {
		out[i] = v.member(i)
	}
	return out, nil
}
