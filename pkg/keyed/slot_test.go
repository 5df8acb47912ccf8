package keyed

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

func (e *env) slot(p int) Slot {
	return newSlot(e.store, e.topics, topic.StageBuilder, p, store.NewScript(commitSource))
}

// TestScriptIsAcceptedOnceOnly: a retry whose first copy has landed, a late copy and a stale owner are
// refused, and change nothing.
func TestScriptIsAcceptedOnceOnly(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	s := e.slot(0)
	first := commitArgs{
		expect: "none", applied: "5", outputs: [][]byte{[]byte("o1"), []byte("o2")}, pos: map[string]int64{"up:0": 9},
		states: []stateWrite{{key: "k", val: (&cell{body: []byte("one")}).encode(), due: time.UnixMilli(7)}},
		moves:  [][]byte{[]byte("m1")}, seenIDs: [][]byte{[]byte("id")}, seenAt: time.UnixMilli(0), seenFor: time.Hour,
	}
	r, err := s.commit(ctx, first)
	require.NoError(t, err)
	require.Equal(t, commitResult{ok: true, reason: "ok", writes: 1}, r)
	dump := e.redis.Dump()

	r, err = s.commit(ctx, first)
	require.NoError(t, err)
	require.Equal(t, "applied", r.reason)
	stale := first
	stale.expect, stale.applied = "5", "6"
	r, err = s.commit(ctx, stale)
	require.NoError(t, err)
	require.Equal(t, "revision", r.reason, "the state was written since it was read as absent")
	timersOnly := first
	timersOnly.expect, timersOnly.applied = "5", "5"
	r, err = s.commit(ctx, timersOnly)
	require.NoError(t, err)
	require.Equal(t, "revision", r.reason)
	require.Equal(t, dump, e.redis.Dump(), "a refused script changes nothing")

	m, pos, err := s.load(ctx)
	require.NoError(t, err)
	require.Equal(t, meta{applied: 5, nextSeq: 2, nextMov: 1, writes: 1}, m)
	require.Equal(t, map[string]int64{"up:0": 9}, pos)

	for range 2 { // trimming twice, and trimming less than is trimmed, is harmless
		_, err = s.commit(ctx, commitArgs{expect: trimOnly, pub: 1, mov: 1})
		require.NoError(t, err)
	}
	m, _, err = s.load(ctx)
	require.NoError(t, err)
	require.Equal(t, meta{applied: 5, nextSeq: 2, pubSeq: 1, nextMov: 1, movDone: 1, writes: 1}, m)
	r, err = s.commit(ctx, commitArgs{expect: "5", applied: "6", outputs: [][]byte{[]byte("o3")}})
	require.NoError(t, err)
	require.Equal(t, int64(2), r.firstSeq)
	require.Equal(t, int64(1), r.pubSeq)
}

// TestMoveThroughFrozenChainTwice is test 9 of the model: a chain of three, each move of it brought home
// again by an owner that was asleep, at every point of the chain's making.
func TestMoveThroughFrozenChainTwice(t *testing.T) {
	e := newEnv(t)
	stage := e.stage(nil, e.deps())
	d := newFoldDecider(stage, Fold[tally](tallyFold{e.topics}))
	ctx := context.Background()
	at := func(key string) Slot { return d.slotOf(Slot{}, key) }
	put := func(key string, c *held[tally]) {
		t.Helper()
		w, err := d.write(c, defaultMaxState)
		require.NoError(t, err)
		r, err := at(key).commit(ctx, commitArgs{states: []stateWrite{w}})
		require.NoError(t, err)
		require.True(t, r.ok)
	}
	freeze := func(key, into string, seq int64) *move {
		t.Helper()
		h, err := d.read(ctx, Slot{}, key)
		require.NoError(t, err)
		h.frozen, h.forward, h.moveSeq = true, into, seq
		put(key, h)
		return &move{seq: seq, origin: key}
	}
	for _, k := range []string{"w", "v", "u", "t"} {
		put(k, &held[tally]{cell: &cell{}, key: k, s: &tally{N: map[string]int{k: 1}}})
	}
	late := &Record{Kind: topic.KindEvent}
	late.Value = []byte("late")
	var moves []*move
	again := func() {
		t.Helper()
		for _, m := range moves {
			require.NoError(t, d.home(ctx, Slot{}, m), fmt.Sprint(m))
		}
	}
	moves = append(moves, freeze("w", "v", 0))
	again()
	moves = append(moves, &move{seq: 1, origin: "w", late: late})
	again()
	moves = append(moves, freeze("v", "u", 0))
	// The late record and the first payload come once more before v's own payload is home: they must
	// help it first, and then be dropped by the notes that travelled with it.
	require.NoError(t, d.home(ctx, Slot{}, moves[1]))
	require.NoError(t, d.home(ctx, Slot{}, moves[0]))
	again()
	moves = append(moves, freeze("u", "t", 3))
	again()
	again()
	live, s := e.read("w")
	require.Equal(t, "t", live)
	require.Equal(t, map[string]int{"w": 1, "v": 1, "u": 1, "t": 1, "late": 1}, s.N)
}

