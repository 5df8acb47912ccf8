package spool

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// benchCall is how many events one call brings, and benchEvent how large each is.
	benchCall, benchEvent = 20, 800
	// benchPartitions is that of a usual deployment.
	benchPartitions = 12
)

// benchRecords is what a call hands over.
func benchRecords(call int) []stream.Record {
	value := make([]byte, benchEvent)
	for i := range value {
		value[i] = byte('a' + i*i%23)
	}
	recs := make([]stream.Record, benchCall)
	for i := range recs {
		recs[i] = stream.Record{Key: fmt.Appendf(nil, "visitor-%d", (call*benchCall+i)*7919%2000), Value: value, Headers: []topic.Header{
			{Key: topic.HeaderSchema, Value: []byte("1")}, {Key: topic.HeaderSource, Value: []byte("web")}, {Key: topic.HeaderBrand, Value: []byte("main")},
			{Key: topic.HeaderMessageID, Value: fmt.Appendf(nil, "message-%08d", i)}, {Key: topic.HeaderReceivedAt, Value: []byte("1795375873000")},
		}}
	}
	return recs
}

// away is a Kafka that does not answer; taking is one that takes everything at once.
type (
	away   struct{}
	taking struct{}
)

func (away) SendAll(ctx context.Context, _ []stream.Record) error { return ctx.Err() }

func (away) ProduceEncoded(context.Context, string, int, *stream.Encoded, int) error { return errAway }

func (taking) ProduceEncoded(context.Context, string, int, *stream.Encoded, int) error { return nil }

func benchOptions(dir string, p Producer) Options {
	return Options{
		Dir: dir, MaxBytes: 1 << 40, Topics: []string{"a"}, Partitions: benchPartitions, Producer: p,
		Registry: &register{entries: map[string]registry.Entry{}}, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	}
}

// BenchmarkAppend acknowledges calls of 20 events from the disk: one caller after the other, and 64 at a time, who share
// fsyncs. The floor appends the same bytes to a file, an fsync a call.
func BenchmarkAppend(b *testing.B) {
	recs := benchRecords(0)
	size := 0
	for i := range recs {
		size += stream.EncodedSize(&recs[i])
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(b.N*benchCall)/b.Elapsed().Seconds(), "events/s")
	}
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("floor/%d", callers), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "floor"))
			require.NoError(b, err)
			data := make([]byte, size)
			b.SetBytes(int64(size))
			var mu sync.Mutex
			b.ResetTimer()
			share(b, callers, func() error {
				mu.Lock()
				defer mu.Unlock()
				if _, err := f.Write(data); err != nil {
					return err
				}
				return f.Sync()
			})
			report(b)
			require.NoError(b, f.Close())
		})
		b.Run(fmt.Sprintf("spool/%d", callers), func(b *testing.B) {
			s, err := Open(benchOptions(b.TempDir(), away{}))
			require.NoError(b, err)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			d := s.Sender(0, away{}, soon)
			for i := range benchPartitions { // each lane has something behind it, so that Kafka is not asked first
				require.NoError(b, d.s.await(ctx, laneItems(b, s, i)))
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			share(b, callers, func() error { return d.SendAll(ctx, recs) })
			b.StopTimer()
			report(b)
			cancel()
			require.NoError(b, <-done)
			require.NoError(b, s.Close())
		})
	}
}

// laneItems puts one record into a lane.
func laneItems(b *testing.B, s *Spool, lane int) []*item {
	b.Helper()
	items := []*item{{lane: lane, count: 1, data: stream.AppendEncoded(nil, &benchRecords(0)[0]), done: make(chan error, 1)}}
	require.NoError(b, s.put(items))
	return items
}

// share has callers do b.N calls between them.
func share(b *testing.B, callers int, call func() error) {
	turns := make(chan struct{}, callers)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range turns {
				if err := call(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		turns <- struct{}{}
	}
	close(turns)
	all.Wait()
}

// BenchmarkDrain reads what 2,000 calls have left and hands it to a Kafka that takes it at once: what is the spool's own
// of draining. The floor reads the same files and computes their checksum.
func BenchmarkDrain(b *testing.B) {
	const calls = 2000
	dir := filepath.Join(b.TempDir(), "filled")
	s, err := Open(benchOptions(dir, away{}))
	require.NoError(b, err)
	for call := range calls {
		recs, lanes, all := benchRecords(call), make([]int, benchCall), map[int]bool{}
		for i := range recs {
			lanes[i] = stream.PartitionFor(recs[i].Key, benchPartitions)
			all[lanes[i]] = true
		}
		require.NoError(b, s.append(appendGroup(nil, pack(recs, lanes, all))))
	}
	require.NoError(b, s.Close())
	segments := segmentsIn(b, dir)
	size := int64(0)
	for _, path := range segments {
		info, err := os.Stat(path)
		require.NoError(b, err)
		size += info.Size()
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(b.N*calls*benchCall)/b.Elapsed().Seconds(), "events/s")
	}
	b.Run("floor", func(b *testing.B) {
		b.SetBytes(size)
		for range b.N {
			for _, path := range segments {
				data, err := os.ReadFile(path)
				require.NoError(b, err)
				require.NotZero(b, crc32.Checksum(data, castagnoli))
			}
		}
		report(b)
	})
	b.Run("spool", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs()
		for range b.N {
			b.StopTimer()
			copied := filepath.Join(b.TempDir(), "copy")
			require.NoError(b, os.CopyFS(copied, os.DirFS(dir)))
			s, err := Open(benchOptions(copied, taking{}))
			require.NoError(b, err)
			require.Equal(b, calls*benchCall, s.Behind())
			b.StartTimer()
			p := pass{s: s, windows: make([]stream.Encoded, len(s.lanes))}
			took, all := p.run(context.Background())
			b.StopTimer()
			require.True(b, took && all)
			require.Zero(b, s.Behind())
			require.NoError(b, s.Close())
			require.NoError(b, os.RemoveAll(copied))
			b.StartTimer()
		}
		report(b)
	})
}
