//go:build integration

package writer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/valyala/fastjson"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

const (
	writerRounds = 5
	writerEvents = 100_000 // in the topic, and per turn
	writerBlock  = 16_000  // rows of a block made ready, about what batchBytes holds of these events
)

func writerBroker(b *testing.B) []string {
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this binary
	cmd.Env, cmd.Stderr = append(os.Environ(), brokerEnv+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return strings.Split(strings.TrimSpace(line), ",")
}

// benchSetup is a topic full of events, uncompressed, and a database.
type benchSetup struct {
	*setup
	brokers []string
	topic   string
	service *Service // one for all turns: its memory is used again, as in one that runs for long
	to      *counting
}

func newBenchSetup(b *testing.B) *benchSetup {
	s := &benchSetup{setup: newSetup(b), brokers: writerBroker(b)}
	s.cfg.Kafka.Brokers = s.brokers
	s.cfg.Topics.Partitions = 1
	s.cfg.Writer.BatchRows, s.cfg.Writer.FlushInterval = 50_000, time.Second
	s.stream, s.warehouse = s.connect()
	require.NoError(b, s.stream.EnsureTopics(b.Context(), s.cfg.Topics.Set().Specs(), s.cfg.Topics))
	require.NoError(b, s.warehouse.Migrate(b.Context(), clickhouse.Files, zap.NewNop()))
	s.topic = s.cfg.Topics.Set().EventsIdentified()
	s.to = &counting{Warehouse: s.warehouse}
	var err error
	s.service, err = New(s.cfg, Deps{Stream: s.stream, Warehouse: s.to})
	require.NoError(b, err)
	k, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(b, err)
	defer k.Close()
	var failed atomic.Pointer[error]
	for i := range writerEvents {
		key := fmt.Sprintf("%08x-d9cb-869f-a165-70867728950e", i%5000)
		r := record(key, strings.ReplaceAll(shopEvent, "ajs-next-1709528767008", fmt.Sprintf("ajs-next-%013d", i)),
			topic.Header{Key: topic.HeaderPosition, Value: fmt.Appendf(nil, "identity-stitcher:0:%d", i)})
		rec := &kgo.Record{Topic: s.topic, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		k.Produce(b.Context(), rec, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	require.NoError(b, k.Flush(b.Context()))
	require.Nil(b, failed.Load())
	return s
}

// forget empties the table, tokens included.
func (s *benchSetup) forget() {
	require.NoError(s.t, s.warehouse.Exec(s.t.Context(), "ALTER TABLE ${database}.events DROP PARTITION "+received.Format("200601")))
}

// rawFetch is the floor F2: fetch, checksum, step over every field of every record.
func (s *benchSetup) rawFetch() {
	conn, err := net.Dial("tcp", s.brokers[0])
	require.NoError(s.t, err)
	defer conn.Close() //nolint:errcheck // was only read
	f := kmsg.NewRequestFormatter()
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 11, 500, 1, 16<<20
	t, p := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	t.Topic, p.PartitionMaxBytes = s.topic, stream.DefaultFetchBytes
	t.Partitions = []kmsg.FetchRequestTopicPartition{p}
	req.Topics = []kmsg.FetchRequestTopic{t}
	var out, answer []byte
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for next := int64(0); next < writerEvents; {
		req.Topics[0].Partitions[0].FetchOffset = next
		out = f.AppendRequest(out[:0], req, 1)
		_, err := conn.Write(out)
		require.NoError(s.t, err)
		var size [4]byte
		_, err = io.ReadFull(conn, size[:])
		require.NoError(s.t, err)
		if n := int(binary.BigEndian.Uint32(size[:])); n > cap(answer) {
			answer = make([]byte, n)
		}
		answer = answer[:binary.BigEndian.Uint32(size[:])]
		_, err = io.ReadFull(conn, answer)
		require.NoError(s.t, err)
		resp := kmsg.NewPtrFetchResponse()
		resp.Version = 11
		require.NoError(s.t, resp.ReadFrom(answer[4:]))
		data := resp.Topics[0].Partitions[0].RecordBatches
		for len(data) > 61 {
			size := 12 + int(binary.BigEndian.Uint32(data[8:]))
			if size > len(data) {
				break
			}
			b := data[:size]
			data = data[size:]
			if crc32.Checksum(b[21:], castagnoli) != binary.BigEndian.Uint32(b[17:]) {
				s.t.Fatal("checksum")
			}
			next = int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[23:])) + 1 //nolint:gosec // an offset
			walk(b[61:])
		}
	}
}

// walk steps over every field of every record of a batch.
func walk(body []byte) {
	step := func(at int) (int, int) {
		v, n := binary.Varint(body[at:])
		return int(v), at + n
	}
	for at := 0; at < len(body); {
		_, i := step(at)
		_, i = step(i + 1)
		_, i = step(i)
		for range 2 { // key and value
			var n int
			n, i = step(i)
			i += n
		}
		headers, i := step(i)
		for range 2 * headers {
			var n int
			n, i = step(i)
			i += n
		}
		at = i
	}
}

// sevenFields is the floor F6.
func sevenFields(t testing.TB) {
	var p fastjson.Parser
	for range writerEvents {
		v, err := p.Parse(shopEvent)
		require.NoError(t, err)
		for _, path := range sevenPaths {
			if v.Get(path...) == nil {
				t.Fatal(path)
			}
		}
	}
}

var sevenPaths = [][]string{{"type"}, {"event"}, {"anonymousId"}, {"messageId"}, {"properties", "product_id"}, {"context", "ip"}, {"timestamp"}} //nolint:gochecknoglobals // constant

// readyBlock is a block of these events.
func readyBlock(t testing.TB) *tableRows {
	rows := rowsOf(kindEvents)
	rows.poisoned = func() {}
	for i := range writerBlock {
		require.NoError(t, rows.add(record(fmt.Sprintf("%08x-d9cb-869f-a165-70867728950e", i%5000),
			strings.ReplaceAll(shopEvent, "ajs-next-1709528767008", fmt.Sprintf("ajs-next-%013d", i)))))
	}
	return rows
}

// readyColumns is the floor F5.
func (s *benchSetup) readyColumns(ready *tableRows) {
	for n := 0; n < writerEvents; n += writerBlock {
		require.NoError(s.t, s.warehouse.Insert(s.t.Context(), ready.tables[0], warehouse.Token{Text: fmt.Sprint("floor", n), Limit: time.Minute}, time.Now))
	}
}

// counting counts rows that are stored.
type counting struct {
	Warehouse
	rows atomic.Int64
	done context.CancelFunc // when all are
}

// Insert is inserter's.
func (c *counting) Insert(ctx context.Context, rows warehouse.Rows, t warehouse.Token, now func() time.Time) error {
	err := c.Warehouse.Insert(ctx, rows, t, now)
	if err == nil && c.rows.Add(int64(rows.Rows())) >= writerEvents {
		c.done()
	}
	return err
}

// write runs the writer over the whole topic: exactly once as it is, or with nothing that makes it so: no
// announcement, no token, no positions; then its commit comes behind the insert, as everyone's.
func (s *benchSetup) write(exactly bool) {
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	s.to.rows.Store(0)
	s.to.done = cancel
	in := s.service.inputs[0]
	opt := stream.GroupOptions{Group: fmt.Sprintf("bench-%d", time.Now().UnixNano()), Topics: []string{in.topic}}
	require.NoError(s.t, s.stream.RunGroup(ctx, opt, func(ctx context.Context, cl *stream.Claim) error {
		if exactly {
			return s.service.own(ctx, in, cl)
		}
		return s.atLeastOnce(ctx, in, cl)
	}))
	require.EqualValues(s.t, writerEvents, s.to.rows.Load())
}

func (s *benchSetup) atLeastOnce(ctx context.Context, in input, cl *stream.Claim) error {
	rows := &sharedRows{pool: s.service.pools[in.kind], topic: cl.Topic, partition: cl.Partition, to: s.to, now: time.Now, stored: func(table) {}, poisoned: func() {}}
	defer rows.reset()
	r := newReader(s.stream.NewFetcher(cl.Topic, cl.Partition, 0, stream.FetchOptions{}), 0, s.service.limits, time.Now, &s.service.memory)
	defer r.close()
	for {
		next, err := r.next(ctx, rows.add)
		if err != nil {
			return nil // it is over
		}
		if err := rows.store(ctx, warehouse.Token{Limit: time.Minute}); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		rows.reset()
		r.begin()
		if err := cl.Commit(ctx, next.end, ""); err != nil {
			return nil // it is over
		}
	}
}

func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWriter holds the writer, from the broker to ClickHouse, against its floors in the same run, by CPU
// time of this process; Kafka and ClickHouse are others. It takes turns, forth and back.
func BenchmarkWriter(b *testing.B) {
	s := newBenchSetup(b)
	ready := readyBlock(b)
	turns := []struct {
		name string
		run  func()
	}{
		{"F2", s.rawFetch}, {"F6", func() { sevenFields(b) }}, {"F5", func() { s.readyColumns(ready) }},
		{"exactly", func() { s.write(true) }}, {"atleast", func() { s.write(false) }},
	}
	cost := map[string][]float64{}
	var floors, prices []float64
	for b.Loop() {
		for round := range writerRounds + 1 {
			this := map[string]float64{}
			for k := range turns {
				turn := turns[k]
				if round%2 == 1 {
					turn = turns[len(turns)-1-k]
				}
				s.forget()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := cpuTime(b)
				turn.run()
				this[turn.name] = float64((cpuTime(b) - began).Nanoseconds()) / writerEvents
				if runtime.ReadMemStats(&after); turn.name == "exactly" {
					b.ReportMetric(float64(after.Mallocs-before.Mallocs)/writerEvents, "allocs/row")
				}
			}
			if round == 0 { // to warm up
				continue
			}
			for name, c := range this {
				cost[name] = append(cost[name], c)
			}
			floors = append(floors, this["exactly"]/(this["F2"]+this["F6"]+this["F5"]))
			prices = append(prices, this["exactly"]/this["atleast"])
		}
	}
	middle := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	for _, turn := range turns {
		b.ReportMetric(middle(cost[turn.name]), turn.name+"-ns/row")
	}
	b.ReportMetric(middle(floors), "exactly/floors")
	b.ReportMetric(middle(prices), "exactly/atleast")
	b.Logf("of the floors: %.2f to %.2f; of at-least-once: %.2f to %.2f", floors[0], floors[len(floors)-1], prices[0], prices[len(prices)-1])
	b.ReportMetric(0, "ns/op") // the turns say it
}
