package writer

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// A member of a person who was split, a part, and another identifier.
const (
	splitMember = "30000000-0000-8000-8000-000000000002"
	splitPart   = "00000000-0000-8000-8000-000000000001"
	splitOther  = "40000000-0000-8000-8000-000000000003"
)

// undoRows gathers what records of events.identified become.
type undoRows struct {
	events     list[warehouse.Event]
	identities list[warehouse.Identity]
	redirects  list[warehouse.Redirect]
	moves      list[warehouse.Move]
	parts      list[warehouse.EventPart]
	messages   list[warehouse.MessagePart]
}

func (u *undoRows) read(t *testing.T, r *stream.Record) error {
	t.Helper()
	f := eventRows{events: &u.events, identities: &u.identities, redirects: &u.redirects, moves: &u.moves, parts: &u.parts, messages: &u.messages}
	m, err := topic.ParseMeta(r.Headers)
	require.NoError(t, err)
	return f.read(r, m)
}

func (u *undoRows) count() int {
	return len(u.events) + len(u.identities) + len(u.redirects) + len(u.moves) + len(u.parts) + len(u.messages)
}

func undoHeader(key, value string) topic.Header { return topic.Header{Key: key, Value: []byte(value)} }

func kindOf(k topic.Kind) topic.Header { return undoHeader(topic.HeaderKind, string(k)) }

// Where a member of a split person went is a redirect and a move above all merges before it, and says who split it and why.
func TestSplitBecomesALinkToThePart(t *testing.T) {
	var u undoRows
	r := record(splitMember, fmt.Sprintf(`{"command":"c1","node":%q,"into":%q,"person":%q,"generation":2,"time":"2026-03-04T05:06:00Z","actor":"ann","reason":"twins"}`,
		splitMember, splitPart, splitOther), kindOf(topic.KindSplit))
	r.Time = received.Add(time.Second)
	require.NoError(t, u.read(t, r))
	require.Equal(t, 3, u.count())
	at := time.Date(2026, 3, 4, 5, 6, 0, 0, time.UTC)
	node, part := uuid.MustParse(splitMember), uuid.MustParse(splitPart)
	require.Equal(t, warehouse.Identity{
		Origin: originOf(r), Brand: "main", Loser: node, Winner: part, Members: 1, Version: 2 << 32, Rule: "split", Cause: "c1", MessageID: "c1",
		Time: at, ReceivedAt: received, Actor: "ann", Reason: "twins",
	}, u.identities[0])
	require.Equal(t, warehouse.Redirect{Origin: originOf(r), Profile: node, Current: part, Version: 2 << 32}, u.redirects[0])
	require.Equal(t, warehouse.Move{Origin: originOf(r), Node: node, Incarnation: 2, Version: 2 << 32, Person: part, KnownFrom: r.Time}, u.moves[0])
	require.Zero(t, u.moves[0].ValidFrom, "the part's, and always was")

	r = record(splitPart, fmt.Sprintf(`{"command":"c1","node":%q,"generation":2,"cuts":[]}`, splitPart), kindOf(topic.KindRefolded), undoHeader(topic.HeaderRefold, "c1"))
	r.Time = received.Add(time.Minute)
	require.NoError(t, u.read(t, r))
	require.Equal(t, warehouse.Move{Origin: originOf(r), Node: part, Incarnation: 2, Version: 2 << 32, Person: part, KnownFrom: r.Time}, u.moves[1])

	r = record(splitMember, fmt.Sprintf(`{"command":"c2","node":%q,"person":%q,"time":"2026-03-04T05:06:00Z","actor":"ann","reason":"asked"}`, splitMember, splitPart), kindOf(topic.KindErase))
	before := u.count()
	require.NoError(t, u.read(t, r))
	require.Equal(t, before, u.count(), "of an erasure nothing is stored")
}

