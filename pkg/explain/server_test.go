//go:build integration

package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// town is people in a real ClickHouse, made as identity-stitcher and journey-writer make them.
type town struct {
	*Explainer
	t      *testing.T
	w      *warehouse.Client
	rules  *identity.Rules
	start  time.Time
	offset uint64
	roots  map[identity.Node]identity.Node
	lists  map[identity.Node][]identity.Node

	// What flush stores.
	identities *warehouse.Block[warehouse.Identity]
	moves      *warehouse.Block[warehouse.Move]
	events     *warehouse.Block[warehouse.Event]
	parts      *warehouse.Block[warehouse.EventPart]
}

func newTown(t *testing.T) *town {
	addr := os.Getenv("WEFT_TEST_CLICKHOUSE")
	require.NotEmpty(t, addr, "WEFT_TEST_CLICKHOUSE must name host:port of a ClickHouse (make test sets it)")
	w, err := warehouse.Open(config.ClickHouse{Addresses: []string{addr}, Username: "default", Database: "weft_test_" + strings.ReplaceAll(uuid.NewString(), "-", "")})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, w.Exec(ctx, "DROP DATABASE IF EXISTS ${database} SYNC"))
		require.NoError(t, w.Close())
	})
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{DefaultRegion: "PL"})
	require.NoError(t, err)
	return &town{
		Explainer: New(w, rules), t: t, w: w, rules: rules, start: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC),
		roots: map[identity.Node]identity.Node{}, lists: map[identity.Node][]identity.Node{},
		identities: warehouse.Identities().NewBlock(), moves: warehouse.Moves().NewBlock(), events: warehouse.Events().NewBlock(),
		parts: warehouse.EventParts().NewBlock(),
	}
}

func (c *town) migrate() {
	c.t.Helper()
	require.NoError(c.t, c.w.Migrate(c.t.Context(), clickhouse.Files, zap.NewNop()))
}

// flush stores what there is. The machine may be so busy that a connection is not made in time: it tries again, as a
// writer does.
func (c *town) flush() {
	c.t.Helper()
	for _, b := range []interface {
		warehouse.Rows
		Reset()
	}{c.identities, c.moves, c.events, c.parts} {
		if b.Rows() == 0 {
			continue
		}
		token := warehouse.Token{Text: uuid.NewString(), Limit: time.Minute}
		require.Eventually(c.t, func() bool {
			err := c.w.Insert(c.t.Context(), b, token, time.Now)
			require.NotErrorIs(c.t, err, warehouse.ErrPermanent)
			return err == nil
		}, 3*time.Minute, 10*time.Millisecond)
		b.Reset()
	}
}

func (c *town) id(text string) identity.Identifier {
	c.t.Helper()
	typ, value, _ := strings.Cut(text, ":")
	id, why := c.rules.Identify(event.Identifier{Type: typ, Value: value})
	require.Empty(c.t, why)
	if c.lists[id.Node] == nil {
		c.roots[id.Node], c.lists[id.Node] = id.Node, []identity.Node{id.Node}
	}
	return id
}

// event is an event of identifiers minutes after the start, with the merges that it makes, each published twice.
func (c *town) event(minutes int, ids ...string) {
	c.t.Helper()
	at := c.start.Add(time.Duration(minutes) * time.Minute)
	c.offset++
	messageID := fmt.Sprint("m", c.offset)
	first := c.id(ids[0])
	for _, text := range ids[1:] {
		other := c.id(text)
		w, l := c.roots[first.Node], c.roots[other.Node]
		if w == l {
			continue
		}
		if l.Before(w) {
			w, l = l, w
		}
		moved := c.lists[l]
		c.lists[w] = append(c.lists[w], moved...)
		for again := range 2 {
			o := warehouse.Origin{Topic: "weft.t", Offset: 1000*c.offset + uint64(again)} //nolint:gosec // 0 or 1
			for n, e := range []identity.Identifier{first, other} {
				c.identities.Add(&warehouse.Identity{
					Origin: o, Loser: uuid.UUID(l), Winner: uuid.UUID(w), Members: uint32(len(moved)), Version: uint64(len(c.lists[w])), //nolint:gosec // lengths
					Rule: "same_event", Cause: fmt.Sprint("collector:0:", c.offset), MessageID: messageID, Time: at, ReceivedAt: at,
					N: uint16(n), Type: e.Type, Value: e.Value, Node: uuid.UUID(e.Node), //nolint:gosec // 0 or 1
				})
			}
			for _, m := range moved {
				c.moves.Add(&warehouse.Move{Origin: o, Node: uuid.UUID(m), Person: uuid.UUID(w), Version: uint64(len(c.lists[w])),
					ValidFrom: at, KnownFrom: at.Add(time.Second)})
			}
		}
		for _, m := range moved {
			c.roots[m] = w
		}
	}
	row := warehouse.Event{
		Origin: warehouse.Origin{Topic: "weft.events.identified", Partition: 3, Offset: c.offset}, Brand: "main", Source: "web", Type: "track", Name: "Signed Up",
		Profile: uuid.UUID(c.roots[first.Node]), MessageID: messageID, Time: at, ReceivedAt: at,
	}
	for _, text := range ids {
		switch typ, value, _ := strings.Cut(text, ":"); typ {
		case "user_id":
			row.UserID = value
		case "anonymous_id":
			row.AnonymousID = value
		}
	}
	c.events.Add(&row)
}

