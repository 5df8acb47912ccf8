package stream

import (
	"context"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/weft-cdp/weft/pkg/topic"
)

// Shapes: an event of 575 bytes with the headers that Weft writes (production-like); and one batch of
// records with neither key nor value and one of the largest that is split (pathological).

func event575() Record {
	return Record{
		Key: []byte("0f8c1f5e-9b1d-8d0a-b5a4-3a5a4d3f5c11"), Value: filler(575),
		Headers: []topic.Header{
			{Key: topic.HeaderSchema, Value: []byte("1")}, {Key: topic.HeaderSource, Value: []byte("shop")},
			{Key: topic.HeaderBrand, Value: []byte("main")}, {Key: topic.HeaderMessageID, Value: []byte("5b7c9f0e-1111-4222-8333-444455556666")},
			{Key: topic.HeaderReceivedAt, Value: []byte("1795344202696")}, {Key: topic.HeaderTrust, Value: []byte("untrusted")},
		},
	}
}

func BenchmarkParse(b *testing.B) {
	for name, rec := range map[string]Record{"event": event575(), "empty": {}, "large": {Value: incompressible(800_000)}} {
		b.Run(name, func(b *testing.B) {
			n := benchBatch
			if len(rec.Value) > 100_000 {
				n = 1
			}
			recs := repeated(rec, n)
			log := plainBatch(recs)
			p := newParser("t", 0)
			b.ReportAllocs()
			b.SetBytes(int64(len(log) / n))
			for i := 0; i < b.N; i += n { // b.N records
				got, _, err := p.parse(log, nil, 0)
				if err != nil || len(got) != n {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	var e encoder
	recs := repeated(event575(), benchBatch)
	b.ReportAllocs()
	for i := 0; i < b.N; i += benchBatch {
		e.frame = e.frame[:0]
		e.batch(&lane{}, recs, time.UnixMilli(1))
	}
}

// BenchmarkProduce writes to a broker that keeps nothing: this package, then kafka-go's Writer.
func BenchmarkProduce(b *testing.B) {
	cluster := fake(b, kfake.SeedTopics(1, "t"), kfake.BlackholeProduce())
	b.Run("weft", func(b *testing.B) {
		c := client(b, cluster.ListenAddrs())
		recs := repeated(event575(), benchBatch)
		b.ReportAllocs()
		for i := 0; i < b.N; i += benchBatch {
			if err := c.Produce(context.Background(), "t", 0, recs); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("writer", func(b *testing.B) {
		transport := &kafka.Transport{}
		w := &kafka.Writer{
			Addr: kafka.TCP(cluster.ListenAddrs()...), Topic: "t", RequiredAcks: kafka.RequireAll, BatchSize: benchBatch,
			BatchTimeout: time.Millisecond, BatchBytes: 2 << 20, Compression: kafka.Lz4, Transport: transport,
		}
		rec := event575()
		msgs := make([]kafka.Message, benchBatch)
		for i := range msgs {
			msgs[i] = kafka.Message{Key: rec.Key, Value: rec.Value}
			for _, h := range rec.Headers {
				msgs[i].Headers = append(msgs[i].Headers, kafka.Header(h))
			}
		}
		b.ReportAllocs()
		for i := 0; i < b.N; i += benchBatch {
			if err := w.WriteMessages(context.Background(), msgs...); err != nil {
				b.Fatal(err)
			}
		}
		require.NoError(b, w.Close())
		transport.CloseIdleConnections()
	})
}
