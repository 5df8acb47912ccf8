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
	for level := v.missing(nodes); len(level) > 0; {
		if err := v.load(ctx, level); err != nil {
			return err
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
		level = v.missing(next)
	}
	return nil
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

// root follows what was read by loadPaths from n to its root. It is settled if all links on the way are
// confirmed and compression has nothing to do.
func (v *view) root(n Node) (root Node, settled bool) {
	settled = true
	steps := 0
	for x := v.values[n]; x.linked; x = v.values[n] {
		settled = settled && x.confirmed
		n = x.parent
		steps++
	}
	return n, settled && steps <= 1
}