// TestAnotherIncarnationIsRefused: whoever holds what it read before a rebuild can change nothing, not even trim.
func TestAnotherIncarnationIsRefused(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	old := e.slot(0)
	_, err := old.commit(ctx, commitArgs{expect: "none", applied: "5", outputs: [][]byte{[]byte("o1")}})
	require.NoError(t, err)
	e.redis.HSet(old.metaKey(), "inc", "new")
	dump := e.redis.Dump()
	write := commitArgs{states: []stateWrite{{key: "k", val: (&cell{}).encode()}}, outputs: [][]byte{[]byte("o")}}
	for name, a := range map[string]commitArgs{
		"batch": {expect: "5", applied: "6"}, "foreign move": write, "trim": {expect: trimOnly, pub: 1, mov: 1},
	} {
		r, err := old.commit(ctx, a)
		require.NoError(t, err)
		require.False(t, r.ok, name)
		require.Equal(t, refusedIncarnation, r.reason, name)
		require.Equal(t, dump, e.redis.Dump(), name)
	}
	now := old
	now.inc = "new"
	r, err := now.commit(ctx, commitArgs{expect: "5", applied: "6"})
	require.NoError(t, err)
	require.True(t, r.ok)
}

// TestFrozenHopIsHelpedFirst: what passes a frozen key finds that key's payload home already, so that a person's
// past comes before what is late. (Exactly once would hold without it.)
func TestFrozenHopIsHelpedFirst(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	d := newFoldDecider(e.stage(nil, e.deps()), Fold[tally](tallyFold{e.topics}))
	put := func(h *held[tally]) {
		t.Helper()
		w, err := d.write(h, defaultMaxState)
		require.NoError(t, err)
		ok, err := d.put(ctx, Slot{}, w, nil)
		require.NoError(t, err)
		require.True(t, ok)
	}
	put(&held[tally]{cell: &cell{frozen: true, forward: "b", delivered: true}, key: "a", s: &tally{}})
	put(&held[tally]{cell: &cell{frozen: true, forward: "c"}, key: "b", s: &tally{N: map[string]int{"past": 1}, DueAt: 7}})
	late := &Record{Kind: topic.KindEvent}
	late.Value = []byte("cancel") // takes the timer away that the payload brings: the order shows
	require.NoError(t, d.home(ctx, Slot{}, &move{seq: 5, origin: "a", late: late}))
	_, s := e.read("c")
	require.Equal(t, map[string]int{"past": 1, "cancel": 1}, s.N)
	require.Zero(t, s.DueAt, "the past came first")
	b, err := e.cell("b")
	require.NoError(t, err)
	require.True(t, b.delivered)
}

// TestListsAreReadInOnePiece: another owner trims while the lists are read; no entry gets another's number.
func TestListsAreReadInOnePiece(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	s := e.slot(0)
	const n = 200
	var outs [][]byte
	for i := range n {
		outs = append(outs, encodeOutput(&Output{Topic: "t", Key: fmt.Sprint(i)}, nil))
	}
	_, err := s.commit(ctx, commitArgs{expect: "none", applied: "5", outputs: outs})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		for i := range int64(n) {
			if _, err := s.commit(ctx, commitArgs{expect: trimOnly, pub: i + 1}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		m, outs, _, err := s.lists(ctx, 0, n)
		require.NoError(t, err)
		for i := range outs {
			require.Equal(t, fmt.Sprint(m.pubSeq+int64(i)), outs[i].Key)
		}
		if len(outs) == 0 {
			break
		}
	}
	require.NoError(t, <-done)
}

// An owner whose clock is past midnight notes an id in tomorrow's set; the next owner's clock is still before it.
func TestIDNotedByAClockAheadIsSeen(t *testing.T) {
	e, ctx := newEnv(t), context.Background()
	s := e.slot(0)
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	const week = 7 * 24 * time.Hour
	r, err := s.commit(ctx, commitArgs{expect: "none", applied: "1", seenIDs: [][]byte{[]byte("a")}, seenAt: midnight.Add(time.Second), seenFor: week})
	require.NoError(t, err)
	require.True(t, r.ok)
	for _, at := range []time.Duration{time.Minute, -time.Second, -10 * time.Minute, week - time.Minute} {
		seen, err := s.Seen(ctx, [][]byte{[]byte("a"), []byte("b")}, midnight.Add(at), week)
		require.NoError(t, err)
		require.Equal(t, []bool{true, false}, seen, at)
	}
	require.Len(t, seenDays(midnight.Add(12*time.Hour), week), 8, "no day more is looked at than need be")
}
