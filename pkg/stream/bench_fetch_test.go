package stream

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkConsume drains a broker that serves canned batches for ever, from eight partitions: as plain batches
// of 100 events, and as Weft's own producers write them under load, 1,000 events under LZ4.
func BenchmarkConsume(b *testing.B) {
	for _, kind := range []string{"plain", "lz4"} {
		b.Run(kind, func(b *testing.B) {
			brokers := otherProcess(b, kind)
			contest(b, []entrant{
				{"floor", 1_000_000, func(b *testing.B) (func(int), func()) { return startRawFetch(b, brokers) }},
				{"weft", 1_000_000, func(b *testing.B) (func(int), func()) { return startFetchers(b, brokers) }},
				{"franz", 300_000, func(b *testing.B) (func(int), func()) { return startFranz(b, brokers) }},
				{"reader", 300_000, func(b *testing.B) (func(int), func()) { return startReaders(b, brokers) }},
				{"groupreader", 300_000, func(b *testing.B) (func(int), func()) { return startGroupReader(b, brokers) }},
			})
		})
	}
}

func startFetchers(b *testing.B, brokers []string) (func(int), func()) {
	b.Helper()
	c := client(b, brokers)
	fs := make([]*Fetcher, contestPartitions)
	for p := range fs {
		fs[p] = c.NewFetcher("t", p, 0, FetchOptions{})
	}
	run := func(n int) {
		each(func(p int) {
			for got := 0; got < n/contestPartitions; {
				batch, err := fs[p].Fetch(context.Background(), time.Second)
				if err != nil {
					panic(err)
				}
				got += len(batch.Records)
			}
		})
	}
	return run, c.Close
}

// each calls f for all partitions at the same time.
func each(f func(p int)) {
	var wg sync.WaitGroup
	for p := range contestPartitions {
		wg.Go(func() { f(p) })
	}
	wg.Wait()
}

func startReaders(b *testing.B, brokers []string) (func(int), func()) {
	b.Helper()
	rs := make([]*kafka.Reader, contestPartitions)
	for p := range rs {
		rs[p] = kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: "t", Partition: p, MinBytes: 1, MaxBytes: 1 << 20})
	}
	run := func(n int) {
		each(func(p int) {
			for range n / contestPartitions {
				if _, err := rs[p].FetchMessage(context.Background()); err != nil {
					panic(err)
				}
			}
		})
	}
	return run, func() {
		for _, r := range rs {
			require.NoError(b, r.Close())
		}
	}
}

func startGroupReader(b *testing.B, brokers []string) (func(int), func()) {
	b.Helper()
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, GroupID: name("bench"), Topic: "t", MinBytes: 1, MaxBytes: 1 << 20, StartOffset: kafka.FirstOffset})
	run := func(n int) {
		for range n {
			if _, err := r.FetchMessage(context.Background()); err != nil {
				panic(err)
			}
		}
	}
	return run, func() { require.NoError(b, r.Close()) }
}

func startFranz(b *testing.B, brokers []string) (func(int), func()) {
	b.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(b, err)
	run := func(n int) {
		for got := 0; got < n; {
			fs := k.PollFetches(context.Background())
			if err := fs.Err0(); err != nil {
				panic(err)
			}
			got += fs.NumRecords()
		}
	}
	return run, k.Close
}

// rawFetch is the floor F2: one Fetch v11 for all partitions over and over, its answer in memory that is used
// again, checksums, and every field of every record stepped over. No record is made, nothing is kept.
type rawFetch struct {
	next     [contestPartitions]int64
	request  []byte
	answer   []byte
	inflated inflated
	records  int
	bytes    int // of keys, values and headers, so that no step can be left out
}

func (r *rawFetch) ApiKey() protocol.ApiKey                 { return protocol.Fetch } //nolint:revive // kafka-go's spelling
func (r *rawFetch) Required(map[protocol.ApiKey]int16) bool { return true }
func (r *rawFetch) Broker(protocol.Cluster) (protocol.Broker, error) {
	return protocol.Broker{ID: 0}, nil
}

func (r *rawFetch) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	w := writer{b: r.request[:0]}
	w.head(protocol.Fetch, 11, "floor")
	w.int32(-1)
	w.int32(1000)
	w.int32(1)
	w.int32(maxFetchBytes)
	w.int8(readCommitted)
	w.int32(0)
	w.int32(-1)
	w.array(1)
	w.str("t")
	w.array(contestPartitions)
	for p, next := range r.next {
		w.int32(i32(p))
		w.int32(noEpoch)
		w.int64(next)
		w.int64(-1)
		w.int32(DefaultFetchBytes)
	}
	w.array(0)
	w.str("")
	r.request = w.b
	binary.BigEndian.PutUint32(w.b, u32(len(w.b)-4))
	if _, err := rw.Write(w.b); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(rw, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	if n > len(r.answer) {
		r.answer = make([]byte, n)
	}
	_, err := io.ReadFull(rw, r.answer[:n])
	return r, err
}

// walk is the answer's work.
func (r *rawFetch) walk() {
	b := reader{b: r.answer}
	b.take(4 + 4 + 2 + 4)
	for range b.array(6) {
		b.str()
		for range b.array(38) {
			p := b.int32()
			b.take(2 + 8 + 8 + 8)
			b.take(16 * b.array(16))
			b.int32()
			data := b.take(int(b.int32()))
			for len(data) > batchHeader {
				size := 12 + int(binary.BigEndian.Uint32(data[8:]))
				if size > len(data) {
					break
				}
				r.batch(data[:size])
				r.next[p] += int64(binary.BigEndian.Uint32(data[atCount:]))
				data = data[size:]
			}
		}
	}
}

func (r *rawFetch) batch(b []byte) {
	if crc32.Checksum(b[21:], castagnoli) != binary.BigEndian.Uint32(b[17:]) {
		panic("checksum")
	}
	body := b[batchHeader:]
	if codec := b[22] & attrCodec; codec != 0 {
		r.inflated.reset()
		var err error
		if body, err = r.inflated.inflate(3, body); err != nil {
			panic(err)
		}
	}
	step := func(at int) (int, int) {
		if c := body[at]; c < 0x80 {
			return int(c>>1) ^ -int(c&1), at + 1
		}
		v, n := binary.Varint(body[at:])
		return int(v), at + n
	}
	for at := 0; at < len(body); r.records++ {
		_, i := step(at)
		_, i = step(i + 1)
		_, i = step(i)
		key, i := step(i)
		i += key
		value, i := step(i)
		i += value
		headers, i := step(i)
		r.bytes += key + value
		for range headers {
			var n int
			n, i = step(i)
			i += n
			n, i = step(i)
			i += n
			r.bytes += n
		}
		at = i
	}
}

func startRawFetch(b *testing.B, brokers []string) (func(int), func()) {
	b.Helper()
	tr := &kafka.Transport{}
	r := &rawFetch{}
	run := func(n int) {
		for r.records = 0; r.records < n; r.walk() {
			if _, err := tr.RoundTrip(context.Background(), kafka.TCP(brokers...), r); err != nil {
				panic(err)
			}
		}
	}
	return run, tr.CloseIdleConnections
}
