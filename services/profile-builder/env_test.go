package builder

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
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
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testPartitions = 3
	testKey        = "test-access-key"
	patience       = 2 * time.Minute
	retry          = 10 * time.Millisecond // between looks while waiting
)

var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(n int) time.Time { return base.Add(time.Duration(n) * time.Second) }

// env is a Kafka and a Redis of one test, with the configuration to reach them.
type env struct {
	t      *testing.T
	cfg    config.Config
	kafka  *kfake.Cluster
	redis  *miniredis.Miniredis
	topics topic.Set
	rules  *identity.Rules
	stream *stream.Client
	seq    int64
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
	e := &env{t: t, kafka: k, redis: miniredis.RunT(t), topics: topics, cfg: config.Defaults()}
	e.cfg.Kafka.Brokers = k.ListenAddrs()
	e.cfg.Kafka.SessionTimeout, e.cfg.Kafka.RebalanceTime = time.Minute, time.Minute // no test is about losing a session
	e.cfg.Redis = config.Redis{Addresses: []string{e.redis.Addr()}, AllowNonDurable: true}
	e.cfg.Topics.Prefix, e.cfg.Topics.Partitions = topics.Prefix, topics.Partitions
	e.cfg.Identity.KeyFile = filepath.Join(t.TempDir(), "identity.key")
	e.cfg.Builder.Listen = "127.0.0.1:0"
	e.cfg.Builder.AccessKeys = []string{"another-key", testKey}
	e.cfg.Builder.BrandTraits = []string{"tier"}
	key, err := config.LoadOrCreateSecret(e.cfg.Identity.KeyFile)
	require.NoError(t, err)
	e.rules, err = identity.NewRules(key, identity.Options{})
	require.NoError(t, err)
	e.stream, _ = e.connect()
	return e
}

func (e *env) connect() (*stream.Client, *store.Client) {
	e.t.Helper()
	log := zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel))
	sc, err := stream.New(e.cfg.Kafka, log)
	require.NoError(e.t, err)
	e.t.Cleanup(sc.Close)
	st, err := store.New(e.cfg.Redis, log, store.WithPatience(patience))
	require.NoError(e.t, err)
	e.t.Cleanup(func() { require.NoError(e.t, st.Close()) })
	return sc, st
}

// start runs a service, as a process of its own would, until stop, which waits for it.
func (e *env) start() (s *Service, stop func()) {
	e.t.Helper()
	sc, st := e.connect()
	s, err := New(e.cfg, Deps{
		Stream: sc, Store: st, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel)), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(e.t, err)
	require.Error(e.t, s.Ready())
	require.Empty(e.t, s.Addr())
	require.NoError(e.t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(e.t, <-done)
	})
	e.t.Cleanup(stop)
	return s, stop
}

func (e *env) node(typ, value string) string {
	e.t.Helper()
	n, ok := e.rules.Node(event.Identifier{Type: typ, Value: value})
	require.True(e.t, ok)
	return n.String()
}

// record is one of events.identified, as the stitcher writes it.
func (e *env) record(key string, kind topic.Kind, m event.Meta, value []byte) stream.Record {
	e.seq++
	pos := topic.Position{Stage: topic.StageStitcher, Seq: e.seq}
	return stream.Record{Key: []byte(key), Value: value, Headers: append(topic.MetaHeaders(m),
		topic.Header{Key: topic.HeaderKind, Value: []byte(kind)}, topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})}
}

func (e *env) send(r stream.Record) {
	e.t.Helper()
	p := topic.Partition(r.Key, e.topics.Partitions)
	require.NoError(e.t, e.stream.Produce(context.Background(), e.topics.EventsIdentified(), p, []stream.Record{r}))
}

