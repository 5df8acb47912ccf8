package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// patience is how long a test waits for a condition.
const patience = 2 * time.Minute

// broker is a Kafka in the process with Weft's topics and one of a till.
type broker struct {
	*kfake.Cluster
	t      testing.TB
	client *stream.Client
	cfg    config.Config
	log    *zap.Logger // of the collectors
	store  *store.Client
	later  atomic.Int64 // how far the collectors' clock is ahead of now
}

const tillTopic, tillPartitions = "till.sales", 2

func newBroker(t testing.TB) *broker {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(tillPartitions, tillTopic),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cfg := settings(t)
	cfg.Kafka.Brokers = cluster.ListenAddrs()
	cfg.Kafka.SessionTimeout, cfg.Kafka.RebalanceTime = time.Minute, time.Minute // no test is about losing a session
	cfg.Topics.Partitions = 3
	cfg.Admin.ShutdownTimeout = patience
	cfg.Collector.Inlets = []config.Inlet{{Name: "till", Topic: tillTopic, Brand: "shop", Trusted: true, Mapping: map[string]string{
		"event": "'Order Completed'", "externalIds.loyalty_id": "$.card", "properties.order_id": "$.id", "properties.total": "$.total", "timestamp": "$.at",
	}}}
	b := &broker{Cluster: cluster, t: t, cfg: cfg, log: zaptest.NewLogger(t, zaptest.Level(zap.DPanicLevel))}
	b.client = b.connect()
	require.NoError(t, b.client.EnsureTopics(b.context(), cfg.Topics.Set().Specs(), cfg.Topics))
	return b
}

func (b *broker) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *broker) connect() *stream.Client {
	c, err := stream.New(b.cfg.Kafka, zaptest.NewLogger(b.t, zaptest.Level(zap.DPanicLevel)))
	require.NoError(b.t, err)
	b.t.Cleanup(c.Close)
	return c
}

// running is a collector and how to stop it.
type running struct {
	*Service
	t        testing.TB
	registry *prometheus.Registry
	begin    func()       // starts Run
	stop     func() error // ends Run and waits for it; may be called again
	wait     func() error // waits until Run ends by itself
}

