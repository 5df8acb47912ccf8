package stream

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// testIdempotent sends what a lane must send, and what it must not, request by request.
func testIdempotent(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "idempotent", 1)
	l := c.lane(n, 0)
	request := func(recs []Record) *encoder {
		e := &encoder{compressAbove: compressAbove}
		require.Equal(t, len(recs), e.request("test", time.Second, l, unencoded(recs), 0))
		return e
	}
	require.NoError(t, c.Produce(ctx, n, 0, text("first", 2)))

	// The same batch twice is stored once, and the second is an acknowledgement.
	again := request(text("second", 3))
	for range 2 {
		require.NoError(t, c.produceOnce(ctx, l, again))
	}
	l.stored(3)

	// A gap in the sequence is refused; Produce goes on as a new producer.
	l.sequence += 5
	require.ErrorIs(t, c.produceOnce(ctx, l, request(text("gap", 1))), kafka.OutOfOrderSequenceNumber)
	producer := l.producer
	require.NoError(t, c.Produce(ctx, n, 0, text("third", 1)))
	require.NotEqual(t, producer, l.producer)

	// A batch given up, though it was stored: the next one, of as many records, is not taken for it.
	given := request(text("given up", 2))
	require.NoError(t, c.produceOnce(ctx, l, given))
	l.abandon()
	require.NoError(t, c.Produce(ctx, n, 0, text("fourth", 2)))

	// One given up that was not stored, and comes late: it is refused behind the next one.
	late := request(text("late", 2))
	l.abandon()
	require.NoError(t, c.Produce(ctx, n, 0, text("fifth", 2)))
	require.ErrorIs(t, c.produceOnce(ctx, l, late), kafka.InvalidProducerEpoch)

	// Behind the last epoch comes a new id.
	l.epoch = 1<<15 - 2
	l.abandon()
	require.NoError(t, c.Produce(ctx, n, 0, text("sixth", 1)))
	require.Equal(t, []string{
		"first-0", "first-1", "second-0", "second-1", "second-2", "third-0", "given up-0", "given up-1",
		"fourth-0", "fourth-1", "fifth-0", "fifth-1", "sixth-0",
	}, values(readAll(t, c, n, 0, 0, end(t, c, n))))
}

// deaf is a network that loses answers: a connection that is to lose one reads the answer and breaks.
type deaf struct{ lose atomic.Int32 }

type deafConn struct {
	net.Conn
	of *deaf
	// produced is set while the request on the wire is a Produce.
	produced atomic.Bool
}

func (d *deaf) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &deafConn{Conn: conn, of: d}, nil
}

func (c *deafConn) Write(b []byte) (int, error) {
	c.produced.Store(len(b) > 8 && b[4] == 0 && b[5] == 0)
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.produced.Load() && c.of.lose.Add(-1) >= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// testAnswersLost lets answers get lost on the wire: what was acknowledged in the end is there once, in order.
func testAnswersLost(t *testing.T, brokers []string) {
	if _, secured := access.Load(brokers[0]); secured {
		return // the network cannot tell requests apart
	}
	d := &deaf{}
	c, ctx := client(t, brokers, WithDial(d.dial)), testContext(t)
	n := newTopic(t, c, "answers-lost", 1)
	var want []string
	for i := range 10 {
		recs := text(fmt.Sprint("call ", i), 1+i%3)
		d.lose.Store(int32(i % 3)) //nolint:gosec // few
		require.NoError(t, c.Produce(ctx, n, 0, recs))
		want = append(want, values(recs)...)
	}
	require.Equal(t, want, values(readAll(t, c, n, 0, 0, end(t, c, n))))
}

// Faults at random, of many kinds and seeds, on many partitions at once: what was acknowledged stands in the log
// once, what was given up at most once, and nothing out of order; and readers under faults of their own
// get exactly that.
func TestFaultsProperty(t *testing.T) {
	const partitions, calls = 8, 25
	cluster := fake(t, kfake.NumBrokers(3))
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	n := newTopic(t, c, "faults", partitions)
	script(cluster, seed, kmsg.Produce, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.KafkaStorageError)
	script(cluster, seed+1, kmsg.Fetch, kerr.NotLeaderForPartition, kerr.OffsetNotAvailable, kerr.UnknownServerError, kerr.KafkaStorageError)
	script(cluster, seed+2, kmsg.InitProducerID, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress)
	acked := make([][]bool, partitions)
	var wg sync.WaitGroup
	for p := range partitions {
		rng := rand.New(rand.NewPCG(uint64(seed), uint64(p))) //nolint:gosec // a test's
		wg.Go(func() {
			for i := range calls {
				calling, cancel := ctx, context.CancelFunc(func() {})
				if rng.IntN(4) == 0 { // given up at the first failure, or not even that
					calling, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(30))*time.Millisecond)
				}
				err := c.Produce(calling, n, p, text(fmt.Sprint(i), 1+i%4))
				cancel()
				acked[p] = append(acked[p], err == nil)
				if rng.IntN(8) == 0 {
					_ = cluster.MoveTopicPartition(n, i32(p), i32(rng.IntN(3)))
				}
			}
		})
	}
	wg.Wait()
	ends, err := c.EndOffsets(ctx, n)
	require.NoError(t, err)
	for p := range partitions {
		got := values(readAll(t, c, n, p, 0, ends[p]))
		at := 0
		for i, ok := range acked[p] {
			want := values(text(fmt.Sprint(i), 1+i%4))
			if !ok && (at >= len(got) || got[at] != want[0]) {
				continue // given up, and not written
			}
			require.LessOrEqual(t, at+len(want), len(got), "partition %d call %d acknowledged %v, log %v", p, i, ok, got)
			require.Equal(t, want, got[at:at+len(want)], "partition %d call %d acknowledged %v, log %v", p, i, ok, got)
			at += len(want)
		}
		require.Len(t, got, at, "partition %d", p)
	}
}

// script has one in four requests of a kind answered by one of errs, or its connection cut.
func script(cluster *kfake.Cluster, seed int64, key kmsg.Key, errs ...*kerr.Error) {
	rng := rand.New(rand.NewPCG(uint64(seed), uint64(key))) //nolint:gosec // a test's
	var mu sync.Mutex
	odds := 4 * len(errs)
	for i, e := range errs {
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: e, Count: -1, TopLevel: key == kmsg.InitProducerID, When: func(kmsg.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			return rng.IntN(odds-i) == 0
		}})
	}
	cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(20) == 0 {
			return nil, io.ErrUnexpectedEOF, true
		}
		return nil, nil, false
	})
}
