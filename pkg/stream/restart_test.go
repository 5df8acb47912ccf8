package stream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/weft-cdp/weft/pkg/embedded"
)

// The broker goes away and comes back, twice, under writers, a reader and a group: what was acknowledged is
// there, the reader gets it all in order, and the group goes on.
func TestBrokerRestarts(t *testing.T) {
	port, err := embedded.FreePort()
	require.NoError(t, err)
	dir := t.TempDir()
	start := func() *kfake.Cluster {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.SyncWrites(),
			kfake.SeedTopics(1, "t"), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
		require.NoError(t, err)
		return cluster
	}
	cluster := start()
	defer func() { cluster.Close() }()
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	b := c.NewBatcher("t", 1, BatcherOptions{})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Run(running) }()

	var acked sync.Map
	var sent atomic.Int64
	var writers sync.WaitGroup
	halt := make(chan struct{})
	for w := range 4 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for i := 0; ; i++ {
				select {
				case <-halt:
					return
				default:
				}
				v := fmt.Sprintf("%d-%d", w, i)
				if err := b.Send(ctx, []byte("k"), []byte(v), nil); err == nil {
					acked.Store(v, true)
					sent.Add(1)
				}
			}
		}()
	}
	group := join(t, c, "g", "t")
	progress := func() bool {
		from := sent.Load()
		return patient(func() bool { return sent.Load() >= from+50 }) && patient(group.holds(1))
	}
	require.True(t, progress())
	for range 2 {
		cluster.Close()
		require.Error(t, c.Ping(ctx))
		cluster = start()
		require.True(t, progress())
	}
	require.True(t, patient(func() bool { // the claim of before the restart may just be ending
		cl := group.claims()[0]
		return cl != nil && cl.Commit(ctx, 1, "still there") == nil
	}))
	close(halt)
	writers.Wait()
	stop()
	require.NoError(t, <-ended)
	group.leave(t)

	got := map[string]bool{}
	for _, r := range readAll(t, c, "t", 0, 0, end(t, c, "t")) {
		got[string(r.Value)] = true
	}
	acked.Range(func(v, _ any) bool {
		require.True(t, got[v.(string)], v) //nolint:forcetypeassert // stored above
		return true
	})
}

// patient waits for a condition.
func patient(f func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if f() {
			return true
		}
	}
	return false
}
