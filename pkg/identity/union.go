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
	policy  *Policy
	cause   Cause
	source  string
	trusted bool
	rates   *rates
	aside   []SetAside   // the record was resolved without these
	stopped []Suspension // of those, what a cap has stopped
	crossed []Node       // losers of unconfirmed links on the ways walked, in the order met
	clean   bool         // every link crossed was confirmed
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

// join makes x and y one component and returns its root; or says why it must not be.
func (s *stitch) join(ctx context.Context, x, y Identifier) (Node, refusal, error) {
	for range maxAttempts {
		r, vr, err := s.settled(ctx, x.Node)
		if err != nil {
			return Node{}, refusal{}, err
		}
		l, vl, err := s.settled(ctx, y.Node)
		if err != nil {
			return Node{}, refusal{}, err
		}
		if l == r {
			return r, refusal{}, nil
		}
		if l.Before(r) {
			l, vl, r, vr = r, vr, l, vl
		}
		// Step 1: L says that it is joining W, which freezes its members.
		next := *vl
		next.joining, next.target, next.cause, next.trusted, next.evidence = true, r, s.cause, s.trusted, []Identifier{x, y}
		if vr.lists(&vl.group) { // what was read of L is older, or this is a restored graph that has lost L's link
			now, err := s.view.fresh(ctx, l)
			if err != nil {
				return Node{}, refusal{}, err
			}
			if now.revision != vl.revision {
				continue
			}
		} else if no := s.policy.judge(vr.side(), vl.side(), next.terms()); no.refused() {
			return Node{}, no, nil
		}
		if s.policy.undated(vr, vl) {
			dated := *vr
			dated.group = vr.since(day(s.cause.Time))
			if ok, err := s.swap(ctx, r, vr, dated); err != nil {
				return Node{}, refusal{}, err
			} else if !ok {
				continue
			}
		}
		ok, err := s.swap(ctx, l, vl, next)
		if err != nil {
			return Node{}, refusal{}, err
		}
		if ok {
			if no, err := s.finish(ctx, l, s.view.values[l]); err != nil || no.refused() {
				return Node{}, no, err
			}
		}
		// Once more from the start: crossing the new link notes its merge.
	}
	return Node{}, refusal{}, fmt.Errorf("%w: no link of %s and %s after %d attempts", ErrCorrupt, x.Node, y.Node, maxAttempts)
}

// settled is find, for a root that is to be linked: a join that it has announced is completed or given up first.
func (s *stitch) settled(ctx context.Context, n Node) (Node, *value, error) {
	for range maxAttempts {
		r, v, err := s.find(ctx, n)
		if err != nil || !v.joining {
			return r, v, err
		}
		if _, err := s.finish(ctx, r, v); err != nil {
			return Node{}, nil, err
		}
	}
	return Node{}, nil, fmt.Errorf("%w: the root of %s is still joining after %d attempts", ErrCorrupt, n, maxAttempts)
}

// finish completes the join that node l announced in vl, or gives it up and says why. Anybody may do it, several at once.
//
// Of one join, one must not commit while another gives up, or W would list members that stand elsewhere. What keeps them
// apart is that the judgement only reads what all see alike (L's value, which is frozen, with its cause; the rules) and
// W's component; and that what is no once stays no, since a component only grows, days are never changed, and windows
// hang on the cause and not on a clock. So if somebody has judged no at a moment, he had seen that W did not list L then,
// and everybody who judges a later W judges no as well; and a compare-and-set of W that was judged yes before, and is on
// its way yet, finds another W. Two things would break this: rules that differ between processes while they work (limits
// are changed with all stitchers down), and components that shrink: splits must give W another incarnation first, which
// the join names, so that what was judged on an earlier one cannot commit.
func (s *stitch) finish(ctx context.Context, l Node, vl *value) (refusal, error) {
	for range maxAttempts {
		r, vr, err := s.settled(ctx, vl.target) // before l, so this recursion ends
		if err != nil {
			return refusal{}, err
		}
		// Step 2, the commit point: L's members become W's. Where they are all listed it was done. L alone may be listed
		// before: by a restored graph that has lost L's own link (see Restore.Roots).
		if !vr.lists(&vl.group) {
			if no := s.policy.judge(vr.side(), vl.side(), vl.terms()); no.refused() {
				return no, s.giveUp(ctx, l, vl)
			}
			next := *vr
			now := joined(vr.side(), vl.side(), vl.terms())
			next.group, next.merges, next.cuts = now.group, now.merges, now.cuts
			ok, err := s.swap(ctx, r, vr, next)
			if err != nil {
				return refusal{}, err
			}
			if !ok {
				now, err := s.view.fresh(ctx, l)
				if err != nil {
					return refusal{}, err
				}
				if now.revision != vl.revision {
					return refusal{}, nil // somebody else completed it, or gave it up
				}
				continue
			}
		}
		// Step 3: L's parent. If this is lost, somebody else completed it. What W has taken over leaves L; the days of
		// several members stay, for merges of links below that are not published yet.
		next := *vl
		next.joining, next.trusted, next.linked, next.parent, next.link, next.target = false, false, true, r, r, Node{}
		next.degrees, next.merges, next.cuts = nil, 0, nil
		if next.size() == 1 {
			next.days = nil
		}
		s.cache.drop(vl)
		_, err = s.swap(ctx, l, vl, next)
		return refusal{}, err
	}
	return refusal{}, fmt.Errorf("%w: node %s is still joining after %d attempts", ErrCorrupt, l, maxAttempts)
}

// giveUp sets a joining node back to what it was. If this is lost, somebody else has done it.
func (s *stitch) giveUp(ctx context.Context, l Node, vl *value) error {
	next := *vl
	next.joining, next.trusted, next.target, next.cause, next.evidence = false, false, Node{}, Cause{}, nil
	_, err := s.swap(ctx, l, vl, next)
	return err
}

// merge is the record of the link of loser, an unconfirmed link that was crossed; nil if it has been published since, when
// the cause has left the store.
func (s *stitch) merge(ctx context.Context, loser Node) (*Merge, error) {
	v, err := s.view.get(ctx, loser)
	if err != nil || v.confirmed {
		return nil, err
	}
	w, err := s.view.get(ctx, v.link)
	if err == nil && !w.lists(&v.group) { // read before the link was made
		w, err = s.view.fresh(ctx, v.link)
	}
	if err != nil {
		return nil, err
	}
	if !v.linked || !w.lists(&v.group) || !w.has(v.link) {
		return nil, fmt.Errorf("%w: node %s does not list all of %s, which is linked under it", ErrCorrupt, v.link, loser)
	}
	m := &Merge{Loser: loser.String(), Winner: v.link.String(), Version: int64(w.size()), Cause: v.cause}
	m.Members, m.Days = make([]string, v.size()), make([]uint16, v.size())
	for i := range m.Members {
		n := v.member(i)
		at, _ := w.find(n)
		m.Members[i], m.Days[i] = n.String(), w.day(at)
	}
	at, _ := w.find(v.link)
	m.WinnerDay = w.day(at)
	m.Evidence = make([]Evidence, len(v.evidence))
	for i, e := range v.evidence {
		m.Evidence[i] = Evidence{Type: e.Type, Value: e.Value, Node: e.Node.String()}
	}
	return m, nil
}
