package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
)

func TestSuspendedLinksAreChosenByIDOrAllThatAreOpen(t *testing.T) {
	all := func() []explain.SuspendedLink {
		return []explain.SuspendedLink{{ID: "a", State: explain.StateOpen}, {ID: "b", State: explain.StateRejected}, {ID: "c", State: explain.StateOpen}}
	}
	open, err := chosen(all(), nil)
	require.NoError(t, err)
	require.Len(t, open, 2)
	named, err := chosen(all(), []string{"b"})
	require.NoError(t, err)
	require.Equal(t, all()[1:2], named)
	_, err = chosen(all(), []string{"b", "x"})
	require.ErrorContains(t, err, "no link with the id x")

	c := answerTo(identity.CommandReject, explain.SuspendedLink{Between: [2]explain.Identifier{{ID: "n1", Type: "email", Value: "a@x.example"}, {ID: "n2"}}})
	require.Equal(t, identity.Command{Kind: identity.CommandReject, Identifiers: []identity.Evidence{{Type: "email", Value: "a@x.example", Node: "n1"}, {Node: "n2"}}}, c)
}
