package stream

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
)

// compressAbove is the size of a batch's records from which on it is compressed with LZ4: JSON shrinks to
// a third or less, on the wire, on the brokers' disks and in their page cache, for some 2 ns per byte.
// Below it the frame costs about what it saves, and small batches are those whose latency counts.
const compressAbove = 4 << 10

// encoder is the memory of one Produce request, kept for the next.
type encoder struct {
	frame     []byte // the request
	records   []byte
	lz4       *lz4.Writer
	abandoned bool // the request may still be on the wire
}

func (c *Client) encoder() *encoder {
	if e, ok := c.encoders.Get().(*encoder); ok {
		return e
	}
	return &encoder{}
}

func (c *Client) release(e *encoder) {
	if !e.abandoned {
		c.encoders.Put(e)
	}
}

// request makes a Produce request of recs, as the next batch of a lane.
func (e *encoder) request(clientID string, timeout time.Duration, l *lane, recs []Record) {
	w := writer{b: e.frame[:0]}
	w.head(protocol.Produce, 8, clientID)
	w.nullStr("") // no transaction
	w.int16(acksAll)
	w.int32(int32(timeout.Milliseconds())) //nolint:gosec // at most produceAttempt
	w.array(1)
	w.str(l.topic)
	w.array(1)
	w.int32(l.partition)
	size := len(w.b)
	w.int32(0)
	e.frame = w.b
	e.batch(l, recs, time.Now())
	binary.BigEndian.PutUint32(e.frame[size:], u32(len(e.frame)-size-4))
	seal(e.frame)
}

// batch appends recs to the frame as one record batch, magic 2, stamped with now.
func (e *encoder) batch(l *lane, recs []Record, now time.Time) {
	e.records = e.records[:0]
	for i := range recs {
		e.records = appendRecord(e.records, &recs[i], i)
	}
	start := len(e.frame)
	e.frame = append(e.frame, make([]byte, batchHeader)...)
	codec := compress.None
	if len(e.records) > compressAbove && e.pack() && len(e.frame)-start-batchHeader < len(e.records) {
		codec = compress.Lz4
	} else {
		e.frame = append(e.frame[:start+batchHeader], e.records...)
	}
	b := e.frame[start:]
	binary.BigEndian.PutUint32(b[atLength:], u32(len(b)-atLength-4))
	binary.BigEndian.PutUint32(b[atLength+4:], ^uint32(0)) // leader epoch: the broker sets it
	b[atMagic] = magicV2
	b[atAttributes+1] = byte(codec)
	binary.BigEndian.PutUint32(b[atLastDelta:], u32(len(recs)-1))
	ms := uint64(now.UnixMilli()) //nolint:gosec // bits
	binary.BigEndian.PutUint64(b[atFirstTime:], ms)
	binary.BigEndian.PutUint64(b[atMaxTime:], ms)
	binary.BigEndian.PutUint64(b[atProducer:], uint64(l.producer))   //nolint:gosec // bits
	binary.BigEndian.PutUint16(b[atEpoch:], uint16(l.epoch))         //nolint:gosec // bits
	binary.BigEndian.PutUint32(b[atSequence:], u32(int(l.sequence))) //nolint:gosec // bits
	binary.BigEndian.PutUint32(b[atCount:], u32(len(recs)))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
}

// pack appends the records to the frame, compressed. It only fails when memory is full.
func (e *encoder) pack() bool {
	if e.lz4 == nil {
		e.lz4 = lz4.NewWriter(nil)
		// Blocks of 64 KiB, as Kafka's Java client has them: the writer's buffers stay small. No checksum: the
		// batch has one of its own.
		if err := e.lz4.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ConcurrencyOption(1), lz4.ChecksumOption(false)); err != nil {
			e.lz4 = nil
			return false
		}
	}
	e.lz4.Reset((*frameWriter)(e))
	_, err := e.lz4.Write(e.records)
	return errors.Join(err, e.lz4.Close()) == nil
}

// frameWriter appends to the frame of an encoder.
type frameWriter encoder

func (w *frameWriter) Write(p []byte) (int, error) {
	w.frame = append(w.frame, p...)
	return len(p), nil
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
