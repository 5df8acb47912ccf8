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
	caps    bool // false: an operator wants it
	epoch   uint64
	rates   *rates
	aside   []SetAside   // the record was resolved without these
	stopped []Suspension // of those, what a cap has stopped
	crossed []Node       // losers of unconfirmed links on the ways walked, in the order met
	clean   bool         // every link crossed was confirmed
	devices              // what concerns devices alone
}

// find walks to the root of id. Every unconfirmed link on the way is noted to be published with this record. A split that is
// met is completed.
func (s *stitch) find(ctx context.Context, id Node) (Node, *value, error) {
	for range maxAttempts {
		root, v, err := s.walk(ctx, id)
		if err != nil || v != nil {
			return root, v, err
		}
	}
	return Node{}, nil, fmt.Errorf("%w: no way to the root of %s after %d attempts", ErrCorrupt, id, maxAttempts)
}

// walk is find, or no value: something on the way was read before a split, or in the middle of one, which is complete now,
// and forgotten.
//
// A way is read node by node, so that a part of it may be older than a split and the rest younger. Such a way shows itself:
// all members of the component were split together, and nobody links to a parted node any more. So where a link leads to a
// parted node, the link was read before the split, or the split is not complete yet. A way that is older as a whole leads to
// the root of before, whose value has been replaced: nothing that is decided on it can be written.
func (s *stitch) walk(ctx context.Context, id Node) (Node, *value, error) {
	var path []Node
	clean := true
	for {
		v, err := s.view.get(ctx, id)
		if err != nil {
			return Node{}, nil, err
		}
		if v.order != nil || v.parted && len(path) > 0 {
			return Node{}, nil, s.mend(ctx, append(path, id), v)
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
	done, err := s.lane.swaps(ctx, []Swap{{Node: n, Old: old.raw, New: next.raw}})
	if err != nil {
		return false, fmt.Errorf("set graph node %s: %w", n, err)
	}
	if !done[0] {
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
		next.joining, next.target, next.named, next.cause = true, r, vr.incarnation, s.cause
		next.trusted, next.operator, next.evidence = s.trusted, !s.caps, []Identifier{x, y}
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
		if ok, err := s.date(ctx, r, vr, vl, s.cause); err != nil {
			return Node{}, refusal{}, err
		} else if !ok {
			continue
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

// date gives the root of a join its day if it needs one before anybody joins it; false: somebody else was faster.
func (s *stitch) date(ctx context.Context, r Node, vr, vl *value, cause Cause) (bool, error) {
	if !s.policy.undated(vr, vl) {
		return true, nil
	}
	dated := *vr
	dated.group = vr.since(day(cause.Time))
	return s.swap(ctx, r, vr, dated)
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
// apart: an announcement names W, the root that it was judged with, and its generation, and only he who finds that root in
// that generation commits or gives up by it. The judgement reads nothing but L's value, which is frozen, with its cause, the
// rules, and W's component; and within a generation of W what is no stays no: the component only grows, cuts are only added,
// days are never changed, and windows hang on the cause and not on a clock. So if somebody has judged no at a moment, he had
// seen that W did not list L then, and everybody who judges a later W of the generation judges no as well; and a
// compare-and-set of W that was judged yes before, and is on its way yet, finds another W.
//
// Whatever may turn no into yes gives W another generation, or makes it no root: a release raises it, a split makes new roots
// of higher ones. Who finds that announces the join anew, by a compare-and-set of L, so that a give-up by the older
// announcement fails; and he has read what replaced W after he had read that announcement, so a commit by it, which is a
// compare-and-set of a W of the older generation, either was done before he looked, when L is listed or was linked already,
// or fails for ever, since generations never go back. One thing would break this yet: rules that differ between processes
// while they work (limits are changed with all stitchers down).
func (s *stitch) finish(ctx context.Context, l Node, vl *value) (refusal, error) {
	for range maxAttempts {
		r, vr, err := s.settled(ctx, vl.target) // before l, so this recursion ends
		if err != nil {
			return refusal{}, err
		}
		// Step 2, the commit point: L's members become W's. Where they are all listed it was done. L alone may be listed
		// before: by a restored graph that has lost L's own link (see Restore.Roots).
		if !vr.lists(&vl.group) && !vl.names(r, vr) {
			if r, vr, err = s.current(ctx, vl.other()); err != nil {
				return refusal{}, err
			}
			if !vr.lists(&vl.group) {
				if vl, err = s.renew(ctx, l, vl, r, vr); err != nil || vl == nil {
					return refusal{}, err
				}
				continue
			}
		}
		if !vr.lists(&vl.group) {
			if no := s.policy.judge(vr.side(), vl.side(), vl.terms()); no.refused() {
				return no, s.giveUp(ctx, l, vl)
			}
			next := *vr
			now := joined(vr.side(), vl.side(), vl.terms())
			next.group, next.merges, next.incarnation, next.cuts = now.group, now.merges, now.generation, now.cuts
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
		next.unannounce()
		next.linked, next.parent, next.link = true, r, r
		next.cause, next.evidence = vl.cause, vl.evidence
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

// names says whether a join was announced with this root in this generation.
func (v *value) names(r Node, vr *value) bool { return v.target == r && v.named == vr.incarnation }

// other is the identifier that a joining component joins. The root that was announced may have gone another way than it, if
// they were split.
func (v *value) other() Node {
	for _, e := range v.evidence {
		if !v.has(e.Node) {
			return e.Node
		}
	}
	return v.target
}

// current is settled, by a look at the root that begins now.
func (s *stitch) current(ctx context.Context, n Node) (Node, *value, error) {
	for range maxAttempts {
		r, v, err := s.settled(ctx, n)
		if err != nil {
			return Node{}, nil, err
		}
		now, err := s.view.fresh(ctx, r)
		if err != nil || now.revision == v.revision {
			return r, now, err
		}
	}
	return Node{}, nil, fmt.Errorf("%w: the root of %s is another one after %d attempts", ErrCorrupt, n, maxAttempts)
}

// renew announces the join of l anew, with a root as current found it; no value: somebody else has changed l.
func (s *stitch) renew(ctx context.Context, l Node, vl *value, r Node, vr *value) (*value, error) {
	if vl.names(r, vr) {
		return vl, nil // what was read before was older
	}
	if ok, err := s.date(ctx, r, vr, vl, vl.cause); err != nil || !ok {
		return vl, err
	}
	next := *vl
	next.target, next.named = r, vr.incarnation
	ok, err := s.swap(ctx, l, vl, next)
	if err != nil || !ok {
		return nil, err
	}
	return s.view.values[l], nil
}

// unannounce takes out of v what only a join has.
func (v *value) unannounce() {
	v.joining, v.trusted, v.operator, v.target, v.named, v.cause, v.evidence = false, false, false, Node{}, 0, Cause{}, nil
}

// giveUp sets a joining node back to what it was. If this is lost, somebody else has done it.
func (s *stitch) giveUp(ctx context.Context, l Node, vl *value) error {
	next := *vl
	next.unannounce()
	_, err := s.swap(ctx, l, vl, next)
	return err
}

// dated is the node whose day is the winner's in the record of a link: a part has none, it is that of the identifier that
// was named.
func dated(winner Node, evidence []Identifier, loser *group) Node {
	for _, e := range evidence {
		if winner[0] == rankPart && !loser.has(e.Node) {
			return e.Node
		}
	}
	return winner
}

// merge is the record of the link of loser, an unconfirmed link that was crossed; nil if it has been published since, when
// the cause has left the store.
func (s *stitch) merge(ctx context.Context, loser Node) (*Merge, error) {
	v, err := s.view.get(ctx, loser)
	if err != nil || v.confirmed {
		return nil, err
	}
	w, err := s.view.get(ctx, v.link)
	if err == nil && !w.lists(&v.group) { // read before the link was made, or it is read behind a split that v was read before
		if v, err = s.view.fresh(ctx, loser); err != nil || v.confirmed {
			return nil, err
		}
		w, err = s.view.fresh(ctx, v.link)
	}
	if err != nil {
		return nil, err
	}
	if !v.linked || !w.lists(&v.group) || !w.has(v.link) {
		return nil, fmt.Errorf("%w: node %s does not list all of %s, which is linked under it", ErrCorrupt, v.link, loser)
	}
	m := &Merge{Loser: loser.String(), Winner: v.link.String(), Version: version(w.incarnation, w.size()), Cause: v.cause}
	m.Members, m.Days = make([]string, v.size()), make([]uint16, v.size())
	for i := range m.Members {
		n := v.member(i)
		at, _ := w.find(n)
		m.Members[i], m.Days[i] = n.String(), w.day(at)
	}
	at, _ := w.find(dated(v.link, v.evidence, &v.group))
	m.WinnerDay = w.day(at)
	m.Evidence = make([]Evidence, len(v.evidence))
	for i, e := range v.evidence {
		m.Evidence[i] = Evidence{Type: e.Type, Value: e.Value, Node: e.Node.String()}
	}
	return m, nil
}