// gauge returns the values of a gauge by its first label.
func (r *running) gauge(name string) map[string]float64 {
	families, err := r.registry.Gather()
	require.NoError(r.t, err)
	values := map[string]float64{}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				values[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	return values
}

func (b *broker) start() *running {
	r := b.prepare()
	r.begin()
	return r
}

// prepare makes a collector that does not run yet.
func (b *broker) prepare() *running {
	registry := prometheus.NewRegistry()
	deps := Deps{Stream: b.connect(), Store: b.store, Log: b.log, Metrics: registry,
		Now: func() time.Time { return now.Add(time.Duration(b.later.Load())) }}
	s, err := New(b.cfg, deps)
	require.NoError(b.t, err)
	require.NoError(b.t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r := &running{Service: s, t: b.t, registry: registry, begin: func() { go func() { done <- s.Run(ctx) }() }, wait: sync.OnceValue(func() error { return <-done })}
	r.stop = func() error { cancel(); return r.wait() }
	b.t.Cleanup(func() { _ = r.stop() })
	return r
}

func (b *broker) ready() *running {
	r := b.start()
	require.Eventually(b.t, func() bool { return r.Ready() == nil && r.InletsReady() == nil }, patience, 5*time.Millisecond)
	return r
}

// read returns everything on a topic, partition by partition.
func (b *broker) read(name string) [][]stream.Record {
	ends, err := b.client.EndOffsets(b.context(), name)
	require.NoError(b.t, err)
	all := make([][]stream.Record, len(ends))
	for p, end := range ends {
		f := b.client.NewFetcher(name, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			batch, err := f.Fetch(b.context(), 100*time.Millisecond)
			require.NoError(b.t, err)
			all[p] = append(all[p], stream.Clone(batch.Records)...)
			next = batch.Next
		}
		f.Close()
	}
	return all
}

func flat(parts [][]stream.Record) []stream.Record {
	var all []stream.Record
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// caughtUp waits until the inlet group has committed the ends of its topic: what the fence looks at.
func (b *broker) caughtUp(name string) {
	group := b.cfg.Topics.Set().Group(topic.StageCollector, name)
	require.Eventually(b.t, func() bool {
		ends, err := b.client.EndOffsets(b.context(), name)
		require.NoError(b.t, err)
		committed, err := b.client.Committed(b.context(), group, name)
		require.NoError(b.t, err)
		for p := range ends {
			if committed[p].Offset != ends[p] {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond)
}

func (b *broker) foreign(opts ...kgo.Opt) *kgo.Client {
	k, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.ListenAddrs()...)}, opts...)...)
	require.NoError(b.t, err)
	b.t.Cleanup(k.Close)
	return k
}

func (b *broker) produce(k *kgo.Client, name string, values ...string) {
	var recs []*kgo.Record
	for _, v := range values {
		recs = append(recs, &kgo.Record{Topic: name, Value: []byte(v)})
	}
	require.NoError(b.t, k.ProduceSync(b.context(), recs...).FirstErr())
}

func post(t testing.TB, url, auth, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", auth)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

func TestHTTPToKafka(t *testing.T) {
	b := newBroker(t)
	s := b.ready()
	var senders sync.WaitGroup
	const requests = 20
	for i := range requests {
		senders.Go(func() {
			items := make([]string, 10)
			for k := range items {
				items[k] = fmt.Sprintf(`{"type":"track","event":"E","anonymousId":"a%d","messageId":"m%d-%d","n":%d}`, i%7, i, k, k)
			}
			items[9] = `{"type":"page"}`
			status, text := post(t, "http://"+s.Addr()+"/v1/batch", basic("wk_demo"), `{"batch":[`+strings.Join(items, ",")+`]}`)
			require.Equal(t, 200, status, text)
		})
	}
	senders.Wait()
	parts := b.read(b.cfg.Topics.Set().EventsCollected())
	seen := map[string]bool{}
	last := map[string]int{} // request: n of its last event, since each sender's order is kept
	for p, recs := range parts {
		for _, r := range recs {
			require.Equal(t, p, topic.Partition(r.Key, b.cfg.Topics.Partitions))
			e, err := event.Decode(r.Value, event.Meta{})
			require.NoError(t, err)
			require.False(t, seen[e.MessageID])
			seen[e.MessageID] = true
			request, n, _ := strings.Cut(e.MessageID, "-")
			require.Equal(t, fmt.Sprint(last[request]), n)
			last[request]++
		}
	}
	require.Len(t, seen, 9*requests)
	require.Len(t, flat(b.read(b.cfg.Topics.Set().EventsRejected())), requests)
	require.NoError(t, s.stop())
	require.Error(t, s.Ready())
}

func TestKafkaThatDoesNotAcknowledge(t *testing.T) {
	b := newBroker(t)
	b.cfg.Collector.ProduceTimeout = 300 * time.Millisecond
	s := b.ready()
	b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: b.cfg.Topics.Set().EventsCollected(), Err: kerr.NotEnoughReplicas, Count: -1})
	status, text := post(t, "http://"+s.Addr()+"/v1/page", basic("wk_demo"), `{"userId":"u"}`)
	require.Equal(t, 503, status, text)
	require.NoError(t, s.stop())
	require.Empty(t, flat(b.read(b.cfg.Topics.Set().EventsCollected())))
}

func TestAnotherPartitionCountIsRefused(t *testing.T) {
	b := newBroker(t)
	b.cfg.Topics.Partitions = 4
	require.ErrorContains(t, b.start().wait(), "has 3 partitions, topics.partitions says 4")
}

func sale(i int) string {
	return fmt.Sprintf(`{"id":"s-%d","card":"L%d","total":%d.10,"at":"2026-11-22T06:30:00Z"}`, i, i%11, i)
}

func TestInboxTakesPlainEvents(t *testing.T) {
	b := newBroker(t)
	set := b.cfg.Topics.Set()
	s := b.ready()
	k := b.foreign()
	b.produce(k, set.EventsInbox(), `{"type":"track","event":"E","userId":"u1","messageId":"m1","properties":{"n":900719925474099312345}}`,
		`{"event":"F","userId":"u2"}`, `not json`, `{"type":"page"}`, `{"batch":[{"type":"page","userId":"u"}]}`, ``)
	require.NoError(t, k.ProduceSync(b.context(), &kgo.Record{Topic: set.EventsInbox(), Value: []byte(`{"type":"page","userId":"u3"}`), Headers: []kgo.RecordHeader{
		{Key: topic.HeaderBrand, Value: []byte("outlet")}, {Key: topic.HeaderMessageID, Value: []byte("h1")}, {Key: topic.HeaderTrust, Value: []byte("untrusted")},
	}}).FirstErr())
	b.caughtUp(set.EventsInbox())
	byUser := map[string]stream.Record{}
	for _, r := range flat(b.read(set.EventsCollected())) {
		byUser[string(r.Key)] = r
	}
	require.Len(t, byUser, 3)
	m, err := topic.ParseMeta(byUser["u1"].Headers)
	require.NoError(t, err)
	require.Equal(t, event.Meta{Source: "inbox", Brand: "main", MessageID: "m1", ReceivedAt: now.Truncate(time.Millisecond), Trusted: true}, m)
	require.Contains(t, string(byUser["u1"].Value), "900719925474099312345")
	at := header(t, byUser["u2"], topic.HeaderPosition)
	p, err := topic.ParsePosition(at)
	require.NoError(t, err)
	require.Equal(t, "collector/"+set.EventsInbox(), p.Stage)
	id := fmt.Sprintf("%s:%d:%d", set.EventsInbox(), p.Partition, p.Seq)
	require.Equal(t, id, header(t, byUser["u2"], topic.HeaderMessageID))
	require.Equal(t, `{"type":"track","messageId":"`+id+`","event":"F","userId":"u2"}`, string(byUser["u2"].Value))
	m, err = topic.ParseMeta(byUser["u3"].Headers)
	require.NoError(t, err)
	require.Equal(t, event.Meta{Source: "inbox", Brand: "outlet", MessageID: "h1", ReceivedAt: m.ReceivedAt}, m)

	reasons := map[string]int{}
	for _, r := range flat(b.read(set.EventsRejected())) {
		reasons[header(t, r, topic.HeaderReason)]++
		require.NotEmpty(t, header(t, r, topic.HeaderPosition))
		require.Contains(t, header(t, r, topic.HeaderOrigin), set.EventsInbox()+":")
	}
	require.Equal(t, map[string]int{event.InvalidJSON: 1, event.NoUserAnonID: 1, event.MissingType: 1, inlets.ReasonEmpty: 1}, reasons)
	require.NoError(t, s.stop())
}

// A collector that dies between producing and committing leaves repeats that carry the positions they had
// before, so that the stage behind drops them; nothing is missing and nothing is out of order.
func TestInletIsExactlyOnceAcrossACrash(t *testing.T) {
	b := newBroker(t)
	set := b.cfg.Topics.Set()
	group := set.Group(topic.StageCollector, tillTopic)
	const sales = 400
	k := b.foreign()
	for i := range sales {
		b.produce(k, tillTopic, sale(i))
	}
	b.produce(k, tillTopic, `{"id":"nobody","total":1}`, `garbage`)

	// No commit behind the first gets through.
	fault := b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: group, Err: kerr.UnknownServerError, Count: -1})
	first := b.start()
	require.Eventually(t, func() bool { return len(flat(b.read(set.EventsCollected()))) >= sales }, patience, 20*time.Millisecond)
	require.NoError(t, first.stop())
	fault.Remove()
	committed, err := b.client.Committed(b.context(), group, tillTopic)
	require.NoError(t, err)
	for _, c := range committed {
		require.LessOrEqual(t, c.Offset, int64(0))
	}

	second := b.ready()
	b.caughtUp(tillTopic)
	require.NoError(t, second.stop())

	parts := b.read(set.EventsCollected())
	require.Greater(t, len(flat(parts)), sales, "the crash made repeats")
	first1 := map[string]string{} // position: key and body
	orders := map[string]bool{}
	for p, recs := range parts {
		highest := map[string]int64{}
		for _, r := range recs {
			position, err := topic.ParsePosition(header(t, r, topic.HeaderPosition))
			require.NoError(t, err)
			text := fmt.Sprintf("%d %s %s", p, r.Key, r.Value)
			if before, again := first1[position.String()]; again {
				require.Equal(t, before, text, "a repeat is the same record")
			}
			first1[position.String()] = text
			if seen, ok := highest[position.Source()]; ok && position.Seq <= seen {
				continue // what the stitcher drops
			}
			highest[position.Source()] = position.Seq
			e, err := event.Decode(r.Value, event.Meta{})
			require.NoError(t, err)
			id := event.Text(e.Property("order_id"))
			require.False(t, orders[id], "twice in effect: "+id)
			orders[id] = true
		}
	}
	require.Len(t, orders, sales)
	rejected := map[string]string{}
	for _, r := range flat(b.read(set.EventsRejected())) {
		rejected[header(t, r, topic.HeaderPosition)] = header(t, r, topic.HeaderReason)
	}
	require.Len(t, rejected, 2)
}

