package identity

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

func decoded(t testing.TB, body string, m event.Meta) *event.Event {
	t.Helper()
	e, err := event.Decode([]byte(body), m)
	require.NoError(t, err)
	return e
}

func TestExtractIsInNodeOrder(t *testing.T) {
	r := newTestRules(t, Options{})
	ids, ignored := r.Extract(decoded(t, `{"type":"identify","anonymousId":"a1","userId":"u1","traits":{"email":" Jane@Example.com","phone":"null"},
		"context":{"externalIds":[{"type":"email","id":"jane@example.com"},{"type":"Event","id":"x"}]}}`, event.Meta{}))
	require.Len(t, ids, 3)
	for i, want := range []Identifier{{Type: event.UserID, Value: "u1"}, {Type: event.Email, Value: "jane@example.com"}, {Type: event.AnonymousID, Value: "a1"}} {
		require.Equal(t, want.Type, ids[i].Type)
		require.Equal(t, want.Value, ids[i].Value)
		require.Equal(t, want.Type, r.TypeOf(ids[i].Node).Name)
	}
	require.Equal(t, []IgnoredIdentifier{{event.Phone, "null", IgnoredBlocked}, {"Event", "x", IgnoredType}}, ignored)
}

func TestTypeOfIsNeverNil(t *testing.T) {
	r := newTestRules(t, Options{})
	for rank := range 256 {
		require.NotNil(t, r.TypeOf(Node{byte(rank)}), "rank %#x", rank)
	}
	require.Equal(t, Limit{Values: 5}, r.TypeOf(Node{rankOther}).Limit, "types that are not configured share one")
	require.Equal(t, Limit{Values: 1}, r.TypeOf(Node{0x10}).Limit)
	require.Less(t, r.TypeOf(Node{0x10}).Priority, r.TypeOf(Node{0x20}).Priority)
	require.Less(t, r.TypeOf(Node{0xe0}).Priority, r.TypeOf(Node{rankOther}).Priority)
}
