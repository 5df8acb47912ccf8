package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/packed"
)

// golden is a state as a binary of version 1 has written it, and what that binary told of it.
type golden struct {
	State    json.RawMessage `json:"state"`
	Document json.RawMessage `json:"document"`
	Orders   json.RawMessage `json:"orders"`
	Older    int64           `json:"older"`
}

func goldens(t testing.TB) map[string]golden {
	t.Helper()
	files, err := filepath.Glob("testdata/state-v1-*.json")
	require.NoError(t, err)
	require.Len(t, files, 6)
	all := map[string]golden{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		var g golden
		require.NoError(t, json.Unmarshal(b, &g))
		all[f] = g
	}
	return all
}

func TestAStateOfVersion1TellsWhatItTold(t *testing.T) {
	for name, g := range goldens(t) {
		var old, back State
		require.NoError(t, old.UnmarshalBinary(g.State), name)
		require.NoError(t, back.UnmarshalBinary([]byte(stored(t, &old))), name)
		if len(g.State) > 2 {
			require.Less(t, len(stored(t, &old)), len(g.State), name)
		}
		for _, s := range []*State{&old, &back} {
			b, err := s.Encode("golden")
			require.NoError(t, err)
			require.JSONEq(t, string(g.Document), withoutCapped(t, b), name)
			require.JSONEq(t, string(g.Document), withoutCapped(t, []byte(text(t, s.Document("golden")))), name)
			list, older := s.Orders()
			require.JSONEq(t, string(g.Orders), text(t, list), name)
			require.Equal(t, g.Older, older, name)
		}
		require.Equal(t, stored(t, &old), stored(t, &back), name)
	}
}

// withoutCapped takes out what version 1 did not tell.
func withoutCapped(t *testing.T, b []byte) string {
	d := json.NewDecoder(bytes.NewReader(b)) // numbers of traits have more digits than a double
	d.UseNumber()
	var exact map[string]any
	require.NoError(t, d.Decode(&exact))
	delete(exact, "capped")
	return text(t, exact)
}

func TestANewerStateIsRefused(t *testing.T) {
	var s State
	require.ErrorIs(t, s.UnmarshalBinary([]byte{StateVersion + 1, 0}), packed.ErrNewer)
	require.NoError(t, s.UnmarshalBinary(nil), "nothing is nobody")
	require.Zero(t, s.Events)
	require.Error(t, s.UnmarshalBinary([]byte(`{"b":`)))
	require.ErrorContains(t, s.UnmarshalBinary([]byte(`{"b":{"main":{"x":{"EUR":{"n":1,"a":"1e60"}}}}}`)), "more than there can be")
}

func TestACutStateIsRefused(t *testing.T) {
	for name, g := range goldens(t) {
		var s State
		require.NoError(t, s.UnmarshalBinary(g.State))
		whole := []byte(stored(t, &s))
		for n := 1; n < len(whole); n++ {
			require.Error(t, s.UnmarshalBinary(whole[:n]), "%s cut to %d of %d bytes", name, n, len(whole))
		}
		require.ErrorIs(t, s.UnmarshalBinary(append(whole, 0)), packed.ErrCorrupt)
	}
}

// A state that is stored and read after every event is the same as one that never left memory.
func TestStoringChangesNothing(t *testing.T) {
	rules := &Rules{BrandTraits: []string{"tier"}}
	rapid.Check(t, func(t *rapid.T) {
		var kept, again State
		for i := range rapid.IntRange(0, 20).Draw(t, "n") {
			e := genEvent(t, i)
			kept.Apply(e, rules)
			again.Apply(e, rules)
			b := stored(t, &again)
			again = State{}
			require.NoError(t, again.UnmarshalBinary([]byte(b)))
			require.Equal(t, stored(t, &kept), stored(t, &again))
		}
		require.Equal(t, text(t, kept.Document("p")), text(t, again.Document("p")))
	})
}

func TestAnOrdinaryEventDoesNotReadTheOrders(t *testing.T) {
	s := fold(t, &Rules{}, ev(t, "a", 1, track("Order Completed", `{"order_id":"o","total":1}`)))
	var back State
	require.NoError(t, back.UnmarshalBinary([]byte(stored(t, s))))
	require.Empty(t, back.Apply(ev(t, "b", 2, `"type":"page","name":"Home"`), &Rules{}))
	back.Settle("p", &Audiences{}, base)
	_, err := back.Encode("p")
	require.NoError(t, err)
	require.Nil(t, back.brand("main").orders.list)
	require.Equal(t, 1, back.brand("main").orders.len())
	require.Empty(t, back.Apply(ev(t, "c", 3, track("Order Cancelled", `{"order_id":"o"}`)), &Rules{}))
	require.Zero(t, back.Document("p").Orders)
}

