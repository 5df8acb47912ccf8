package stitcher

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
)

// lossy is a Redis whose answers get lost: writes that have landed are reported as failed, now and then.
type lossy struct {
	*store.Client
	calls atomic.Int64
}

func (l *lossy) RunEach(ctx context.Context, script string, keys [][]string, args [][]any) ([][][]byte, error) {
	got, err := l.Client.RunEach(ctx, script, keys, args)
	if l.calls.Add(1)%23 == 0 {
		return nil, fmt.Errorf("answer lost")
	}
	return got, err
}

// conformGraph races resolvers for the same and crossing unions over a Redis and compares the graph with a
// plain union-find: roots, members, and that every link's merge was handed to somebody, always the same one.
func conformGraph(t *testing.T, st *store.Client, prefix string) {
	t.Helper()
	ctx := t.Context()
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{})
	require.NoError(t, err)
	var all []identity.Identifier
	for i := range 120 {
		typ := []string{event.UserID, event.Email, event.AnonymousID}[i%3]
		id, why := rules.Identify(event.Identifier{Type: typ, Value: fmt.Sprintf("v%d@x.pl", i)})
		require.Empty(t, why)
		all = append(all, id)
	}
	graph := identity.NewGraph(&lossy{Client: st}, prefix)

	const resolvers, batches, perBatch = 4, 12, 10
	var mu sync.Mutex
	root := map[identity.Node]identity.Node{} // the reference
	for _, id := range all {
		root[id.Node] = id.Node
	}
	merged := map[string]string{} // loser to winner and cause, as handed out
	unite := func(a, b identity.Node) {
		for n, r := range root {
			if r == a || r == b {
				root[n] = slices.MinFunc([]identity.Node{a, b}, identity.Node.Compare)
			}
		}
	}
	var wg sync.WaitGroup
	for w := range resolvers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 9)) //nolint:gosec // a seed reproduces
			r := identity.NewResolver(graph, 50, identity.Policy{})
			for b := range batches {
				var batch []identity.Request
				for i := range perBatch {
					x, y := all[rng.IntN(len(all))], all[rng.IntN(len(all))]
					mu.Lock()
					unite(root[x.Node], root[y.Node])
					mu.Unlock()
					batch = append(batch, identity.Request{Identifiers: []identity.Identifier{x, y},
						Cause: identity.Cause{Source: fmt.Sprintf("%d:%d:%d", w, b, i), Rule: identity.RuleSameEvent}})
				}
				results, err := r.Resolve(ctx, batch)
				for err != nil && ctx.Err() == nil { // as keyed does
					results, err = r.Resolve(ctx, batch)
				}
				var losers []identity.Node
				for _, res := range results {
					for _, m := range res.Merges {
						n, err := identity.ParseNode(m.Loser)
						if err != nil {
							t.Error(err)
						}
						losers = append(losers, n)
						mu.Lock()
						as := m.Winner + " because of " + m.Cause.Source
						if old, ok := merged[m.Loser]; ok && old != as {
							t.Errorf("%s is merged into %s and %s", m.Loser, old, as)
						}
						merged[m.Loser] = as
						mu.Unlock()
					}
				}
				for b%2 == 0 && r.Confirm(ctx, losers) != nil && ctx.Err() == nil {
					continue // until the answer arrives; links of odd batches stay unconfirmed and are handed out again
				}
			}
		})
	}
	wg.Wait()
	checkGraph(t, graph, all, root, merged)
}

// checkGraph compares the graph with the reference's roots and with the losers of the merges handed out.
func checkGraph(t *testing.T, graph *identity.Graph, all []identity.Identifier, root map[identity.Node]identity.Node, merged map[string]string) {
	t.Helper()
	ctx := t.Context()
	linked := 0
	for _, id := range all {
		got, err := identity.Lookup(ctx, graph, id.Node)
		require.NoError(t, err)
		require.Equal(t, root[id.Node], got[0])
		var want []identity.Node
		for n, r := range root {
			if r == root[id.Node] {
				want = append(want, n)
			}
		}
		slices.SortFunc(want, identity.Node.Compare)
		members, err := identity.Members(ctx, graph, id.Node)
		require.NoError(t, err)
		require.Equal(t, want, members)
		if got[0] != id.Node {
			linked++
			require.Contains(t, merged, id.Node.String())
		}
	}
	require.Len(t, merged, linked)
}

func TestGraphMiniredis(t *testing.T) {
	e := newEnv(t)
	conformGraph(t, e.store, "g.")
}
