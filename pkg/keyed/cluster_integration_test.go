//go:build integration

package keyed

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/pkg/topic"
)

// TestStageOnRedisCluster: partitions lie on different nodes, merges cross them, and a node is killed under two
// owners and comes back: every record counts once.
func TestStageOnRedisCluster(t *testing.T) {
	nodes, err := embedded.StartRedisCluster(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, nodes.Close()) })
	e := newEnv(t)
	e.cluster = nodes.Addresses()
	e.stream, e.store = e.connect()
	for range 2 {
		d := e.deps()
		d.Stream, d.Store = e.connect()
		defer run(t, e.stage(nil, d).Run)()
	}
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	want := map[string]int{}
	send := func(from, to int) {
		for i := from; i < to; i++ {
			v := fmt.Sprint(i)
			want[v] = 1
			e.send(keys[i%len(keys)], topic.KindEvent, v)
		}
	}
	send(0, 100)
	e.settled()
	for victim := range nodes.Addresses() {
		require.NoError(t, nodes.Kill(victim))
		send(100*(victim+1), 100*(victim+1)+50)
		if victim < len(keys)/2 {
			e.send(keys[victim+1], topic.KindMerge, mergeInto(keys[0]))
		}
		require.NoError(t, nodes.Start(t.Context(), victim))
		require.NoError(t, nodes.Settled(t.Context()))
		send(100*(victim+1)+50, 100*(victim+2))
		e.settled()
	}
	got := map[string]int{}
	for i, k := range keys {
		live, s := e.read(k)
		if i > 0 && i < 4 {
			require.Equal(t, keys[0], live)
		}
		if live == k {
			for v, n := range s.N {
				got[v] += n
			}
		}
	}
	require.Equal(t, want, got)
	e.outputsOnce(want)
}
