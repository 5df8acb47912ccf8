package keyed

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// partFold is touchyFold for keys that are split: those that begin with 0 are parts, and wait. It tells when a key is
// frozen, and when a part is whole.
type partFold struct{ touchyFold }

func waits(key string) bool { return key[0] == '0' }

func (f partFold) Apply(key string, s *tally, r Record, now time.Time) []Output {
	if r.Kind == topic.KindRefolded {
		return []Output{{Topic: f.topics.AudiencesChanged(), Key: key, Value: []byte("whole " + string(r.Key))}}
	}
	return f.touchyFold.Apply(key, s, r, now)
}

func (f partFold) Freeze(key, into string, s *tally, _ time.Time) []Output {
	f.fails(s, "bad freeze")
	return []Output{{Topic: f.topics.AudiencesChanged(), Key: key, Value: []byte(key + " ends in " + into)}}
}

func (f partFold) Settle(key string, s *tally, _ time.Time) []Output {
	f.fails(s, "bad settle")
	return []Output{{Topic: f.topics.ActivationsSettled(), Key: key, Value: []byte(key + " " + fmt.Sprint(len(s.N)))}}
}

func (e *env) parting(f partFold, fence *Fence, deps Deps) *Stage {
	e.t.Helper()
	f.tallyFold = tallyFold{e.topics}
	s, err := NewFold(Options{
		Stage: topic.StageBuilder, Input: e.topics.EventsIdentified(), Topics: e.topics, Fence: fence, StateVersion: 1, Waits: waits,
	}, Fold[tally](f), deps)
	require.NoError(e.t, err)
	return s
}

func splitInto(into string) string {
	b, _ := json.Marshal(map[string]string{"into": into})
	return string(b)
}

// again tells a record again, for a part.
func (e *env) again(part string, kind topic.Kind, val string) {
	e.t.Helper()
	e.seq++
	pos := topic.Position{Stage: topic.StageCommands, Partition: 0, Seq: e.seq}
	require.NoError(e.t, e.stream.Produce(context.Background(), e.topics.EventsIdentified(), topic.Partition([]byte(part), testPartitions), []stream.Record{{
		Key: []byte(part), Value: []byte(val),
		Headers: []topic.Header{
			{Key: topic.HeaderKind, Value: []byte(kind)}, {Key: topic.HeaderPosition, Value: []byte(pos.String())},
			{Key: topic.HeaderRefold, Value: []byte("command")},
		},
	}}))
}

func (e *env) found(key string) Found[tally] {
	e.t.Helper()
	f, err := ReadState[tally](context.Background(), e.store, e.topics, topic.StageBuilder, 1, key)
	require.NoError(e.t, err)
	return f
}

