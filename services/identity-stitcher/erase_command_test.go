package stitcher

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// rowsOf is a ClickHouse that has rows of people, and fails as often as it is told to.
type rowsOf struct {
	mu       sync.Mutex
	events   map[uuid.UUID]int
	rejected []warehouse.RejectedRow
	failures int
	leads    map[uuid.UUID]uuid.UUID
}

var errAway = errors.New("clickhouse is away")

func (w *rowsOf) fail() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failures > 0 {
		w.failures--
		return errAway
	}
	return nil
}

func (w *rowsOf) Select(context.Context, any, string, ...any) error { return nil }

func (w *rowsOf) CountPerson(_ context.Context, e *warehouse.Erasure) ([]warehouse.TableCount, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, m := range e.Members {
		n += w.events[m]
	}
	return []warehouse.TableCount{{Table: warehouse.TableEvents, Rows: uint64(n)}, {Table: warehouse.TableProfiles}}, nil //nolint:gosec // few
}

func (w *rowsOf) ErasePerson(_ context.Context, e *warehouse.Erasure) error {
	w.mu.Lock()
	for _, m := range e.Members {
		delete(w.events, m)
	}
	w.mu.Unlock()
	return w.fail()
}

func (w *rowsOf) EachRejected(_ context.Context, f func(r *warehouse.RejectedRow) error) error {
	w.mu.Lock()
	rows := slices.Clone(w.rejected)
	w.mu.Unlock()
	for i := range rows {
		if err := f(&rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *rowsOf) EraseRejected(_ context.Context, _ string, rows []warehouse.Origin) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rejected = slices.DeleteFunc(w.rejected, func(r warehouse.RejectedRow) bool { return slices.Contains(rows, r.Origin) })
	return nil
}

func (w *rowsOf) LinkedKeys(context.Context, *warehouse.Erasure) ([]string, error) {
	return []string{"a+b"}, nil
}

func (w *rowsOf) LeadOn(_ context.Context, _ *warehouse.Erasure, to []warehouse.Lead, _ time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leads = map[uuid.UUID]uuid.UUID{}
	for _, l := range to {
		w.leads[l.Node] = l.To
	}
	return nil
}

// startWith runs a service that has a ClickHouse.
func (e *env) startWith(w *rowsOf) (stop func()) {
	e.t.Helper()
	sc, st := e.connect()
	e.reg = prometheus.NewRegistry()
	s, err := New(e.cfg, Deps{Stream: sc, Store: st, Log: zap.NewNop(), Metrics: e.reg, Warehouse: w})
	require.NoError(e.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		require.NoError(e.t, <-done)
	})
}

// command gives one.
func (e *env) command(id string, kind identity.CommandKind, nodes ...identity.Node) {
	e.t.Helper()
	c := identity.Command{ID: id, Kind: kind, Actor: "dpo", Reason: "ticket 7", At: receivedAt(), Person: nodes[0].String()}
	for _, n := range nodes {
		c.Members = append(c.Members, n.String())
	}
	require.NoError(e.t, undo.Send(e.t.Context(), e.stream, undo.NewLedger(e.store, e.topics), e.topics, &c))
}

// commandEnds waits for its end.
func (e *env) commandEnds(id string) undo.Status {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	s, err := undo.NewLedger(e.store, e.topics).Wait(ctx, id, 20*time.Millisecond, nil)
	require.NoError(e.t, err)
	return s
}