func (c *town) parse(text string) Identifier {
	c.t.Helper()
	id, err := c.Parse("", text)
	require.NoError(c.t, err)
	return id
}

func TestShowWhyAndHistory(t *testing.T) {
	c := newTown(t)
	_, err := c.Show(t.Context(), c.parse("email:ann@example.com"))
	require.ErrorIs(t, err, warehouse.ErrNoSchema)
	c.migrate()
	_, err = c.Show(t.Context(), c.parse("email:ann@example.com"))
	require.ErrorIs(t, err, ErrNobody)
	require.ErrorContains(t, err, "email:ann@example.com")

	c.event(0, "anonymous_id:a1")
	c.event(1, "anonymous_id:a2")
	c.event(5, "anonymous_id:a1", "email:ann@example.com")
	c.event(9, "anonymous_id:a2", "phone:+48123456789")
	c.event(20, "email:ann@example.com", "phone:+48123456789")
	c.event(30, "user_id:u1", "anonymous_id:a2")
	c.event(40, "user_id:u2")
	c.flush()

	// As people write it.
	p, err := c.Show(t.Context(), c.parse("email: ANN@Example.COM"))
	require.NoError(t, err)
	user := c.id("user_id:u1").Node.String()
	require.Equal(t, user, p.ID)
	require.Empty(t, p.Pending)
	require.EqualValues(t, 6, p.Events)
	require.Equal(t, 4, p.Merges)
	require.Equal(t, c.start, *p.FirstEvent)
	var lines []string
	for _, k := range p.Identifiers {
		lines = append(lines, fmt.Sprintf("%s %d %d", k.Identifier, int(k.FirstSeen.Sub(c.start).Minutes()), int(k.Linked.Time.Sub(c.start).Minutes())))
	}
	require.ElementsMatch(t, []string{"user_id:u1 30 30", "email:ann@example.com 5 5", "phone:+48123456789 9 9", "anonymous_id:a1 0 5", "anonymous_id:a2 1 9"}, lines)
	require.Equal(t, "user_id:u1", p.Identifiers[0].String(), "the first node is the person")
	require.Len(t, p.FormerIDs, 4)
	for _, former := range p.FormerIDs {
		again, err := c.Show(t.Context(), c.parse(former.ID))
		require.NoError(t, err)
		require.Equal(t, p.ID, again.ID, "a former id leads here")
	}
	var out bytes.Buffer
	require.NoError(t, p.Print(&out))
	require.Contains(t, out.String(), "person "+user+": 5 identifiers, 4 merges, 6 events from 2026-03-01 10:00:00 to 2026-03-01 10:30:00 UTC")
	require.Contains(t, out.String(), `same_event: track "Signed Up" of web`)

	w, err := c.Why(t.Context(), c.parse("phone:123 456 789"), c.parse("anonymous_id:a1"))
	require.NoError(t, err)
	require.True(t, w.SamePerson)
	require.Len(t, w.Links, 2)
	require.Equal(t, "phone:+48123456789 email:ann@example.com", w.Links[0].From.String()+" "+w.Links[0].To.String())
	require.Equal(t, "email:ann@example.com anonymous_id:a1", w.Links[1].From.String()+" "+w.Links[1].To.String())
	require.Equal(t, Event{Source: "web", Brand: "main", Type: "track", Name: "Signed Up", MessageID: "m5", Position: "collector:0:5", Stored: "weft.events.identified:3:5"}, w.Links[0].Event)
	require.Equal(t, c.start.Add(20*time.Minute), w.Links[0].Time)
	require.Equal(t, c.start.Add(20*time.Minute+time.Second), *w.Links[0].KnownFrom)
	out.Reset()
	require.NoError(t, w.Print(&out))
	require.Contains(t, out.String(), "are one person, "+user+", by 2 links:")
	require.Contains(t, out.String(), "message m5, came in at collector:0:5")

	w, err = c.Why(t.Context(), c.parse("user_id:u1"), c.parse("user_id:u2"))
	require.NoError(t, err)
	require.False(t, w.SamePerson)
	require.Empty(t, w.Links)
	out.Reset()
	require.NoError(t, w.Print(&out))
	require.Contains(t, out.String(), "user_id:u1 and user_id:u2 are not one person")
	_, err = c.Why(t.Context(), c.parse("user_id:u1"), c.parse("user_id:u3"))
	require.ErrorIs(t, err, ErrNobody)

	past, err := c.History(t.Context(), c.parse(user))
	require.NoError(t, err)
	require.Len(t, past.Merges, 4)
	require.Equal(t, "m3 m4 m5 m6", past.Merges[0].Event.MessageID+" "+past.Merges[1].Event.MessageID+" "+past.Merges[2].Event.MessageID+" "+past.Merges[3].Event.MessageID)
	out.Reset()
	require.NoError(t, past.Print(&out))
	require.Contains(t, out.String(), "known from 2026-03-01 10:05:01")
	b, err := json.Marshal(past)
	require.NoError(t, err)
	require.Contains(t, string(b), `"knownFrom":"2026-03-01T10:05:01Z"`)

	alone, err := c.Show(t.Context(), Identifier{ID: c.id("user_id:u2").Node.String()})
	require.NoError(t, err)
	require.Len(t, alone.Identifiers, 1)
	require.Equal(t, "user_id:u2", alone.Identifiers[0].String(), "what its events call it")
	require.Nil(t, alone.Identifiers[0].Linked)
}

