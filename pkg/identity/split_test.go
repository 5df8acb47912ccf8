package identity

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// partsOf makes the nodes of a command's parts.
func partsOf(t testing.TB, command string) func(int, uint64) Node {
	rules := newTestRules(t, Options{})
	return func(i int, generation uint64) Node { return rules.Part(command, i, generation) }
}

// resolveAll resolves one record and confirms its merges.
func resolveAll(t testing.TB, r *Resolver, q Request) Result {
	t.Helper()
	got, err := r.Resolve(t.Context(), []Request{q})
	require.NoError(t, err)
	require.NoError(t, r.Confirm(t.Context(), losers(t, got)))
	return got[0]
}

func nothingToPublish(t testing.TB) func(context.Context, []Merge) error {
	return func(_ context.Context, ms []Merge) error {
		t.Errorf("published: %v", ms)
		return nil
	}
}

func TestSplit(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 100, Policy{})
	user, mail := identify(t, event.UserID, "u"), identify(t, event.Email, "e@x.pl")
	anon, other := identify(t, event.AnonymousID, "a"), identify(t, event.AnonymousID, "b")
	for i, pair := range [][]Identifier{{user, anon}, {mail, anon}, {mail, other}} {
		q := request(fmt.Sprint(i), pair...)
		q.Cause.Time = time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC)
		if i < 2 {
			resolveAll(t, r, q)
			continue
		}
		_, err := r.Resolve(ctx, []Request{q}) // not published yet
		require.NoError(t, err)
	}
	order := SplitOrder{Part: partsOf(t, "c"), Members: []Node{anon.Node, user.Node, mail.Node, other.Node}}
	order.Parts = [][]Node{{user.Node, anon.Node}, {mail.Node, other.Node}}
	var told []Merge
	publish := func(_ context.Context, ms []Merge) error { told = append(told, ms...); return nil }

	fewer := order
	fewer.Members, fewer.Parts = order.Members[:3], [][]Node{{user.Node}, {anon.Node, mail.Node}}
	_, err := r.Split(ctx, fewer, publish)
	require.ErrorIs(t, err, ErrChanged)

	got, err := r.Split(ctx, order, publish)
	require.NoError(t, err)
	require.Len(t, told, 1)
	require.Equal(t, "2", told[0].Cause.Source, "what was linked and not published is published first")
	first, second := order.Part(0, 1), order.Part(1, 1)
	from := day(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	require.Equal(t, []PartedNode{
		{Node: user.Node, Into: first, Generation: 1, Day: from},
		{Node: mail.Node, Into: second, Part: 1, Generation: 1, Day: from + 1, Degree: 1},
		{Node: anon.Node, Into: first, Generation: 1, Day: from, Degree: 1},
		{Node: other.Node, Into: second, Part: 1, Generation: 1, Day: from + 2},
	}, sortedParts(got, user, mail, anon, other))
	again, err := NewResolver(st, 0, Policy{}).Split(ctx, order, nothingToPublish(t))
	require.NoError(t, err)
	require.Equal(t, got, again, "done is done")

	for _, id := range []Identifier{user, anon} {
		require.Equal(t, first, resolveAll(t, r, request("3", id)).Profile, "its cache was emptied")
		roots, err := Lookup(ctx, st, id.Node)
		require.NoError(t, err)
		require.Equal(t, []Node{first}, roots)
	}
	members, err := Members(ctx, st, mail.Node)
	require.NoError(t, err)
	require.ElementsMatch(t, []Node{second, mail.Node, other.Node}, members)

	// What was split does not come back by the next identical event.
	aside := resolveAll(t, r, request("4", mail, anon))
	require.Len(t, aside.SetAside, 1)
	require.Equal(t, ReasonCut, aside.SetAside[0].Reason)
	require.Empty(t, aside.Merges)

	// Until it is released.
	generations, err := r.Release(ctx, []Node{first, second})
	require.NoError(t, err)
	require.Equal(t, []uint64{2, 2}, generations)
	generations, err = r.Release(ctx, []Node{first, second})
	require.NoError(t, err)
	require.Equal(t, []uint64{2, 2}, generations, "once")
	together := resolveAll(t, r, request("5", mail, anon))
	require.Len(t, together.Merges, 1)
	m := together.Merges[0]
	require.Equal(t, version(2, 6), m.Version)
	require.EqualValues(t, 2, m.Generation())

	// The same people once more: the new parts come before the old ones.
	members, err = Members(ctx, st, user.Node)
	require.NoError(t, err)
	require.Len(t, members, 6)
	more := SplitOrder{Part: partsOf(t, "d"), Members: members, Parts: [][]Node{members[:2], members[2:]}}
	got, err = r.Split(ctx, more, nothingToPublish(t))
	require.NoError(t, err)
	require.Len(t, got, 6)
	require.EqualValues(t, 3, got[0].Generation)
	roots, err := Lookup(ctx, st, members...)
	require.NoError(t, err)
	for i, root := range roots {
		require.Equal(t, more.Part(min(i/2, 1), 3), root)
	}
	_, err = r.Split(ctx, order, nothingToPublish(t))
	require.ErrorIs(t, err, ErrChanged, "the first split is not what they are now")
}

