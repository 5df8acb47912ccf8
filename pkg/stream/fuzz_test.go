package stream

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"

	"github.com/weft-cdp/weft/pkg/topic"
)

// fuzzedBatch is most of what a fuzzed answer may hold once it is unpacked.
const fuzzedBatch = 64 << 10

// The answer of a broker: batches of any producer. The checksum is put right, else nothing behind it would ever be read.
func FuzzBatches(f *testing.F) {
	recs := []Record{{Key: []byte("k"), Value: []byte(`{"a":1}`), Headers: []topic.Header{{Key: "weft-source", Value: []byte("web")}}}, {Value: nil}}
	plain := encoded(recs, time.UnixMilli(1_700_000_000_000))
	f.Add(plain, byte(0), false)
	f.Add(append(bytes.Clone(plain), plain...), byte(0), true)
	many := make([]Record, 400)
	for i := range many {
		many[i] = recs[0]
	}
	f.Add(encoded(many, time.UnixMilli(5)), byte(compress.Lz4), false)
	for codec := range byte(8) {
		f.Add(plain, codec, false)
	}
	f.Add(shaped(recs, shape{base: 7, producer: 3, attributes: attrControl}), byte(0), false)
	f.Fuzz(func(t *testing.T, data []byte, codec byte, cut bool) {
		if len(data) > fuzzedBatch {
			return
		}
		if len(data) >= batchHeader {
			data = bytes.Clone(data)
			data[atMagic], data[atAttributes+1] = magicV2, data[atAttributes+1]&^attrCodec|codec&attrCodec
			end := len(data)
			if cut { // as a broker cuts an answer off
				end = min(end, batchHeader+len(data)/2)
			}
			binary.BigEndian.PutUint32(data[atLength:], u32(end-atLength-4))
			sealed(data[:end])
		}
		p := newParser("t", 0)
		p.start(data, []abortedTxn{{producer: 3, first: 1}}, 0)
		for p.some() {
			got, next, err := p.more(parseBytes)
			if err != nil {
				return
			}
			for i := range got {
				if r := &got[i]; r.Offset >= next || r.Topic != "t" {
					t.Fatalf("record %+v, and the next is %d", r, next)
				}
			}
		}
	})
}

// Records that a spool kept: what Add takes can be made a batch of, and is as it was, or an error.
func FuzzEncoded(f *testing.F) {
	r := Record{Key: []byte("k"), Value: []byte("v"), Headers: []topic.Header{{Key: "h", Value: []byte("x")}}}
	f.Add(AppendEncoded(AppendEncoded(nil, &r), &Record{}))
	f.Add(appendRecord(nil, &r, 1))
	f.Add([]byte{2, 0, 0, 0x80, 0x80, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var e Encoded
		if e.Add(data) != nil {
			if e.Len() != 0 || e.Bytes() != 0 {
				t.Fatal("refused, and taken nevertheless")
			}
			return
		}
		for i := range e.Len() {
			one, err := e.Record(i)
			if err != nil {
				return // it will be refused again when it is drained
			}
			var again Encoded
			if err := again.Add(AppendEncoded(nil, &one)); err != nil {
				t.Fatalf("%+v is not written again: %v", one, err)
			}
		}
		enc := encoder{compressAbove: compressAbove}
		for done := 0; done < e.Len(); {
			done += enc.batch(&lane{producer: noProducer, epoch: -1, sequence: -1, limit: maxProduceBytes}, &e, done, time.UnixMilli(5))
		}
	})
}
