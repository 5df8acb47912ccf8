package stream

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go/compress"
)

// compressAbove is the size of a batch's records from which on it is compressed with LZ4: JSON shrinks to
// a third or less, on the wire, on the brokers' disks and in their page cache, for some 2 ns per byte.
// Below it the frame costs about what it saves, and small batches are those whose latency counts.
const compressAbove = 4 << 10

// encoder is the memory of one encode call, kept for the next.
type encoder struct {
	records []byte
	packed  bytes.Buffer
	lz4     *lz4.Writer
}

// encode returns recs as one record batch, magic 2, stamped with now.
func (c *Client) encode(recs []Record, now time.Time) []byte {
	e, _ := c.encoders.Get().(*encoder)
	if e == nil {
		e = &encoder{}
	}
	defer c.encoders.Put(e)
	e.records = e.records[:0]
	for i := range recs {
		e.records = appendRecord(e.records, &recs[i], i)
	}
	body, codec := e.records, compress.None
	if len(body) > compressAbove {
		if packed := e.pack(); packed != nil && len(packed) < len(body) {
			body, codec = packed, compress.Lz4
		}
	}
	b := make([]byte, batchHeader, batchHeader+len(body))
	binary.BigEndian.PutUint32(b[atLength:], u32(batchHeader-atLength-4+len(body)))
	binary.BigEndian.PutUint32(b[atLength+4:], ^uint32(0)) // leader epoch: the broker sets it
	b[atMagic] = magicV2
	b[atAttributes+1] = byte(codec)
	binary.BigEndian.PutUint32(b[atLastDelta:], u32(len(recs)-1))
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint64(b[atFirstTime:], ms)
	binary.BigEndian.PutUint64(b[atMaxTime:], ms)
	for i := atProducer; i < atCount; i++ {
		b[i] = 0xff // producer id, epoch and sequence: -1, none
	}
	binary.BigEndian.PutUint32(b[atCount:], u32(len(recs)))
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// pack compresses e.records; nil if that did not work, which only a full memory could cause.
func (e *encoder) pack() []byte {
	e.packed.Reset()
	if e.lz4 == nil {
		e.lz4 = lz4.NewWriter(&e.packed)
		// Blocks of 64 KiB, as Kafka's Java client has them: the writer's buffers stay small.
		if err := e.lz4.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ConcurrencyOption(1)); err != nil {
			e.lz4 = nil
			return nil
		}
	} else {
		e.lz4.Reset(&e.packed)
	}
	if _, err := e.lz4.Write(e.records); err != nil {
		return nil
	}
	if err := e.lz4.Close(); err != nil {
		return nil
	}
	return e.packed.Bytes()
}

// appendRecord writes one record (Kafka documentation, "Record").
func appendRecord(b []byte, r *Record, delta int) []byte {
	b = binary.AppendVarint(b, int64(bodySize(r, delta)))
	b = append(b, 0) // attributes
	b = append(b, 0) // timestamp: the batch's
	b = binary.AppendVarint(b, int64(delta))
	b = appendNullable(b, r.Key)
	b = appendNullable(b, r.Value)
	b = binary.AppendVarint(b, int64(len(r.Headers)))
	for i := range r.Headers {
		b = binary.AppendVarint(b, int64(len(r.Headers[i].Key)))
		b = append(b, r.Headers[i].Key...)
		b = appendNullable(b, r.Headers[i].Value)
	}
	return b
}

func appendNullable(b, v []byte) []byte {
	if v == nil {
		return append(b, 1) // -1
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}

// recordSize is what a record takes in an uncompressed batch.
func recordSize(r *Record, delta int) int {
	n := bodySize(r, delta)
	return varintSize(n) + n
}

func bodySize(r *Record, delta int) int {
	n := 2 + varintSize(delta) + nullableSize(r.Key) + nullableSize(r.Value) + varintSize(len(r.Headers))
	for i := range r.Headers {
		n += varintSize(len(r.Headers[i].Key)) + len(r.Headers[i].Key) + nullableSize(r.Headers[i].Value)
	}
	return n
}

func nullableSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varintSize(len(v)) + len(v)
}

// varintSize is the size of a number that is not negative, in zigzag.
func varintSize(n int) int { return max(1, (bits.Len64(uint64(n)<<1)+6)/7) } //nolint:gosec // not negative
