package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// mapKV is a KV and Facts in memory.
type mapKV struct {
	mu     sync.Mutex
	m      map[string]string
	groups int // read so far
	fail   error
}

func (k *mapKV) MGetGroups(_ context.Context, groups [][]string) ([][][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.groups += len(groups)
	out := make([][][]byte, len(groups))
	for i, keys := range groups {
		out[i] = make([][]byte, len(keys))
		for j, key := range keys {
			if v, ok := k.m[key]; ok {
				out[i][j] = []byte(v)
			}
		}
	}
	return out, k.fail
}

func (k *mapKV) CompareAndSet(_ context.Context, key, counter string, old, next []byte) (bool, int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, _ := strconv.ParseInt(k.m[counter], 10, 64) // absent is 0
	v, there := k.m[key]
	switch {
	case k.fail != nil:
		return false, 0, k.fail
	case v == string(next):
		return true, n, nil
	case v != string(old) || there != (old != nil):
		return false, n, nil
	}
	k.m[key], k.m[counter] = string(next), strconv.FormatInt(n+1, 10)
	return true, n + 1, nil
}

func (k *mapKV) Fact(_ context.Context, key, field, value string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.m[key+field]; !ok {
		k.m[key+field] = value
	}
	return k.m[key+field], k.fail
}

func TestGraph(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	g := NewGraph(kv, "weft.")
	node := func(i int) Node { n := node(i); n[15] = byte(i); return n } //nolint:gosec // cut on purpose
	var swaps []Swap
	want, wrote := map[string]string{}, map[int]int{}
	for i := range 100 {
		swaps = append(swaps, Swap{Node: node(i), New: []byte(fmt.Sprint(i))})
		want[g.key(node(i))] = fmt.Sprint(i)
		wrote[bucketOf(node(i))]++
	}
	require.Equal(t, "{weft.g:07}10000007-0000-8000-8000-000000000007", g.key(node(7)), "fixed for a deployment's life")
	for b, n := range wrote {
		want[fmt.Sprintf("{weft.g:%02x}writes", b)] = fmt.Sprint(n)
	}
	done, err := g.CompareAndSet(ctx, swaps)
	require.NoError(t, err)
	require.NotContains(t, done, false)
	require.Equal(t, want, maps.Clone(kv.m))
	swaps[1].Old = []byte("1")
	for i := range 3 {
		swaps[i].New = fmt.Appendf(nil, "%d again", i) // no value is ever written twice
	}
	done, err = g.CompareAndSet(ctx, swaps[:3])
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, false}, done)
	kv.groups = 0
	got, err := g.Load(ctx, []Node{node(7), node(7 + buckets), node(9), node(7)})
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("7"), nil, []byte("9"), []byte("7")}, got)
	require.Equal(t, 2, kv.groups, "one for each bucket")

	kv.fail = errors.New("no answer")
	for _, n := range []int{1, 50} {
		_, err = g.CompareAndSet(ctx, swaps[:n])
		require.ErrorIs(t, err, kv.fail)
	}
}

func TestCheckKey(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	require.NoError(t, CheckKey(ctx, kv, "deployment", testKey()))
	require.NoError(t, CheckKey(ctx, kv, "deployment", testKey()))
	err := CheckKey(ctx, kv, "deployment", make([]byte, KeyBytes))
	require.ErrorIs(t, err, ErrOtherKey)
	require.ErrorContains(t, err, Fingerprint(testKey()))
	require.NoError(t, CheckKey(ctx, kv, "other", make([]byte, KeyBytes)))
	kv.fail = errors.New("no answer")
	require.ErrorIs(t, CheckKey(ctx, kv, "deployment", testKey()), kv.fail)
}
