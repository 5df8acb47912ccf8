package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// memory is a store in memory that counts its calls.
type memory struct {
	mu     sync.Mutex
	values map[Node][]byte
	loads  int
	nodes  int // loaded
	sets   int
	fail   error
}

func newMemory() *memory { return &memory{values: make(map[Node][]byte)} }

var _ Store = (*memory)(nil)

func (m *memory) Load(_ context.Context, nodes []Node) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	m.nodes += len(nodes)
	out := make([][]byte, len(nodes))
	for i, n := range nodes {
		out[i] = m.values[n]
	}
	return out, m.fail
}

func (m *memory) CompareAndSet(_ context.Context, swaps []Swap) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets++
	out := make([]bool, len(swaps))
	for i, s := range swaps {
		cur := m.values[s.Node]
		if string(cur) == string(s.Old) && (cur == nil) == (s.Old == nil) {
			m.values[s.Node], out[i] = s.New, true
		}
	}
	return out, m.fail
}

func identify(t testing.TB, typ, value string) Identifier {
	t.Helper()
	id, why := newTestRules(t, Options{}).Identify(event.Identifier{Type: typ, Value: value})
	require.Empty(t, why)
	return id
}

func request(source string, ids ...Identifier) Request {
	return Request{Identifiers: ids, Cause: Cause{Source: source, MessageID: "m" + source, Rule: RuleSameEvent}}
}

// losers lists the merges of results.
func losers(t testing.TB, results []Result) []Node {
	t.Helper()
	var out []Node
	for _, r := range results {
		for _, m := range r.Merges {
			n, err := ParseNode(m.Loser)
			require.NoError(t, err)
			out = append(out, n)
		}
	}
	return out
}

func TestAnonymousBecomesKnown(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 100, Policy{})
	anon, user, mail := identify(t, event.AnonymousID, "a"), identify(t, event.UserID, "u"), identify(t, event.Email, "e@x.pl")

	got, err := r.Resolve(ctx, []Request{request("0", anon), request("1", anon, user), request("2", mail, anon), request("3", mail)})
	require.NoError(t, err)
	require.Equal(t, anon.Node, got[0].Profile, "before it was known to be the user")
	require.Equal(t, user.Node, got[1].Profile)
	require.Equal(t, user.Node, got[2].Profile)
	require.Equal(t, user.Node, got[3].Profile)
	require.Empty(t, got[0].Merges)
	require.Len(t, got[1].Merges, 1)
	require.Equal(t, Merge{
		Loser: anon.Node.String(), Winner: user.Node.String(), Members: []string{anon.Node.String()}, Version: 2, Days: []uint16{1}, WinnerDay: 1,
		Cause: request("1").Cause.utc(),
		Evidence: []Evidence{
			{Type: event.UserID, Value: "u", Node: user.Node.String()}, {Type: event.AnonymousID, Value: "a", Node: anon.Node.String()},
		},
	}, got[1].Merges[0])
	require.Len(t, got[2].Merges, 1)
	require.Equal(t, mail.Node.String(), got[2].Merges[0].Loser)
	require.Empty(t, got[3].Merges, "already with an earlier record of the batch")

	again, err := NewResolver(st, 100, Policy{}).Resolve(ctx, []Request{request("9", anon)})
	require.NoError(t, err)
	require.Equal(t, user.Node, again[0].Profile)
	require.Len(t, again[0].Merges, 1, "not confirmed: whoever crosses the link publishes it")
	require.Equal(t, "1", again[0].Merges[0].Cause.Source, "with the link's own cause")

	require.NoError(t, r.Confirm(ctx, append(losers(t, got), losers(t, got)...)))
	require.NoError(t, r.Confirm(ctx, losers(t, got)))
	again, err = r.Resolve(ctx, []Request{request("9", anon, mail)})
	require.NoError(t, err)
	require.Equal(t, []Result{{Profile: user.Node}}, again)
	for _, raw := range st.values {
		require.NotContains(t, string(raw), "e@x.pl", "evidence leaves the store once it is published")
	}
	members, err := Members(ctx, st, anon.Node)
	require.NoError(t, err)
	require.Equal(t, []Node{user.Node, mail.Node, anon.Node}, members)
	roots, err := Lookup(ctx, st, mail.Node, anon.Node, node(1))
	require.NoError(t, err)
	require.Equal(t, []Node{user.Node, user.Node, node(1)}, roots)
}

// utc is c as it comes back from the store.
func (c Cause) utc() Cause {
	c.Time = c.Time.UTC()
	return c
}

func TestRoundTrips(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 10_000, Policy{})
	var batch []Request
	for i := range 200 {
		batch = append(batch, request(fmt.Sprint(i), identify(t, event.UserID, fmt.Sprint("u", i)), identify(t, event.AnonymousID, fmt.Sprint("a", i))))
	}
	got, err := r.Resolve(ctx, batch)
	require.NoError(t, err)
	require.Len(t, losers(t, got), 200)
	require.Equal(t, 1, st.loads, "one read for all identifiers")
	require.Equal(t, 3, st.sets, "the three steps of all links travel together")

	st.loads, st.sets = 0, 0
	require.NoError(t, r.Confirm(ctx, losers(t, got)))
	require.Equal(t, 1, st.loads)
	require.Equal(t, 1, st.sets)

	st.loads, st.sets = 0, 0
	_, err = r.Resolve(ctx, batch)
	require.NoError(t, err)
	require.Equal(t, 1, st.loads, "the roots are among the identifiers")
	require.Zero(t, st.sets)

	st.loads = 0
	_, err = NewResolver(st, 0, Policy{}).Resolve(ctx, []Request{{Identifiers: batch[0].Identifiers[1:]}, {Identifiers: batch[1].Identifiers[1:]}})
	require.NoError(t, err)
	require.Equal(t, 2, st.loads, "two levels of the graph")

	st.loads, st.nodes = 0, 0
	_, err = r.Resolve(ctx, batch)
	require.NoError(t, err)
	require.Equal(t, 1, st.loads, "all known to the cache, if nothing was undone")
	require.Equal(t, 1, st.nodes, "which one node says")
}

