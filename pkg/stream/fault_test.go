package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/embedded"
)

func TestProduceRetries(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	for _, e := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas,
		kerr.CorruptMessage, kerr.KafkaStorageError, kerr.UnknownServerError,
		kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, // stored although the answer is an error
	} {
		t.Run(e.Message, func(t *testing.T) {
			n := newTopic(t, c, "retries", 1)
			h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: n, Err: e, Count: 2})
			require.NoError(t, c.Produce(ctx, n, 0, text("x", 3)))
			require.Equal(t, 2, h.Hits())
			require.Equal(t, []string{"x-0", "x-1", "x-2"}, values(readAll(t, c, n, 0, 0, end(t, c, n))))
		})
	}
}

func TestProducePermanent(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "permanent", 1)
	for _, e := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.InvalidRecord, kerr.PolicyViolation, kerr.InvalidTopicException} {
		h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: n, Err: e, Count: -1})
		require.ErrorIs(t, c.Produce(ctx, n, 0, text("x", 3)), ErrPermanent, e.Message)
		require.Equal(t, 1, h.Hits())
		h.Remove()
	}
	require.Zero(t, end(t, c, n))
	// After a permanent failure the lane is free again.
	require.NoError(t, c.Produce(ctx, n, 0, text("x", 1)))
}

// A later chunk is never sent when an earlier one failed: no gap.
func TestProduceNoGap(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "no-gap", 1)
	var recs []Record
	for i := range 4 {
		recs = append(recs, Record{Key: fmt.Append(nil, i), Value: filler(500_000)})
	}
	var first kmsg.Request
	refusals := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: n, Err: kerr.NotEnoughReplicas, Count: -1, When: func(r kmsg.Request) bool {
		if first == nil {
			first = r
		}
		return r != first
	}})
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Produce(short, n, 0, recs) }()
	require.NoError(t, refusals.Wait(ctx, 2)) // who repeats it has heard the first refusal
	cancel()
	err := <-ended
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "Not Enough Replicas", "the last failure is told")
	require.NotErrorIs(t, err, ErrPermanent)
	require.Len(t, readAll(t, c, n, 0, 0, end(t, c, n)), 1)
}

// However many callers there are, a partition sees one request at a time.
func TestProduceOneInFlight(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "in-flight", 1)
	var flying, worst atomic.Int32
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		worst.Store(max(worst.Load(), flying.Add(1)))
		cluster.SleepControl(func() { time.Sleep(time.Millisecond) }) // others get in if they can
		flying.Add(-1)
		return nil, nil, false
	})
	errs := make(chan error, 20)
	for range cap(errs) {
		go func() { errs <- c.Produce(ctx, n, 0, text("x", 1)) }()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	require.Equal(t, int32(1), worst.Load())

	// Waiting for the lane ends with the context.
	hold := c.lane(n, 0).free
	<-hold
	short, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, c.Produce(short, n, 0, text("x", 1)), context.Canceled)
	hold <- struct{}{}
}

// Leaders move between brokers while a writer and a reader go on.
func TestLeadersMove(t *testing.T) {
	cluster := fake(t, kfake.NumBrokers(3))
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "move", 1)
	f := c.NewFetcher(n, 0, 0, FetchOptions{})
	var got []Record
	for i := range 9 {
		require.NoError(t, cluster.MoveTopicPartition(n, 0, int32(i%3)))
		require.NoError(t, c.Produce(ctx, n, 0, []Record{{Value: fmt.Append(nil, i)}}))
		if i%3 == 1 {
			require.NoError(t, cluster.MoveTopicPartition(n, 0, int32((i+1)%3)))
		}
		for len(got) <= i {
			b, err := f.Fetch(ctx, time.Second)
			require.NoError(t, err)
			got = append(got, Clone(b.Records)...)
		}
	}
	require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7", "8"}, values(got))
}

func TestFetchRetries(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "fetch-retries", 1)
	require.NoError(t, c.Produce(ctx, n, 0, text("x", 2)))
	for _, e := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.UnknownLeaderEpoch, kerr.FencedLeaderEpoch, kerr.OffsetNotAvailable,
		kerr.KafkaStorageError, kerr.UnknownTopicOrPartition,
		kerr.OffsetOutOfRange, // while the log's bounds say otherwise
	} {
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: n, Err: e, Count: 2})
		require.Equal(t, []string{"x-0", "x-1"}, values(readAll(t, c, n, 0, 0, 2)), e.Message)
	}
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: n, Err: kerr.TopicAuthorizationFailed, Count: -1})
	_, err := c.NewFetcher(n, 0, 0, FetchOptions{}).Fetch(ctx, time.Second)
	require.ErrorIs(t, err, ErrPermanent)
}

// Compaction leaves gaps; the reader goes over them, and its position reaches the end.
func TestFetchCompacted(t *testing.T) {
	cluster := fake(t)
	n := name("compacted")
	require.NoError(t, cluster.CreateTopic(n, 1, map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "300", "min.cleanable.dirty.ratio": "0.01",
	}))
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	require.NoError(t, c.Produce(ctx, n, 0, []Record{{Key: []byte("first"), Value: []byte("kept")}}))
	for i := range 40 {
		require.NoError(t, c.Produce(ctx, n, 0, []Record{{Key: fmt.Append(nil, i%3), Value: fmt.Append(nil, i)}}))
	}
	cluster.Compact()
	got := readAll(t, c, n, 0, 0, 41)
	require.Less(t, len(got), 41, "some are gone")
	latest := map[string]string{}
	for _, r := range got {
		latest[string(r.Key)] = string(r.Value)
	}
	require.Equal(t, map[string]string{"first": "kept", "0": "39", "1": "37", "2": "38"}, latest)
}

