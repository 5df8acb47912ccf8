package keyed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPartitions = 3

// env is a Kafka and a Redis of one test.
type env struct {
	t      testing.TB
	kafka  *kfake.Cluster
	redis  *miniredis.Miniredis
	stream *stream.Client
	store  *store.Client
	topics topic.Set
	seq    int64
}

func newEnv(t testing.TB) *env {
	t.Helper()
	topics := topic.Set{Prefix: "test.", Partitions: testPartitions}
	var names []string
	for _, s := range topics.Specs() {
		names = append(names, s.Name)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(testPartitions, names...))
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
	log := zaptest.NewLogger(e.t, zaptest.Level(zaptest.NewLogger(e.t).Level()))
	sc, err := stream.New(cfg.Kafka, log)
	require.NoError(e.t, err)
	e.t.Cleanup(sc.Close)
	st, err := store.New(config.Redis{Addresses: []string{e.redis.Addr()}, AllowNonDurable: true}, log)
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
	require.Eventually(e.t, func() bool { return f.Done() >= n }, 60*time.Second, 5*time.Millisecond)
}

func (e *env) read(key string) (string, tally) {
	e.t.Helper()
	live, s, ok, err := ReadState[tally](context.Background(), e.store, e.topics, topic.StageBuilder, 1, key)
	require.NoError(e.t, err)
	require.True(e.t, ok, key)
	return live, *s
}

func mergeInto(winner string) string {
	b, _ := json.Marshal(map[string]string{"winner": winner})
	return string(b)
}

func TestMergedKeysCountEachRecordOnce(t *testing.T) {
	e := newEnv(t)
	stop := run(t, e.stage(nil, e.deps()).Run)
	defer stop()
	e.send("c", topic.KindEvent, "1")
	e.send("b", topic.KindEvent, "2")
	e.send("c", topic.KindMerge, mergeInto("b"))
	e.send("c", topic.KindEvent, "late")
	e.send("b", topic.KindMerge, mergeInto("a"))
	e.send("c", topic.KindMerge, mergeInto("a")) // published by more than one
	e.send("b", topic.KindEvent, "late2")
	e.send("x", topic.KindMerge, mergeInto("a")) // never seen: only a pointer
	e.send("x", topic.KindEvent, "late3")
	e.send("a", topic.KindMerge, `{"winner":"a"}`) // poison
	e.settled()
	for _, k := range []string{"a", "b", "c", "x"} {
		live, s := e.read(k)
		require.Equal(t, "a", live)
		require.Equal(t, map[string]int{"1": 1, "2": 1, "late": 1, "late2": 1, "late3": 1}, s.N)
	}
}

func TestRepeatedSourcePositionsChangeNothing(t *testing.T) {
	e := newEnv(t)
	stop := run(t, e.stage(nil, e.deps()).Run)
	defer stop()
	e.send("a", topic.KindEvent, "1")
	e.seq--
	e.send("a", topic.KindEvent, "1")
	e.send("a", topic.KindEvent, "2")
	e.settled()
	_, s := e.read("a")
	require.Equal(t, map[string]int{"1": 1, "2": 1}, s.N)
}

// TestNothingLostNothingTwice runs several owners against each other, cuts them off at random, makes
// Redis fail at random, and compares plain counters.
func TestNothingLostNothingTwice(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			e := newEnv(t)
			rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a seed reproduces
			keys := []string{"a", "b", "c", "d", "e", "f", "g"}
			parent := map[string]string{}
			find := func(k string) string {
				for parent[k] != "" {
					k = parent[k]
				}
				return k
			}
			want := map[string]int{}
			start := func() (stop func()) {
				d := e.deps()
				d.Stream, d.Store = e.connect()
				return run(t, e.stage(nil, d).Run)
			}
			stops := []func(){start(), start()}
			for i := range 120 {
				k := keys[rng.IntN(len(keys))]
				switch rng.IntN(10) {
				case 0:
					o := keys[rng.IntN(len(keys))]
					l, w := find(k), find(o)
					if l < w {
						l, w = w, l
					}
					if l != w {
						parent[l] = w
						e.send(l, topic.KindMerge, mergeInto(w))
					}
				case 1:
					j := rng.IntN(len(stops))
					stops[j]()
					stops[j] = start()
				case 2:
					e.redis.SetError("LOADING injected")
					time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, func() { e.redis.SetError("") })
				default:
					v := fmt.Sprint(i)
					want[v]++
					e.send(k, topic.KindEvent, v)
				}
			}
			e.settled()
			got := map[string]int{}
			for _, k := range keys {
				live, s, ok, err := ReadState[tally](context.Background(), e.store, e.topics, topic.StageBuilder, 1, k)
				require.NoError(t, err)
				require.Equal(t, find(k), live)
				if ok && live == k {
					for v, n := range s.N {
						got[v] += n
					}
				}
			}
			require.Equal(t, want, got)
			e.outputsOnce(want)
			for _, stop := range stops {
				stop()
			}
		})
	}
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