func TestLongChainsAreCompressed(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	var ids []Identifier
	for i := range 6 {
		ids = append(ids, identify(t, event.UserID, fmt.Sprint("u", i)))
	}
	ids = sorted(ids)
	slices.Reverse(ids)
	r := NewResolver(st, 0, Policy{})
	for i := range len(ids) - 1 { // each new node is before the root of all others
		got, err := r.Resolve(ctx, []Request{request(fmt.Sprint(i), ids[i], ids[i+1])})
		require.NoError(t, err)
		require.NoError(t, r.Confirm(ctx, losers(t, got)))
	}
	_, err := r.Resolve(ctx, []Request{request("x", ids[0])})
	require.NoError(t, err)
	st.loads = 0
	_, err = r.Resolve(ctx, []Request{request("x", ids[0])})
	require.NoError(t, err)
	require.Equal(t, 2, st.loads)
}

func TestErrorsLeaveNothing(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	r := NewResolver(st, 10, Policy{})
	a, u := identify(t, event.AnonymousID, "a"), identify(t, event.UserID, "u")
	_, err := r.Resolve(ctx, []Request{{}})
	require.ErrorContains(t, err, "record 0 has no identifier")

	st.fail = errors.New("no answer")
	_, err = r.Resolve(ctx, []Request{request("1", a, u)})
	require.ErrorIs(t, err, st.fail)
	require.ErrorIs(t, r.Confirm(ctx, []Node{a.Node}), st.fail)
	_, err = Lookup(ctx, st, a.Node)
	require.ErrorIs(t, err, st.fail)
	_, err = Members(ctx, st, a.Node)
	require.ErrorIs(t, err, st.fail)

	st.fail = nil
	st.values[u.Node] = []byte{valueVersion + 1, 1, 2, 3}
	_, err = r.Resolve(ctx, []Request{request("1", a), request("2", a, u)})
	require.ErrorIs(t, err, ErrNewerVersion)

	require.NoError(t, r.Confirm(ctx, []Node{a.Node}), "never linked: nothing to confirm")
}

func TestCacheIsBoundedAndForgets(t *testing.T) {
	c := newCache(100)
	var ids []Identifier
	for i := range 1000 {
		ids = append(ids, Identifier{Node: node(i)})
		c.put(ids[i:], node(0), 0)
		require.LessOrEqual(t, c.size(), 100)
	}
	_, ok := c.root(ids[:1], 0)
	require.False(t, ok)
	root, ok := c.root(ids[998:], 0)
	require.True(t, ok)
	require.Equal(t, node(0), root)
	c.put(ids[999:], node(5), 0)
	_, ok = c.root(ids[998:], 0)
	require.False(t, ok, "two roots are no answer")
	c.drop(&value{group: group{members: pack(998, 999)}})
	_, ok = c.root(ids[999:], 0)
	require.False(t, ok)
	_, ok = c.root(nil, 0)
	require.False(t, ok)

	off := newCache(0)
	off.put(ids[:1], node(0), 0)
	require.Zero(t, off.size())
}

// Several resolvers at once on one store agree with the oracle, whatever the scheduler does.
func TestConcurrentResolvers(t *testing.T) {
	ctx, st := t.Context(), newMemory()
	all := simIdentifiers(3)
	for i := range 40 {
		all = append(all, identify(t, event.AnonymousID, fmt.Sprint("more", i)))
	}
	slots := make([]*simSlot, 6)
	var wg sync.WaitGroup
	for p := range slots {
		slots[p] = &simSlot{}
		rng := rand.New(rand.NewPCG(uint64(p), 1)) //nolint:gosec // a test
		for i := range 60 {
			rec := simRecord{cause: Cause{Source: fmt.Sprintf("%d:%d", p, i)}}
			for range 1 + rng.IntN(2) {
				rec.ids = append(rec.ids, all[rng.IntN(len(all))])
			}
			slots[p].input = append(slots[p].input, rec)
		}
		wg.Go(func() {
			r := NewResolver(st, 30, Policy{})
			for i, rec := range slots[p].input {
				got, err := r.Resolve(ctx, []Request{{Identifiers: rec.ids, Cause: rec.cause}})
				if err == nil && i%3 == 0 {
					err = r.Confirm(ctx, losers(t, got))
				}
				if err != nil {
					t.Errorf("record %d of %d: %v", i, p, err)
				}
			}
		})
	}
	wg.Wait()
	want := oracle(slots, all)
	for _, id := range all {
		roots, err := Lookup(ctx, st, id.Node)
		require.NoError(t, err)
		require.Equal(t, want[id.Node], roots[0])
		members, err := Members(ctx, st, id.Node)
		require.NoError(t, err)
		n := 0
		for _, root := range want {
			if root == want[id.Node] {
				n++
			}
		}
		require.Len(t, members, n)
	}
}
