package stream

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// testManyPartitions reads the partitions of two topics at once, in answers of a few batches, from all positions
// of their users, and expects each to get its own.
func testManyPartitions(t *testing.T, brokers []string) {
	const partitions, batches, each = 6, 20, 7
	c, ctx := client(t, brokers), testContext(t)
	topics := []string{newTopic(t, c, "many-a", partitions), newTopic(t, c, "many-b", partitions)}
	var wg sync.WaitGroup
	errs := make(chan error, 2*partitions)
	for _, n := range topics {
		for p := range partitions {
			wg.Go(func() {
				for i := range batches {
					if err := c.Produce(ctx, n, p, text(fmt.Sprintf("%s/%d/%d", n, p, i), each)); err != nil {
						errs <- err
						return
					}
				}
			})
			wg.Go(func() { errs <- readOwn(ctx, c, n, p, batches, each) })
		}
	}
	wg.Wait()
	for range 2 * partitions {
		require.NoError(t, <-errs)
	}
}

// readOwn reads while another writes, and checks each record while it is valid.
func readOwn(ctx context.Context, c *Client, topicName string, p, batches, each int) error {
	f := c.NewFetcher(topicName, p, 0, FetchOptions{MaxBytes: 1000})
	defer f.Close()
	for next := int64(0); next < int64(batches*each); {
		b, err := f.Fetch(ctx, time.Duration(p)*20*time.Millisecond)
		if err != nil {
			return err
		}
		for _, r := range b.Records {
			want := fmt.Sprintf("%s/%d/%d-%d", topicName, p, next/int64(each), next%int64(each))
			if r.Offset != next || string(r.Value) != want || r.Topic != topicName || r.Partition != p {
				return fmt.Errorf("offset %d of %s partition %d: %q, want %q at %d", r.Offset, r.Topic, r.Partition, r.Value, want, next)
			}
			next++
		}
		if b.Next != next || b.HighWatermark < next {
			return fmt.Errorf("next %d of %d, read up to %d", b.Next, b.HighWatermark, next)
		}
	}
	return nil
}

// testOversized lets partitions whose batches are larger than what is asked for share a request: a broker gives
// only the first of an answer whole, and the others nothing.
func testOversized(t *testing.T, brokers []string) {
	const partitions = 4
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "oversized", partitions)
	noise := incompressible(300_000)
	for p := range partitions {
		require.NoError(t, c.Produce(ctx, n, p, []Record{{Value: noise[p:]}, {Value: noise[:p+1]}}))
	}
	var wg sync.WaitGroup
	sizes := make([]int, partitions)
	for p := range partitions {
		wg.Go(func() {
			f := c.NewFetcher(n, p, 0, FetchOptions{MaxBytes: 1000})
			defer f.Close()
			for next := int64(0); next < 2 && ctx.Err() == nil; {
				b, err := f.Fetch(ctx, time.Second)
				if err != nil {
					return
				}
				for _, r := range b.Records {
					sizes[p] += len(r.Value)
				}
				next = b.Next
			}
		})
	}
	wg.Wait()
	for _, size := range sizes {
		require.Equal(t, len(noise)+1, size)
	}
}

// Idle partitions wait in requests that they share. Not always in a single one: what began apart, and waits as long, stays
// apart until records come.
func TestIdlePartitionsShareARequest(t *testing.T) {
	const partitions = 8
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "share", partitions)
	var most atomic.Int32
	cluster.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if req, ok := r.(*kmsg.FetchRequest); ok && len(req.Topics) == 1 {
			most.Store(max(most.Load(), i32(len(req.Topics[0].Partitions))))
		}
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for p := range partitions {
		wg.Go(func() {
			f := c.NewFetcher(n, p, 0, FetchOptions{})
			defer f.Close()
			for ctx.Err() == nil {
				_, _ = f.Fetch(ctx, 20*time.Millisecond)
			}
		})
	}
	require.Eventually(t, func() bool { return most.Load() >= partitions/4 }, patience, time.Millisecond)
	cancel()
	wg.Wait()
}