func TestTimerFiresOnceBehindTheFence(t *testing.T) {
	e := newEnv(t)
	// Edge 0 is a topic that nobody reads yet: the fence must hold the timer although it is due.
	e.topics.Prefix = "test."
	inbox := e.topics.EventsInbox()
	edges := []Edge{
		{Inputs: []string{inbox}, Stage: topic.StageCollector},
		{Inputs: []string{e.topics.EventsIdentified()}, Stage: topic.StageBuilder},
	}
	require.NoError(t, e.stream.Produce(context.Background(), inbox, 0, []stream.Record{{Value: []byte("not yet read")}}))
	fence := NewFence(edges, e.topics, 5*time.Millisecond, e.deps())
	stopFence := run(t, fence.Run)
	defer stopFence()
	stop := run(t, e.stage(fence, e.deps()).Run)
	defer stop()
	e.send("bought", topic.KindEvent, fmt.Sprintf("due:%d", time.Now().Add(-time.Second).UnixMilli()))
	e.send("left", topic.KindEvent, fmt.Sprintf("due:%d", time.Now().Add(-time.Second).UnixMilli()))
	e.settledCommit()
	require.Eventually(t, func() bool { fence.mu.Lock(); defer fence.mu.Unlock(); return fence.begun > 0 }, 10*time.Second, 5*time.Millisecond)
	e.send("bought", topic.KindEvent, "cancel") // arrives while the walk waits at edge 0
	e.settledCommit()
	_, s := e.read("left")
	require.Zero(t, s.Fired, "the fence was not through")
	since, at, waits := fence.Waiting()
	require.True(t, waits)
	require.Equal(t, inbox+", to be read by "+topic.StageCollector, at)
	require.Less(t, time.Since(since), time.Minute)

	// The collector reads its inlet: only now the walk can end.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- e.stream.RunGroup(ctx, stream.GroupOptions{Group: e.topics.Group(topic.StageCollector, inbox), Topics: []string{inbox}},
			func(ctx context.Context, cl *stream.Claim) error {
				ends, err := e.stream.EndOffsets(ctx, inbox)
				if err != nil {
					return err
				}
				if err := cl.Commit(ctx, ends[cl.Partition], ""); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			})
	}()
	require.Eventually(t, func() bool { _, s := e.read("left"); return s.Fired == 1 }, 20*time.Second, 10*time.Millisecond)
	_, s = e.read("bought")
	require.Zero(t, s.Fired)
	cancel()
	require.NoError(t, <-done)
}

// A walk that an error takes back to its top again and again has waited since it first met the error.
func TestFenceTellsWhatItWaitsFor(t *testing.T) {
	e := newEnv(t)
	core, logs := observer.New(zap.WarnLevel)
	var clock atomic.Int64
	deps := Deps{Stream: e.stream, Store: e.store, Log: zap.New(core), Now: func() time.Time { return time.Unix(clock.Add(1), 0) }}
	fence := NewFence([]Edge{
		{Inputs: []string{e.topics.EventsInbox()}, Stage: topic.StageCollector},
		{Inputs: []string{"nowhere"}, Stage: topic.StageStitcher},
	}, e.topics, time.Millisecond, deps)
	_, _, waits := fence.Waiting()
	require.False(t, waits)
	stop := run(t, fence.Run)
	defer stop()
	fence.Ticket()
	require.Eventually(t, func() bool { return logs.FilterMessage("fence walk is held").Len() >= 2 }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		_, at, waits := fence.Waiting()
		return waits && at == "nowhere, to be read by "+topic.StageStitcher
	}, 20*time.Second, time.Millisecond)
	since, _, _ := fence.Waiting()
	require.Equal(t, time.Unix(2, 0), since, "when it first came there")
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
	}, 30*time.Second, 5*time.Millisecond)
}

