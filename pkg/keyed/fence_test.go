package keyed

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestTimerFiresOnceBehindTheFence(t *testing.T) {
	e := newEnv(t)
	// Edge 0 is a topic that nobody reads yet: the fence must hold the timer although it is due.
	e.topics.Prefix = "test."
	inbox := e.topics.EventsInbox()
	edges := []Edge{
		{Inputs: []string{inbox}, Stage: topic.StageCollector},
		{Inputs: []string{e.topics.EventsIdentified()}, Stage: topic.StageBuilder},
	}
	require.NoError(t, e.stream.Produce(context.Background(), inbox, 0, []stream.Record{{Value: []byte("not yet read")}}))
	began := time.Now()
	fence := NewFence(edges, e.topics, 5*time.Millisecond, e.deps())
	stopFence := run(t, fence.Run)
	defer stopFence()
	stop := run(t, e.stage(fence, e.deps()).Run)
	defer stop()
	e.send("bought", topic.KindEvent, fmt.Sprintf("due:%d", time.Now().Add(-time.Second).UnixMilli()))
	e.send("left", topic.KindEvent, fmt.Sprintf("due:%d", time.Now().Add(-time.Second).UnixMilli()))
	e.settledCommit()
	require.Eventually(t, func() bool { _, _, waits := fence.Waiting(); return waits }, patience, 5*time.Millisecond)
	e.send("bought", topic.KindEvent, "cancel") // arrives while the walk waits at edge 0
	e.settledCommit()
	_, s := e.read("left")
	require.Zero(t, s.Fired, "the fence was not through")
	since, at, waits := fence.Waiting()
	require.True(t, waits)
	require.Equal(t, inbox+", to be read by "+topic.StageCollector, at)
	require.False(t, since.Before(began), since)

	// The collector reads its inlet: only now the walk can end.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- e.stream.RunGroup(ctx, stream.GroupOptions{Group: e.topics.Group(topic.StageCollector, inbox), Topics: []string{inbox}},
			func(ctx context.Context, cl *stream.Claim) error {
				ends, err := e.stream.EndOffsets(ctx, inbox)
				if err != nil {
					return err
				}
				if err := cl.Commit(ctx, ends[cl.Partition], ""); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			})
	}()
	require.Eventually(t, func() bool { _, s := e.read("left"); return s.Fired == 1 }, patience, 10*time.Millisecond)
	_, s = e.read("bought")
	require.Zero(t, s.Fired)
	cancel()
	require.NoError(t, <-done)
}

// A walk that an error takes back to its top again and again has waited since it first met the error.
func TestFenceTellsWhatItWaitsFor(t *testing.T) {
	e := newEnv(t)
	core, logs := observer.New(zap.WarnLevel)
	var clock atomic.Int64
	deps := Deps{Stream: e.stream, Store: e.store, Log: zap.New(core), Now: func() time.Time { return time.Unix(clock.Add(1), 0) }}
	fence := NewFence([]Edge{
		{Inputs: []string{e.topics.EventsInbox()}, Stage: topic.StageCollector},
		{Inputs: []string{"nowhere"}, Stage: topic.StageStitcher},
	}, e.topics, time.Millisecond, deps)
	_, _, waits := fence.Waiting()
	require.False(t, waits)
	stop := run(t, fence.Run)
	defer stop()
	fence.Ticket()
	require.Eventually(t, func() bool { return logs.FilterMessage("fence walk is held").Len() >= 2 }, patience, time.Millisecond)
	require.Eventually(t, func() bool {
		_, at, waits := fence.Waiting()
		return waits && at == "nowhere, to be read by "+topic.StageStitcher
	}, patience, time.Millisecond)
	since, _, _ := fence.Waiting()
	require.Equal(t, time.Unix(3, 0), since, "when it first came there, behind the spools and the first edge")
}
