package stitcher

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
)

// A lost register is made again of the commands that were carried out, in their order, in whatever order they are read.
func TestTheRegisterIsMadeAgain(t *testing.T) {
	e := newEnv(t)
	ann, late, bob, carl := e.node(event.UserID, "ann"), e.node(event.Email, "ann@example.org"), e.node(event.UserID, "bob"), e.node(event.UserID, "carl")
	var f refill
	say := func(kind topic.Kind, seq int64, value map[string]any) {
		b, err := json.Marshal(value)
		require.NoError(t, err)
		r := keyed.Record{Record: stream.Record{Value: b}, Kind: kind}
		r.Position.Seq = seq
		f.see(&r)
	}
	command := func(id string, seq int64, kind identity.CommandKind, outcome string, members ...identity.Node) {
		say(topic.KindCommand, seq, map[string]any{"id": id, "kind": kind, "members": texts(members), "outcome": outcome})
	}
	command("3", 3, identity.CommandUnsuppress, "done", bob)
	command("1", 1, identity.CommandErase, "done", ann)
	command("2", 2, identity.CommandErase, "done", bob)
	command("4", 4, identity.CommandErase, "refused", carl)
	command("5", 5, identity.CommandSplit, "done", carl)
	say(topic.KindSplit, 1, map[string]any{"command": "1", "node": late.String()}) // it came while the erasure ran
	f.see(&keyed.Record{Kind: topic.KindCommand})                                  // a tombstone
	register := suppression.NewRegister(e.store, e.topics.Prefix)
	for range 2 {
		require.NoError(t, f.apply(t.Context(), register))
	}
	on, err := register.All(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[identity.Node]struct{}{ann: {}, late: {}}, on)
}

func texts(nodes []identity.Node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.String())
	}
	return out
}
