package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stored"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

func eventIdentifier(user string) event.Identifier {
	return event.Identifier{Type: event.UserID, Value: user}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errDown is what every part says where it is told to fail.
var errDown = errors.New("down")

// world is what a command acts on, with a fault at one of its calls: before the call has an effect, or behind it.
type world struct {
	t      *testing.T
	rules  *identity.Rules
	topics topic.Set
	store  *store.Client
	calls  int
	fail   int  // the number of the call that fails; 0: none does
	behind bool // it fails when it is done

	log   map[string][]stream.Record // by topic and partition
	held  map[string]bool
	split []identity.PartedNode
	heldA []bool // whether it was held when something was told
	rows  []stored.Event
}

// call runs what a part does, unless this is the call that fails.
func (w *world) call(do func()) error {
	w.calls++
	if w.calls == w.fail && !w.behind {
		return errDown
	}
	do()
	if w.calls == w.fail {
		return errDown
	}
	return nil
}

func (w *world) Produce(_ context.Context, name string, partition int, recs []stream.Record) error {
	return w.call(func() {
		at := fmt.Sprint(name, "/", partition)
		w.log[at] = append(w.log[at], recs...)
		w.heldA = append(w.heldA, len(w.held) > 0)
	})
}

func (w *world) Committed(context.Context, string, string) ([]stream.Committed, error) {
	return []stream.Committed{{Offset: 1}}, nil
}

func (w *world) Register(_ context.Context, e registry.Entry) error {
	return w.call(func() { w.held[e.ID] = true })
}

func (w *world) Unregister(_ context.Context, id string) error {
	return w.call(func() { delete(w.held, id) })
}

func (w *world) Resolve(context.Context, []identity.Request) ([]identity.Result, error) {
	return nil, errDown
}
func (w *world) Confirm(context.Context, []identity.Node) error             { return errDown }
func (w *world) Cut(context.Context, identity.Node, identity.Node) error    { return errDown }
func (w *world) SetBlocked(context.Context, identity.Node, bool) error      { return errDown }
func (w *world) Release(context.Context, []identity.Node) ([]uint64, error) { return nil, errDown }

// Split splits once, and answers the same whenever it is asked again.
func (w *world) Split(_ context.Context, o identity.SplitOrder, _ func(context.Context, []identity.Merge) error) ([]identity.PartedNode, error) {
	err := w.call(func() {
		w.split = nil
		for i, part := range o.Parts {
			for _, n := range part {
				w.split = append(w.split, identity.PartedNode{Node: n, Into: o.Part(i, 1), Part: i, Generation: 1})
			}
		}
	})
	return w.split, err
}

// Select answers as ClickHouse does, from the rows.
func (w *world) Select(_ context.Context, dest any, sql string, _ ...any) error {
	return w.call(func() {
		switch d := dest.(type) {
		case *[]undo.Place:
			for i := range w.rows {
				*d = append(*d, undo.Place{Topic: w.rows[i].Topic, Partition: w.rows[i].Partition, Offset: w.rows[i].Offset, Profile: w.rows[i].Profile, Received: w.rows[i].ReceivedAt})
			}
		case *[]stored.Event:
			for i := range w.rows {
				if strings.Contains(sql, fmt.Sprintf("(%d,%d)", w.rows[i].Partition, w.rows[i].Offset)) {
					*d = append(*d, w.rows[i])
				}
			}
		}
	})
}

// newWorld is a person of two users' events.
func newWorld(t *testing.T) (*world, identity.Command) {
	t.Helper()
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{})
	require.NoError(t, err)
	st, err := store.New(config.Redis{Addresses: []string{miniredis.RunT(t).Addr()}, AllowNonDurable: true}, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	w := &world{t: t, rules: rules, topics: topic.Set{Prefix: "t.", Partitions: 2}, store: st, log: map[string][]stream.Record{}, held: map[string]bool{}}
	at := time.UnixMilli(1_790_000_000_000).UTC()
	node := func(user string) string {
		id, ignored := rules.IdentifyIn("main", eventIdentifier(user))
		require.Empty(t, ignored)
		return id.Node.String()
	}
	a, b := node("a"), node("b")
	for i, user := range []string{"a", "b", "a", "a", "b"} {
		w.rows = append(w.rows, stored.Event{
			Topic: w.topics.EventsIdentified(), Partition: uint32(i % 2), Offset: uint64(i), Brand: "main", Source: "web", Type: "track", Name: "Clicked", Trusted: true,
			Profile: uuid.MustParse(min(a, b)), UserID: user, MessageID: fmt.Sprint("m", i), Time: at, ReceivedAt: at.Add(time.Duration(i) * time.Second),
		})
	}
	return w, identity.Command{ID: "c1", Kind: identity.CommandSplit, Actor: "ada", Reason: "two people", At: at, Person: min(a, b),
		Members: slices.Sorted(slices.Values([]string{a, b})), Parts: [][]string{{a}, {b}}}
}

// executor is a new process in the world.
func (w *world) executor() *Executor {
	x, err := New(Deps{Store: w.store, Graph: w, Rules: w.rules, Topics: w.topics, Warehouse: w, Log: zap.NewNop()})
	require.NoError(w.t, err)
	x.kafka, x.holds = w, w
	x.through = func(context.Context, []keyed.Edge) error { return w.call(func() {}) }
	x.pause = func(context.Context, time.Duration) error { return nil }
	return x
}

// told is what readers take of all that was published: of each topic and partition, what is above the highest position seen.
func (w *world) told() map[string][]string {
	out := map[string][]string{}
	for at, recs := range w.log {
		high := int64(-1)
		for _, r := range recs {
			text, _ := topic.Get(r.Headers, topic.HeaderPosition)
			pos, err := topic.ParsePosition(text)
			require.NoError(w.t, err)
			if pos.Seq <= high {
				continue
			}
			high = pos.Seq
			kind, _ := topic.Get(r.Headers, topic.HeaderKind)
			value := string(r.Value)
			if kind == string(topic.KindCommand) {
				value = "" // has the times of its attempt
			}
			if kind == string(topic.KindEvent) {
				var e map[string]any // members of a row made again have no order
				require.NoError(w.t, json.Unmarshal(r.Value, &e))
				value = fmt.Sprint(e)
			}
			out[at] = append(out[at], fmt.Sprint(pos.Seq, " ", string(r.Key), " ", kind, " ", value))
		}
	}
	return out
}

// A split that fails, or whose process is killed, at any of its calls, before or behind the call's effect, ends with the same
// effect: readers see what they see of one that nothing happens to.
func TestASplitEndsWhateverFails(t *testing.T) {
	w, c := newWorld(t)
	value, err := c.Encode()
	require.NoError(t, err)
	rec := stream.Record{Offset: 3, Key: []byte(identity.CommandsKey), Value: value}
	require.NoError(t, w.executor().Carry(t.Context(), rec))
	want, calls := w.told(), w.calls
	require.Greater(t, calls, 15)
	events := 0
	for _, recs := range want {
		for _, r := range recs {
			if strings.Contains(r, " event ") {
				events++
			}
		}
	}
	require.Equal(t, 5, events)
	for n := 1; n <= calls; n++ {
		for _, behind := range []bool{false, true} {
			for _, killed := range []bool{false, true} {
				w, _ := newWorld(t)
				w.fail, w.behind = n, behind
				x := w.executor()
				ctx, kill := context.WithCancel(t.Context())
				if killed {
					x.pause = func(context.Context, time.Duration) error { kill(); return errDown }
				}
				if err := x.Carry(ctx, rec); killed {
					require.Error(t, err)
					require.NoError(t, w.executor().Carry(t.Context(), rec), "another process takes it up")
				} else {
					require.NoError(t, err)
				}
				kill()
				name := fmt.Sprintf("call %d, behind %t, killed %t", n, behind, killed)
				require.Equal(t, want, w.told(), name)
				require.Empty(t, w.held, name)
				s, ok, err := undo.NewLedger(w.store, w.topics).Get(t.Context(), c.ID)
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, undo.Done, s.State, name)
				require.Equal(t, 5, s.Counts["events"], name)
			}
		}
	}
}

// What can not be carried out ends with its reason, and the next command is carried out.
func TestWhatIsRefusedHoldsUpNobody(t *testing.T) {
	w, c := newWorld(t)
	x := w.executor()
	require.NoError(t, x.Carry(t.Context(), stream.Record{Offset: 0, Value: []byte("no json")}))
	require.NoError(t, x.Carry(t.Context(), stream.Record{Offset: 1, Value: []byte(`{"id":"c0","kind":"dance"}`)}))
	x.history = nil
	value, err := c.Encode()
	require.NoError(t, err)
	require.NoError(t, x.Carry(t.Context(), stream.Record{Offset: 2, Value: value}))
	for id, why := range map[string]string{"c0": "kind", "c1": "clickhouse.addresses is empty"} {
		s, ok, err := x.ledger.Get(t.Context(), id)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, undo.Refused, s.State)
		require.Contains(t, s.Error, why)
	}
	require.NoError(t, x.Carry(t.Context(), stream.Record{Offset: 9, Value: value}), "another record of the same id is passed")
	require.Empty(t, w.held)
}