// FuzzUnmarshalBinary: garbage is refused or read, and what was read can be stored, told and merged.
func FuzzUnmarshalBinary(f *testing.F) {
	for _, g := range goldens(f) {
		var s State
		require.NoError(f, s.UnmarshalBinary(g.State))
		f.Add([]byte(stored(f, &s)))
		f.Add([]byte(g.State))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again State
		if s.UnmarshalBinary(b) != nil {
			return
		}
		form := stored(t, &s)
		if err := again.UnmarshalBinary([]byte(form)); err != nil || form != stored(t, &again) {
			t.Fatalf("%q is stored as %q and that as %q: %v", b, form, stored(t, &again), err)
		}
		s.Orders()
		again.Merge(&s)
		if _, err := again.Encode("p"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEveryLimitIsToldAndKept(t *testing.T) {
	big := strings.Repeat("x", 8000)
	var es []*event.Event
	for i := range MaxTraits { // 2.4 MB within their own limits
		es = append(es, ev(t, fmt.Sprint("t", i), i, identify(fmt.Sprintf(`{"trait %d":"%d %s"}`, i, i, big[:7000+i]))))
	}
	s := fold(t, &Rules{}, es...)
	require.Zero(t, s.Capped())
	for i := range 50 {
		require.Empty(t, s.Apply(ev(t, fmt.Sprint("o", i), i, track("Order Completed", fmt.Sprintf(`{"order_id":"o%d","total":1}`, i))), &Rules{}))
	}
	require.Empty(t, s.Apply(ev(t, "c", 60, track("Product Added", `{"product_id":"p","price":1}`)), &Rules{}))
	s.Settle("p", &Audiences{}, base)
	require.LessOrEqual(t, len(stored(t, s)), MaxState)
	require.Equal(t, CappedTraits|CappedCarts, s.Capped())
	require.Empty(t, s.Document("p").OpenCarts, "carts go first")
	require.EqualValues(t, 50, s.Document("p").Orders)
	require.Equal(t, 50, s.brand("main").orders.len(), "orders last")
	_, gone := s.traits.find("trait 299")
	require.False(t, gone, "the longest went")
	_, stays := s.traits.find("trait 0")
	require.True(t, stays)
	before := len(s.traits)
	s.Settle("p", &Audiences{}, base)
	require.Len(t, s.traits, before, "no more than is needed")

	for what, fields := range map[Capped]string{
		CappedTraits: identify(`{"` + strings.Repeat("n", MaxTraitName+1) + `":1}`),
		CappedNames:  "",
	} {
		var s State
		if what == CappedNames {
			for i := range MaxNames + 1 {
				require.Zero(t, s.Capped())
				require.Empty(t, s.Apply(ev(t, fmt.Sprint("n", i), i, track(fmt.Sprint("Name ", i), `{}`)), &Rules{}))
			}
		} else {
			require.Empty(t, s.Apply(ev(t, "a", 1, fields), &Rules{}))
		}
		require.Equal(t, what, s.Capped())
		b, err := s.Encode("p")
		require.NoError(t, err)
		require.Contains(t, string(b), fmt.Sprintf(`"capped":[%q]`, what.Names()[0]), "visible in the profile")
		var back, merged State
		require.NoError(t, back.UnmarshalBinary([]byte(stored(t, &s))))
		require.Equal(t, what, back.Capped())
		merged.Merge(&back)
		require.Equal(t, what, merged.Capped())
	}
}

func TestOrdersAndCurrenciesBeyondTheirLimitsGoIntoTotals(t *testing.T) {
	const more = 5
	var s State
	for i := range MaxOrders + MaxCurrencies + more {
		require.Empty(t, s.Apply(ev(t, fmt.Sprint("m", i), i, track("Order Completed", fmt.Sprintf(`{"order_id":"o%d","total":2,"currency":"C%d"}`, i, i))), &Rules{}))
	}
	require.Equal(t, CappedOrders|CappedCurrencies, s.Capped())
	require.Len(t, s.brand("main").orders.older, MaxCurrencies+1, "and those of which the amount is left out")
	require.EqualValues(t, MaxOrders+MaxCurrencies+more, s.Document("p").Orders, "none is lost")
	var back State
	require.NoError(t, back.UnmarshalBinary([]byte(stored(t, &s))))
	require.Equal(t, CappedOrders|CappedCurrencies, back.Capped())
}
