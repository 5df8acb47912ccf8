package identity

import (
	"context"
	"fmt"
	"slices"
)

// resolve links of ids, which are in order, all that may be one person, and returns their root.
//
// The whole record is judged first on what was read, and then linked; if a link is refused all the same, because others
// were faster, the record is judged anew, by what stands there then.
func (s *stitch) resolve(ctx context.Context, ids []Identifier) (Node, error) {
	if len(ids) == 0 { // all are blocked
		return Node{}, nil
	}
	for range maxAttempts {
		keep, err := s.choose(ctx, ids)
		if err != nil {
			return Node{}, err
		}
		root, no, err := s.link(ctx, keep)
		if err != nil {
			return Node{}, err
		}
		one := false
		if !no.refused() {
			if one, err = s.one(ctx, root, keep); err != nil {
				return Node{}, err
			}
		}
		if !one { // some of what was read may be older than a split, and the rest younger
			for _, id := range ids {
				s.view.forget(id.Node)
			}
			continue
		}
		if s.clean && !s.holds {
			s.cache.put(keep, root, s.epoch)
		}
		return root, nil
	}
	return Node{}, fmt.Errorf("%w: a record is refused after %d attempts", ErrCorrupt, maxAttempts)
}

// link makes ids one component, each by a link with the first.
func (s *stitch) link(ctx context.Context, ids []Identifier) (Node, refusal, error) {
	root, _, err := s.settled(ctx, ids[0].Node)
	for _, id := range ids[1:] {
		if err != nil {
			return Node{}, refusal{}, err
		}
		var no refusal
		if root, no, err = s.join(ctx, ids[0], id); no.refused() {
			return Node{}, no, err
		}
	}
	return root, refusal{}, err
}

// one says whether root is that of all ids, by what was read up to now: of two who were one person when the record was judged,
// one may have been found elsewhere since, because they were split.
func (s *stitch) one(ctx context.Context, root Node, ids []Identifier) (bool, error) {
	for _, id := range ids {
		if at, _, err := s.find(ctx, id.Node); err != nil || at != root {
			return false, err
		}
	}
	return true, nil
}

// choose sets aside what of ids may not be one person with the rest, and returns the others, in the order in which they
// were judged: linked one by one with the first, they meet the same judgements, unless others are faster.
//
// From the dearest identifier down by priority, each stays if it may be one with those that stay. So the identifier of
// lowest priority is set aside, and the next if that is not enough, as Segment documents it; but what was set aside and is
// not in the way comes back.
func (s *stitch) choose(ctx context.Context, ids []Identifier) ([]Identifier, error) {
	s.aside, s.stopped = nil, nil
	if len(ids) == 1 {
		return ids, nil
	}
	byPriority := s.policy.byPriority(ids)
	first, _, err := s.find(ctx, byPriority[0].Node)
	if err != nil {
		return nil, err
	}
	roots, all := []Node{first}, side{}
	keep := byPriority[:1:1]
	for _, id := range byPriority[1:] {
		root, _, err := s.find(ctx, id.Node)
		if err != nil {
			return nil, err
		}
		if slices.Contains(roots, root) {
			keep = append(keep, id)
			continue
		}
		if all.size() == 0 { // the first one that needs a link
			var v *value
			if first, v, err = s.settled(ctx, byPriority[0].Node); err != nil {
				return nil, err
			}
			roots, all = []Node{first}, v.side()
		}
		root, w, err := s.settled(ctx, id.Node)
		if err != nil {
			return nil, err
		}
		if slices.Contains(roots, root) || w.has(first) || all.has(root) {
			keep = append(keep, id)
			continue
		}
		t := terms{day: day(s.cause.Time), trusted: s.trusted, operator: !s.caps, evidence: [2]Node{byPriority[0].Node, id.Node}}
		winner, loser, top := all, w.side(), first
		if root.Before(first) {
			winner, loser, top = loser, winner, root
		}
		no := s.policy.judge(winner, loser, t)
		if !no.refused() && s.caps && winner.people() > 1 && loser.people() > 1 {
			no = s.rates.take(s.source, s.cause.Time)
		}
		if no.refused() {
			s.setAside(byPriority[0], id, no)
			continue
		}
		all, first = joined(winner, loser, t), top
		roots, keep = append(roots, root), append(keep, id)
	}
	return keep, nil
}

// setAside notes that the record is resolved without an identifier, which x would have been linked with.
func (s *stitch) setAside(x, id Identifier, no refusal) {
	s.aside = append(s.aside, SetAside{Identifier: id, Reason: no.reason})
	if no.reason != ReasonGovernor {
		return
	}
	pair := []Identifier{x, id}
	slices.SortFunc(pair, func(a, b Identifier) int { return a.Node.Compare(b.Node) })
	s.stopped = append(s.stopped, Suspension{
		Evidence: []Evidence{pair[0].evidence(), pair[1].evidence()}, Cap: no.cap, Cause: s.cause,
	})
}

// byPriority orders identifiers from the dearest on; those of one type, and without rules all, by node.
func (p *Policy) byPriority(ids []Identifier) []Identifier {
	out := slices.Clone(ids)
	if p.TypeOf != nil {
		slices.SortStableFunc(out, func(a, b Identifier) int { return p.TypeOf(a.Node).Priority - p.TypeOf(b.Node).Priority })
	}
	return out
}

// strong are the identifiers that may join others: where there is one, weak ones are set aside.
func (p *Policy) strong(ids []Identifier) ([]Identifier, []SetAside) {
	if p.TypeOf == nil {
		return ids, nil
	}
	weak := func(id Identifier) bool { return p.TypeOf(id.Node).Weak }
	if !slices.ContainsFunc(ids, weak) {
		return ids, nil
	}
	var strong []Identifier
	var aside []SetAside
	for _, id := range ids {
		if weak(id) {
			aside = append(aside, SetAside{Identifier: id, Reason: ReasonWeak})
		} else {
			strong = append(strong, id)
		}
	}
	if len(strong) == 0 { // the first one alone: what only adds evidence joins nobody
		return ids[:1], aside[1:]
	}
	return strong, aside
}