// A request that waits for an idle partition does not hold up another.
func TestIdlePartitionHoldsUpNobody(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "idle", 2)
	polls := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: n, Partitions: []int32{0}, Count: -1, Observe: true})
	idle, busy := c.NewFetcher(n, 0, 0, FetchOptions{}), c.NewFetcher(n, 1, 0, FetchOptions{})
	waiting, cancel := context.WithCancel(ctx)
	got := make(chan error, 1)
	go func() {
		_, err := idle.Fetch(waiting, time.Hour)
		got <- err
	}()
	require.NoError(t, polls.Wait(ctx, 1))
	for i := range 50 {
		require.NoError(t, c.Produce(ctx, n, 1, text("x", 1)))
		for busy.next <= int64(i) {
			_, err := busy.Fetch(ctx, time.Second)
			require.NoError(t, err)
		}
	}
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)

	// Close wakes a Fetch that waits.
	go func() {
		_, err := idle.Fetch(ctx, time.Hour)
		got <- err
	}()
	require.Eventually(t, func() bool {
		c.pulls.Lock()
		defer c.pulls.Unlock()
		return idle.listening
	}, patience, time.Millisecond)
	idle.Close()
	require.ErrorIs(t, <-got, ErrClosed)
}

// What a gate in CI can count exactly, because the broker is another process: allocations and requests per event,
// with plain batches of 100 events and as Weft writes them.
func TestConsumeIsCheap(t *testing.T) {
	for kind, most := range map[string]float64{"plain": 4.5, "lz4": 1.2} { // of requests per 1,000 events: one partition's answer each
		t.Run(kind, func(t *testing.T) {
			c := client(t, otherProcess(t, kind))
			const n = 200_000
			var fs [contestPartitions]*Fetcher
			for p := range fs {
				fs[p] = c.NewFetcher("t", p, 0, FetchOptions{})
			}
			total := 0
			drain := func() {
				for total = 0; total < n; {
					for _, f := range fs {
						b, err := f.Fetch(context.Background(), time.Second)
						require.NoError(t, err)
						total += len(b.Records)
					}
				}
			}
			drain()
			requests := c.wire.of(protocol.Fetch).answered
			before := counted(t, requests)
			allocations := mallocs(drain)
			perEvent, per1000 := float64(allocations)/float64(total), 1000*(counted(t, requests)-before)/float64(total)
			t.Logf("%d events: %.4f allocations per event, %.2f requests per 1,000 events", total, perEvent, per1000)
			// How many partitions share a request depends on the machine; what a request costs does not. With one
			// partition per request, and Weft's own batches, it is one allocation per 100 events.
			require.Less(t, 1000*perEvent/per1000, 8.0)
			require.Less(t, per1000, most)
		})
	}
}

func TestProduceIsCheap(t *testing.T) {
	c := client(t, otherProcess(t, "blackhole"))
	recs := events(contestBatch)
	const calls = 100
	produce := func() {
		for range calls {
			require.NoError(t, c.Produce(context.Background(), "t", 0, recs))
		}
	}
	produce()
	requests := c.wire.of(protocol.Produce).answered
	before := counted(t, requests)
	allocations := mallocs(produce)
	require.InDelta(t, calls, counted(t, requests)-before, 0, "one request per batch")
	perEvent := float64(allocations) / (calls * contestBatch)
	t.Logf("%.4f allocations per event", perEvent)
	require.Less(t, perEvent, 0.08) // 64 per request; the race detector makes pools forget
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

// mallocs counts the allocations of f, of the whole process.
func mallocs(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// What the records of one Fetch take is bounded, however well the log is compressed.
func TestFetchIsBounded(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "bounded", 1)
	for range 20 { // of 800 KB each, that LZ4 makes some 10 KB
		require.NoError(t, c.Produce(ctx, n, 0, []Record{{Value: filler(400_000)}, {Value: filler(400_000)}}))
	}
	f := c.NewFetcher(n, 0, 0, FetchOptions{})
	defer f.Close()
	most := 0
	for f.next < 40 {
		b, err := f.Fetch(ctx, time.Second)
		require.NoError(t, err)
		size := 0
		for i := range b.Records {
			size += recordSize(&b.Records[i], math.MaxInt32)
		}
		most = max(most, size)
	}
	require.LessOrEqual(t, most, parseBytes+maxProduceBytes)
}
