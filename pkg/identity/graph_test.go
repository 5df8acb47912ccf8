package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// mapKV is a KV and Facts in memory.
type mapKV struct {
	mu     sync.Mutex
	m      map[string]string
	groups int // read so far
	trips  int // of all calls
	fail   error
}

func (k *mapKV) MGetGroups(_ context.Context, groups [][]string) ([][][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.groups += len(groups)
	k.trips++
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

// RunEach does what swap.lua does.
func (k *mapKV) RunEach(_ context.Context, script string, keys [][]string, args [][]any) ([][][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trips++
	if k.fail != nil {
		return nil, k.fail
	}
	if script != swapScript {
		return nil, errors.New("another script")
	}
	out := make([][][]byte, len(keys))
	for i := range keys {
		out[i] = k.swap(keys[i], args[i])
	}
	return out, nil
}

func (k *mapKV) swap(keys []string, args []any) [][]byte {
	text := []byte(k.m[keys[0]])
	t, err := parseLedger(text)
	if err != nil || fmt.Sprint(t.pages) != fmt.Sprint(args[0]) {
		return [][]byte{text}
	}
	out := [][]byte{nil}
	swapped := false
	for ; len(args) > 3; args = append(args[:3:3], args[7:]...) {
		key, node, old, next := keys[args[3].(int)-1], args[4].([]byte), args[5].([]byte), args[6].([]byte)
		entries := entriesOf([]byte(k.m[key]))
		ok := entries[string(node)] == string(next)
		if !ok && entries[string(node)] == string(old) {
			if len(old) == 0 {
				t.nodes++
			}
			entries[string(node)] = string(next)
			k.m[key] = strings.Join(slices.Collect(maps.Values(entries)), "")
			ok, swapped = true, true
			t.writes++
		}
		out = append(out, []byte{'0'})
		if ok {
			out[len(out)-1] = []byte{'1'}
		}
	}
	if swapped && t.nodes > int64(t.pages)*nodesPerPage {
		var stay, gone string
		for node, entry := range entriesOf([]byte(k.m[keys[1]])) {
			if pageOf([]byte(node), t.pages+1) == t.pages {
				gone += entry
			} else {
				stay += entry
			}
		}
		k.m[keys[1]], k.m[keys[2]] = stay, gone
		t.pages++
	}
	if swapped {
		k.m[keys[0]] = t.String()
		text = []byte(t.String())
	}
	out[0] = text
	return out
}

// entriesOf are the entries of a page by their nodes.
func entriesOf(page []byte) map[string]string {
	m := map[string]string{}
	for len(page) > 0 {
		node, _, rest, err := nextEntry(page)
		if err != nil {
			panic(err)
		}
		m[string(node)] = string(page[:len(page)-len(rest)])
		page = rest
	}
	return m
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
	want, wrote := map[string]string{}, map[int]int64{}
	for i := range 100 {
		swaps = append(swaps, Swap{Node: node(i), New: []byte(fmt.Sprint(i))})
		n := node(i)
		want[fmt.Sprintf("{weft.g:%02x}p0", i)] = fmt.Sprintf("%c%s%d", len(fmt.Sprint(i)), n[:15], i)
		wrote[bucketOf(n)]++
	}
	require.Equal(t, "{weft.g:07}p1f", g.page(7, 31), "fixed for a deployment's life")
	for b, n := range wrote {
		want[fmt.Sprintf("{weft.g:%02x}writes", b)] = ledger{writes: n, pages: 1, nodes: n}.String()
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