func TestAbortedTransactionsAreLeftOut(t *testing.T) {
	b := newBroker(t)
	set := b.cfg.Topics.Set()
	s := b.ready()
	k := b.foreign(kgo.TransactionalID("till"))
	for i := range 6 {
		require.NoError(t, k.BeginTransaction())
		b.produce(k, tillTopic, sale(i))
		require.NoError(t, k.EndTransaction(b.context(), kgo.TransactionEndTry(i%2 == 0)))
	}
	b.caughtUp(tillTopic) // over aborted records and markers too
	ids := map[string]bool{}
	for _, r := range flat(b.read(set.EventsCollected())) {
		e, err := event.Decode(r.Value, event.Meta{})
		require.NoError(t, err)
		ids[event.Text(e.Property("order_id"))] = true
		require.Equal(t, "till", header(t, r, topic.HeaderSource))
		require.Equal(t, "shop", header(t, r, topic.HeaderBrand))
	}
	require.Equal(t, map[string]bool{"s-0": true, "s-2": true, "s-4": true}, ids)
	require.NoError(t, s.stop())
}

// One inlet behind its retention is down and says so; the door and the other inlets go on.
func TestAnInletThatLostRecordsStopsLoudly(t *testing.T) {
	b := newBroker(t)
	set := b.cfg.Topics.Set()
	k := b.foreign(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	b.produce(k, tillTopic, sale(1))
	s := b.ready()
	b.caughtUp(tillTopic)
	require.NoError(t, s.stop())
	b.produce(k, tillTopic, sale(2), sale(3))
	req := kmsg.NewDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = tillTopic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Offset = 2
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	_, err := req.RequestWith(b.context(), k)
	require.NoError(t, err)

	core, logged := observer.New(zap.ErrorLevel)
	b.log = zap.New(core)
	s = b.start()
	require.Eventually(t, func() bool { return errors.Is(s.InletsReady(), stream.ErrStop) && logged.Len() > 0 }, patience, 5*time.Millisecond)
	require.ErrorContains(t, s.InletsReady(), "inlet till is down: ")
	require.ErrorContains(t, s.InletsReady(), "set the offsets of group weft.collector.till.sales")
	require.Equal(t, map[string]float64{"till": 1, "inbox": 0}, s.gauge("weft_collector_inlet_down"))

	status, text := post(t, "http://"+s.Addr()+"/v1/page", basic("wk_demo"), `{"userId":"u"}`)
	require.Equal(t, 200, status, text)
	b.produce(b.foreign(), set.EventsInbox(), `{"type":"page","userId":"u"}`)
	b.caughtUp(set.EventsInbox())
	require.ErrorIs(t, s.InletsReady(), stream.ErrStop, "it stays down")
	require.NoError(t, s.Ready(), "the door is open: no balancer turns away from it")
	require.NoError(t, s.stop())
	require.Len(t, flat(b.read(set.EventsCollected())), 3, "sale 1 and what came by the door and by the inbox")
	errs := logged.FilterMessage("inlet is down until the collector is restarted").All()
	require.Len(t, errs, 1)
	require.Equal(t, "till", errs[0].ContextMap()["inlet"])
}

// What the broker refuses stands among what the collector refuses by growing position, so that a reader that
// drops what is not above the highest position it has seen (rule 1) loses none of them.
func TestRejectedRecordsKeepTheOrderOfTheirSource(t *testing.T) {
	b := newBroker(t)
	set := b.cfg.Topics.Set()
	limit := "4000"
	b.alter(set.EventsCollected(), "max.message.bytes", &limit)
	noise := make([]byte, 8000) // cannot be compressed below the limit
	_, err := rand.NewChaCha8([32]byte{}).Read(noise)
	require.NoError(t, err)
	var values []string
	var refused, rejected, stored int
	for i := range 60 {
		switch i % 20 {
		case 0:
			refused++
			values = append(values, fmt.Sprintf(`{"type":"page","userId":"u%d","properties":{"noise":"%x"}}`, i, noise))
		case 10:
			stored++
			values = append(values, fmt.Sprintf(`{"type":"page","userId":"u%d"}`, i))
		default:
			rejected++
			values = append(values, "not json")
		}
	}
	b.produce(b.foreign(kgo.RecordPartitioner(kgo.ManualPartitioner())), set.EventsInbox(), values...)
	s := b.ready()
	b.caughtUp(set.EventsInbox())
	require.NoError(t, s.stop())

	require.Len(t, flat(b.read(set.EventsCollected())), stored)
	reasons := map[string]int{}
	for _, recs := range b.read(set.EventsRejected()) {
		highest := int64(-1)
		for _, r := range recs {
			position, err := topic.ParsePosition(header(t, r, topic.HeaderPosition))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("%s:%d:%d", set.EventsInbox(), position.Partition, position.Seq), header(t, r, topic.HeaderOrigin))
			if position.Seq <= highest {
				continue // dropped as a repeat
			}
			highest = position.Seq
			reasons[header(t, r, topic.HeaderReason)]++
			require.Equal(t, values[position.Seq], string(r.Value), "the bytes as they came")
		}
	}
	require.Equal(t, map[string]int{reasonRefused: refused, event.InvalidJSON: rejected}, reasons)
}

// alter sets an option of a topic.
func (b *broker) alter(name, option string, value *string) {
	req := kmsg.NewIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Op, config.Value = option, kmsg.IncrementalAlterConfigOpSet, value
	resource.Configs = append(resource.Configs, config)
	req.Resources = append(req.Resources, resource)
	resp, err := req.RequestWith(b.context(), b.foreign())
	require.NoError(b.t, err)
	require.NoError(b.t, kerr.ErrorForCode(resp.Resources[0].ErrorCode))
}

func TestFaultyMappingsAreNamed(t *testing.T) {
	b := newBroker(t)
	b.cfg.Collector.Inlets[0].Mapping["userID"] = "$.x"
	_, err := New(b.cfg, Deps{Stream: b.client, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: time.Now})
	require.ErrorContains(t, err, "source till: mapping: userID: is no field of an event")
}
