package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/topic"
)

// conformance is what both brokers, kfake and Apache Kafka, must do with this package.
func conformance(t *testing.T, brokers []string) {
	records(t, brokers)
	t.Run("group", func(t *testing.T) { groupConformance(t, brokers) })
	t.Run("handover", func(t *testing.T) { handoverConformance(t, brokers) })
}

// records is the part of conformance that is not about groups.
func records(t *testing.T, brokers []string) {
	t.Run("topics", func(t *testing.T) { testTopics(t, brokers) })
	t.Run("round trip", func(t *testing.T) { testRoundTrip(t, brokers) })
	t.Run("large", func(t *testing.T) { testLarge(t, brokers) })
	t.Run("encoded", func(t *testing.T) { testEncoded(t, brokers) })
	t.Run("codecs", func(t *testing.T) { testCodecs(t, brokers) })
	t.Run("aborted", func(t *testing.T) { testAborted(t, brokers) })
	t.Run("bounds", func(t *testing.T) { testBounds(t, brokers) })
	t.Run("since", func(t *testing.T) { testSince(t, brokers) })
	t.Run("empty fetch waits", func(t *testing.T) { testEmptyFetch(t, brokers) })
	t.Run("many partitions", func(t *testing.T) { testManyPartitions(t, brokers) })
	t.Run("oversized", func(t *testing.T) { testOversized(t, brokers) })
	t.Run("idempotent", func(t *testing.T) { testIdempotent(t, brokers) })
	t.Run("answers lost", func(t *testing.T) { testAnswersLost(t, brokers) })
	t.Run("batcher", func(t *testing.T) { testBatcher(t, brokers) })
}

func testTopics(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	require.NoError(t, c.Ping(ctx))
	set := topic.Set{Prefix: name("set") + ".", Partitions: 3}
	cfg := config.Topics{ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: time.Hour}
	for range 2 { // the second finds them
		require.NoError(t, c.EnsureTopics(ctx, set.Specs(), cfg))
	}
	for _, s := range set.Specs() {
		n, err := c.PartitionCount(ctx, s.Name)
		require.NoError(t, err)
		require.Equal(t, 3, n)
	}
	set.Partitions = 4
	require.ErrorContains(t, c.EnsureTopics(ctx, set.Specs(), cfg), "has 3 partitions, configured are 4")
	cfg.MinInsyncReplicas = 2
	require.ErrorContains(t, c.EnsureTopics(ctx, set.Specs(), cfg), "min_insync_replicas")

	_, err := c.PartitionCount(ctx, name("none"))
	require.ErrorIs(t, err, ErrUnknownTopic)

	k := foreign(t, brokers)
	req := kmsg.NewDescribeConfigsRequest()
	for _, n := range []string{set.ProfilesChanged(), set.EventsCollected()} {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, n
		req.Resources = append(req.Resources, r)
	}
	res, err := req.RequestWith(ctx, k)
	require.NoError(t, err)
	got := map[string]string{}
	for _, r := range res.Resources {
		for _, e := range r.Configs {
			if e.Value != nil {
				got[r.ResourceName+" "+e.Name] = *e.Value
			}
		}
	}
	require.Equal(t, "compact", got[set.ProfilesChanged()+" cleanup.policy"])
	require.Equal(t, "delete", got[set.EventsCollected()+" cleanup.policy"])
	require.Equal(t, "3600000", got[set.EventsCollected()+" retention.ms"])
	require.Equal(t, "1048588", got[set.EventsCollected()+" max.message.bytes"])
	require.Equal(t, "1", got[set.EventsCollected()+" min.insync.replicas"])
	testLimits(t, c, set)
}

// testLimits: a topic made with a low limit is raised to what a spec asks for; a higher one stays.
func testLimits(t *testing.T, c *Client, set topic.Set) {
	ctx, cfg := testContext(t), config.Topics{ReplicationFactor: 1, MinInsyncReplicas: 1}
	spec := topic.Spec{Name: set.EventsCollected(), Partitions: 3}
	limit := func() int {
		limits, err := c.MessageLimits(ctx, []string{spec.Name})
		require.NoError(t, err)
		return limits[spec.Name]
	}
	for _, step := range []struct{ wanted, then int }{{900_000, maxMessageBytes}, {3 << 20, 3 << 20}, {2 << 20, 3 << 20}, {0, 3 << 20}} {
		spec.RecordBytes = step.wanted
		require.NoError(t, c.EnsureTopics(ctx, []topic.Spec{spec}, cfg))
		require.Eventually(t, func() bool { return limit() == step.then }, time.Minute, 10*time.Millisecond, "%+v", step)
	}
	_, err := c.MessageLimits(ctx, []string{name("none")})
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
}