// sortedParts brings what a split answers into the order of ids.
func sortedParts(got []PartedNode, ids ...Identifier) []PartedNode {
	var out []PartedNode
	for _, id := range ids {
		for _, p := range got {
			if p.Node == id.Node {
				out = append(out, p)
			}
		}
	}
	return out
}

func TestSplitRefuses(t *testing.T) {
	r := NewResolver(newMemory(), 0, Policy{})
	a, b := identify(t, event.UserID, "a").Node, identify(t, event.UserID, "b").Node
	for name, o := range map[string]SplitOrder{
		"one part":              {Members: []Node{a, b}, Parts: [][]Node{{a, b}}},
		"a part of others":      {Members: []Node{a}, Parts: [][]Node{{a}, {b}}},
		"a member without part": {Members: []Node{a, b}, Parts: [][]Node{{a}, {}}},
		"too many parts":        {Members: []Node{a, b}, Parts: make([][]Node, maxParts+1)},
	} {
		o.Part = partsOf(t, "c")
		_, err := r.Split(t.Context(), o, nothingToPublish(t))
		require.Error(t, err, name)
		require.NotErrorIs(t, err, ErrChanged, name)
	}
}

// TestSplitIsPublishedFirst: what could not be published stops the split before it has begun.
func TestSplitIsPublishedFirst(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 0, Policy{})
	a, b := identify(t, event.UserID, "a"), identify(t, event.AnonymousID, "b")
	_, err := r.Resolve(ctx, []Request{request("1", a, b)})
	require.NoError(t, err)
	o := SplitOrder{Part: partsOf(t, "c"), Members: []Node{a.Node, b.Node}, Parts: [][]Node{{a.Node}, {b.Node}}}
	failed := errors.New("no broker")
	_, err = r.Split(ctx, o, func(context.Context, []Merge) error { return failed })
	require.ErrorIs(t, err, failed)
	roots, err := Lookup(ctx, st, b.Node)
	require.NoError(t, err)
	require.Equal(t, []Node{a.Node}, roots)
}