func TestOffsetsFailWhole(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "offsets", 3)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: n, Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: 2})
	ends, err := c.EndOffsets(ctx, n)
	require.NoError(t, err)
	require.Equal(t, []int64{0, 0, 0}, ends)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: n, Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: -1})
	_, err = c.EndOffsets(ctx, n) // after its attempts
	require.ErrorContains(t, err, "partition 1")

	group := name("group")
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: group, Err: kerr.NotCoordinator, Count: 2})
	committed, err := c.Committed(ctx, group, n)
	require.NoError(t, err)
	require.Equal(t, []Committed{{Offset: -1}, {Offset: -1}, {Offset: -1}}, committed)
}

func TestBatcherGivesUp(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "gives-up", 1)
	h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: n, Err: kerr.NotEnoughReplicas, Count: -1})
	b := c.NewBatcher(n, 1, BatcherOptions{MaxQueuedBytes: 100, Drain: 100 * time.Millisecond})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Run(running) }()

	// Three wait: one in flight, one in the queue, one for room. All give up, and nothing is left over.
	short, cancel := context.WithCancel(ctx)
	errs := make(chan error, 3)
	for i := range cap(errs) {
		go func() { errs <- b.Send(short, []byte("k"), filler(40+i), nil) }()
	}
	require.Eventually(t, func() bool { return h.Hits() > 1 }, patience, time.Millisecond)
	cancel()
	for range cap(errs) {
		require.ErrorIs(t, <-errs, context.Canceled)
	}
	require.Eventually(t, func() bool {
		b.room.mu.Lock()
		defer b.room.mu.Unlock()
		return b.room.free == 100 && len(b.room.queue) == 0
	}, patience, time.Millisecond)
	h.Remove()
	require.NoError(t, b.Send(ctx, []byte("k"), []byte("kept"), nil))
	written := values(readAll(t, c, n, 0, 0, end(t, c, n)))
	require.Contains(t, written, "kept")
	require.LessOrEqual(t, len(written), 2, "one that was on the wire when it was given up may have been written, not those behind it")

	// At the end what waits is still tried, for the drain time, and then answered.
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: n, Err: kerr.NotEnoughReplicas, Count: -1})
	go func() { errs <- b.Send(ctx, []byte("k"), []byte("late"), nil) }()
	require.Eventually(t, func() bool {
		b.room.mu.Lock()
		defer b.room.mu.Unlock()
		return b.room.free < 100
	}, patience, time.Millisecond)
	stop()
	require.ErrorIs(t, <-errs, ErrClosed)
	require.NoError(t, <-ended)
}

// One record that is refused does not take the others of its request with it.
func TestBatcherRefused(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	n := newTopic(t, c, "refused", 1)
	b := c.NewBatcher(n, 1, BatcherOptions{})
	var recs [4]error
	results := make(chan int, len(recs))
	for i := range recs {
		v := fmt.Appendf(nil, "v%d", i)
		if i == 2 {
			v = incompressible(2_000_000)
		}
		p := &pending{rec: Record{Value: v}, size: 100, call: &call{left: 1, done: make(chan struct{})}}
		require.NoError(t, b.room.take(ctx, p.size))
		require.True(t, b.lanes[0].push(p))
		go func() {
			<-p.call.done
			recs[i] = p.call.err
			results <- i
		}()
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Run(running) }()
	for range recs {
		<-results
	}
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, errors.Join(recs[0], recs[1], recs[3]))
	require.ErrorIs(t, recs[2], ErrPermanent)
	require.Equal(t, []string{"v0", "v1", "v3"}, values(readAll(t, c, n, 0, 0, end(t, c, n))))
}

// A broker that takes connections and says nothing must not hold anything beyond its context.
func TestSilentBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }() //nolint:gocritic // few, and they end with the test
		}
	}()
	c, err := New(config.Kafka{Brokers: []string{l.Addr().String()}}, zap.NewNop())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded)
	require.ErrorIs(t, c.Produce(ctx, "x", 0, text("x", 1)), context.DeadlineExceeded)
	require.NoError(t, c.RunGroup(ctx, GroupOptions{Group: "g", Topics: []string{"x"}}, nil))
	c.Close()
	c.Close()
	require.Error(t, c.Ping(testContext(t)))
}

// A client made before its broker is there works as soon as it is.
func TestBrokerComesLate(t *testing.T) {
	port, err := embedded.FreePort()
	require.NoError(t, err)
	c, ctx := client(t, []string{fmt.Sprintf("127.0.0.1:%d", port)}), testContext(t)
	require.Error(t, c.Ping(ctx))
	done := make(chan error, 1)
	go func() { done <- c.Produce(ctx, "here", 0, text("x", 1)) }()
	fake(t, kfake.Ports(port), kfake.SeedTopics(1, "here"))
	require.NoError(t, <-done)
	require.NoError(t, c.Ping(ctx))
}

func TestOldBroker(t *testing.T) {
	cluster := fake(t, kfake.SeedTopics(1, "x"))
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	_, err := c.do(ctx, time.Second, 1, 99, nil, nil)
	require.ErrorIs(t, err, errUnsupported)
	require.True(t, permanent(err))
}
