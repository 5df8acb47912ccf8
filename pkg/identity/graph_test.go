package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// mapKV is a KV and Facts in memory.
type mapKV struct {
	mu   sync.Mutex
	m    map[string]string
	fail error
}

func (k *mapKV) MGet(_ context.Context, keys ...string) ([][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([][]byte, len(keys))
	for i, key := range keys {
		if v, ok := k.m[key]; ok {
			out[i] = []byte(v)
		}
	}
	return out, k.fail
}

func (k *mapKV) CompareAndSet(_ context.Context, key string, old, next []byte) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v, ok := k.m[key]; k.fail == nil && v == string(old) && ok == (old != nil) {
		k.m[key] = string(next)
		return true, nil
	}
	return false, k.fail
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
	var swaps []Swap
	want := map[string]string{}
	for i := range 100 {
		swaps = append(swaps, Swap{Node: node(i), New: []byte(fmt.Sprint(i))})
		want["weft.g:{"+node(i).String()+"}"] = fmt.Sprint(i)
	}
	done, err := g.CompareAndSet(ctx, swaps)
	require.NoError(t, err)
	require.NotContains(t, done, false)
	require.Equal(t, want, maps.Clone(kv.m))
	swaps[1].Old = []byte("1")
	done, err = g.CompareAndSet(ctx, swaps[:3])
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, false}, done)
	got, err := g.Load(ctx, []Node{node(7), node(1000)})
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("7"), nil}, got)

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
