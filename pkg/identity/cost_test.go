package identity

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWhatTheGraphCosts: what can be counted exactly of a graph of known identifiers. Keys and values here are those that a
// Redis gets; what it adds for each key is in docs/performance.md.
func TestWhatTheGraphCosts(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	g := NewGraph(kv, "weft.")
	rs := NewRestore(g, func(key string, value []byte) error { kv.m[key] = string(value); return nil })
	const persons, size = 20_000, 3
	everybody := make([][size]Node, persons)
	for i := range everybody {
		for k := range size { // spread as a hash spreads them
			n := &everybody[i][k]
			for b := range n {
				n[b] = byte((uint64(i*size+k+1) * 0x9e3779b97f4a7c15) >> (b % 8 * 7)) //nolint:gosec // cut on purpose
			}
			n[0], n[6], n[8] = 0x10+byte(k)*0x40, 0x80|n[6]&0x0f, 0x80|n[8]&0x3f //nolint:gosec // small
		}
		for k, loser := range everybody[i][1:] {
			m := Merge{Loser: loser.String(), Winner: everybody[i][0].String(), Members: []string{loser.String()}, Version: int64(k + 2),
				Cause: Cause{Source: "1", Time: time.UnixMilli(1773620460000).UTC()}}
			require.NoError(t, rs.Link(&m, true))
		}
	}
	_, err := rs.Roots(ctx)
	require.NoError(t, err)
	bytes := 0
	for k, v := range kv.m {
		bytes += len(k) + len(v)
	}
	require.LessOrEqual(t, float64(bytes)/(persons*size), 54.4, "bytes of keys and values for an identifier")
	require.LessOrEqual(t, float64(len(kv.m))/(persons*size), 0.055, "keys for an identifier: a server adds about 80 bytes to each")

	batch := make([]Request, benchBatch)
	for i := range batch {
		p := everybody[i*37%persons]
		batch[i].Identifiers = []Identifier{{Node: p[0]}, {Node: p[1+i%2]}}
	}
	require.NoError(t, g.Verify(ctx, nil), "as a service does when it begins: it learns of the pages")
	kv.groups, kv.trips = 0, 0
	_, err = NewResolver(g, 0, Policy{}).Resolve(ctx, batch)
	require.NoError(t, err)
	require.LessOrEqual(t, float64(kv.groups)/(2*benchBatch), 0.26, "commands for an identifier: the target is 1.2")
	require.Equal(t, 1, kv.trips, "round trips for the batch: the target is 3, with the stage's own")
}
