package suppression

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
)

const patience = time.Minute

func newStore(t *testing.T) (*miniredis.Miniredis, *store.Client) {
	t.Helper()
	r := miniredis.RunT(t)
	st, err := store.New(config.Redis{Addresses: []string{r.Addr()}, AllowNonDurable: true}, zap.NewNop(), store.WithPatience(patience))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return r, st
}

func testRules(t *testing.T) *identity.Rules {
	t.Helper()
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{DefaultRegion: "PL"})
	require.NoError(t, err)
	return rules
}

func loaded(r *identity.Rules) func(context.Context) (*identity.Rules, error) {
	return func(context.Context) (*identity.Rules, error) { return r, nil }
}

func node(t *testing.T, r *identity.Rules, typ, value string) identity.Node {
	t.Helper()
	n, ok := r.Node(event.Identifier{Type: typ, Value: value})
	require.True(t, ok)
	return n
}

// Whoever follows sees what was added and taken off, whatever the order and the size, also where Redis is lost in between and
// the register is made again: nobody comes back by that.
func TestTheRegisterIsFollowed(t *testing.T) {
	r, st := newStore(t)
	rules := testRules(t)
	rapid.Check(t, func(t *rapid.T) {
		r.FlushAll()
		ctx := context.Background()
		register, follower := NewRegister(st, "t."), NewErased(st, "t.", loaded(rules))
		want := map[identity.Node]struct{}{}
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			var nodes []identity.Node
			for range rapid.SampledFrom([]int{1, 2, 7, registerChunk + 1}).Draw(t, "nodes") {
				nodes = append(nodes, identity.Node{0: byte(rapid.IntRange(0, 3).Draw(t, "a")), 15: byte(rapid.IntRange(0, 3).Draw(t, "b"))})
			}
			on := rapid.Bool().Draw(t, "on")
			change := register.Remove
			if on {
				change = register.Add
			}
			for range rapid.IntRange(1, 2).Draw(t, "times") { // a command may be carried out again
				if err := change(ctx, nodes); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range nodes {
				if delete(want, n); on {
					want[n] = struct{}{}
				}
			}
			if rapid.Bool().Draw(t, "look") {
				require.NoError(t, follower.Refresh(ctx))
				require.Equal(t, len(want), follower.Len())
				for n := range want {
					require.True(t, follower.HasNode(n))
				}
			}
		}
		all, err := register.All(ctx)
		require.NoError(t, err)
		require.Equal(t, want, all)
		require.NoError(t, follower.Refresh(ctx))
		require.Equal(t, len(want), follower.Len())
		r.FlushAll()
		require.NoError(t, follower.Refresh(ctx))
		require.Equal(t, len(want), follower.Len(), "a lost Redis takes nobody off")
		require.NoError(t, register.Add(ctx, []identity.Node{{0: 9}}))
		require.NoError(t, follower.Refresh(ctx))
		require.Equal(t, len(want)+1, follower.Len(), "and the new list is read from its start")
	})
}

func TestErasedPeopleAreRecognised(t *testing.T) {
	_, st := newStore(t)
	rules := testRules(t)
	ctx := t.Context()
	e := NewErased(st, "t.", loaded(rules))
	see := func(brand, body string) bool {
		ev := event.Glimpse([]byte(body), event.Filling{})
		ev.Brand = brand
		return e.Has(ev)
	}
	require.NoError(t, e.Refresh(ctx))
	require.False(t, see("b", `{"type":"track","userId":"u1"}`))
	require.NoError(t, NewRegister(st, "t.").Add(ctx, []identity.Node{
		node(t, rules, "email", "ann@example.org"), node(t, rules, "user_id", "u1"), node(t, rules, "phone", "+48 512 345 678"),
		node(t, rules, "loyalty_id", "77"),
	}))
	require.False(t, see("b", `{"type":"track","userId":"u1"}`), "not read yet")
	require.NoError(t, e.Refresh(ctx))
	for _, on := range []string{
		`{"type":"track","userId":"u1"}`,
		`{"type":"nope","userId":" u1 ","traits":7}`,
		`{"type":"identify","userId":"other","traits":{"email":"ANN@example.org"}}`,
		`{"type":"track","userId":"other","context":{"traits":{"phone":"512 345 678"}}}`,
		`{"type":"track","userId":"other","context":{"externalIds":[{"type":"loyalty_id","id":"77"}]}}`,
		`{"type":"alias","userId":"other","previousId":"u1"}`,
	} {
		require.True(t, see("b", on), on)
	}
	for _, off := range []string{``, `{`, `[]`, `7`, `{"type":"track","userId":"U1"}`, `{"type":"track","userId":"u2","traits":{"email":"bob@example.org"}}`} {
		require.False(t, see("b", off), off)
	}
	require.True(t, e.HasAddress("b", "Ann@Example.org"))
	require.False(t, e.HasAddress("b", "bob@example.org"))
	require.True(t, e.HasProfile(node(t, rules, "user_id", "u1").String()))
	require.False(t, e.HasProfile("nobody"))
	var none *Erased
	require.False(t, none.Has(&event.Event{UserID: "u1"}))
	require.NoError(t, none.Ensure(ctx))
}