func testRoundTrip(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "round-trip", 2)
	recs := []Record{
		{Key: []byte("k"), Value: []byte("v"), Headers: []topic.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}}},
		{Key: []byte("tombstone")},
		{Value: []byte("no key"), Headers: []topic.Header{{Key: "null"}, {Key: "empty", Value: []byte{}}, {Key: "", Value: []byte("x")}}},
		{},
		{Key: []byte{}, Value: []byte{}},
	}
	require.NoError(t, c.Produce(ctx, n, 1, recs))
	require.NoError(t, c.Produce(ctx, n, 1, nil))
	require.NoError(t, c.Produce(ctx, n, 1, recs[:1]))

	ends, err := c.EndOffsets(ctx, n)
	require.NoError(t, err)
	require.Equal(t, []int64{0, 6}, ends)
	got := readAll(t, c, n, 1, 0, 6)
	require.Len(t, got, 6)
	for i, want := range append(recs, recs[0]) {
		require.Equal(t, int64(i), got[i].Offset)
		require.Equal(t, want.Key, got[i].Key)
		require.Equal(t, want.Value, got[i].Value)
		require.Equal(t, want.Headers, got[i].Headers)
		require.WithinDuration(t, time.Now(), got[i].Time, time.Minute)
	}
	require.Equal(t, values(got[2:]), values(readAll(t, c, n, 1, 2, 6)), "from within a batch")

	// What we write, others read.
	k := foreign(t, brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{n: {1: kgo.NewOffset().At(0)}}))
	fs := k.PollRecords(ctx, 6)
	require.NoError(t, fs.Err0())
	require.Equal(t, []byte("k"), fs.Records()[0].Key)
	require.Equal(t, "2", string(fs.Records()[0].Headers[1].Value))
}

func testLarge(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "large", 1)
	noise := incompressible(4_000_000)
	var recs []Record
	for i := range 400 { // five requests
		recs = append(recs, Record{Key: fmt.Append(nil, i), Value: noise[i*10_000:][:10_000]})
	}
	require.NoError(t, c.Produce(ctx, n, 0, recs))
	got := readAll(t, c, n, 0, 0, 400)
	require.Len(t, got, 400)
	for i := range got {
		require.Equal(t, recs[i].Value, got[i].Value, i)
	}

	// One record just below the broker's limit goes; one above it is refused by name, and only it.
	big := noise[:maxMessageBytes-200]
	require.NoError(t, c.Produce(ctx, n, 0, []Record{{Value: big}}))
	huge := noise[:2*len(big)]
	err := c.Produce(ctx, n, 0, []Record{{Value: []byte("before")}, {Value: huge}, {Value: []byte("after")}})
	require.ErrorIs(t, err, ErrPermanent)
	var at *RecordError
	require.ErrorAs(t, err, &at)
	require.Equal(t, 1, at.Index)
	got = readAll(t, c, n, 0, 401, end(t, c, n))
	require.Equal(t, []string{"before"}, values(got), "what is before it is written, what is behind it is not")
}

func testCodecs(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "codecs", 1)
	var want []string
	for i, codec := range []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	} {
		k := foreign(t, brokers, kgo.ProducerBatchCompression(codec))
		var recs []*kgo.Record
		for j := range 100 {
			v := fmt.Sprintf("franz %d %d %s", i, j, filler(500))
			recs, want = append(recs, &kgo.Record{Topic: n, Value: []byte(v)}), append(want, v)
		}
		require.NoError(t, k.ProduceSync(ctx, recs...).FirstErr())
	}
	for i, codec := range []kafka.Compression{kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} { // snappy: xerial's frames
		tr := &kafka.Transport{Dial: c.conns.dial, TLS: c.transport.TLS, SASL: c.transport.SASL}
		w := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: n, Compression: codec, RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, Transport: tr}
		var msgs []kafka.Message
		for j := range 100 {
			v := fmt.Sprintf("kafka-go %d %d %s", i, j, filler(500))
			msgs, want = append(msgs, kafka.Message{Value: []byte(v)}), append(want, v)
		}
		require.NoError(t, w.WriteMessages(ctx, msgs...))
		require.NoError(t, w.Close())
		tr.CloseIdleConnections()
	}
	require.Equal(t, want, values(readAll(t, c, n, 0, 0, end(t, c, n))))
}

