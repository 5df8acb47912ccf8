//go:build integration

package stitcher

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// TestANodeOfAClusterThatGoesBackStopsTheStage: the node that holds no slot of the stage is started again, first with all
// it had, which nobody minds, and then with an older copy of its log.
func TestANodeOfAClusterThatGoesBackStopsTheStage(t *testing.T) {
	dir := t.TempDir()
	nodes, err := embedded.StartRedisCluster(t.Context(), dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, nodes.Close()) }()
	e := newEnv(t)
	e.cfg.Redis.Addresses = nodes.Addresses()
	e.stream, e.store = e.connect()

	const victim = 0 // of three, each with a third of the hash slots, in order
	onVictim := func(tag string) bool {
		text, err := nodes.Say(t.Context(), 0, "CLUSTER", "KEYSLOT", tag)
		require.NoError(t, err)
		slot, err := strconv.Atoi(text)
		require.NoError(t, err)
		return slot < 16384/3
	}
	for p := range testPartitions {
		require.False(t, onVictim(keyed.SlotTag(e.topics, topic.StageStitcher, p)), "the node holds nothing that a slot counts")
	}
	_, port, err := net.SplitHostPort(nodes.Addresses()[victim])
	require.NoError(t, err)
	log := filepath.Join(dir, port, "appendonlydir")
	older := filepath.Join(t.TempDir(), "older")
	restart := func(between func()) {
		require.NoError(t, nodes.Kill(victim))
		between()
		require.NoError(t, nodes.Start(t.Context(), victim))
		require.NoError(t, nodes.Settled(t.Context()))
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	s := e.service()
	go func() { done <- s.Run(ctx) }()
	link := func(from, to int) {
		for i := from; i < to; i++ {
			e.send(fmt.Sprint("k", i), "web", fmt.Sprint("m", i), "", fmt.Sprintf(`{"type":"identify","anonymousId":"a%d","userId":"u%d"}`, i, i%40))
		}
		e.settled()
	}
	link(0, 100)
	restart(func() { require.NoError(t, os.CopyFS(older, os.DirFS(log))) })
	link(100, 200) // many of them on the victim
	e.send("k0", "web", "m200", "", `{"type":"page","anonymousId":"a0"}`)
	e.settled()
	require.Empty(t, done)
	ends := e.ends()
	restart(func() {
		require.NoError(t, os.RemoveAll(log))
		require.NoError(t, os.CopyFS(log, os.DirFS(older)))
	})
	lost := 100 // a device whose link was lost
	for ; lost < 200; lost++ {
		if n := e.node(event.AnonymousID, fmt.Sprint("a", lost)); onVictim(fmt.Sprintf("{%sg:%02x}", e.topics.Prefix, n[15])) {
			break
		}
	}
	e.send("k1", "web", "m201", "", fmt.Sprintf(`{"type":"identify","anonymousId":"a%d","traits":{"email":"x@example.com"}}`, lost))
	select {
	case err := <-done:
		require.ErrorIs(t, err, keyed.ErrStateLost)
		require.ErrorIs(t, err, identity.ErrLost)
	case <-time.After(patience):
		t.Fatal("nobody stopped")
	}
	require.Equal(t, ends, e.ends(), "nothing was published")
	require.ErrorIs(t, e.service().Run(t.Context()), keyed.ErrStateLost)

	_, err = e.rebuild()
	require.NoError(t, err)
	defer e.start()()
	e.settled()
	events := ofKind(e.read(e.topics.EventsIdentified()), topic.KindEvent)
	require.Len(t, events, 202)
	roots, err := identity.Lookup(t.Context(), identity.NewGraph(e.store, e.topics.Prefix), e.node(event.AnonymousID, fmt.Sprint("a", lost)), e.node(event.Email, "x@example.com"))
	require.NoError(t, err)
	want := e.node(event.UserID, fmt.Sprint("u", lost%40))
	require.Equal(t, []identity.Node{want, want}, roots)
}