// Whatever is linked, the chain between any two identifiers is one of links that were made, from the one to the other.
func TestWhyIsAChainOfLinks(t *testing.T) {
	c := newTown(t)
	c.migrate()
	const n = 24
	r := rand.New(rand.NewPCG(3, 3)) //nolint:gosec // a test
	types := []string{"user_id", "email", "phone", "anonymous_id"}
	name := func(i int) string {
		if types[i%4] == "phone" {
			return fmt.Sprintf("phone:+48123450%03d", i)
		}
		return fmt.Sprintf("%s:v%d@x.example", types[i%4], i)
	}
	said := map[string]string{} // what an event has said, by its message id
	for m := range 26 {
		a, b := name(r.IntN(n)), name(r.IntN(n))
		if a == b {
			continue
		}
		c.event(r.IntN(1000), a, b)
		said[fmt.Sprint("m", c.offset)] = a + " " + b
		if m%10 == 9 {
			c.flush()
		}
	}
	c.flush()
	for range 30 {
		a, b := name(r.IntN(n)), name(r.IntN(n))
		w, err := c.Why(t.Context(), c.parse(a), c.parse(b))
		seen := len(c.lists[c.roots[c.id(a).Node]]) > 1 && len(c.lists[c.roots[c.id(b).Node]]) > 1
		if !seen {
			require.ErrorIs(t, err, ErrNobody)
			continue
		}
		require.NoError(t, err)
		require.Empty(t, w.Pending)
		require.Equal(t, c.roots[c.id(a).Node] == c.roots[c.id(b).Node], w.SamePerson)
		at := a
		for i, s := range w.Links {
			require.Equal(t, at, s.From.String())
			require.Contains(t, []string{s.From.String() + " " + s.To.String(), s.To.String() + " " + s.From.String()}, said[s.Event.MessageID])
			require.NotContains(t, w.Links[:i], s)
			at = s.To.String()
		}
		if w.SamePerson {
			require.Equal(t, b, at)
		}
	}
}

// A merge whose evidence is not stored yet is said to be missing.
func TestWhatIsNotThereYetIsSaid(t *testing.T) {
	c := newTown(t)
	c.migrate()
	c.event(0, "user_id:u1", "email:a@x.example")
	late, early := c.id("anonymous_id:a1").Node, c.id("user_id:u1").Node
	c.moves.Add(&warehouse.Move{Node: uuid.UUID(late), Person: uuid.UUID(early), Version: 3, ValidFrom: c.start, KnownFrom: c.start})
	c.flush()
	w, err := c.Why(t.Context(), c.parse("user_id:u1"), c.parse("anonymous_id:a1"))
	require.NoError(t, err)
	require.True(t, w.SamePerson)
	require.Equal(t, Pending, w.Pending)
	require.Empty(t, w.Links)
	p, err := c.Show(t.Context(), c.parse("email:a@x.example"))
	require.NoError(t, err)
	require.Equal(t, Pending, p.Pending)
	var out bytes.Buffer
	require.NoError(t, p.Print(&out))
	require.Contains(t, out.String(), Pending)
}
