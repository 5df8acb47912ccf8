package stitcher

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// repeats sends every call of a script twice, as after a lost answer, and hands out what the second one says.
type repeats struct{ *store.Client }

func (r *repeats) RunEach(ctx context.Context, script string, keys [][]string, args [][]any) ([][][]byte, error) {
	if _, err := r.Client.RunEach(ctx, script, keys, args); err != nil {
		return nil, err
	}
	return r.Client.RunEach(ctx, script, keys, args)
}

// conformPages swaps values of many nodes of few buckets, by processes that know of a bucket's growth by their own calls
// only, and compares with a plain map: every answer, every value, what the buckets count.
func conformPages(t *testing.T, st *store.Client, prefix string) {
	t.Helper()
	ctx := t.Context()
	rng := rand.New(rand.NewPCG(5, 5)) //nolint:gosec // a seed reproduces
	var nodes []identity.Node
	for i := range 400 {
		n := identity.Node{0x10}
		binary.BigEndian.PutUint32(n[11:], rng.Uint32())
		n[15] = byte(i % 3) // buckets
		nodes = append(nodes, n)
	}
	processes := []*identity.Graph{identity.NewGraph(st, prefix), identity.NewGraph(st, prefix), identity.NewGraph(&repeats{st}, prefix)}
	want, writes := map[identity.Node][]byte{}, 0
	value := func(i int) []byte {
		size := []int{1, 20, 127, 128, 300, 70_000}[min(rng.IntN(60)/11, 5)]
		v := fmt.Appendf(make([]byte, 0, size), "%06d", i)
		for len(v) < size { // with nodes inside, of the same page perhaps
			n := nodes[rng.IntN(len(nodes))]
			v = append(v, n[:]...)
		}
		return v
	}
	for round := range 150 {
		g := processes[rng.IntN(len(processes))]
		var swaps []identity.Swap
		var expect []bool
		used := map[identity.Node]bool{}
		for i := range 1 + rng.IntN(25) {
			n := nodes[rng.IntN(len(nodes))]
			if used[n] {
				continue // the second of two would hide the first from a repeated call
			}
			used[n] = true
			s := identity.Swap{Node: n, Old: want[n], New: value(round*100 + i)}
			ok := true
			switch rng.IntN(5) {
			case 0: // somebody was faster
				s.Old, ok = value(-i-1), false
			case 1: // it has one already, or none
				if s.Old != nil {
					s.Old, ok = nil, false
				} else {
					s.Old, ok = value(-i-1), false
				}
			}
			if ok {
				want[n] = s.New
				writes++
			}
			swaps, expect = append(swaps, s), append(expect, ok)
		}
		done, err := g.CompareAndSet(ctx, swaps)
		require.NoError(t, err)
		require.Equal(t, expect, done)
		if round%10 > 0 {
			continue
		}
		got, err := processes[rng.IntN(len(processes))].Load(ctx, nodes)
		require.NoError(t, err)
		for i, n := range nodes {
			require.Equal(t, want[n], got[i], "node %s", n)
		}
	}
	counted, held := 0, 0
	for b := range 3 {
		text, err := st.Get(ctx, fmt.Sprintf("{%sg:%02x}writes", prefix, b))
		require.NoError(t, err)
		var w, pages, n int
		_, err = fmt.Sscanf(string(text), "%d/%d/%d", &w, &pages, &n)
		require.NoError(t, err)
		require.InDelta(t, float64(n)/float64(pages), 23, 3, "%d nodes on %d pages", n, pages)
		counted, held = counted+w, held+n
	}
	require.Equal(t, writes, counted)
	require.Len(t, want, held)
}

func TestPagesMiniredis(t *testing.T) {
	e := newEnv(t)
	conformPages(t, e.store, "p.")
}

// TestAGraphOfBeforeThePagesIsRefused: each node under a key of its own, which nobody reads any more. A rebuild makes pages
// of the links that were published, and forgets the old keys.
func TestAGraphOfBeforeThePagesIsRefused(t *testing.T) {
	e := newEnv(t)
	stop := e.start()
	e.send("k", "web", "m1", "", `{"type":"identify","anonymousId":"a1","userId":"u1"}`)
	e.settled()
	stop()
	n := e.node("user_id", "u1")
	tag := fmt.Sprintf("{%sg:%02x}", e.topics.Prefix, n[15])
	for k := range e.graphKeys() {
		e.redis.Del(k)
	}
	require.NoError(t, e.redis.Set(tag+n.String(), "as it was"))
	require.NoError(t, e.redis.Set(tag+"writes", "7"))

	_, err := identity.Lookup(t.Context(), identity.NewGraph(e.store, e.topics.Prefix), n)
	require.ErrorIs(t, err, identity.ErrOldLayout)
	err = e.service().Run(context.Background())
	require.ErrorIs(t, err, stream.ErrStop)
	require.ErrorContains(t, err, "weft rebuild")
	_, err = identity.NewGraph(e.store, e.topics.Prefix).CompareAndSet(t.Context(), []identity.Swap{{Node: n, New: []byte("x")}})
	require.ErrorIs(t, err, identity.ErrOldLayout)
	require.Equal(t, map[string]string{tag + n.String(): "as it was", tag + "writes": "7"}, e.graphKeys(), "nothing was written")

	_, err = e.rebuild()
	require.NoError(t, err)
	require.False(t, e.redis.Exists(tag+n.String()))
	text, err := e.redis.Get(tag + "writes")
	require.NoError(t, err)
	require.Equal(t, "7/1/1", text, "counts go on")
	stop = e.start()
	e.send("k", "web", "m2", "", `{"type":"page","anonymousId":"a1"}`)
	e.settled()
	stop()
	events := ofKind(e.read(e.topics.EventsIdentified()), topic.KindEvent)
	require.Len(t, events, 2)
	require.Equal(t, n.String(), string(events[1].Key))
}
