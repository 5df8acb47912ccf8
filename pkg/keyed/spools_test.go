package keyed

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/spool/registry"
)

// No walk ends while a collector's spool is registered, unless an operator has said so, which is told.
func TestFenceWaitsForSpools(t *testing.T) {
	e := newEnv(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spools := registry.New(e.store, e.topics)
	entry := registry.Entry{ID: "r1", Spool: "s1", Host: "door-1", Dir: "/spool/0", Since: time.Unix(5, 0).UTC()}
	require.NoError(t, spools.Register(ctx, entry))
	require.NoError(t, spools.Register(ctx, registry.Entry{ID: "r2", Spool: "s2", Host: "door-2", Dir: "/spool/0", Since: time.Unix(6, 0).UTC()}))
	fence := NewFence(nil, e.topics, time.Millisecond, e.deps())
	stop := run(t, fence.Run)
	defer stop()
	walk := fence.Ticket()
	require.Eventually(t, func() bool {
		_, at, waits := fence.Waiting()
		return waits && at == "spooled events of door-1:/spool/0, door-2:/spool/0"
	}, time.Minute, time.Millisecond)
	require.Zero(t, fence.Done())

	require.NoError(t, spools.Unregister(ctx, "r2"))
	require.NoError(t, spools.Unregister(ctx, "r2"), "repeated")
	require.Eventually(t, func() bool {
		_, at, waits := fence.Waiting()
		return waits && at == "spooled events of door-1:/spool/0"
	}, time.Minute, time.Millisecond)
	note := registry.Note{Reason: "the machine burnt", At: time.Unix(7, 0).UTC()}
	require.NoError(t, spools.Override(ctx, entry, note))
	require.Eventually(t, func() bool { return fence.Done() >= walk }, time.Minute, time.Millisecond)
	require.True(t, fence.Overridden())
	entries, err := spools.List(ctx)
	require.NoError(t, err)
	entry.Override = &note
	require.Equal(t, []registry.Entry{entry}, entries)

	// An override ends with its registration: it is not the next one's.
	require.NoError(t, spools.Forget(ctx, entry, note))
	walk = fence.Ticket()
	require.Eventually(t, func() bool { return fence.Done() >= walk }, time.Minute, time.Millisecond)
	require.False(t, fence.Overridden())
	entry.Override = nil
	require.NoError(t, spools.Register(ctx, entry))
	entries, err = spools.List(ctx)
	require.NoError(t, err)
	require.Equal(t, []registry.Entry{entry}, entries)
}
