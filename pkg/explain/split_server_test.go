//go:build integration

package explain

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// split has the person of the first identifier become parts, minutes after the start, and tells each of its events again to
// the part of its first identifier.
func (c *town) split(minutes int, command string, generation uint64, parts ...[]string) {
	c.t.Helper()
	at := c.start.Add(time.Duration(minutes) * time.Minute)
	old := c.lists[c.roots[c.id(parts[0][0]).Node]]
	for i, ids := range parts {
		part := c.rules.Part(command, i, generation)
		members := []identity.Node{part}
		for _, text := range ids {
			n := c.id(text).Node
			require.Contains(c.t, old, n)
			members = append(members, n)
			c.offset++
			o := warehouse.Origin{Topic: "weft.t", Offset: 1000 * c.offset}
			c.identities.Add(&warehouse.Identity{
				Origin: o, Loser: uuid.UUID(n), Winner: uuid.UUID(part), Members: 1, Version: generation << 32, Rule: "split", Cause: command, MessageID: command,
				Time: at, ReceivedAt: at, Actor: "carl", Reason: "a shared telephone",
			})
			c.moves.Add(&warehouse.Move{Origin: o, Node: uuid.UUID(n), Incarnation: uint32(generation), Version: generation << 32, Person: uuid.UUID(part), KnownFrom: at.Add(time.Second)}) //nolint:gosec // small
			c.roots[n] = part
		}
		c.roots[part], c.lists[part] = part, members
	}
}

// tell tells the event of an offset again to a part.
func (c *town) tell(command string, offset uint64, part int) {
	c.t.Helper()
	c.offset++
	c.parts.Add(&warehouse.EventPart{Origin: warehouse.Origin{Topic: "weft.t", Offset: 1000 * c.offset},
		Event: warehouse.Origin{Topic: "weft.events.identified", Partition: 3, Offset: offset}, Person: uuid.UUID(c.rules.Part(command, part, 1)), Command: command, Version: 1 << 20})
}

func TestASplitIsExplained(t *testing.T) {
	c := newTown(t)
	c.migrate()
	c.event(1, "user_id:ann", "phone:+48123456789")
	c.event(2, "user_id:ann", "email:ann@x.example")
	c.event(3, "user_id:bob", "phone:+48123456789") // what ties them
	c.event(4, "user_id:bob", "email:bob@x.example")
	c.event(5, "anonymous_id:a1", "user_id:bob")
	c.flush()
	all, err := c.Show(t.Context(), c.parse("user_id:ann"))
	require.NoError(t, err)
	require.Len(t, all.Identifiers, 6)

	c.split(60, "c1", 1, []string{"user_id:ann", "phone:+48123456789", "email:ann@x.example"}, []string{"user_id:bob", "email:bob@x.example", "anonymous_id:a1"})
	for offset, part := range map[uint64]int{1: 0, 2: 0, 3: 1, 4: 1, 5: 1} {
		c.tell("c1", offset, part)
	}
	c.flush()
	ann, err := c.Show(t.Context(), c.parse("user_id:ann"))
	require.NoError(t, err)
	require.Empty(t, ann.Pending)
	require.Equal(t, c.rules.Part("c1", 0, 1).String(), ann.ID)
	require.Len(t, ann.Identifiers, 4, "and the part's own")
	require.EqualValues(t, 2, ann.Events)
	require.Equal(t, 2, ann.Merges)
	bob, err := c.Show(t.Context(), c.parse("email:bob@x.example"))
	require.NoError(t, err)
	require.Empty(t, bob.Pending)
	require.EqualValues(t, 3, bob.Events)
	require.Len(t, bob.Splits, 1)
	known := c.start.Add(time.Hour + time.Second)
	require.Equal(t, Split{Command: "c1", Time: c.start.Add(time.Hour), KnownFrom: &known, Part: bob.ID, Members: 3, Said: Said{Actor: "carl", Reason: "a shared telephone"}}, bob.Splits[0])

	apart, err := c.Why(t.Context(), c.parse("user_id:ann"), c.parse("user_id:bob"))
	require.NoError(t, err)
	require.False(t, apart.SamePerson)
	require.Equal(t, "c1", apart.Split.Command)
	var out bytes.Buffer
	require.NoError(t, apart.Print(&out))
	require.Contains(t, out.String(), "split at 2026-03-01 11:00:00 by carl: a shared telephone, command c1")
	chain, err := c.Why(t.Context(), c.parse("anonymous_id:a1"), c.parse("email:bob@x.example"))
	require.NoError(t, err)
	require.Len(t, chain.Links, 2, "what ties the members of a part is what tied them before")
	require.Equal(t, "m5 m4", chain.Links[0].Event.MessageID+" "+chain.Links[1].Event.MessageID)

	past, err := c.History(t.Context(), c.parse("user_id:bob"))
	require.NoError(t, err)
	require.Len(t, past.Merges, 2, "the link that was cut made another person")
	out.Reset()
	require.NoError(t, past.Print(&out))
	require.Contains(t, out.String(), "2026-03-01 11:00:00  split off as "+bob.ID+" (3 identifiers) by carl: a shared telephone, command c1")

	// A part whose members nothing ties but the split.
	c.split(90, "c2", 2, []string{"anonymous_id:a1", "email:bob@x.example"}, []string{"user_id:bob"})
	c.flush()
	chain, err = c.Why(t.Context(), c.parse("anonymous_id:a1"), c.parse("email:bob@x.example"))
	require.NoError(t, err)
	require.Empty(t, chain.Pending)
	require.Len(t, chain.Links, 2)
	require.Equal(t, "split carl", chain.Links[0].Rule+" "+chain.Links[0].Actor)
	out.Reset()
	require.NoError(t, chain.Print(&out))
	require.Contains(t, out.String(), "split: carl: a shared telephone")
}

// What was set aside of a person's events is told with why.
func TestShowSaysWhatWasSetAside(t *testing.T) {
	c := newTown(t)
	c.migrate()
	c.event(1, "user_id:ann", "email:ann@x.example")
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i := range 3 {
		c.offset++
		c.events.Add(&warehouse.Event{
			Origin: warehouse.Origin{Topic: "weft.events.identified", Partition: 3, Offset: c.offset}, Brand: "main", Source: "till", Type: "identify",
			Profile: uuid.UUID(c.roots[c.id("user_id:ann").Node]), MessageID: fmt.Sprint("s", i), Time: now, ReceivedAt: now.Add(time.Duration(i) * time.Second),
			SetAside: []string{"phone:governor", "email:limit"}[:1+i%2],
		})
	}
	c.flush()
	p, err := c.Show(t.Context(), c.parse("user_id:ann"))
	require.NoError(t, err)
	require.Equal(t, []SetAside{
		{Type: "phone", Reason: "governor", Events: 3, Last: now.Add(2 * time.Second), Stored: fmt.Sprintf("weft.events.identified:3:%d", c.offset), Source: "till"},
		{Type: "email", Reason: "limit", Events: 1, Last: now.Add(time.Second), Stored: fmt.Sprintf("weft.events.identified:3:%d", c.offset-1), Source: "till"},
	}, p.SetAside)
	var out bytes.Buffer
	require.NoError(t, p.Print(&out))
	require.Regexp(t, `phone +governor +3 `, out.String())
}
