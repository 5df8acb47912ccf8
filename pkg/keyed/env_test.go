package keyed

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPartitions = 3

// patience is how long a test waits for a condition; it is never slept through, so it may be as long as the slowest
// machine needs.
const patience = 2 * time.Minute

// env is a Kafka and a Redis of one test.
type env struct {
	t     testing.TB
	kafka *kfake.Cluster
	redis *miniredis.Miniredis
	// cluster are the nodes of a Redis Cluster to use instead of redis.
	cluster []string
	stream  *stream.Client
	store   *store.Client
	topics  topic.Set
	seq     int64
}

func newEnv(t testing.TB) *env {
	t.Helper()
	return newEnvOf(t, testPartitions)
}

func newEnvOf(t testing.TB, partitions int) *env {
	t.Helper()
	topics := topic.Set{Prefix: "test.", Partitions: partitions}
	var names []string
	for _, s := range topics.Specs() {
		names = append(names, s.Name)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(partitions), names...))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	r := miniredis.RunT(t)
	e := &env{t: t, kafka: k, redis: r, topics: topics}
	e.stream, e.store = e.connect()
	return e
}

func (e *env) connect() (*stream.Client, *store.Client) {
	e.t.Helper()
	cfg := config.Defaults()
	cfg.Kafka.Brokers = e.kafka.ListenAddrs()
	cfg.Kafka.SessionTimeout, cfg.Kafka.RebalanceTime = patience, time.Minute // no test is about losing a session
	log := zaptest.NewLogger(e.t, zaptest.Level(zaptest.NewLogger(e.t).Level()))
	sc, err := stream.New(cfg.Kafka, log)
	require.NoError(e.t, err)
	e.t.Cleanup(sc.Close)
	addrs := e.cluster
	if addrs == nil {
		addrs = []string{e.redis.Addr()}
	}
	st, err := store.New(config.Redis{Addresses: addrs, AllowNonDurable: true}, log, store.WithPatience(patience))
	require.NoError(e.t, err)
	e.t.Cleanup(func() { _ = st.Close() })
	return sc, st
}

func (e *env) deps() Deps {
	return Deps{Stream: e.stream, Store: e.store, Log: zaptest.NewLogger(e.t)}
}

// send appends a record of a key to events.identified, as the stitcher would.
func (e *env) send(key string, kind topic.Kind, val string) {
	e.t.Helper()
	e.seq++
	p := topic.Partition([]byte(key), testPartitions)
	pos := topic.Position{Stage: "upstream", Partition: 0, Seq: e.seq}
	require.NoError(e.t, e.stream.Produce(context.Background(), e.topics.EventsIdentified(), p, []stream.Record{{
		Key: []byte(key), Value: []byte(val),
		Headers: []topic.Header{{Key: topic.HeaderKind, Value: []byte(kind)}, {Key: topic.HeaderPosition, Value: []byte(pos.String())}},
	}}))
}

// tally counts each event by name: any loss or double shows.
type tally struct {
	N     map[string]int `json:"n,omitempty"`
	DueAt int64          `json:"due,omitempty"`
	Fired int            `json:"fired,omitempty"`
	Pad   string         `json:"pad,omitempty"`
}

type tallyFold struct{ topics topic.Set }

func (f tallyFold) Apply(key string, s *tally, r Record, _ time.Time) []Output {
	if s.N == nil {
		s.N = map[string]int{}
	}
	s.N[string(r.Value)]++
	if string(r.Value) == "cancel" {
		s.DueAt = 0
	}
	var at int64
	if _, err := fmt.Sscanf(string(r.Value), "due:%d", &at); err == nil {
		s.DueAt = at
	}
	return []Output{{Topic: f.topics.ProfilesChanged(), Key: key, Value: r.Value}}
}

func (f tallyFold) Due(s *tally) (time.Time, bool) { return time.UnixMilli(s.DueAt), s.DueAt > 0 }

func (f tallyFold) Timer(key string, s *tally, _ time.Time) []Output {
	s.Fired++
	s.DueAt = 0
	return []Output{{Topic: f.topics.ActivationsRequested(), Key: key, Value: []byte("fired")}}
}

func (f tallyFold) Merge(_ string, into *tally, from tally, _ time.Time) []Output {
	if into.N == nil {
		into.N = map[string]int{}
	}
	for k, n := range from.N {
		into.N[k] += n
	}
	into.Fired += from.Fired
	if into.DueAt == 0 || from.DueAt > 0 && from.DueAt < into.DueAt {
		into.DueAt = from.DueAt
	}
	return nil
}

func (e *env) stage(fence *Fence, deps Deps) *Stage {
	e.t.Helper()
	s, err := NewFold(Options{Stage: topic.StageBuilder, Input: e.topics.EventsIdentified(), Topics: e.topics, Fence: fence, StateVersion: 1}, Fold[tally](tallyFold{e.topics}), deps)
	require.NoError(e.t, err)
	return s
}

// run runs fn until stop is called, which waits for it.
func run(t testing.TB, fn func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// settled waits until the group has committed all of the input and every outbox is published.
func (e *env) settled() {
	e.t.Helper()
	f := NewFence([]Edge{{Inputs: []string{e.topics.EventsIdentified()}, Stage: topic.StageBuilder, Slots: true}}, e.topics, 5*time.Millisecond, e.deps())
	stop := run(e.t, f.Run)
	defer stop()
	n := f.Ticket()
	require.Eventually(e.t, func() bool { return f.Done() >= n }, patience, 5*time.Millisecond)
}

func (e *env) read(key string) (string, tally) {
	e.t.Helper()
	f, err := ReadState[tally](context.Background(), e.store, e.topics, topic.StageBuilder, 1, key)
	require.NoError(e.t, err)
	require.NotNil(e.t, f.State, key)
	return f.Live, *f.State
}

func mergeInto(winner string) string {
	b, _ := json.Marshal(map[string]string{"winner": winner})
	return string(b)
}

// outputsOnce reads the output topic as a consumer by rule 1 does.
func (e *env) outputsOnce(want map[string]int) {
	e.t.Helper()
	got := map[string]int{}
	for p := range testPartitions {
		high := map[string]int64{}
		f := e.stream.NewFetcher(e.topics.ProfilesChanged(), p, 0, stream.FetchOptions{})
		ends, err := e.stream.EndOffsets(context.Background(), e.topics.ProfilesChanged())
		require.NoError(e.t, err)
		for next := int64(0); next < ends[p]; {
			b, err := f.Fetch(context.Background(), time.Second)
			require.NoError(e.t, err)
			next = b.Next
			for _, sr := range b.Records {
				r, err := parseRecord(sr)
				require.NoError(e.t, err)
				if n, ok := high[r.Position.Source()]; ok && r.Position.Seq <= n {
					continue
				}
				high[r.Position.Source()] = r.Position.Seq
				got[string(r.Value)]++
			}
		}
		f.Close()
	}
	require.Equal(e.t, want, got)
}

// settledCommit waits until everything sent is applied.
func (e *env) settledCommit() {
	e.t.Helper()
	ctx := context.Background()
	require.Eventually(e.t, func() bool {
		ends, err := e.stream.EndOffsets(ctx, e.topics.EventsIdentified())
		require.NoError(e.t, err)
		for p, end := range ends {
			n, err := Applied(ctx, e.store, e.topics, topic.StageBuilder, p)
			require.NoError(e.t, err)
			if n < end {
				return false
			}
		}
		return true
	}, patience, 5*time.Millisecond)
}
