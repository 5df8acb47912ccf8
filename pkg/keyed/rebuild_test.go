package keyed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/topic"
)

// retally is tallyFold in a rebuild.
type retally struct{ tallyFold }

var _ Restorer[tally] = retally{}

func (retally) InOrder() bool                                                { return false }
func (retally) Recall(context.Context, Reader) error                         { return nil }
func (retally) Restore(string, *tally, time.Time)                            {}
func (retally) Concluding(context.Context, int, Reader) error                { return nil }
func (retally) Conclude(string, End, *tally, time.Time) (o []Output, b bool) { return o, b }
func (retally) Concluded(int) error                                          { return nil }

var errDied = errors.New("died")

// noPast is a past that can not be read: a rebuild dies behind its first step.
type noPast struct{}

func (noPast) Open(context.Context, string, int) (History, error) { return nil, errDied }

// rebuild rebuilds the stage; a nil past is what Kafka holds.
func (e *env) rebuild(past Past, log *zap.Logger) error {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sc, st := e.connect()
	ends, err := sc.EndOffsets(ctx, e.topics.EventsIdentified())
	require.NoError(e.t, err)
	if past == nil {
		past = &LogPast{Stream: sc, End: sc.EndOffsets}
	}
	s, err := NewFold(Options{Stage: topic.StageBuilder, Input: e.topics.EventsIdentified(), Topics: e.topics, StateVersion: 1},
		Fold[tally](retally{tallyFold{e.topics}}), Deps{Stream: sc, Store: st, Log: log})
	require.NoError(e.t, err)
	_, err = s.Rebuild(ctx, RebuildOptions{Past: past, From: e.topics, Ends: ends})
	return err
}

func (e *env) metaKey(p int) string { return SlotTag(e.topics, topic.StageBuilder, p) + "meta" }

// lived is a stage that has counted something, and whose slots know of higher sequences than the topics do, as
// when retention has cut them.
func lived(t *testing.T, sequence int64) *env {
	e := newEnv(t)
	stop := run(t, e.stage(nil, e.deps()).Run)
	for i := range 9 {
		e.send(fmt.Sprint("k", i), topic.KindEvent, "1")
	}
	e.settled()
	stop()
	for p := range testPartitions {
		e.redis.HSet(e.metaKey(p), "nextseq", strconv.FormatInt(sequence, 10), "pubseq", strconv.FormatInt(sequence, 10))
	}
	return e
}

// However often a rebuild dies, the sequences of the slot that was there go on: what readers have seen would be
// dropped as a repeat.
func TestRebuildsThatDieKeepTheSequences(t *testing.T) {
	const sequence = 1_000_000_000_000_000 // more digits than Lua prints by itself
	e := lived(t, sequence)
	for range 2 {
		require.ErrorIs(t, e.rebuild(noPast{}, zaptest.NewLogger(t)), errDied)
		require.ErrorIs(t, e.stage(nil, e.deps()).Run(context.Background()), ErrRebuilding)
	}
	require.NoError(t, e.rebuild(nil, zaptest.NewLogger(t)))
	told := int64(0)
	for p := range testPartitions {
		m, err := newSlot(e.store, e.topics, topic.StageBuilder, p, nil).meta(context.Background())
		require.NoError(t, err)
		require.False(t, m.marked)
		require.Equal(t, int64(sequence), m.pubSeq)
		require.Empty(t, e.redis.HGet(e.metaKey(p), "kept"))
		told += m.nextSeq - m.pubSeq
	}
	require.Equal(t, int64(9), told, "what was folded again stands above")
}

// A Redis that does not answer for a moment is no reason to take a slot of a newer version for an empty one.
func TestRebuildAsksAgainForASlot(t *testing.T) {
	e := lived(t, 1000)
	newer := strconv.Itoa(rebuildVersion + 1)
	e.redis.HSet(e.metaKey(0), "v", newer)
	e.kafka.ControlKey(int16(kmsg.DescribeGroups), func(kmsg.Request) (kmsg.Response, error, bool) { // asked for right before the slots
		e.redis.SetError("LOADING injected")
		return nil, nil, false
	})
	held := false
	log := zaptest.NewLogger(t, zaptest.WrapOptions(zap.Hooks(func(line zapcore.Entry) error {
		if line.Message == "rebuild is held" {
			held = true
			e.redis.SetError("")
		}
		return nil
	})))
	require.ErrorIs(t, e.rebuild(nil, log), ErrNewerState)
	require.True(t, held)
	require.Equal(t, newer, e.redis.HGet(e.metaKey(0), "v"), "nothing is touched")
	require.Equal(t, "1000", e.redis.HGet(e.metaKey(1), "nextseq"))
}

// What a stage has rejected is no loss: with the defect repaired, a rebuild folds it with the rest of history, once, and
// rejects nothing again.
func TestRebuildFoldsWhatWasPoison(t *testing.T) {
	e := newEnv(t)
	stop := run(t, e.touchy(touchyFold{}, nil, e.deps()).Run)
	for _, value := range []string{"1", "boom", "1"} {
		e.send("ann", topic.KindEvent, value)
	}
	e.settled()
	stop()
	_, before := e.read("ann")
	require.Equal(t, map[string]int{"1": 2}, before.N)
	require.Equal(t, map[string]string{"boom": ReasonFoldPanic}, e.all(e.topics.EventsRejected()))

	for range 2 { // a second time is as good as the first
		require.NoError(t, e.rebuild(nil, zaptest.NewLogger(t)))
		stop = run(t, e.stage(nil, e.deps()).Run)
		e.settled()
		stop()
		_, after := e.read("ann")
		require.Equal(t, map[string]int{"1": 2, "boom": 1}, after.N)
	}
	require.Equal(t, map[string]string{"boom": ReasonFoldPanic}, e.all(e.topics.EventsRejected()))
}
