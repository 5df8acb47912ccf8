package identity

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// linked is a graph on kv with n persons of two identifiers each, and its resolver.
func linked(t *testing.T, kv KV, n int) (*Graph, *Resolver) {
	t.Helper()
	g := NewGraph(kv, "weft.")
	r := NewResolver(g, 0, Policy{})
	for i := range n {
		_, err := r.Resolve(t.Context(), []Request{pair(t, i, i)})
		require.NoError(t, err)
	}
	return g, r
}

// pair is a record with a user and a device.
func pair(t *testing.T, user, device int) Request {
	t.Helper()
	return request(fmt.Sprint(user), identify(t, event.UserID, fmt.Sprint("u", user)), identify(t, event.AnonymousID, fmt.Sprint("a", device)))
}

// TestGraphThatWentBackIsNotUsed: whoever has seen a write must not decide on a graph without it, whether he reads or
// writes, and however few of the writes are missing.
func TestGraphThatWentBackIsNotUsed(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	g, r := linked(t, kv, 20)
	before := maps.Clone(kv.m)
	lost := identify(t, event.UserID, "u20").Node
	_, err := r.Resolve(ctx, []Request{pair(t, 20, 20)})
	require.NoError(t, err)
	now, vouched := maps.Clone(kv.m), g.Vouch()
	require.NoError(t, g.Verify(ctx, [][]byte{vouched, nil}))

	back := func() { // the bucket of one node alone
		kv.m = maps.Clone(now)
		for k := range now {
			if len(k) > len(g.tags[0]) && k[:len(g.tags[0])] == g.tags[bucketOf(lost)] {
				delete(kv.m, k)
				if v, ok := before[k]; ok {
					kv.m[k] = v
				}
			}
		}
	}
	back()
	_, err = g.Load(ctx, []Node{lost})
	require.ErrorIs(t, err, ErrLost)
	_, err = g.CompareAndSet(ctx, []Swap{{Node: lost, New: []byte("x")}})
	require.ErrorIs(t, err, ErrLost, "the last write is missing: another one has its number")
	require.Contains(t, kv.m[g.page(bucketOf(lost), 0)], string(lost[:15])+"x", "it was written all the same")
	back()
	_, err = g.CompareAndSet(ctx, []Swap{{Node: lost, Old: []byte("y"), New: []byte("x")}})
	require.ErrorIs(t, err, ErrLost)
	_, err = r.Resolve(ctx, []Request{pair(t, 20, 1)})
	require.ErrorIs(t, err, ErrLost)

	// Another process knows by what it is told alone, and from then on by itself.
	other := NewGraph(kv, "weft.")
	require.NoError(t, other.Verify(ctx, nil))
	require.ErrorIs(t, other.Verify(ctx, [][]byte{nil, vouched}), ErrLost)
	_, err = other.Load(ctx, []Node{lost})
	require.ErrorIs(t, err, ErrLost)

	kv.m = now // it was a mistake of the operator's
	require.NoError(t, other.Verify(ctx, [][]byte{vouched}))
	_, err = other.Load(ctx, []Node{lost})
	require.NoError(t, err)
}

// TestWhatIsReadIsVouchedFor: a decision stands on what was read, too.
func TestWhatIsReadIsVouchedFor(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	linked(t, kv, 1)
	reader := NewGraph(kv, "weft.")
	before := maps.Clone(kv.m)
	linkedLater, err := NewResolver(NewGraph(kv, "weft."), 0, Policy{}).Resolve(ctx, []Request{pair(t, 0, 7)})
	require.NoError(t, err)
	got, err := NewResolver(reader, 0, Policy{}).Resolve(ctx, []Request{request("1", identify(t, event.AnonymousID, "a7"))})
	require.NoError(t, err)
	require.Equal(t, linkedLater[0].Profile, got[0].Profile)
	kv.m = before
	require.ErrorIs(t, NewGraph(kv, "weft.").Verify(ctx, [][]byte{reader.Vouch()}), ErrLost)
}

func TestVouchIsReadBack(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	g, _ := linked(t, kv, 300)
	text := g.Vouch()
	require.Same(t, &text[0], &g.Vouch()[0], "made once while nothing changes")
	other := NewGraph(kv, "weft.")
	require.NoError(t, other.Verify(ctx, [][]byte{text}))
	require.Equal(t, text, other.Vouch())
	require.Equal(t, g.witness.known(), other.witness.known())

	require.ErrorIs(t, other.Verify(ctx, [][]byte{{vouchVersion + 1}}), ErrNewerVersion)
	require.ErrorIs(t, other.Verify(ctx, [][]byte{text[:len(text)-1]}), ErrCorrupt)
	kv.m[g.ledgers[3]] = "x"
	require.ErrorIs(t, other.Verify(ctx, nil), ErrCorrupt)
	_, err := other.Load(ctx, []Node{{15: 3}})
	require.ErrorIs(t, err, ErrCorrupt)
	kv.m[g.ledgers[3]] = "9/1/9"
	kv.fail = context.DeadlineExceeded
	require.ErrorIs(t, other.Verify(ctx, nil), kv.fail)
}

// TestNoFalseAlarm: resolvers of several processes, with several batches at once in each, compare all the time.
func TestNoFalseAlarm(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	var mu sync.Mutex
	vouched := make([][]byte, 6)
	var all sync.WaitGroup
	for process := range 3 {
		g := NewGraph(kv, "weft.")
		r := NewResolver(g, 10, Policy{})
		for part := range 2 {
			all.Go(func() {
				for i := range 60 {
					if _, err := r.Resolve(ctx, []Request{pair(t, i%7, i), pair(t, i%5, part), pair(t, process, i)}); err != nil {
						t.Error(err)
					}
					mu.Lock()
					vouched[2*process+part] = g.Vouch()
					said := append([][]byte(nil), vouched...)
					mu.Unlock()
					if err := g.Verify(ctx, said); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
}
