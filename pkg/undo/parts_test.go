package undo

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// people makes ties of events, each the identifiers that counted in it, and names nodes by TYPE:VALUE.
func people(t *testing.T, events ...[]string) (*Ties, func(name string) string, func(nodes [][]string) [][]string) {
	t.Helper()
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{})
	require.NoError(t, err)
	names, ids := map[string]string{}, map[string]identity.Identifier{}
	node := func(name string) string {
		if _, ok := ids[name]; !ok {
			typ, value := name[:len(name)-2], name[len(name)-1:]
			if typ == event.Email {
				value += "@example.com"
			}
			id, ignored := rules.IdentifyIn("main", event.Identifier{Type: typ, Value: value})
			require.Empty(t, ignored, name)
			ids[name], names[id.Node.String()] = id, name
		}
		return ids[name].Node.String()
	}
	var members []string
	for _, e := range events {
		for _, n := range e {
			if node(n); len(members) < len(ids) {
				members = append(members, node(n))
			}
		}
	}
	ties := NewTies(members, rules)
	for i, e := range events {
		x := Event{Event: &event.Event{}}
		x.Event.MessageID = fmt.Sprint("m", i)
		for _, n := range e {
			x.Nodes = append(x.Nodes, ids[n])
		}
		ties.Add(&x)
	}
	return ties, node, func(nodes [][]string) [][]string {
		out := make([][]string, len(nodes))
		for i, part := range nodes {
			for _, n := range part {
				out[i] = append(out[i], names[n])
			}
		}
		return out
	}
}

// What hung together through an identifier alone falls apart with it; what is tied otherwise stays.
func TestTakeOut(t *testing.T) {
	ties, node, named := people(t, []string{"user_id:u", "anonymous_id:x"}, []string{"email:e", "anonymous_id:x"}, []string{"email:e", "anonymous_id:y"})
	parts, err := ties.TakeOut(node("anonymous_id:x"))
	require.NoError(t, err)
	require.Len(t, parts, 3)
	require.Equal(t, []string{"anonymous_id:x"}, named(parts)[0])
	require.ElementsMatch(t, [][]string{{"user_id:u"}, {"email:e", "anonymous_id:y"}}, named(parts)[1:])

	parts, err = ties.TakeOut(node("anonymous_id:y"))
	require.NoError(t, err)
	require.Len(t, parts, 2, "the others are tied without it")
	_, err = ties.TakeOut("10000000-0000-8000-8000-000000000001")
	require.ErrorIs(t, err, ErrNotMember)
}

// A link is taken back with all records that carry both sides, and said to be one of several if others tie them.
func TestWithout(t *testing.T) {
	ties, node, named := people(t, []string{"user_id:u", "email:a"}, []string{"user_id:u", "anonymous_id:x", "anonymous_id:z"}, []string{"anonymous_id:x", "email:e"})
	parts, _, err := ties.Without(node("user_id:u"), node("anonymous_id:x"))
	require.NoError(t, err)
	require.Len(t, parts, 2)
	require.ElementsMatch(t, []string{"user_id:u", "email:a", "anonymous_id:z"}, named(parts)[0], "who stood in the record goes with the dearer side")
	require.ElementsMatch(t, []string{"anonymous_id:x", "email:e"}, named(parts)[1])

	ties, node, _ = people(t, []string{"user_id:u", "anonymous_id:x"}, []string{"user_id:u", "email:e"}, []string{"email:e", "anonymous_id:x"})
	_, tied, err := ties.Without(node("user_id:u"), node("anonymous_id:x"))
	require.ErrorIs(t, err, ErrTied)
	require.Len(t, tied, 2)
	require.Equal(t, []string{node("user_id:u"), node("email:e"), node("anonymous_id:x")}, []string{tied[0].A, tied[0].B, tied[1].B})
	require.Equal(t, "m1", tied[0].Example)

	ties.Link(node("user_id:u"), node("email:e"), "m1")
	require.Equal(t, 1, tied[0].Events, "a link of a stored event is no other evidence")
}
