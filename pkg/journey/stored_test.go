package journey_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/packed"
)

// golden is a state as a binary of version 1 has written it, and what that binary decided from it.
type golden struct {
	State    json.RawMessage   `json:"state"`
	Due      int64             `json:"due"`
	Fired    time.Time         `json:"fired"`
	Requests []journey.Request `json:"requests"`
	Receipts []journey.Receipt `json:"receipts"`
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

func TestAStateOfVersion1DecidesAsItDid(t *testing.T) {
	d := decider(parse(t, journeyFile))
	for name, g := range goldens(t) {
		var old, back journey.State
		require.NoError(t, old.UnmarshalBinary(g.State), name)
		require.NoError(t, back.UnmarshalBinary([]byte(text(t, &old))), name)
		require.Equal(t, text(t, &old), text(t, &back), name)
		require.Less(t, len(text(t, &old)), len(g.State), name)
		for _, s := range []*journey.State{&old, &back} {
			due, _ := s.Due()
			require.Equal(t, g.Due, max(0, due.UnixMilli()), name)
			r := d.Fire("golden", s, g.Fired)
			want, err := json.Marshal([]any{g.Requests, g.Receipts})
			require.NoError(t, err)
			got, err := json.Marshal([]any{r.Requests, r.Receipts})
			require.NoError(t, err)
			require.JSONEq(t, string(want), string(got), name)
		}
	}
}

func TestANewerStateIsRefused(t *testing.T) {
	var s journey.State
	require.ErrorIs(t, s.UnmarshalBinary([]byte{journey.StateVersion + 2, 0}), packed.ErrNewer)
	_, err := json.Marshal(&s)
	require.Error(t, err, "as JSON it would lack its carts")
	require.NoError(t, s.UnmarshalBinary(nil), "nothing is nobody")
	require.Error(t, s.UnmarshalBinary([]byte(`{"b":`)))
}

// FuzzUnmarshalBinary: garbage is refused or read, and what was read can be stored, decided and merged.
func FuzzUnmarshalBinary(f *testing.F) {
	d := decider(parse(f, journeyFile))
	for _, g := range goldens(f) {
		var s journey.State
		require.NoError(f, s.UnmarshalBinary(g.State))
		f.Add([]byte(text(f, &s)))
		f.Add([]byte(g.State))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again journey.State
		if s.UnmarshalBinary(b) != nil {
			return
		}
		stored := text(t, &s)
		if err := again.UnmarshalBinary([]byte(stored)); err != nil || !bytes.Equal([]byte(stored), []byte(text(t, &again))) {
			t.Fatalf("%q is stored as %q and that as %q: %v", b, stored, text(t, &again), err)
		}
		s.Due()
		d.Merge("p", &again, s, noon)
	})
}

func TestAStateStaysWithinItsLimitAndSaysSo(t *testing.T) {
	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	lines := make([]string, 150)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"product_id":"p%d","price":1,"url":"https://x/%d%s"}`, i, i, strings.Repeat("u", 1900))
	}
	for i := range 6 {
		h.now = h.now.Add(time.Second)
		h.send(h.now, fmt.Sprintf(`"type":"track","event":"Cart Viewed","properties":{"cart_id":"c%d","products":[%s]}`, i, strings.Join(lines, ",")))
		require.LessOrEqual(t, len(text(t, &h.s)), journey.MaxState)
	}
	require.Equal(t, 6, h.armed)
	require.Equal(t, 5, h.capped, "a cart of 285 kB fits once")
	require.Len(t, h.receipts, 5, "each cart that went has its receipt")
	for i, r := range h.receipts {
		require.Equal(t, journey.ReasonTooManyCarts, r.Reason)
		require.Equal(t, fmt.Sprint("c", i), r.Cart.ID, "the oldest first")
	}
	require.True(t, h.s.Brands["main"].Carts.Forgotten)

	other := newShop(t, h.d)
	other.now = h.now.Add(time.Second)
	other.send(other.now, fmt.Sprintf(`"type":"track","event":"Cart Viewed","properties":{"cart_id":"other","products":[%s]}`, strings.Join(lines, ",")))
	r := h.d.Merge("p1", &h.s, other.s, other.now)
	require.Equal(t, 1, r.Capped)
	require.LessOrEqual(t, len(text(t, &h.s)), journey.MaxState)
}
