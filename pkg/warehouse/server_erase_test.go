//go:build integration

package warehouse

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/topic"
)

// everyRow is a row of somebody in each table; n is the only identifier, and other somebody else's.
func everyRow(h *history, n, other int) {
	s, p, o := h.shop, id(n), h.origin
	h.event(n, 5, "seen")
	insertOne(s, RejectedEvents(), Rejected{Origin: o(), Brand: "b", Source: "web", Reason: "missing_event", Service: topic.StageCollector, ReceivedAt: h.at(5), Key: []byte(p.String()), Body: []byte(`{"userId":"` + p.String() + `"}`)})
	insertOne(s, Profiles(), Profile{Origin: o(), ID: p, Version: 1, Document: []byte("{}")})
	insertOne(s, AudienceChanges(), AudienceChange{Origin: o(), Brand: "b", Profile: p, Time: h.at(5), ReceivedAt: h.at(5)})
	insertOne(s, Messages(), Message{Origin: o(), Brand: "b", Receipt: "r" + p.String(), Profile: p, DecidedAt: h.at(6)})
	insertOne(s, Receipts(), Receipt{Origin: o(), Brand: "b", ID: "r" + p.String(), Profile: p, SettledAt: h.at(6)})
	insertOne(s, Identities(), Identity{Origin: o(), Loser: p, Winner: id(n + 1), Time: h.at(5), ReceivedAt: h.at(5), Type: "user_id", Value: "u", Node: p})
	insertOne(s, Suspensions(), Suspension{Origin: o(), A: Named{Node: p, Value: "u"}, B: Named{Node: id(other)}, Time: h.at(5), KnownFrom: h.at(5)})
	insertOne(s, Commands(), Command{Origin: o(), ID: "c" + p.String(), A: Named{Node: p, Value: "u"}, At: h.at(5), KnownFrom: h.at(5)})
	insertOne(s, Moves(), Move{Origin: o(), Node: p, Person: id(n + 1), Version: 2, ValidFrom: h.at(5), KnownFrom: h.at(5)})
	insertOne(s, Redirects(), Redirect{Origin: o(), Profile: p, Current: id(n + 1), Version: 2})
}

func TestAnErasedPersonIsInNoTable(t *testing.T) {
	h := newHistory(t)
	everyRow(h, 10, 20)
	everyRow(h, 20, 30)
	ctx := t.Context()
	const commands = "weft.identities.commands"
	// An event and a message of 10 that a split gave to 40, and one of 50 that it gave to 10.
	moved, given := h.origin(), h.origin()
	for i, x := range []struct {
		at   Origin
		who  int
		part int
	}{{moved, 10, 40}, {given, 50, 10}} {
		receipt := []string{"moved", "given"}[i]
		insertOne(h.shop, Events(), Event{Origin: x.at, Brand: "b", Source: "web", Profile: id(x.who), Time: h.at(7), ReceivedAt: h.at(7), MessageID: receipt})
		insertOne(h.shop, EventParts(), EventPart{Origin: h.origin(), Event: x.at, Person: id(x.part), Version: 3, Brand: "b", Cart: true, CartID: receipt, Time: h.at(7), KnownFrom: h.at(8)})
		insertOne(h.shop, Receipts(), Receipt{Origin: h.origin(), Brand: "b", ID: receipt, Profile: id(x.who), SettledAt: h.at(7)})
		insertOne(h.shop, MessageParts(), MessagePart{Origin: h.origin(), Receipt: receipt, Person: id(x.part), Version: 3, Brand: "b", CartID: receipt, ArmedAt: h.at(7), EndedAt: h.at(7), KnownFrom: h.at(8)})
	}
	// What the erasure itself says of where the identifier leads.
	insertOne(h.shop, Moves(), Move{Origin: Origin{Topic: commands}, Node: id(10), Person: id(60), Version: 9, KnownFrom: h.at(9)})
	before, err := h.Balances(ctx, topic.Set{Prefix: "weft."}, h.at(0), h.at(60))
	require.NoError(t, err)
	require.NotEmpty(t, before)
	count := func(n int) map[string]uint64 {
		t.Helper()
		counts, err := h.CountPerson(ctx, &Erasure{CommandsTopic: commands, Members: []uuid.UUID{id(n)}})
		require.NoError(t, err)
		out := map[string]uint64{}
		for _, c := range counts {
			out[c.Table] = c.Rows
		}
		return out
	}
	require.Equal(t, map[string]uint64{
		TableEvents: 2, TableProfiles: 1, TableAudiences: 1, TableMessages: 1, TableReceipts: 2, TableMessageParts: 1, TableEventParts: 1,
		TableIdentities: 1, TableSuspensions: 1, TableCommands: 1, TableMoves: 1, TableRedirects: 1,
	}, count(10))
	other := count(20)
	require.EqualValues(t, 2, other[TableSuspensions], "one of them is 10's")
	for range 2 { // a command may be carried out again
		require.NoError(t, h.ErasePerson(ctx, &Erasure{Command: "it's", CommandsTopic: commands, Members: []uuid.UUID{id(10)}}))
	}
	for table, n := range count(10) {
		require.Zero(t, n, table)
	}
	other[TableSuspensions] = 1
	require.Equal(t, other, count(20), "somebody else's are there")
	require.EqualValues(t, 1, count(40)[TableEvents])
	require.EqualValues(t, 1, count(40)[TableReceipts])
	require.EqualValues(t, 1, scalar[uint64](t, h.Client, "SELECT count() FROM ${database}.identity_moves WHERE person = ?", id(60)))

	var found []Origin
	require.NoError(t, h.EachRejected(ctx, func(r *RejectedRow) error {
		if r.Key == id(10).String() {
			require.Contains(t, r.Body, "userId")
			found = append(found, r.Origin)
		}
		return nil
	}))
	require.Len(t, found, 1)
	for range 2 {
		require.NoError(t, h.EraseRejected(ctx, "c", found))
	}
	require.EqualValues(t, 1, scalar[uint64](t, h.Client, "SELECT count() FROM ${database}.events_rejected"))
	after, err := h.Balances(ctx, topic.Set{Prefix: "weft."}, h.at(0), h.at(60))
	require.NoError(t, err)
	require.Equal(t, before, after, "the audit closes as before")
}

// Deletions are found again behind a crash, and those of a person with more nodes than a statement takes.
func TestALargePersonIsErased(t *testing.T) {
	h := newHistory(t)
	e := Erasure{Command: "c", CommandsTopic: "x"}
	b := Redirects().NewBlock()
	for i := range 2*erasedAtOnce + 1 {
		e.Members = append(e.Members, id(i))
		b.Add(&Redirect{Origin: h.origin(), Profile: id(i), Current: id(0), Version: 1})
	}
	require.NoError(t, h.Insert(t.Context(), b, token("x"), time.Now))
	require.NoError(t, h.ErasePerson(t.Context(), &e))
	require.Zero(t, scalar[uint64](t, h.Client, "SELECT count() FROM ${database}.profile_redirects"))
}