// TestSplitKeyIsGone: its state, timer and whatever is on the way to it go; its last word is told; readers look on
// at its part, which has its first word when all is told again, and its timer then.
func TestSplitKeyIsGone(t *testing.T) {
	e := newEnv(t)
	fence := NewFence(nil, e.topics, time.Millisecond, e.deps())
	stopFence := run(t, fence.Run)
	defer stopFence()
	later := fmt.Sprintf("due:%d", time.Now().Add(24*time.Hour).UnixMilli())
	due := fmt.Sprintf("due:%d", time.Now().Add(-time.Second).UnixMilli())
	s := e.parting(partFold{}, fence, e.deps())
	stop := run(t, s.Run)
	e.send("a", topic.KindEvent, later)
	e.send("b", topic.KindEvent, "b1")
	e.send("b", topic.KindMerge, mergeInto("a"))
	e.settled()
	e.send("0a", topic.KindEvent, "live") // decided behind the cut, before anything is told again
	e.send("0a", topic.KindEvent, due)
	e.send("a", topic.KindSplit, splitInto("0a"))
	e.send("a", topic.KindSplit, splitInto("0a")) // told twice
	e.send("a", topic.KindEvent, "late")
	e.send("a", topic.KindMerge, mergeInto("9"))
	e.send("b", topic.KindSplit, splitInto("0b"))
	e.send("b", topic.KindEvent, "late too")
	e.send("n", topic.KindErase, `{}`)            // a member that was never a key; erased, it leads nowhere
	e.send("m", topic.KindErase, splitInto("5d")) // or to where it goes on if it comes again
	e.send("n", topic.KindEvent, "late as well")
	e.send("a", topic.KindSplit, `{}`)
	e.settled()
	require.False(t, e.indexed("a"))
	require.Equal(t, Found[tally]{Live: "0b", Parted: true}, e.found("b"), "nothing came to it yet")
	require.Equal(t, Found[tally]{Parted: true}, e.found("n"))
	require.Equal(t, Found[tally]{Live: "5d", Parted: true}, e.found("m"))
	f := e.found("a")
	require.Equal(t, "0a", f.Live)
	require.True(t, f.Parted && f.Waiting)
	require.Zero(t, f.State.Fired, "its timer waits")
	require.False(t, e.indexed("0a"))
	require.Equal(t, 4.0, value(t, s.metrics.gone))
	stop() // a new owner finds it as it is
	s = e.parting(partFold{}, fence, e.deps())
	stop = run(t, s.Run)
	defer stop()
	e.again("0a", topic.KindEvent, later)
	e.again("0a", topic.KindEvent, "boom") // poison is said to be so, also when it is told again
	e.again("0b", topic.KindEvent, "b1")
	e.settled()
	for value := range e.all(e.topics.ActivationsSettled()) {
		require.False(t, waits(value), "told %s before it is whole", value)
	}
	e.again("0a", topic.KindEvent, due)
	e.again("0a", topic.KindRefolded, "{}")
	e.again("0b", topic.KindRefolded, "{}")
	e.again("0c", topic.KindRefolded, "{}") // a part without events
	e.send("0c", topic.KindEvent, "first")
	e.settled()
	require.Eventually(t, func() bool { return e.found("a").State.Fired == 1 }, patience, 5*time.Millisecond)
	require.Equal(t, map[string]int{"live": 1, due: 2, later: 1}, e.found("a").State.N)
	require.Equal(t, map[string]int{"b1": 1}, e.found("b").State.N)
	for _, k := range []string{"0a", "0b", "0c"} {
		require.False(t, e.found(k).Waiting)
	}
	require.Equal(t, map[string]string{
		"b ends in a": "", "a ends in ": "", "whole 0a": "", "whole 0b": "", "whole 0c": "",
	}, e.all(e.topics.AudiencesChanged()))
	told := e.all(e.topics.ActivationsSettled())
	require.Contains(t, told, "0a 3")
	require.Contains(t, told, "0b 1")
	require.Contains(t, told, "0c 1")
	e.outputsOnce(map[string]int{later: 1, "b1": 1, "live": 1, due: 1, "first": 1})
	require.Equal(t, map[string]string{"{}": ReasonInvalidSplit, "boom": ReasonFoldPanic}, e.all(e.topics.EventsRejected()))
}

