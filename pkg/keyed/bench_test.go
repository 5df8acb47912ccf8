package keyed

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

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
)

// benchEnv is newEnv with the real Redis of WEFT_TEST_REDIS where there is one, and preloaded input.
func benchEnv(b *testing.B) *env {
	b.Helper()
	e := newEnv(b)
	if addr := os.Getenv("WEFT_TEST_REDIS"); addr != "" {
		st, err := store.New(config.Redis{Addresses: []string{addr}}, zap.NewNop())
		require.NoError(b, err)
		b.Cleanup(func() { _ = st.Close() })
		e.store = st
	}
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
		require.NoError(b, e.stream.Produce(context.Background(), e.topics.EventsIdentified(), p, recs))
	}
	return e
}

// sumFold is the cheapest fold with an output per record: what is measured is the runtime.
type sumFold struct{ tallyFold }

func (f sumFold) Apply(key string, s *tally, r Record, _ time.Time) []Output {
	s.Fired++
	return []Output{{Topic: f.topics.ProfilesChanged(), Key: key, Value: r.Value}}
}

// BenchmarkStage drains preloaded records through a fold with one output each. Beside it stands
// BenchmarkStageFloor: the same fetch, the same keys by MGET and pipelined SET, the same produce, and
// nothing else. Compare ns/record in one run.
func BenchmarkStage(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		e := benchEnv(b)
		d := Deps{Stream: e.stream, Store: e.store, Log: zap.NewNop()}
		s, err := NewFold(Options{Stage: fmt.Sprintf("bench-%d", time.Now().UnixNano()), Input: e.topics.EventsIdentified(), Topics: e.topics, StateVersion: 1}, Fold[tally](sumFold{tallyFold{e.topics}}), d)
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		b.StartTimer()
		go func() { done <- s.Run(ctx) }()
		for p := range testPartitions {
			ends, err := e.stream.EndOffsets(ctx, e.topics.EventsIdentified())
			require.NoError(b, err)
			require.Eventually(b, func() bool {
				n, err := Applied(ctx, e.store, e.topics, s.opt.Stage, p)
				return err == nil && n >= ends[p]
			}, time.Minute, time.Millisecond)
		}
		b.StopTimer()
		cancel()
		require.NoError(b, <-done)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRecords, "ns/record")
}

// BenchmarkStageFloor: see BenchmarkStage.
func BenchmarkStageFloor(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		e := benchEnv(b)
		ctx := context.Background()
		ends, err := e.stream.EndOffsets(ctx, e.topics.EventsIdentified())
		require.NoError(b, err)
		b.StartTimer()
		for p, end := range ends {
			f := e.stream.NewFetcher(e.topics.EventsIdentified(), p, 0, stream.FetchOptions{})
			for next := int64(0); next < end; {
				batch, err := f.Fetch(ctx, time.Second)
				require.NoError(b, err)
				next = batch.Next
				for recs := batch.Records; len(recs) > 0; {
					n := min(len(recs), defaultBatchRecords)
					floorBatch(ctx, b, e, recs[:n])
					recs = recs[n:]
				}
			}
			f.Close()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRecords, "ns/record")
}

func floorBatch(ctx context.Context, b *testing.B, e *env, recs []stream.Record) {
	b.Helper()
	keys := make([]string, len(recs))
	p := e.store.Pipe()
	out := map[int][]stream.Record{}
	for i := range recs {
		keys[i] = "floor:" + string(recs[i].Key)
		p.Do(ctx, "SET", keys[i], "twelve bytes")
		t := topic.Partition(recs[i].Key, testPartitions)
		out[t] = append(out[t], stream.Record{Key: recs[i].Key, Value: recs[i].Value, Headers: recs[i].Headers})
	}
	_, err := e.store.MGet(ctx, keys...)
	require.NoError(b, err)
	require.NoError(b, p.Exec(ctx))
	for t, rs := range out {
		require.NoError(b, e.stream.Produce(ctx, e.topics.ProfilesChanged(), t, rs))
	}
}
