package keyed

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	benchRecords = 20_000
	benchKeys    = 4_000 // each key comes five times, as visitors do
	benchBody    = 575   // bytes, as in docs/performance.md
	benchPairs   = 7     // A B B A, so that a machine that slows down slows both
)

// bench is an env with the real Redis of WEFT_TEST_REDIS where there is one, and preloaded input.
type bench struct {
	*env
	info *redis.Client // nil: miniredis, which has no INFO
	run  int
}

func newBench(b testing.TB) *bench {
	b.Helper()
	e := &bench{env: newEnv(b)}
	if addr := os.Getenv("WEFT_TEST_REDIS"); addr != "" {
		st, err := store.New(config.Redis{Addresses: []string{addr}}, zap.NewNop())
		require.NoError(b, err)
		b.Cleanup(func() { _ = st.Close() })
		e.store = st
		e.info = redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true})
		b.Cleanup(func() { _ = e.info.Close() })
	}
	return e
}

func (e *bench) load() {
	e.t.Helper()
	body := make([]byte, benchBody)
	byPartition := map[int][]stream.Record{}
	for i := range benchRecords {
		key := fmt.Sprintf("%08d-0000-8000-8000-000000000000", i%benchKeys)
		p := topic.Partition([]byte(key), testPartitions)
		pos := topic.Position{Stage: "upstream", Seq: int64(i) + 1}
		byPartition[p] = append(byPartition[p], stream.Record{Key: []byte(key), Value: body, Headers: []topic.Header{
			{Key: topic.HeaderKind, Value: []byte(topic.KindEvent)}, {Key: topic.HeaderPosition, Value: []byte(pos.String())},
		}})
	}
	for p, recs := range byPartition {
		require.NoError(e.t, e.stream.Produce(context.Background(), e.topics.EventsIdentified(), p, recs))
	}
}

// used is what has been used so far: time, our CPU (kfake's with it) and that of Redis, its calls.
type used struct {
	wall, cpu, redis time.Duration
	calls, trips     int64
}

func (u used) minus(o used) used {
	return used{u.wall - o.wall, u.cpu - o.cpu, u.redis - o.redis, u.calls - o.calls, u.trips - o.trips}
}

var benchStart = time.Now()

func (e *bench) used() used {
	e.t.Helper()
	var r syscall.Rusage
	require.NoError(e.t, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	u := used{wall: time.Since(benchStart), cpu: time.Duration(r.Utime.Nano() + r.Stime.Nano())}
	if e.info == nil {
		return u
	}
	text, err := e.info.InfoMap(context.Background(), "cpu", "stats").Result()
	require.NoError(e.t, err)
	for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
		s, err := strconv.ParseFloat(text["CPU"][name], 64)
		require.NoError(e.t, err)
		u.redis += time.Duration(s * float64(time.Second))
	}
	u.calls, err = strconv.ParseInt(text["Stats"]["total_commands_processed"], 10, 64)
	require.NoError(e.t, err)
	u.trips, err = strconv.ParseInt(text["Stats"]["total_reads_processed"], 10, 64)
	require.NoError(e.t, err)
	return u
}

// measure runs fn for each partition side by side.
func (e *bench) measure(fn func(partition int, end int64) error) used {
	e.t.Helper()
	ends, err := e.stream.EndOffsets(context.Background(), e.topics.EventsIdentified())
	require.NoError(e.t, err)
	before := e.used()
	var wg sync.WaitGroup
	errs := make([]error, len(ends))
	for p, end := range ends {
		wg.Go(func() { errs[p] = fn(p, end) })
	}
	wg.Wait()
	after := e.used()
	for _, err := range errs {
		require.NoError(e.t, err)
	}
	return after.minus(before)
}

// sumFold is the cheapest fold with an output per record: what is measured is the runtime.
type sumFold struct{ tallyFold }

func (f sumFold) Apply(key string, s *tally, r Record, _ time.Time) []Output {
	s.Fired++
	return []Output{{Topic: f.topics.ProfilesChanged(), Key: key, Value: r.Value}}
}

// stageRun folds the input once, in slots of its own; recovering is done before the clock starts.
func (e *bench) stageRun() used {
	e.t.Helper()
	e.run++
	d := Deps{Stream: e.stream, Store: e.store, Log: zap.NewNop()}
	s, err := NewFold(Options{
		Stage: fmt.Sprintf("bench-%d-%d", os.Getpid(), e.run), Input: e.topics.EventsIdentified(), Topics: e.topics, StateVersion: 1,
	}, Fold[tally](sumFold{tallyFold{e.topics}}), d)
	require.NoError(e.t, err)
	workers := make([]*worker, testPartitions)
	for p := range workers {
		workers[p] = e.owned(s, p)
	}
	u := e.measure(func(p int, end int64) error { return through(context.Background(), workers[p], end) })
	for _, w := range workers {
		w.close()
	}
	return u
}

