package identity

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
)

// testKey is a key for tests only: its nodes are written down below.
func testKey() []byte { return []byte("0123456789abcdef0123456789abcdef") }

func newTestRules(t testing.TB, opt Options) *Rules {
	t.Helper()
	r, err := NewRules(testKey(), opt)
	require.NoError(t, err)
	return r
}

func TestNormalise(t *testing.T) {
	for _, c := range []struct {
		region, typ, in, want string
	}{
		{"", event.Email, "  Jane.Doe@Example.COM\n", "jane.doe@example.com"},
		{"", event.Email, "ŻÓŁĆ@przykład.pl", "żółć@przykład.pl"},
		{"", event.UserID, " AbC-1 ", "AbC-1"},
		{"", event.AnonymousID, "aAa", "aAa"},
		{"", "Loyalty_ID", " L1 ", "L1"},
		{"", event.Phone, "+48 601 234 567", "+48601234567"},
		{"", event.Phone, "601 234 567", "601 234 567"}, // no region: as it stands
		{"PL", event.Phone, "601 234 567", "+48601234567"},
		{"pl", event.Phone, "0048601234567", "+48601234567"},
		{"PL", event.Phone, "+1 (650) 253-0000", "+16502530000"},
		{"PL", event.Phone, "22 123 45 67 ext. 8", "+48221234567;ext=8"},
		{"", event.UserID, "a\xffb", "a\uFFFDb"},
	} {
		id, why := newTestRules(t, Options{DefaultRegion: c.region}).Identify(event.Identifier{Type: c.typ, Value: c.in})
		require.Empty(t, why, "%q", c.in)
		require.Equal(t, c.want, id.Value, "%q", c.in)
		require.Equal(t, strings.ToLower(c.typ), id.Type)
	}
}

func TestIgnored(t *testing.T) {
	r := newTestRules(t, Options{DefaultRegion: "PL", Blocked: []string{" Test@Shop.example "}})
	for want, values := range map[Ignored][]string{
		IgnoredBlank: {"", "  ", "\t\r\n", "\u00a0"},
		IgnoredBlocked: {"null", "NULL", " undefined ", "None", "anonymous", "0", "000", "-1", "NaN", "[object Object]",
			"00000000-0000-0000-0000-000000000000", "-", "--", "test@shop.example", "(not set)", "n/a", "true"},
		IgnoredTooLong: {strings.Repeat("x", MaxValueBytes+1), strings.Repeat("x", 1<<20)},
	} {
		for _, v := range values {
			for _, typ := range []string{event.UserID, event.Email, event.Phone, event.AnonymousID, "device_id"} {
				_, why := r.Identify(event.Identifier{Type: typ, Value: v})
				require.Equal(t, want, why, "%s %.40q", typ, v)
				_, ok := r.Node(event.Identifier{Type: typ, Value: v})
				require.False(t, ok)
			}
		}
	}
	for _, typ := range []string{"", " ", "event", "Event ", "a b", "ü", strings.Repeat("t", maxTypeBytes+1), "a/b", "a\x00"} {
		_, why := r.Identify(event.Identifier{Type: typ, Value: "v"})
		require.Equal(t, IgnoredType, why, "%q", typ)
	}
	for _, v := range []string{"1", "01", "10", "a", "00000000-0000-0000-0000-000000000001", "anonymous@example.com"} {
		_, ok := r.Node(event.Identifier{Type: event.UserID, Value: v})
		require.True(t, ok, "%q", v)
	}
}

func TestNewRulesRefuses(t *testing.T) {
	_, err := NewRules(make([]byte, 16), Options{})
	require.ErrorContains(t, err, "16 bytes")
	_, err = NewRules(testKey(), Options{DefaultRegion: "Poland"})
	require.ErrorContains(t, err, "Poland")
}

// Nodes must never change: these stand for every id that was ever handed out.
func TestNodesAreFixed(t *testing.T) {
	r := newTestRules(t, Options{})
	var got []string
	for _, id := range []event.Identifier{
		{Type: event.UserID, Value: "u1"}, {Type: event.Email, Value: "Jane@Example.com"}, {Type: event.Phone, Value: "+48601234567"},
		{Type: "device_id", Value: "d1"}, {Type: "loyalty_id", Value: "l1"}, {Type: event.AnonymousID, Value: "a1"},
	} {
		n, ok := r.Node(id)
		require.True(t, ok)
		got = append(got, n.String())
	}
	got = append(got, r.EventIdentifier("shop", "m1").Node.String())
	require.Equal(t, fixedNodes(), got)
	require.True(t, slices.IsSorted(got), "types are ranked in this order")
	require.Equal(t, "b50dc36bb3c55941a873d45eff0effe8", Fingerprint(testKey()))
}