// An erasure suppresses, forgets, tells and deletes, whatever fails on the way and wherever the process ends; another person
// is as before; the identifiers that are let in again are somebody new, also in a graph that is made again.
func TestAPersonIsErased(t *testing.T) {
	e := newEnv(t)
	anon, user := e.node(event.AnonymousID, "a1"), e.node(event.UserID, "ann")
	members := []identity.Node{anon, user}
	slices.SortFunc(members, identity.Node.Compare)
	bob := e.node(event.UserID, "bob")
	w := &rowsOf{events: map[uuid.UUID]int{uuid.UUID(anon): 1, uuid.UUID(user): 2, uuid.UUID(bob): 3}, failures: 1, rejected: []warehouse.RejectedRow{
		{Origin: warehouse.Origin{Offset: 1}, Brand: "main", Body: `{"type":"track","userId":"ann"}`},
		{Origin: warehouse.Origin{Offset: 2}, Brand: "main", Body: `{"type":"track","userId":"bob"}`},
		{Origin: warehouse.Origin{Offset: 3}, Brand: "main", Key: "a1"},
		{Origin: warehouse.Origin{Offset: 4}, Brand: "main", Key: user.String(), Body: `cut off`},
		{Origin: warehouse.Origin{Offset: 5}, Brand: "main", Body: `{"batch":[`},
	}}
	e.send("a1", "web", "m1", "", `{"type":"identify","anonymousId":"a1","userId":"ann"}`)
	e.send("bob", "web", "m2", "", `{"type":"track","event":"A","userId":"bob"}`)
	stop := e.startWith(w)
	e.settled()

	e.command("stale", identity.CommandErase, anon)
	require.Equal(t, undo.Refused, e.commandEnds("stale").State, "the person has another identifier, too")
	on, err := suppression.NewRegister(e.store, e.topics.Prefix).All(t.Context())
	require.NoError(t, err)
	require.Empty(t, on, "and nothing was done")

	e.command("c1", identity.CommandErase, members...)
	register := suppression.NewRegister(e.store, e.topics.Prefix)
	require.Eventually(t, func() bool {
		on, err := register.All(t.Context())
		return err == nil && len(on) == 2
	}, patience, 10*time.Millisecond)
	stop() // in the middle
	stop = e.startWith(w)
	s := e.commandEnds("c1")
	require.Equal(t, undo.Done, s.State, s.Error)
	require.Equal(t, map[string]int{"identifiers": 2, "events": 3, "events_rejected": 3}, s.Counts)
	require.Equal(t, map[uuid.UUID]int{uuid.UUID(bob): 3}, w.events)
	require.Len(t, w.rejected, 2)

	roots, err := identity.Lookup(t.Context(), identity.NewGraph(e.store, e.topics.Prefix), anon, user, bob)
	require.NoError(t, err)
	require.True(t, roots[0].IsPart() && roots[1].IsPart() && roots[0] != roots[1], "each is somebody of its own")
	require.Equal(t, bob, roots[2])
	require.Equal(t, map[uuid.UUID]uuid.UUID{uuid.UUID(anon): uuid.UUID(roots[0]), uuid.UUID(user): uuid.UUID(roots[1])}, w.leads)
	e.checkErasureTold(members)

	// Again, and of nobody that is there any more.
	e.command("c2", identity.CommandErase, roots[0], anon)
	require.Equal(t, undo.Done, e.commandEnds("c2").State)
	e.send("a1", "web", "m3", "", `{"type":"track","event":"A","anonymousId":"a1"}`)
	e.settled()
	require.Equal(t, ReasonSuppressed, header(e.read(e.topics.EventsRejected())[0], topic.HeaderReason))
	e.command("c3", identity.CommandUnsuppress, anon)
	require.Equal(t, undo.Done, e.commandEnds("c3").State)
	e.send("a1", "web", "m4", "", `{"type":"track","event":"A","anonymousId":"a1"}`)
	e.settled()
	stop()
	var back string
	for _, r := range e.read(e.topics.EventsIdentified()) {
		if header(r, topic.HeaderMessageID) == "m4" {
			back = string(r.Key)
		}
	}
	now, err := identity.Lookup(t.Context(), identity.NewGraph(e.store, e.topics.Prefix), anon)
	require.NoError(t, err)
	require.Equal(t, now[0].String(), back)
	require.NotContains(t, []string{anon.String(), roots[0].String()}, back, "ids that ended do not come back")
}

// checkErasureTold: every member is told of to the stages, and nothing of a link stands on the compacted topic.
func (e *env) checkErasureTold(members []identity.Node) {
	e.t.Helper()
	told := map[string]bool{}
	for _, r := range e.read(e.topics.EventsIdentified()) {
		if header(r, topic.HeaderKind) == string(topic.KindErase) {
			told[string(r.Key)] = true
		}
	}
	last := map[string]string{}
	for _, r := range e.read(e.topics.IdentitiesLinked()) {
		last[string(r.Key)] = string(r.Value)
	}
	for _, m := range members {
		require.True(e.t, told[m.String()])
		var p identity.Parted
		require.NoError(e.t, json.Unmarshal([]byte(last[m.String()]), &p))
		require.Equal(e.t, []string{"c1", m.String()}, []string{p.Command, p.Person})
	}
	require.Contains(e.t, last, "a+b")
	require.Empty(e.t, last["a+b"], "a suspended link is gone")
	for key := range maps.Keys(last) {
		require.NotContains(e.t, last[key], `"ann"`)
		require.NotContains(e.t, last[key], `"a1"`)
	}
}
