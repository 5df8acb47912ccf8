package identity

import (
	"context"
	"fmt"
	"slices"
)

// view is what one batch, or one lane of it, has read of the graph. It may be older than the store:
// everything decided on it is either true for ever (two nodes are in one component, a member is listed, a
// link stands) or checked again by the compare-and-set that acts on it. Not safe for concurrent use.
type view struct {
	loader Loader
	values map[Node]*value
}

func newView(loader Loader) *view { return &view{loader: loader, values: make(map[Node]*value)} }

// loadPaths reads nodes and all on their ways to the roots, one Load per level of the graph.
func (v *view) loadPaths(ctx context.Context, nodes []Node) error {
	for level := nodes; len(level) > 0; {
		if missing := v.missing(level); len(missing) > 0 {
			if err := v.load(ctx, missing); err != nil {
				return err
			}
		}
		next := make([]Node, 0, len(level))
		for _, n := range level {
			switch x := v.values[n]; {
			case x.linked:
				next = append(next, x.parent)
			case x.joining:
				next = append(next, x.target)
			}
		}
		slices.SortFunc(next, Node.Compare)
		level = slices.Compact(next)
	}
	return nil
}

// epochNode holds the graph's epoch, how often something was undone that caches may know, as its incarnation. It is no part,
// whose nodes are hashes.
var epochNode = Node{0: rankPart, 6: 0x80, 8: 0x80}

// loadWithEpoch reads nodes, and the graph's epoch in the same round trip.
func (v *view) loadWithEpoch(ctx context.Context, nodes []Node) (uint64, error) {
	if err := v.load(ctx, append(v.missing(nodes), epochNode)); err != nil {
		return 0, err
	}
	return v.values[epochNode].incarnation, nil
}

// missing sorts nodes, without repeats, and leaves out those already read.
func (v *view) missing(nodes []Node) []Node {
	out := make([]Node, 0, len(nodes))
	for _, n := range nodes {
		if _, ok := v.values[n]; !ok {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, Node.Compare)
	return slices.Compact(out)
}

// load reads nodes anew.
func (v *view) load(ctx context.Context, nodes []Node) error {
	raws, err := v.loader.Load(ctx, nodes)
	if err != nil {
		return fmt.Errorf("load %d graph nodes: %w", len(nodes), err)
	}
	if len(raws) != len(nodes) {
		return fmt.Errorf("load %d graph nodes: got %d values", len(nodes), len(raws))
	}
	for i, n := range nodes {
		x, err := decode(n, raws[i])
		if err != nil {
			return err
		}
		v.values[n] = x
	}
	return nil
}

// get returns the value of a node, reading it if the view has none.
func (v *view) get(ctx context.Context, n Node) (*value, error) {
	if x, ok := v.values[n]; ok {
		return x, nil
	}
	if err := v.load(ctx, []Node{n}); err != nil {
		return nil, err
	}
	return v.values[n], nil
}

// fresh reads the value of a node anew.
func (v *view) fresh(ctx context.Context, n Node) (*value, error) {
	delete(v.values, n)
	return v.get(ctx, n)
}

// forget drops what was read of the way from n to its root.
func (v *view) forget(n Node) {
	for {
		x, ok := v.values[n]
		if !ok {
			return
		}
		delete(v.values, n)
		if !x.linked {
			return
		}
		n = x.parent
	}
}

// root follows what was read by loadPaths from n to its root. It is settled if all links on the way are
// confirmed, no split is met (see stitch.walk), the root is not joining another one, and compression has nothing to do.
func (v *view) root(n Node) (root Node, settled bool) {
	settled = true
	steps := 0
	x := v.values[n]
	for ; x.linked; x = v.values[n] {
		settled = settled && x.confirmed && (steps == 0 || !x.parted)
		n = x.parent
		steps++
	}
	return n, settled && steps <= 1 && x.order == nil && !x.joining
}