// Without the key nobody can be recognised: that is told, and heals when the key is there.
func TestWithoutTheKeyNothingIsReady(t *testing.T) {
	_, st := newStore(t)
	file := filepath.Join(t.TempDir(), "identity.key")
	e := NewErased(st, "t.", RulesOf(config.Identity{KeyFile: file}, st, "t.deployment"))
	ctx := t.Context()
	require.NoError(t, e.Ensure(ctx), "nobody was erased")
	require.NoError(t, NewRegister(st, "t.").Add(ctx, []identity.Node{{1: 1}}))
	require.ErrorContains(t, e.Refresh(ctx), file)
	require.ErrorContains(t, e.Ready(), "identity.key_file")
	_, err := os.Stat(file)
	require.ErrorIs(t, err, os.ErrNotExist, "none is made: it would be another")
	_, err = config.LoadOrCreateSecret(file)
	require.NoError(t, err)
	require.NoError(t, e.Refresh(ctx))
	require.NoError(t, e.Ready())
	require.Equal(t, 1, e.Len())

	other := filepath.Join(t.TempDir(), "other.key")
	_, err = config.LoadOrCreateSecret(other)
	require.NoError(t, err)
	wrong := NewErased(st, "t.", RulesOf(config.Identity{KeyFile: other}, st, "t.deployment"))
	require.ErrorIs(t, wrong.Ensure(ctx), identity.ErrOtherKey)
}

func TestARegisterThatCannotBeReadChangesNothing(t *testing.T) {
	r, st := newStore(t)
	e := NewErased(st, "t.", loaded(testRules(t)))
	ctx := t.Context()
	require.NoError(t, NewRegister(st, "t.").Add(ctx, []identity.Node{{1: 1}}))
	require.NoError(t, e.Refresh(ctx))
	_, err := r.Push("{t.erased}log", string(append([]byte{2, 1}, make([]byte, 16)...)))
	require.NoError(t, err)
	require.ErrorIs(t, e.Refresh(ctx), ErrNewerRegister)
	require.Equal(t, 1, e.Len())
	require.NoError(t, e.Ready(), "what was read stands")
	r.FlushAll()
	_, err = r.Push("{t.erased}log", "\x01short")
	require.NoError(t, err)
	require.ErrorContains(t, e.Refresh(ctx), "is no entry")
	r.SetError("LOADING")
	require.Error(t, e.Refresh(ctx))
	require.Equal(t, 1, e.Len())
}

func TestRunTakesChanges(t *testing.T) {
	_, st := newStore(t)
	e := NewErased(st, "t.", loaded(testRules(t)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx, zaptest.NewLogger(t)) }()
	require.NoError(t, NewRegister(st, "t.").Add(t.Context(), []identity.Node{{1: 1}}))
	require.Eventually(t, func() bool { return e.Len() == 1 }, patience, 10*time.Millisecond)
	require.NoError(t, NewRegister(st, "t.").Remove(t.Context(), []identity.Node{{1: 1}}))
	require.Eventually(t, func() bool { return e.Len() == 0 }, patience, 10*time.Millisecond)
	cancel()
	<-done
	require.False(t, errors.Is(e.Ready(), context.Canceled))
}
