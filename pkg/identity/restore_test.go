package identity

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// TestRestoreOfALinkWithoutThoseBelow: a device was linked to an address, the address to a user; only the latter link
// was published. Its merge can be published again, and the device, with what it meets first, comes back into the component.
func TestRestoreOfALinkWithoutThoseBelow(t *testing.T) {
	ctx, kv := t.Context(), &mapKV{m: map[string]string{}}
	g := NewGraph(kv, "weft.")
	user, mail := identify(t, event.UserID, "u"), identify(t, event.Email, "e@x.pl")
	anon, other := identify(t, event.AnonymousID, "a"), identify(t, event.AnonymousID, "b")
	rs := NewRestore(g, func(key string, value []byte) error { kv.m[key] = string(value); return nil })
	link := Merge{
		Loser: mail.Node.String(), Winner: user.Node.String(), Members: []string{mail.Node.String(), anon.Node.String()}, Version: 3,
		Cause:    request("1").Cause,
		Evidence: []Evidence{{Type: event.UserID, Value: "u", Node: user.Node.String()}, {Type: event.Email, Value: "e@x.pl", Node: mail.Node.String()}},
	}
	require.NoError(t, rs.Link(&link, false))
	linked, err := rs.Roots(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, linked)

	r := NewResolver(g, 100, Policy{})
	got, err := r.Resolve(ctx, []Request{request("2", mail)})
	require.NoError(t, err)
	require.Len(t, got[0].Merges, 1)
	text, err := json.Marshal(got[0].Merges[0])
	require.NoError(t, err)
	again, err := ParseMerge(text)
	require.NoError(t, err)
	require.Equal(t, link.Members, again.Members)

	for _, ids := range [][]Identifier{{anon, other}, {anon, mail}} {
		_, err = r.Resolve(ctx, []Request{request("3", ids...)})
		require.NoError(t, err)
	}
	members, err := Members(ctx, g, other.Node)
	require.NoError(t, err)
	require.ElementsMatch(t, []Node{user.Node, mail.Node, anon.Node, other.Node}, members)
}