func TestLostRedisStopsTheStageLoudly(t *testing.T) {
	for name, lose := range map[string]func(*miniredis.Miniredis){
		"all": func(r *miniredis.Miniredis) { r.FlushAll() },
		"earlier": func(r *miniredis.Miniredis) {
			for _, k := range r.Keys() {
				if r.Exists(k) && r.Type(k) == "hash" {
					r.HSet(k, "applied", "0")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			stop := run(t, e.stage(nil, e.deps()).Run)
			e.send("a", topic.KindEvent, "1")
			e.settled()
			stop()
			lose(e.redis)
			e.send("a", topic.KindEvent, "2")
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			d := e.deps()
			err := e.stage(nil, d).Run(ctx)
			require.ErrorIs(t, err, ErrStateLost)
			require.ErrorContains(t, err, "docs/operate.md")
		})
	}
}

func TestOtherPartitionCountRefusesToStart(t *testing.T) {
	e := newEnv(t)
	_, err := e.store.Fact(context.Background(), DeploymentKey(e.topics), "partitions", "12")
	require.NoError(t, err)
	require.ErrorIs(t, e.stage(nil, e.deps()).Run(context.Background()), ErrPartitionCount)
}

func TestRedisThatMayLoseWritesRefusesToStart(t *testing.T) {
	e := newEnv(t)
	st, err := store.New(config.Redis{Addresses: []string{e.redis.Addr()}}, zaptest.NewLogger(t)) // can not prove that it is durable
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	d := e.deps()
	d.Store = st
	require.ErrorIs(t, e.stage(nil, d).Run(context.Background()), store.ErrNonDurable)
}

// passPlanner passes bodies through and remembers ids.
type passPlanner struct {
	out  string
	fail func() error
	mu   sync.Mutex
	pub  map[int64]int
}

func (p *passPlanner) Plan(ctx context.Context, slot Slot, recs []Record) (Change, error) {
	if err := p.fail(); err != nil {
		return Change{}, err
	}
	var ids [][]byte
	for i := range recs {
		ids = append(ids, recs[i].Value)
	}
	now := time.Now()
	seen, err := slot.Seen(ctx, ids, now, time.Hour)
	if err != nil {
		return Change{}, err
	}
	c := Change{SeenAt: now, SeenWindow: time.Hour}
	in := map[string]bool{}
	for i := range recs {
		if seen[i] || in[string(ids[i])] {
			continue
		}
		in[string(ids[i])] = true
		c.SeenIDs = append(c.SeenIDs, ids[i])
		c.Outputs = append(c.Outputs, Output{Topic: p.out, Key: string(recs[i].Key), PassThrough: true, Offset: recs[i].Offset})
	}
	return c, nil
}

func (p *passPlanner) Published(_ context.Context, _ Slot, outs []Output) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range outs {
		p.pub[o.Offset]++
	}
	return p.fail()
}

func TestPlannerPassesBodiesThroughOnce(t *testing.T) {
	e := newEnv(t)
	rng := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // reproducible
	var mu sync.Mutex
	fail := func() error {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(4) == 0 {
			return errors.New("injected")
		}
		return nil
	}
	p := &passPlanner{out: e.topics.ProfilesChanged(), fail: fail, pub: map[int64]int{}}
	s, err := NewPlan(Options{Stage: topic.StageStitcher, Input: e.topics.EventsIdentified(), Topics: e.topics, BatchRecords: 3}, p, e.deps())
	require.NoError(t, err)
	stop := run(t, s.Run)
	defer stop()
	want := map[string]int{}
	for i := range 40 {
		v := fmt.Sprint(i % 30) // ten come twice, in the same partition
		e.send("k"+v, topic.KindEvent, v)
		want[v] = 1
	}
	ctx := context.Background()
	require.Eventually(t, func() bool {
		ends, err := e.stream.EndOffsets(ctx, e.topics.EventsIdentified())
		require.NoError(t, err)
		got, err := e.stream.Committed(ctx, e.topics.Group(topic.StageStitcher, e.topics.EventsIdentified()), e.topics.EventsIdentified())
		require.NoError(t, err)
		return slices.EqualFunc(ends, got, func(end int64, c stream.Committed) bool { return end == 0 || c.Offset == end })
	}, 60*time.Second, 10*time.Millisecond)
	e.outputsOnce(want)
	require.NoError(t, err)
	require.NotEmpty(t, maps.Keys(p.pub))
}
