package keyed

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/topic"
)

// told is the count of writes that the commit of a key's partition tells of.
func (e *env) told(key string) int64 {
	e.t.Helper()
	in := e.topics.EventsIdentified()
	all, err := e.stream.Committed(context.Background(), e.topics.Group(topic.StageBuilder, in), in)
	require.NoError(e.t, err)
	return toldWrites(all[topic.Partition([]byte(key), testPartitions)].Metadata)
}

// TestLostMoveIsNoticed: a move of another slot leaves the applied offset where it is. A Redis that goes back to
// before it must not be trusted, by the owner of then or the next one.
func TestLostMoveIsNoticed(t *testing.T) {
	for name, living := range map[string]bool{"next owner": false, "same owner": true} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			other := "c"
			for topic.Partition([]byte("a"), testPartitions) == topic.Partition([]byte(other), testPartitions) {
				other += "c"
			}
			slot := e.slot(topic.Partition([]byte("a"), testPartitions))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, 1)
			start := func() {
				s := e.stage(nil, e.deps())
				go func() { done <- s.Run(ctx) }()
			}
			start()
			e.send("a", topic.KindEvent, "a1")
			e.send(other, topic.KindEvent, "c1")
			e.settled()
			count := func() int64 { m, err := slot.meta(ctx); require.NoError(t, err); return m.writes }
			require.Eventually(t, func() bool { return e.told("a") == count() }, patience, 5*time.Millisecond)

			before, err := slot.meta(ctx)
			require.NoError(t, err)
			state, err := e.redis.Get(slot.stateKey("a"))
			require.NoError(t, err)
			fields := map[string]string{}
			keys, err := e.redis.HKeys(slot.metaKey())
			require.NoError(t, err)
			for _, f := range keys {
				fields[f] = e.redis.HGet(slot.metaKey(), f)
			}

			e.send(other, topic.KindMerge, mergeInto("a"))
			require.Eventually(t, func() bool { return e.told("a") > before.writes }, patience, 5*time.Millisecond, "the commit tells of it though nothing else came")
			_, a := e.read("a")
			require.Equal(t, map[string]int{"a1": 1, "c1": 1}, a.N)
			now, err := slot.meta(ctx)
			require.NoError(t, err)
			require.Equal(t, before.applied, now.applied)

			if !living {
				cancel()
				require.NoError(t, <-done)
				ctx, cancel = context.WithCancel(context.Background())
				defer cancel()
			}
			require.NoError(t, e.redis.Set(slot.stateKey("a"), state))
			for f, v := range fields {
				e.redis.HSet(slot.metaKey(), f, v)
			}
			if !living {
				start()
			}
			select {
			case err := <-done:
				require.ErrorIs(t, err, ErrStateLost)
			case <-time.After(patience):
				t.Fatal("nobody stopped")
			}
		})
	}
}

// TestWritesAreCounted: a trim or a refusal is none; a slot of before the count begins at 0, and what its commit says
// is no claim.
func TestWritesAreCounted(t *testing.T) {
	e := newEnv(t)
	ctx, slot := context.Background(), e.slot(0)
	e.redis.HSet(slot.metaKey(), "applied", "5", "v", "1")
	var want int64
	for i, args := range []commitArgs{
		{expect: "5", applied: "6"}, {expect: "5", applied: "7"}, {expect: trimOnly, pub: 1}, {outputs: [][]byte{{1}}},
	} {
		r, err := slot.commit(ctx, args)
		require.NoError(t, err)
		if r.ok {
			want++
		}
		require.Equal(t, want, r.writes, i)
	}
	require.Equal(t, int64(2), want)
	for metadata, n := range map[string]int64{"": 0, "w=12": 12, "w=": 0, "12": 0, "w=x": 0} {
		require.Equal(t, n, toldWrites(metadata), metadata)
	}
}

// TestCountGoesOnOverARebuild: what Kafka's commit knows of is less than what a rebuilt slot counts, though Redis had
// lost more than that; and a slot of before the rebuild does not pass for one of behind it.
func TestCountGoesOnOverARebuild(t *testing.T) {
	e := newEnv(t)
	stop := run(t, e.stage(nil, e.deps()).Run)
	for range 20 {
		e.send("a", topic.KindEvent, "1")
		e.settledCommit()
	}
	e.settled()
	slot := e.slot(topic.Partition([]byte("a"), testPartitions))
	require.Eventually(t, func() bool { m, err := slot.meta(context.Background()); return err == nil && e.told("a") == m.writes }, patience, 5*time.Millisecond)
	stop()
	told := e.told("a")
	e.redis.FlushAll()
	require.NoError(t, e.rebuild(nil, zaptest.NewLogger(t)))
	m, err := slot.meta(context.Background())
	require.NoError(t, err)
	require.Greater(t, m.writes, told)
	stop = run(t, e.stage(nil, e.deps()).Run)
	e.send("a", topic.KindEvent, "2")
	e.settled()
	stop()
	_, a := e.read("a")
	require.Equal(t, map[string]int{"1": 20, "2": 1}, a.N)
	require.Greater(t, e.told("a"), told)
}