// testAborted lets committed, aborted and plain records alternate, from two producers whose transactions
// overlap, and expects exactly those that count.
func testAborted(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "aborted", 1)
	txn := func() *kgo.Client {
		k, err := kgo.NewClient(append(accessTo(brokers).kgo,
			kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(name("txn")))...)
		require.NoError(t, err)
		t.Cleanup(k.Close)
		return k
	}
	a, b := txn(), txn()
	var want []string
	write := func(k *kgo.Client, counts bool, v string) {
		require.NoError(t, k.ProduceSync(ctx, &kgo.Record{Topic: n, Value: []byte(v)}).FirstErr())
		if counts {
			want = append(want, v)
		}
	}
	plain := func(v string) {
		require.NoError(t, c.Produce(ctx, n, 0, []Record{{Value: []byte(v)}}))
		want = append(want, v)
	}
	for i := range 4 {
		require.NoError(t, a.BeginTransaction())
		require.NoError(t, b.BeginTransaction())
		keepA, keepB := i%2 == 0, i >= 2
		for j := range 3 {
			write(a, keepA, fmt.Sprintf("a%d.%d", i, j))
			write(b, keepB, fmt.Sprintf("b%d.%d", i, j))
			plain(fmt.Sprintf("plain%d.%d", i, j))
		}
		require.NoError(t, a.EndTransaction(ctx, kgo.TransactionEndTry(keepA)))
		write(b, keepB, fmt.Sprintf("b%d.late", i))
		require.NoError(t, b.EndTransaction(ctx, kgo.TransactionEndTry(keepB)))
	}
	// A broker answers the end of a transaction before its marker is in the log.
	awaitEnd := func(want int64) {
		require.Eventually(t, func() bool { return end(t, c, n) == want }, time.Minute, 5*time.Millisecond, "end of %s: %d", n, want)
	}
	const perRound = 3*3 + 1 + 2 // records, the late one, and two markers
	const last = 4 * perRound
	awaitEnd(last)
	require.Equal(t, want, values(readAll(t, c, n, 0, 0, last)))
	for _, from := range []int64{1, 5, 9, 12, 20} { // also from within a transaction
		got := readAll(t, c, n, 0, from, last)
		all := readAll(t, c, n, 0, 0, last)
		for all[0].Offset < from {
			all = all[1:]
		}
		require.Equal(t, values(all), values(got), "from %d", from)
	}

	// An open transaction holds readers back; its end lets them go on, over the marker.
	require.NoError(t, a.BeginTransaction())
	write(a, false, "open")
	f := c.NewFetcher(n, 0, last, FetchOptions{})
	got, err := f.Fetch(ctx, 50*time.Millisecond)
	require.NoError(t, err)
	require.Empty(t, got.Records)
	require.Equal(t, int64(last), got.Next)
	require.NoError(t, a.EndTransaction(ctx, kgo.TryAbort))
	awaitEnd(last + 2) // the record and its marker
	require.Empty(t, readAll(t, c, n, 0, last, last+2))
}