// floorRun does what cannot be spared: the same fetch, MGET of the same keys, one write of states as large and of the
// outputs, and the same produce. script: by the stage's own script; else by a pipeline of SET and RPUSH, which
// guards nothing.
func (e *bench) floorRun(script bool) used {
	e.t.Helper()
	e.run++
	name := fmt.Sprintf("floor-%d-%d", os.Getpid(), e.run)
	sc := store.NewScript(commitSource)
	fetchers := make([]*stream.Fetcher, testPartitions)
	for p := range fetchers {
		fetchers[p] = e.stream.NewFetcher(e.topics.EventsIdentified(), p, 0, stream.FetchOptions{})
		defer fetchers[p].Close()
	}
	return e.measure(func(p int, end int64) error {
		f := floor{e: e, slot: newSlot(e.store, e.topics, name, p, sc), script: script}
		for next := int64(0); next < end; {
			batch, err := fetchers[p].Fetch(context.Background(), time.Second)
			if err != nil {
				return err
			}
			next = batch.Next
			for recs := batch.Records; len(recs) > 0; {
				n := min(len(recs), defaultBatchRecords)
				if err := f.batch(recs[:n]); err != nil {
					return err
				}
				recs = recs[n:]
			}
		}
		return nil
	})
}

type floor struct {
	e      *bench
	slot   Slot
	script bool
	seen   map[string]bool
	pub    int64
}

var floorState = append([]byte("\x01revision"), make([]byte, 14)...)

func (f *floor) batch(recs []stream.Record) error {
	ctx := context.Background()
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	args := []any{"MGET"}
	in := map[string]bool{}
	var states []stateWrite
	out := map[int][]stream.Record{}
	outputs := make([][]byte, len(recs))
	for i := range recs {
		r := &recs[i]
		if key := string(r.Key); !in[key] {
			in[key] = true
			full := f.slot.stateKey(key)
			args = append(args, full)
			w := stateWrite{key: key, full: full, val: floorState, sameDue: true}
			if f.seen[key] {
				w.old = "revision"
			}
			f.seen[key] = true
			states = append(states, w)
		}
		t := topic.Partition(r.Key, testPartitions)
		out[t] = append(out[t], stream.Record{Key: r.Key, Value: r.Value, Headers: r.Headers})
		outputs[i] = r.Value
	}
	p := f.slot.st.Pipe()
	p.Do(ctx, args...)
	if err := p.Exec(ctx); err != nil {
		return err
	}
	if f.script {
		r, err := f.slot.commit(ctx, commitArgs{applied: "1", pub: f.pub, states: states, outputs: outputs})
		if err != nil || !r.ok {
			return fmt.Errorf("floor is refused: %s: %w", r.reason, err)
		}
		f.pub = r.firstSeq + int64(len(outputs))
	} else {
		p := f.slot.st.Pipe()
		for i := range states {
			p.Do(ctx, "SET", states[i].full, floorState)
		}
		push := []any{"RPUSH", f.slot.outboxKey()}
		for _, o := range outputs {
			push = append(push, o)
		}
		p.Do(ctx, "DEL", f.slot.outboxKey())
		p.Do(ctx, push...)
		if err := p.Exec(ctx); err != nil {
			return err
		}
	}
	for t, rs := range out {
		if err := f.e.stream.Produce(ctx, f.e.topics.ProfilesChanged(), t, rs); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkStage folds preloaded records with one output each, in pairs with its floors: the same commands to Redis
// (F4s), and plain ones that guard nothing (F4). What is printed are medians; "weft" is the CPU of this
// process, kfake in it, on both sides.
func BenchmarkStage(b *testing.B) {
	e := newBench(b)
	e.load()
	var stages, scripts, plains []used
	for b.Loop() {
		for range benchPairs {
			scripts = append(scripts, e.floorRun(true))
			stages = append(stages, e.stageRun(), e.stageRun())
			scripts = append(scripts, e.floorRun(true))
			plains = append(plains, e.floorRun(false))
		}
	}
	per := func(us []used, of func(used) time.Duration) float64 {
		vs := make([]time.Duration, len(us))
		for i, u := range us {
			vs[i] = of(u)
		}
		slices.Sort(vs)
		return float64(vs[len(vs)/2].Nanoseconds()) / benchRecords / 1000
	}
	wall := func(u used) time.Duration { return u.wall }
	cpu := func(u used) time.Duration { return u.cpu }
	server := func(u used) time.Duration { return u.redis }
	both := func(u used) time.Duration { return u.cpu + u.redis }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(per(stages, wall), "us/record")
	b.ReportMetric(per(stages, cpu), "weft-us/record")
	b.ReportMetric(per(scripts, cpu), "F4s-us/record")
	b.ReportMetric(per(plains, cpu), "F4-us/record")
	b.ReportMetric(per(stages, both)/per(scripts, both), "x-F4s")
	b.ReportMetric(per(stages, both)/per(plains, both), "x-F4")
	if e.info != nil {
		b.ReportMetric(per(stages, server), "redis-us/record")
		b.ReportMetric(per(plains, server), "F4-redis-us/record")
		b.ReportMetric(1e6/per(stages, server), "records/s/redis-core")
		last := stages[len(stages)-1]
		b.ReportMetric(float64(last.calls)*1000/benchRecords, "commands/1k") // those inside of scripts too
		b.ReportMetric(float64(last.trips)*1000/benchRecords, "reads/1k")
	}
	b.Log(strings.Join([]string{"redis-us of F4s", fmt.Sprintf("%.2f", per(scripts, server))}, ": "))
}