// event makes the record of an event at second n.
func (e *env) event(key, id string, n int, fields string) stream.Record {
	m := event.Meta{Source: "shop", Brand: "main", MessageID: id, ReceivedAt: at(n)}
	return e.record(key, topic.KindEvent, m, fmt.Appendf(nil, `{"messageId":%q,"timestamp":%q,%s}`, id, at(n).Format(time.RFC3339Nano), fields))
}

// merge makes the record of a merge.
func (e *env) merge(loser, winner string) stream.Record {
	e.t.Helper()
	b, err := identity.Merge{
		Loser: loser, Winner: winner, Members: []string{loser}, Version: 2,
		Cause: identity.Cause{Source: "test", MessageID: "m", Rule: identity.RuleSameEvent, Time: base},
	}.Encode()
	require.NoError(e.t, err)
	return e.record(loser, topic.KindMerge, event.Meta{}, b)
}

// found is the body of an answer.
type found struct {
	ID        string                     `json:"id"`
	Traits    map[string]json.RawMessage `json:"traits"`
	Counts    struct{ Events int64 }     `json:"counts"`
	Profile   string                     `json:"profile"`
	Orders    json.RawMessage            `json:"orders"` // a number, or the history
	Revenue   map[string]string          `json:"revenue"`
	OpenCarts []struct{ ID string }      `json:"openCarts"`
	Audiences []string                   `json:"audiences"`
	Freshness struct {
		AsOf     time.Time `json:"asOf"`
		Lag      *int64    `json:"lag"`
		CaughtUp bool      `json:"caughtUp"`
	} `json:"freshness"`
	Code string `json:"code"`
}

// get asks a service for a profile, or for more about it.
func (e *env) get(s *Service, typ, value string, more ...string) (int, http.Header, found) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+s.Addr()+pathPrefix+strings.Join(append([]string{typ, url.PathEscape(value)}, more...), "/"), nil)
	require.NoError(e.t, err)
	req.Header.Set("Authorization", "Bearer "+testKey)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(e.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(e.t, err)
	var f found
	require.NoError(e.t, json.Unmarshal(b, &f), string(b))
	return resp.StatusCode, resp.Header, f
}

// await asks until the answer is as wanted.
func (e *env) await(s *Service, typ, value string, want func(status int, f found) bool) found {
	e.t.Helper()
	var f found
	require.Eventually(e.t, func() bool {
		var status int
		status, _, f = e.get(s, typ, value)
		return want(status, f)
	}, patience, retry)
	return f
}

// events waits for a profile with n events, all of its partition folded.
func events(n int64) func(int, found) bool {
	return func(status int, f found) bool {
		return status == http.StatusOK && f.Counts.Events == n && f.Freshness.CaughtUp
	}
}

// read returns everything in a topic so far, as a reader by rule 1 does: a process that ends between publishing and
// noting so publishes again when it is back.
func (e *env) read(topicName string) []stream.Record {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ends, err := e.stream.EndOffsets(ctx, topicName)
	require.NoError(e.t, err)
	var recs []stream.Record
	for p, end := range ends {
		high := map[string]int64{}
		f := e.stream.NewFetcher(topicName, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			b, err := f.Fetch(ctx, 100*time.Millisecond)
			require.NoError(e.t, err)
			next = b.Next
			for _, r := range stream.Clone(b.Records) {
				if text, ok := topic.Get(r.Headers, topic.HeaderPosition); ok {
					pos, err := topic.ParsePosition(text)
					require.NoError(e.t, err)
					if n, seen := high[pos.Source()]; seen && pos.Seq <= n {
						continue
					}
					high[pos.Source()] = pos.Seq
				}
				recs = append(recs, r)
			}
		}
		f.Close()
	}
	return recs
}

// latest is the last value per key of a compacted topic: what compaction will leave.
func (e *env) latest(topicName string) map[string]string {
	m := map[string]string{}
	for _, r := range e.read(topicName) {
		m[string(r.Key)] = string(r.Value)
		if r.Value == nil {
			delete(m, string(r.Key))
		}
	}
	return m
}