func testBounds(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "bounds", 1)
	require.NoError(t, c.Produce(ctx, n, 0, text("x", 10)))
	k := foreign(t, brokers)
	req := kmsg.NewDeleteRecordsRequest()
	req.TimeoutMillis = 5000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = n
	rt.Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 4}}
	req.Topics = append(req.Topics, rt)
	_, err := req.RequestWith(ctx, k)
	require.NoError(t, err)

	starts, err := c.StartOffsets(ctx, n)
	require.NoError(t, err)
	require.Equal(t, []int64{4}, starts)
	for _, from := range []int64{0, 3, 11, 1000} {
		_, err := c.NewFetcher(n, 0, from, FetchOptions{}).Fetch(ctx, time.Second)
		require.ErrorIs(t, err, ErrOffsetOutOfRange, from)
	}
	require.Equal(t, []string{"x-4", "x-5", "x-6", "x-7", "x-8", "x-9"}, values(readAll(t, c, n, 0, 4, 10)))
	_, err = c.EndOffsets(ctx, name("none"))
	require.ErrorIs(t, err, ErrUnknownTopic)
	c.topicPatience = time.Millisecond
	require.ErrorIs(t, c.Produce(ctx, name("none"), 0, text("x", 1)), ErrPermanent)
	require.ErrorIs(t, c.Produce(ctx, n, 7, text("x", 1)), ErrPermanent)
	_, err = c.NewFetcher(n, 7, 0, FetchOptions{}).Fetch(ctx, time.Second)
	require.ErrorIs(t, err, ErrPermanent)
}

func testEmptyFetch(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n := newTopic(t, c, "empty", 1)
	f := c.NewFetcher(n, 0, 0, FetchOptions{})
	began := time.Now()
	b, err := f.Fetch(ctx, 100*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, Batch{}, b)
	require.GreaterOrEqual(t, time.Since(began), 90*time.Millisecond)

	cancelled, cancel := context.WithCancel(ctx)
	got := make(chan error, 1)
	go func() {
		_, err := f.Fetch(cancelled, time.Minute)
		got <- err
	}()
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)

	// A record ends the wait.
	go func() {
		_, err := f.Fetch(ctx, time.Minute)
		got <- err
	}()
	require.NoError(t, c.Produce(ctx, n, 0, text("x", 1)))
	require.NoError(t, <-got)
	f.Close()
	_, err = f.Fetch(ctx, time.Second)
	require.ErrorIs(t, err, ErrClosed)
}

func testBatcher(t *testing.T, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	const partitions, senders, each = 3, 20, 25
	n := newTopic(t, c, "batcher", partitions)
	b := c.NewBatcher(n, partitions, BatcherOptions{MaxQueuedBytes: 4 << 10})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Run(running) }()

	var wg sync.WaitGroup
	errs := make(chan error, senders)
	for s := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			key := fmt.Appendf(nil, "sender-%d", s)
			if s%5 == 0 {
				key = nil
			}
			for i := range each {
				v := fmt.Appendf(nil, "%d/%d %s", s, i, filler(100))
				if err := b.Send(ctx, key, v, []topic.Header{{Key: "s", Value: fmt.Append(nil, s)}}); err != nil {
					errs <- err
					return
				}
			}
			errs <- b.SendAll(ctx, []Record{{Key: key, Value: fmt.Appendf(nil, "%d/all0", s)}, {Key: key, Value: fmt.Appendf(nil, "%d/all1", s)}})
		}()
	}
	wg.Wait()
	for range senders {
		require.NoError(t, <-errs)
	}
	stop()
	require.NoError(t, <-ended)
	require.ErrorIs(t, b.Send(ctx, nil, []byte("late"), nil), ErrClosed)

	seen := map[string]int{}
	ends, err := c.EndOffsets(ctx, n)
	require.NoError(t, err)
	total := 0
	for p := range partitions {
		before := map[string]string{}
		for _, r := range readAll(t, c, n, p, 0, ends[p]) {
			seen[string(r.Value)]++
			total++
			if r.Key == nil {
				continue
			}
			require.Equal(t, topic.Partition(r.Key, partitions), p)
			var sender, i int
			if _, err := fmt.Sscanf(string(r.Value), "%d/%d", &sender, &i); err == nil && i > 0 {
				require.Contains(t, before[string(r.Key)], fmt.Sprintf("%d/%d ", sender, i-1), "order per key")
			}
			before[string(r.Key)] = string(r.Value)
		}
	}
	require.Len(t, seen, senders*(each+2))
	require.Equal(t, len(seen), total, "each acknowledged record stands in the log once")
}

func TestConformanceKfake(t *testing.T) { conformance(t, fake(t).ListenAddrs()) }

var errTest = errors.New("test")