// An event that is told again is stored once: its row stays, and where it went stands beside it.
func TestToldAgainIsNotStoredAgain(t *testing.T) {
	var u undoRows
	again := []topic.Header{undoHeader(topic.HeaderRefold, "c1"), undoHeader(topic.HeaderOrigin, "weft.events.identified:7:99"),
		undoHeader(topic.HeaderPosition, "identity-commands:3:4194305")}
	body := `{"type":"track","event":"Product Added","timestamp":"2026-03-04T05:00:00Z","properties":{"cart_id":"c9","product_id":"p"}}`
	r := record(splitPart, body, append(again, kindOf(topic.KindEvent))...)
	r.Time = received.Add(time.Hour)
	require.NoError(t, u.read(t, r))
	require.Equal(t, 1, u.count())
	require.Equal(t, warehouse.EventPart{
		Origin: originOf(r), Event: warehouse.Origin{Topic: "weft.events.identified", Partition: 7, Offset: 99}, Person: uuid.MustParse(splitPart),
		Command: "c1", Version: 4194305, Brand: "main", Time: time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC), Cart: true, CartID: "c9", KnownFrom: r.Time,
	}, u.parts[0])
	require.NoError(t, u.read(t, record(splitPart, `{"type":"page"}`, again...)), "an event without its kind")
	require.False(t, u.parts[1].Cart)

	again[1] = undoHeader(topic.HeaderOrigin, "weft.activations.settled:2:5")
	r = record(splitPart, `{"receipt":"r1","message":"m1","outcome":"delivered","brand":"shop","cart":{"id":"c9"},"armedAt":1767225600000,"settledAt":1767225601000}`,
		append(again, kindOf(topic.KindDecision))...)
	require.NoError(t, u.read(t, r))
	want := warehouse.MessagePart{
		Origin: originOf(r), Receipt: "r1", Decision: warehouse.Origin{Topic: "weft.activations.settled", Partition: 2, Offset: 5}, Person: uuid.MustParse(splitPart),
		Command: "c1", Version: 4194305, Brand: "shop", CartID: "c9", ArmedAt: time.UnixMilli(1767225600000).UTC(), EndedAt: time.UnixMilli(1767225601000).UTC(),
	}
	got := u.messages[0]
	got.KnownFrom = time.Time{}
	require.Equal(t, want, got)
	require.Empty(t, u.events)
}

func TestWhatASplitTellsWronglyIsRejected(t *testing.T) {
	refold, origin := undoHeader(topic.HeaderRefold, "c1"), undoHeader(topic.HeaderOrigin, "t:1:2")
	for want, r := range map[string]*stream.Record{
		"node: ":                         record(splitMember, `{"command":"c1"}`, kindOf(topic.KindSplit)),
		"into: is missing":               record(splitMember, `{"command":"c1","node":"`+splitMember+`","time":"2026-01-01T00:00:00Z"}`, kindOf(topic.KindSplit)),
		"command: is missing":            record(splitMember, `{"node":"`+splitMember+`"}`, kindOf(topic.KindErase)),
		"time: is missing":               record(splitMember, `{"command":"c1","node":"`+splitMember+`"}`, kindOf(topic.KindErase)),
		"generation: 0 is not":           record(splitPart, `{"node":"`+splitPart+`"}`, kindOf(topic.KindRefolded)),
		"generation: 2147483648 is not":  record(splitPart, `{"node":"`+splitPart+`","generation":2147483648}`, kindOf(topic.KindRefolded)),
		"weft-origin: \"\" is not topic": record(splitPart, `{"type":"page"}`, refold),
		"weft-origin: \"x:1\" is not":    record(splitPart, `{}`, refold, undoHeader(topic.HeaderOrigin, "x:1"), kindOf(topic.KindDecision)),
		"receipt, and settledAt":         record(splitPart, `{}`, refold, origin, kindOf(topic.KindDecision)),
		"invalid_json":                   record(splitPart, `{`, refold, origin),
		"invalid_profile_id":             record("x", `{"type":"page"}`, refold, origin),
		"unknown_kind":                   record(splitPart, `{}`, kindOf("marriage")),
	} {
		var u undoRows
		err := u.read(t, r)
		_, poisoned := errors.AsType[*poison](err)
		require.True(t, poisoned, "%s: %v", want, err)
		require.ErrorContains(t, err, want)
		require.Zero(t, u.count())
	}
}

