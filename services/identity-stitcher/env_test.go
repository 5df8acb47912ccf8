package stitcher

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	rules "github.com/weft-cdp/weft/schemas/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testPartitions = 3
	patience       = 2 * time.Minute
)

// receivedAt is when every test event was received.
func receivedAt() time.Time { return time.UnixMilli(1_790_000_000_123).UTC() }

// env is a Kafka and a Redis of one test, with the configuration to reach them.
type env struct {
	t      *testing.T
	cfg    config.Config
	redis  *miniredis.Miniredis
	topics topic.Set
	stream *stream.Client
	store  *store.Client
	reg    *prometheus.Registry
	seq    map[string]int64

	received time.Time // when events are received
	kafka    *kfake.Cluster
	silent   atomic.Bool // Kafka cuts connections

	untrusted bool   // the sources of events
	brand     string // of events
}

func newEnv(t *testing.T) *env {
	t.Helper()
	topics := topic.Set{Prefix: "test.", Partitions: testPartitions}
	var names []string
	for _, s := range topics.Specs() {
		names = append(names, s.Name)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(testPartitions, names...))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	e := &env{t: t, redis: miniredis.RunT(t), topics: topics, cfg: config.Defaults(), seq: map[string]int64{}, received: receivedAt(), kafka: k, brand: "main"}
	e.cfg.Kafka.Brokers = k.ListenAddrs()
	e.cfg.Kafka.SessionTimeout, e.cfg.Kafka.RebalanceTime = time.Minute, time.Minute // no test is about losing a session
	e.cfg.Redis = config.Redis{Addresses: []string{e.redis.Addr()}, AllowNonDurable: true}
	e.cfg.Topics.Prefix, e.cfg.Topics.Partitions = topics.Prefix, topics.Partitions
	e.cfg.Identity.KeyFile = filepath.Join(t.TempDir(), "identity.key")
	e.cfg.Identity.RulesFile = filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(e.cfg.Identity.RulesFile, unlimited(), 0o600))
	e.stream, e.store = e.connect()
	return e
}

// unlimited are the shipped rules without limits: whoever is linked is one person.
func unlimited() []byte {
	return regexp.MustCompile(`values: [0-9]+`).ReplaceAll(rules.Rules(), []byte("values: 0"))
}

func (e *env) connect() (*stream.Client, *store.Client) {
	e.t.Helper()
	log := zaptest.NewLogger(e.t, zaptest.Level(zapcore.ErrorLevel))
	sc, err := stream.New(e.cfg.Kafka, log)
	require.NoError(e.t, err)
	e.t.Cleanup(sc.Close)
	st, err := store.New(e.cfg.Redis, log, store.WithPatience(patience))
	require.NoError(e.t, err)
	e.t.Cleanup(func() { require.NoError(e.t, st.Close()) })
	return sc, st
}

// service makes one as a process of its own would: with its own connections.
func (e *env) service() *Service {
	e.t.Helper()
	sc, st := e.connect()
	e.reg = prometheus.NewRegistry()
	s, err := New(e.cfg, Deps{Stream: sc, Store: st, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.ErrorLevel)), Metrics: e.reg})
	require.NoError(e.t, err)
	return s
}

// start runs a service until stop, which waits for it.
func (e *env) start() (stop func()) {
	e.t.Helper()
	s := e.service()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		require.NoError(e.t, <-done)
	})
}

func (e *env) rules() *identity.Rules {
	e.t.Helper()
	key, err := config.LoadOrCreateSecret(e.cfg.Identity.KeyFile)
	require.NoError(e.t, err)
	r, err := identity.NewRules(key, identity.Options{})
	require.NoError(e.t, err)
	return r
}

func (e *env) node(typ, value string) identity.Node {
	e.t.Helper()
	n, ok := e.rules().Node(event.Identifier{Type: typ, Value: value})
	require.True(e.t, ok)
	return n
}

// send appends a record to events.collected as the collector does; inlet names the inlet topic of a record
// that came from Kafka, which then carries a source position.
func (e *env) send(key, source, messageID, inlet, body string) {
	e.t.Helper()
	hs := topic.MetaHeaders(event.Meta{Source: source, Brand: e.brand, MessageID: messageID, ReceivedAt: e.received, Trusted: !e.untrusted})
	if inlet != "" {
		e.seq[inlet]++
		pos := topic.Position{Stage: topic.StageCollector + "/" + inlet, Partition: 0, Seq: e.seq[inlet]}
		hs = append(hs, topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})
	}
	e.produce(stream.Record{Key: []byte(key), Value: []byte(body), Headers: hs})
}

func (e *env) produce(r stream.Record) {
	e.t.Helper()
	require.NoError(e.t, e.stream.Produce(context.Background(), e.topics.EventsCollected(), topic.Partition(r.Key, testPartitions), []stream.Record{r}))
}

// settled waits until everything collected is decided and every slot has published its outbox.
func (e *env) settled() {
	e.t.Helper()
	edges := []keyed.Edge{{Inputs: []string{e.topics.EventsCollected()}, Stage: topic.StageStitcher, Slots: true}}
	f := keyed.NewFence(edges, e.topics, 5*time.Millisecond,
		keyed.Deps{Stream: e.stream, Store: e.store, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.ErrorLevel))})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	n := f.Ticket()
	require.Eventually(e.t, func() bool { return f.Done() >= n }, patience, 5*time.Millisecond)
	cancel()
	require.NoError(e.t, <-done)
}

// read returns what a reader by rule 1 sees of a topic, in the order of each partition.
func (e *env) read(topicName string) []stream.Record {
	e.t.Helper()
	ctx := context.Background()
	ends, err := e.stream.EndOffsets(ctx, topicName)
	require.NoError(e.t, err)
	var out []stream.Record
	for p, end := range ends {
		high := map[string]int64{}
		f := e.stream.NewFetcher(topicName, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			b, err := f.Fetch(ctx, time.Second)
			require.NoError(e.t, err)
			next = b.Next
			for _, r := range stream.Clone(b.Records) {
				text, ok := topic.Get(r.Headers, topic.HeaderPosition)
				require.True(e.t, ok)
				pos, err := topic.ParsePosition(text)
				require.NoError(e.t, err)
				require.Contains(e.t, []string{topic.StageStitcher, topic.StageCommands}, pos.Stage)
				if n, ok := high[pos.Source()]; ok && pos.Seq <= n {
					continue
				}
				high[pos.Source()] = pos.Seq
				out = append(out, r)
			}
		}
		f.Close()
	}
	return out
}

func header(r stream.Record, key string) string {
	v, _ := topic.Get(r.Headers, key)
	return v
}

// ofKind keeps the records of one kind, in the order of message ids.
func ofKind(recs []stream.Record, kind topic.Kind) []stream.Record {
	var out []stream.Record
	for _, r := range recs {
		if header(r, topic.HeaderKind) == string(kind) {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b stream.Record) int {
		x, errX := strconv.Atoi(header(a, topic.HeaderMessageID)[1:])
		y, errY := strconv.Atoi(header(b, topic.HeaderMessageID)[1:])
		if errX != nil || errY != nil {
			return 0
		}
		return x - y
	})
	return out
}

// counts are the values of a counter with one label, by its value.
func (e *env) counts(name string) map[string]float64 {
	e.t.Helper()
	families, err := e.reg.Gather()
	require.NoError(e.t, err)
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			out[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return out
}