// TestWhatLeadsToAGoneKey: payloads that wait, records behind them, chains, blocks: all of it is dropped, and nothing is
// stuck.
func TestWhatLeadsToAGoneKey(t *testing.T) {
	e := newEnv(t)
	s := e.parting(partFold{}, nil, e.deps())
	stop := run(t, s.Run)
	e.send("d", topic.KindEvent, "bad merge") // its payload can not be merged
	e.send("d", topic.KindMerge, mergeInto("c"))
	e.send("d", topic.KindEvent, "d late")
	e.send("c", topic.KindEvent, "c1")
	e.send("c", topic.KindMerge, mergeInto("b"))
	e.send("g", topic.KindEvent, "bad merge")
	e.send("g", topic.KindMerge, mergeInto("f"))
	e.settledCommit()
	stuck := func() (n float64) {
		for p := range testPartitions {
			n += value(t, s.metrics.stuck.WithLabelValues(fmt.Sprint(p)))
		}
		return n
	}
	require.Eventually(t, func() bool { return stuck() == 2 }, patience, 5*time.Millisecond)
	e.send("g", topic.KindErase, `{}`) // the origin of what is stuck
	e.send("f", topic.KindErase, `{}`)
	e.send("b", topic.KindSplit, splitInto("0b")) // the end of the chain
	e.settledCommit()
	e.send("e", topic.KindEvent, "e1")
	e.send("e", topic.KindMerge, mergeInto("d")) // a payload that passes through all of them
	e.send("e", topic.KindEvent, "e late")
	require.Eventually(t, func() bool { return stuck() == 0 }, patience, 10*time.Millisecond)
	e.settled()
	for _, k := range []string{"b", "c", "d", "e"} {
		f := e.found(k)
		require.Equal(t, "0b", f.Live)
		require.Nil(t, f.State)
		c, err := e.cell(k)
		require.NoError(t, err)
		require.True(t, c.frozen && c.delivered && len(c.body) == 0 && len(c.blocked) == 0, k)
	}
	require.Equal(t, Found[tally]{Parted: true}, e.found("g"))
	n, err := Pending(context.Background(), e.store, e.topics, topic.StageBuilder)
	require.NoError(t, err)
	stop()
	require.LessOrEqual(t, n, int64(1), "no move is left, but for what is trimmed last")
}

// TestAnOlderBinaryRefusesWhatIsGone: it would take it for a pointer to nowhere, and what waits for whole.
func TestAnOlderBinaryRefusesWhatIsGone(t *testing.T) {
	for _, c := range []cell{{frozen: true, delivered: true, gone: true, forward: "p"}, {waiting: true, bodyVer: 1}} {
		b := c.encode()
		require.EqualValues(t, cellVersion, b[0])
		got, err := decodeCell(b)
		require.NoError(t, err)
		got.rev, got.body = "", nil
		require.Equal(t, c, *got)
	}
	require.EqualValues(t, cellPlain, (&cell{frozen: true, forward: "p"}).encode()[0])
}

// indexed says whether a key stands in the index of timers.
func (e *env) indexed(key string) bool {
	e.t.Helper()
	slot := e.slot(topic.Partition([]byte(key), testPartitions))
	members, err := e.redis.ZMembers(slot.timersKey())
	return err == nil && slices.Contains(members, key)
}

// TestAPartThatTakesAnotherInWaitsForItsOwn: the end of another's telling is not the end of its own.
func TestAPartThatTakesAnotherInWaitsForItsOwn(t *testing.T) {
	e := newEnv(t)
	stop := run(t, e.parting(partFold{}, nil, e.deps()).Run)
	defer stop()
	e.send("0b", topic.KindMerge, mergeInto("0a"))
	e.again("0b", topic.KindEvent, "b1")
	e.again("0b", topic.KindRefolded, "{}")
	e.settled()
	require.True(t, e.found("0b").Waiting)
	e.again("0a", topic.KindEvent, "a1")
	e.again("0a", topic.KindRefolded, "{}")
	e.settled()
	f := e.found("0b")
	require.Equal(t, "0a", f.Live)
	require.False(t, f.Waiting)
	require.Equal(t, map[string]int{"a1": 1, "b1": 1}, f.State.N)
}

// TestAnUnreadableStateThatIsSplitLeavesNoTimer: nobody can say when it was due, so the index is put right whatever it says.
func TestAnUnreadableStateThatIsSplitLeavesNoTimer(t *testing.T) {
	e := newEnv(t)
	s := e.parting(partFold{}, nil, e.deps())
	slot := newFoldDecider(s, Fold[tally](partFold{})).slotOf(Slot{}, "a")
	broken := (&cell{body: []byte("{"), bodyVer: 1}).encode()
	r, err := slot.commit(context.Background(), commitArgs{states: []stateWrite{{key: "a", val: broken, due: time.UnixMilli(7)}}})
	require.NoError(t, err)
	require.True(t, r.ok && e.indexed("a"))
	stop := run(t, s.Run)
	defer stop()
	e.send("a", topic.KindSplit, splitInto("0a"))
	e.settled()
	require.False(t, e.indexed("a"))
}
