package identity

import (
	"context"
	"fmt"
	"slices"
)

// raise begins a new epoch of the graph: whoever begins a batch from now on empties a cache that is older. So it decides
// nothing by what was true before a split, or before an identifier was blocked. It may be raised once too often.
func (r *Resolver) raise(ctx context.Context) error {
	_, err := r.set(ctx, epochNode, func(v *value) bool {
		v.incarnation++
		return true
	})
	return err
}

// set changes the value of a node, unless change says that there is nothing to change, and returns what stands then.
func (r *Resolver) set(ctx context.Context, n Node, change func(v *value) bool) (*value, error) {
	var last *value
	err := r.alone(ctx, func(s *stitch) error {
		for range maxAttempts {
			v, err := s.view.fresh(ctx, n)
			if err != nil {
				return err
			}
			next := *v
			if !change(&next) {
				last = v
				return nil
			}
			ok, err := s.swap(ctx, n, v, next)
			if err != nil {
				return err
			}
			if ok {
				last = s.view.values[n]
				return nil
			}
		}
		return fmt.Errorf("%w: node %s is not set after %d attempts", ErrCorrupt, n, maxAttempts)
	})
	return last, err
}

// setRoot is set for the root of a node, which is not joining nor being split then.
func (r *Resolver) setRoot(ctx context.Context, n Node, change func(root *value) (bool, error)) (*value, error) {
	var last *value
	err := r.alone(ctx, func(s *stitch) error {
		for range maxAttempts {
			root, v, err := s.current(ctx, n)
			if err != nil {
				return err
			}
			next := *v
			changed, err := change(&next)
			if err != nil {
				return err
			}
			if !changed {
				last = v
				return nil
			}
			ok, err := s.swap(ctx, root, v, next)
			if err != nil {
				return err
			}
			if ok {
				last = s.view.values[root]
				return nil
			}
		}
		return fmt.Errorf("%w: the root of %s is not set after %d attempts", ErrCorrupt, n, maxAttempts)
	})
	return last, err
}

// Release takes cuts among nodes away: the parts of a split, or two that were cut. They may be one person again, by what
// comes next. It answers the generation of each node's component then, which is higher if there was a cut, and may be
// called again.
func (r *Resolver) Release(ctx context.Context, nodes []Node) ([]uint64, error) {
	among := func(c cut) bool { return slices.Contains(nodes, c[0]) && slices.Contains(nodes, c[1]) }
	out := make([]uint64, len(nodes))
	for i, n := range nodes {
		v, err := r.setRoot(ctx, n, func(root *value) (bool, error) {
			if !slices.ContainsFunc(root.cuts, among) {
				return false, nil
			}
			if root.incarnation >= maxGeneration {
				return false, fmt.Errorf("%s is of generation %d already", n, root.incarnation)
			}
			root.cuts = slices.DeleteFunc(slices.Clone(root.cuts), among)
			if len(root.cuts) == 0 {
				root.cuts = nil
			}
			root.incarnation++
			return true, nil
		})
		if err != nil {
			return nil, fmt.Errorf("release %d nodes: %w", len(nodes), err)
		}
		out[i] = v.incarnation
	}
	return out, nil
}

// Cut says that two nodes must not be one person. ErrOnePerson: they are. It may be called again.
func (r *Resolver) Cut(ctx context.Context, a, b Node) error {
	c := newCut(a, b)
	if a == b {
		return fmt.Errorf("cut %s from itself: %w", a, ErrOnePerson)
	}
	for _, n := range c {
		if _, err := r.setRoot(ctx, n, func(root *value) (bool, error) {
			if root.has(c[0]) && root.has(c[1]) {
				return false, ErrOnePerson
			}
			if slices.Contains(root.cuts, c) {
				return false, nil
			}
			root.cuts = slices.SortedFunc(slices.Values(append(slices.Clone(root.cuts), c)), cut.compare)
			return true, nil
		}); err != nil {
			return fmt.Errorf("cut %s from %s: %w", a, b, err)
		}
	}
	return nil
}

// SetBlocked says that an identifier counts for nobody, or does again: batches that begin from now on set it aside. Who was
// linked by it before stays so. It may be called again.
func (r *Resolver) SetBlocked(ctx context.Context, n Node, blocked bool) error {
	for range maxAttempts {
		if err := r.alone(ctx, func(s *stitch) error {
			_, _, err := s.settled(ctx, n) // a root that is frozen is not changed
			return err
		}); err != nil {
			return fmt.Errorf("block %s: %w", n, err)
		}
		v, err := r.set(ctx, n, func(v *value) bool {
			if v.blocked == blocked || v.joining || v.order != nil {
				return false
			}
			v.blocked = blocked
			return true
		})
		if err != nil {
			return fmt.Errorf("block %s: %w", n, err)
		}
		if v.blocked == blocked {
			return r.raise(ctx)
		}
	}
	return fmt.Errorf("%w: %s is not blocked after %d attempts", ErrCorrupt, n, maxAttempts)
}
