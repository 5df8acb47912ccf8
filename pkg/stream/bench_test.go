package stream

import (
	"math"
	"testing"
	"time"
)

// Shapes: events with the headers that Weft writes, plain and under LZ4 (production-like); and one batch of
// records with neither key nor value and one of the largest that is split (pathological).

const benchBatch = 1000

func BenchmarkParse(b *testing.B) {
	for name, log := range map[string][]byte{
		"event": plainBatch(events(benchBatch)), "lz4": encoded(events(benchBatch), time.UnixMilli(1)),
		"empty": plainBatch(make([]Record, benchBatch)), "large": plainBatch([]Record{{Value: incompressible(800_000)}}),
	} {
		b.Run(name, func(b *testing.B) {
			p := newParser("t", 0)
			b.ReportAllocs()
			for i := 0; i < b.N; { // b.N records
				p.start(log, nil, 0)
				got, _, err := p.more(math.MaxInt)
				if err != nil {
					b.Fatal(err)
				}
				i += len(got)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, above := range map[string]int{"plain": math.MaxInt, "lz4": compressAbove} {
		b.Run(name, func(b *testing.B) {
			e := encoder{compressAbove: above}
			recs := events(benchBatch)
			b.ReportAllocs()
			for i := 0; i < b.N; i += benchBatch {
				e.frame = e.frame[:0]
				e.batch(&lane{limit: maxProduceBytes}, unencoded(recs), 0, time.UnixMilli(1))
			}
		})
	}
}