func TestForget(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 100, Policy{})
	user, mail, anon := identify(t, event.UserID, "u"), identify(t, event.Email, "e@x.pl"), identify(t, event.AnonymousID, "a")
	resolveAll(t, r, request("1", user, mail))
	resolveAll(t, r, request("2", user, anon))
	members := []Node{user.Node, mail.Node, anon.Node}
	got, err := r.Forget(ctx, members, partsOf(t, "c"), nothingToPublish(t))
	require.NoError(t, err)
	again, err := r.Forget(ctx, members, partsOf(t, "c"), nothingToPublish(t))
	require.NoError(t, err)
	require.Equal(t, got, again)
	ids := map[Node]bool{}
	for i, p := range got {
		require.Equal(t, PartedNode{Node: p.Node, Into: p.Into, Part: i, Generation: 1}, p, "nothing is known of it")
		ids[p.Into] = true
		for _, raw := range [][]byte{st.values[p.Node], st.values[p.Into]} {
			for _, n := range members {
				if n != p.Node {
					require.NotContains(t, string(raw[10:]), string(n[:]), "they were one person")
				}
			}
		}
	}
	require.Len(t, ids, 3)
	// They begin anew, as others, and may meet again.
	first := resolveAll(t, r, request("3", user)).Profile
	require.True(t, ids[first])
	require.Len(t, resolveAll(t, r, request("4", user, anon)).Merges, 1)
	_, err = r.Forget(ctx, members[:2], partsOf(t, "d"), nothingToPublish(t))
	require.ErrorIs(t, err, ErrChanged)
	// One who was never linked is forgotten as well.
	alone := identify(t, event.UserID, "alone").Node
	got, err = r.Forget(ctx, []Node{alone}, partsOf(t, "e"), nothingToPublish(t))
	require.NoError(t, err)
	require.Equal(t, got[0].Into, resolveAll(t, r, request("5", identify(t, event.UserID, "alone"))).Profile)
}

func TestCutAndOperator(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 100, Policy{Caps: Caps{Members: 1}})
	a, b := identify(t, event.UserID, "a"), identify(t, event.AnonymousID, "b")
	require.Len(t, resolveAll(t, r, request("1", a, b)).SetAside, 1)
	q := request("2", a, b)
	q.Operator = true
	require.NoError(t, r.Cut(ctx, b.Node, a.Node))
	require.NoError(t, r.Cut(ctx, a.Node, b.Node))
	require.Equal(t, ReasonCut, resolveAll(t, r, q).SetAside[0].Reason, "caps do not count, a cut does")
	_, err := r.Release(ctx, []Node{a.Node, b.Node})
	require.NoError(t, err)
	require.Len(t, resolveAll(t, r, q).Merges, 1)
	require.ErrorIs(t, r.Cut(ctx, a.Node, b.Node), ErrOnePerson)
	require.ErrorIs(t, r.Cut(ctx, a.Node, a.Node), ErrOnePerson)
}

func TestBlocked(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 100, Policy{})
	kiosk, user := identify(t, event.AnonymousID, "kiosk"), identify(t, event.UserID, "u")
	for range 2 { // known to the cache
		require.Equal(t, kiosk.Node, resolveAll(t, r, request("1", kiosk)).Profile)
	}
	require.NoError(t, r.SetBlocked(ctx, kiosk.Node, true))
	require.NoError(t, r.SetBlocked(ctx, kiosk.Node, true))
	got := resolveAll(t, r, request("2", kiosk, user))
	require.Equal(t, Result{Profile: user.Node, SetAside: []SetAside{{Identifier: kiosk, Reason: ReasonBlocked}}}, got)
	got = resolveAll(t, r, request("3", kiosk))
	require.True(t, got.Profile.IsZero(), "a profile of its own")
	require.NoError(t, r.SetBlocked(ctx, kiosk.Node, false))
	require.Len(t, resolveAll(t, r, request("4", kiosk, user)).Merges, 1)
	require.NoError(t, r.SetBlocked(ctx, kiosk.Node, true))
	require.Len(t, resolveAll(t, r, request("5", kiosk, user)).SetAside, 1, "linked or not")
}

// What a split has made waits for what is told again; to what an erasure has made nothing is. Both come before all others.
func TestWhoWaitsForWhatIsToldAgain(t *testing.T) {
	rules := newTestRules(t, Options{})
	for i := range 64 {
		part, fresh := rules.Part("c", i, 1), rules.Afresh("c", i, 1)
		require.True(t, part.IsPart() && fresh.IsPart() && part != fresh)
		require.True(t, Waits(part.String()))
		require.False(t, Waits(fresh.String()))
	}
	require.False(t, Waits(Node{}.String()))
}
