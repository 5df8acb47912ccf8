package stream

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkProduce writes batches of 800 events to eight partitions of a broker that keeps nothing: plain, and
// under LZ4, as Weft does. The floor is to send batches that are ready. Least is the least that a producer can
// do who is given records: to copy their bytes into one piece, to compress it if at all, its checksum.
func BenchmarkProduce(b *testing.B) {
	brokers := otherProcess(b, "blackhole")
	for kind, above := range map[string]int{"plain": math.MaxInt, "lz4": compressAbove} {
		b.Run(kind, func(b *testing.B) {
			codec, theirs := kgo.NoCompression(), kafka.Compression(0)
			if kind == "lz4" {
				codec, theirs = kgo.Lz4Compression(), kafka.Lz4
			}
			contest(b, []entrant{
				{"floor", 1_000_000, func(b *testing.B) (func(int), func()) { return startRawProduce(b, brokers, above, false) }},
				{"least", 500_000, func(b *testing.B) (func(int), func()) { return startRawProduce(b, brokers, above, true) }},
				{"weft", 500_000, func(b *testing.B) (func(int), func()) { return startProduce(b, brokers, above) }},
				{"franz", 200_000, func(b *testing.B) (func(int), func()) { return startFranzProduce(b, brokers, codec) }},
				{"writer", 200_000, func(b *testing.B) (func(int), func()) { return startWriters(b, brokers, theirs) }},
			})
		})
	}
}

// batches calls f for all partitions at the same time, until they have sent n events together.
func batches(n int, f func(p int) error) {
	each(func(p int) {
		for sent := 0; sent < n/contestPartitions; sent += contestBatch {
			if err := f(p); err != nil {
				panic(err)
			}
		}
	})
}

func startProduce(b *testing.B, brokers []string, above int) (func(int), func()) {
	b.Helper()
	c := client(b, brokers)
	c.compressAbove = above
	recs := events(contestBatch)
	return func(n int) {
		batches(n, func(p int) error { return c.Produce(context.Background(), "t", p, recs) })
	}, c.Close
}

func startWriters(b *testing.B, brokers []string, codec kafka.Compression) (func(int), func()) {
	b.Helper()
	transport := &kafka.Transport{}
	ws := make([]*kafka.Writer, contestPartitions)
	for p := range ws {
		ws[p] = &kafka.Writer{
			Addr: kafka.TCP(brokers...), Topic: "t", RequiredAcks: kafka.RequireAll, BatchSize: contestBatch, BatchBytes: 2 << 20,
			BatchTimeout: time.Millisecond, Compression: codec, Transport: transport,
			Balancer: kafka.BalancerFunc(func(kafka.Message, ...int) int { return p }),
		}
	}
	var msgs []kafka.Message
	for _, r := range events(contestBatch) {
		m := kafka.Message{Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header(h))
		}
		msgs = append(msgs, m)
	}
	run := func(n int) {
		batches(n, func(p int) error { return ws[p].WriteMessages(context.Background(), msgs...) })
	}
	return run, func() {
		for _, w := range ws {
			require.NoError(b, w.Close())
		}
		transport.CloseIdleConnections()
	}
}

func startFranzProduce(b *testing.B, brokers []string, codec kgo.CompressionCodec) (func(int), func()) {
	b.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(time.Millisecond), kgo.ProducerBatchMaxBytes(1_000_000))
	require.NoError(b, err)
	recs := make([][]*kgo.Record, contestPartitions)
	for p := range recs {
		for _, r := range events(contestBatch) {
			out := &kgo.Record{Topic: "t", Partition: i32(p), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				out.Headers = append(out.Headers, kgo.RecordHeader(h))
			}
			recs[p] = append(recs[p], out)
		}
	}
	return func(n int) {
		batches(n, func(p int) error { return k.ProduceSync(context.Background(), recs[p]...).FirstErr() })
	}, k.Close
}

// rawProduce is the floor F3: a Produce request that is ready, sent over and over.
type rawProduce struct {
	frame  []byte
	answer [256]byte
}

func (r *rawProduce) ApiKey() protocol.ApiKey                 { return protocol.Produce } //nolint:revive // kafka-go's spelling
func (r *rawProduce) Required(map[protocol.ApiKey]int16) bool { return true }
func (r *rawProduce) Broker(protocol.Cluster) (protocol.Broker, error) {
	return protocol.Broker{ID: 0}, nil
}

func (r *rawProduce) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if _, err := rw.Write(r.frame); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(rw, r.answer[:4]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(r.answer[:]))
	_, err := io.ReadFull(rw, r.answer[4:4+n])
	return r, err
}

func startRawProduce(b *testing.B, brokers []string, above int, least bool) (func(int), func()) {
	b.Helper()
	transport := &kafka.Transport{}
	encoders := make([]encoder, contestPartitions)
	requests := make([]rawProduce, contestPartitions)
	recs := events(contestBatch)
	for p := range requests {
		encoders[p].compressAbove = above
		l := &lane{topic: "t", partition: i32(p), producer: noProducer, epoch: -1, sequence: -1, limit: maxProduceBytes}
		encoders[p].request("floor", time.Second, l, unencoded(recs), 0)
		requests[p].frame = encoders[p].frame
		encoders[p].frame = nil
	}
	run := func(n int) {
		batches(n, func(p int) error {
			if least {
				copyRecords(&encoders[p], recs)
			}
			if _, err := transport.RoundTrip(context.Background(), kafka.TCP(brokers...), &requests[p]); err != nil {
				return err
			}
			const at = 8 + 4 + 3 + 4 + 4                                              // size and id, topics, name, partitions, number
			return codeError(int16(binary.BigEndian.Uint16(requests[p].answer[at:]))) //nolint:gosec // bits
		})
	}
	return run, transport.CloseIdleConnections
}

// copyRecords is what cannot be saved where records come one by one.
func copyRecords(e *encoder, recs []Record) {
	all := e.frame[:0]
	for i := range recs {
		all = append(append(all, recs[i].Key...), recs[i].Value...)
		for _, h := range recs[i].Headers {
			all = append(append(all, h.Key...), h.Value...)
		}
	}
	if e.frame = all; len(all) > e.compressAbove {
		if !e.pack(all) {
			panic("not compressed")
		}
		all = e.packed
	}
	if crc32.Checksum(all, castagnoli) == 0 {
		panic("checksum of nothing")
	}
}