// Of identities.linked only what did not come by events.identified is stored.
func TestLinkedTopicBecomesSuspensionsAndCommands(t *testing.T) {
	var suspensions list[warehouse.Suspension]
	var commands list[warehouse.Command]
	f := linkRows{suspensions: &suspensions, commands: &commands}
	read := func(value string, hs ...topic.Header) error {
		r := record(splitMember, value, hs...)
		r.Topic, r.Time = "weft.identities.linked", received.Add(time.Second)
		m, err := topic.ParseMeta(r.Headers)
		require.NoError(t, err)
		return f.read(r, m)
	}
	for _, k := range []topic.Kind{topic.KindMerge, topic.KindSplit, topic.KindPart, topic.KindState, topic.KindErase} {
		require.NoError(t, read(`{}`, kindOf(k)))
	}
	require.NoError(t, read("", kindOf(topic.KindSuspend)), "a tombstone")
	evidence := fmt.Sprintf(`[{"type":"email","value":"a@x.example","node":%q},{"type":"anonymous_id","value":"a1","node":%q}]`, splitMember, splitOther)
	require.NoError(t, read(`{"evidence":`+evidence+`,"cap":"links_per_identifier","cause":{"source":"collector:1:5","messageId":"m9","rule":"same_event","time":"2026-03-04T05:06:07.008Z"}}`,
		kindOf(topic.KindSuspend)))
	require.Equal(t, list[warehouse.Suspension]{{
		Origin: warehouse.Origin{Topic: "weft.identities.linked", Partition: 4, Offset: 17}, Brand: "main", Source: "web",
		A: warehouse.Named{Node: uuid.MustParse(splitMember), Type: "email", Value: "a@x.example"}, B: warehouse.Named{Node: uuid.MustParse(splitOther), Type: "anonymous_id", Value: "a1"},
		Cap: "links_per_identifier", Rule: "same_event", Cause: "collector:1:5", MessageID: "m9", Time: received, KnownFrom: received.Add(time.Second),
	}}, suspensions)

	command := fmt.Sprintf(`{"id":"c7","kind":"reject","actor":"ann","reason":"two people","at":"2026-03-04T05:00:00Z","identifiers":[{"type":"anonymous_id","value":"a1","node":%q},{"type":"email","value":"a@x.example","node":%q}],
		"outcome":"refused","error":"they are one person"}`, splitOther, splitMember)
	require.NoError(t, read(command, kindOf(topic.KindCommand)))
	got := commands[0]
	require.Equal(t, command, string(got.Details))
	require.Equal(t, "c7 reject ann two people refused they are one person", fmt.Sprint(got.ID, " ", got.Kind, " ", got.Actor, " ", got.Reason, " ", got.Outcome, " ", got.Error))
	require.Equal(t, warehouse.Named{Node: uuid.MustParse(splitMember), Type: "email", Value: "a@x.example"}, got.A, "in the order of nodes")
	require.Equal(t, splitOther, got.B.Node.String())
	split := fmt.Sprintf(`{"id":"c8","kind":"split","actor":"ann","reason":"r","at":"2026-03-04T05:00:00Z","person":%q,"members":[%q,%q],"parts":[[%q],[%q]],"outcome":"done","counts":{"events":3}}`,
		splitMember, splitMember, splitOther, splitMember, splitOther)
	require.NoError(t, read(split, kindOf(topic.KindCommand)))
	require.Equal(t, splitMember, commands[1].Person.String())
	require.Equal(t, "done", commands[1].Outcome)

	for want, err := range map[string]error{
		"outcome is wanted":  read(`{"id":"c7","kind":"release","actor":"ann","reason":"r","at":"2026-03-04T05:00:00Z","split":"c8"}`, kindOf(topic.KindCommand)),
		"kind: \"x\"":        read(`{"id":"c7","kind":"x"}`, kindOf(topic.KindCommand)),
		"parse suspension":   read(`{"evidence":[]}`, kindOf(topic.KindSuspend)),
		"unknown_kind: head": read(`{}`, kindOf("marriage")),
	} {
		require.ErrorContains(t, err, want)
	}
}
