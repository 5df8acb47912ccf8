package identity

import (
	"context"
	"fmt"
	"slices"
)

// maxAttempts ends a loop of compare-and-sets that never win. Each lost one means that another resolver won,
// so even a hundred resolvers on one node stay far below; a graph that breaks its own invariants does not.
const maxAttempts = 10_000

// stitch is one record's work on the graph. The protocol is that of architecture section 5, in the words of
// its executable model: find, join, finish, compress, publish.
type stitch struct {
	lane    *lane
	view    *view
	cache   *cache
	cause   Cause
	crossed []Node // losers of unconfirmed links on the ways walked, in the order met
	clean   bool   // every link crossed was confirmed
}

// find walks to the root of id. Every unconfirmed link on the way is noted to be published with this record.
func (s *stitch) find(ctx context.Context, id Node) (Node, *value, error) {
	var path []Node
	clean := true
	for {
		v, err := s.view.get(ctx, id)
		if err != nil {
			return Node{}, nil, err
		}
		if !v.linked {
			if !clean {
				s.clean = false
			} else if len(path) > 1 {
				err = s.compress(ctx, path[:len(path)-1], id)
			}
			return id, v, err
		}
		if !v.confirmed {
			clean = false
			if !slices.Contains(s.crossed, id) {
				s.crossed = append(s.crossed, id)
			}
		}
		path = append(path, id)
		id = v.parent // before id: decode refuses anything else, so this ends
	}
}

// swap replaces old, as read, by next, under a revision of its own. If somebody else was faster it says
// false and forgets the node, so that the next look at it is a fresh one.
func (s *stitch) swap(ctx context.Context, n Node, old *value, next value) (bool, error) {
	if err := next.stamp(); err != nil {
		return false, err
	}
	ok, err := s.lane.swap(ctx, Swap{Node: n, Old: old.raw, New: next.raw})
	if err != nil {
		return false, fmt.Errorf("set graph node %s: %w", n, err)
	}
	if !ok {
		delete(s.view.values, n)
		return false, nil
	}
	s.view.values[n] = &next
	return true, nil
}

// compress points the nodes of a way at the root it leads to. All links on the way are confirmed, so nobody
// who takes the shortcut misses a merge. Losing a compare-and-set is no harm: somebody else changed the node.
func (s *stitch) compress(ctx context.Context, path []Node, root Node) error {
	for _, id := range path {
		v := s.view.values[id]
		if v == nil || !v.linked || !v.confirmed {
			continue
		}
		next := *v
		next.parent = root
		if _, err := s.swap(ctx, id, v, next); err != nil {
			return err
		}
	}
	return nil
}

// join makes x and y one component and returns its root.
func (s *stitch) join(ctx context.Context, x, y Identifier) (Node, error) {
	for range maxAttempts {
		r, vr, err := s.find(ctx, x.Node)
		if err != nil {
			return Node{}, err
		}
		l, vl, err := s.find(ctx, y.Node)
		if err != nil {
			return Node{}, err
		}
		if l == r {
			return r, nil
		}
		if l.Before(r) {
			l, vl, r, vr = r, vr, l, vl
		}
		if vr.joining {
			if err := s.finish(ctx, r, vr); err != nil {
				return Node{}, err
			}
			continue
		}
		if vl.joining {
			if err := s.finish(ctx, l, vl); err != nil {
				return Node{}, err
			}
			continue
		}
		// Step 1: L says that it is joining W, which freezes its members.
		next := *vl
		next.joining, next.target, next.cause, next.evidence = true, r, s.cause, []Identifier{x, y}
		ok, err := s.swap(ctx, l, vl, next)
		if err != nil {
			return Node{}, err
		}
		if ok {
			if err := s.finish(ctx, l, s.view.values[l]); err != nil {
				return Node{}, err
			}
		}
		// Once more from the start: crossing the new link notes its merge.
	}
	return Node{}, fmt.Errorf("%w: no link of %s and %s after %d attempts", ErrCorrupt, x.Node, y.Node, maxAttempts)
}

// finish completes the join that node l announced in vl. Anybody may do it, several at once.
func (s *stitch) finish(ctx context.Context, l Node, vl *value) error {
	for range maxAttempts {
		r, vr, err := s.find(ctx, vl.target)
		if err != nil {
			return err
		}
		if vr.joining { // r is before l, so this recursion ends
			if err := s.finish(ctx, r, vr); err != nil {
				return err
			}
			continue
		}
		// Step 2, the commit point: L's members become W's. Where they are all listed it was done. L alone may be listed
		// before: by a restored graph that has lost L's own link (see Restore.Roots).
		if members := unionMembers(vr.members, vl.members); len(members) > len(vr.members) {
			next := *vr
			next.members = members
			ok, err := s.swap(ctx, r, vr, next)
			if err != nil {
				return err
			}
			if !ok {
				now, err := s.view.fresh(ctx, l)
				if err != nil {
					return err
				}
				if now.revision != vl.revision {
					return nil // somebody else completed it
				}
				continue
			}
		}
		// Step 3: L's parent. If this is lost, somebody else completed it.
		next := *vl
		next.joining, next.linked, next.parent, next.link, next.target = false, true, r, r, Node{}
		s.cache.drop(vl)
		_, err = s.swap(ctx, l, vl, next)
		return err
	}
	return fmt.Errorf("%w: node %s is still joining after %d attempts", ErrCorrupt, l, maxAttempts)
}

// merge is the record of the link of loser, an unconfirmed link that was crossed.
func (s *stitch) merge(ctx context.Context, loser Node) (Merge, error) {
	v, err := s.view.get(ctx, loser)
	if err != nil {
		return Merge{}, err
	}
	w, err := s.view.get(ctx, v.link)
	if err == nil && !w.has(loser) { // read before the link was made
		w, err = s.view.fresh(ctx, v.link)
	}
	if err != nil {
		return Merge{}, err
	}
	if !v.linked || !w.has(loser) {
		return Merge{}, fmt.Errorf("%w: node %s does not list %s, which is linked under it", ErrCorrupt, v.link, loser)
	}
	m := Merge{Loser: loser.String(), Winner: v.link.String(), Version: int64(w.size()), Cause: v.cause}
	m.Members = make([]string, v.size())
	for i := range m.Members {
		m.Members[i] = v.member(i).String()
	}
	m.Evidence = make([]Evidence, len(v.evidence))
	for i, e := range v.evidence {
		m.Evidence[i] = Evidence{Type: e.Type, Value: e.Value, Node: e.Node.String()}
	}
	return m, nil
}