func TestNodeOrderAndText(t *testing.T) {
	types := []string{event.UserID, event.Email, event.Phone, "crm_id", "loyalty_id", "zzz", event.AnonymousID}
	r := newTestRules(t, Options{})
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(types)-1).Draw(t, "type")
		j := rapid.IntRange(0, len(types)-1).Draw(t, "other type")
		a, ok := r.Node(drawIdentifier(t, types[i]))
		require.True(t, ok)
		b, ok := r.Node(drawIdentifier(t, types[j]))
		require.True(t, ok)
		if i != j {
			require.Equal(t, i < j, a.Before(b), "%s %s", types[i], types[j])
		}
		require.Equal(t, a.Before(b), a.String() < b.String())
		require.Equal(t, a.Compare(b) < 0, a.Before(b))
		back, err := ParseNode(a.String())
		require.NoError(t, err)
		require.Equal(t, a, back)
		u, err := uuid.Parse(a.String())
		require.NoError(t, err)
		require.Equal(t, uuid.Version(8), u.Version())
		require.Equal(t, uuid.RFC4122, u.Variant())
		event := r.EventIdentifier("s", rapid.String().Draw(t, "message id"))
		require.True(t, a.Before(event.Node))
	})
}

// drawIdentifier is an identifier that counts.
func drawIdentifier(t *rapid.T, typ string) event.Identifier {
	value := rapid.StringMatching(`[a-z0-9]{1,12}y`)
	switch typ {
	case event.Email:
		value = rapid.StringMatching(`[A-Za-z0-9]{1,12}y@[a-z]{1,9}\.pl`)
	case event.Phone:
		value = rapid.StringMatching(`\+4860[1-9]23[0-9]{2}[1-9]1`)
	}
	return event.Identifier{Type: typ, Value: value.Draw(t, typ)}
}

func TestDifferentKeysDifferentNodes(t *testing.T) {
	other, err := NewRules([]byte(strings.Repeat("k", KeyBytes)), Options{})
	require.NoError(t, err)
	id := event.Identifier{Type: event.UserID, Value: "u1"}
	a, _ := newTestRules(t, Options{}).Node(id)
	b, _ := other.Node(id)
	require.NotEqual(t, a, b)
	require.NotEqual(t, Fingerprint(testKey()), Fingerprint([]byte(strings.Repeat("k", KeyBytes))))
}

// Length prefixes: no two of (type, value) hash the same bytes.
func TestTypeAndValueDoNotRunTogether(t *testing.T) {
	r := newTestRules(t, Options{})
	a := r.node(r.other, "ab", "c", "")
	b := r.node(r.other, "a", "bc", "")
	require.NotEqual(t, a[4:], b[4:])
}

func TestNormaliseIsIdempotent(t *testing.T) {
	r := newTestRules(t, Options{DefaultRegion: "PL"})
	rapid.Check(t, func(t *rapid.T) {
		typ := rapid.SampledFrom([]string{event.UserID, event.Email, event.Phone, "x"}).Draw(t, "type")
		value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[+0-9 ()-]{0,20}`)).Draw(t, "value")
		id, why := r.Identify(event.Identifier{Type: typ, Value: value})
		if why != "" {
			require.Zero(t, id)
			return
		}
		require.True(t, utf8.ValidString(id.Value))
		require.NotEmpty(t, id.Value)
		again, why := r.Identify(event.Identifier{Type: id.Type, Value: id.Value})
		require.Empty(t, why)
		require.Equal(t, id, again)
	})
}

func TestParseNodeRefuses(t *testing.T) {
	for _, s := range []string{
		"", "x", "10000000-0000-8000-8000-00000000000", "10000000-0000-8000-8000-0000000000000",
		"10000000-0000-4000-8000-000000000000", "10000000-0000-8000-0000-000000000000",
		"1000000A-0000-8000-8000-000000000000", "10000000x0000-8000-8000-000000000000", "1000000g-0000-8000-8000-000000000000",
	} {
		_, err := ParseNode(s)
		require.Error(t, err, s)
	}
}

func fixedNodes() []string {
	return []string{
		"105c6262-2af3-88a3-8c94-0dcb0e1ccb21",
		"2017da94-a4e6-8693-b785-6e27f7cde106",
		"3090c3bd-865c-80c8-97bd-df66ee82521a",
		"40646576-d488-8c28-9560-432fb28fffd4",
		"406c6f79-9a0c-8f8e-a51d-de29162fd8ab",
		"e017b731-3dde-8d2c-83c9-7b05b35540a4",
		"f015ec04-74cf-895f-b941-e8bd1e403047",
	}
}
