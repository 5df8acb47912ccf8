package stream

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
	"slices"
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
	packed    []byte // its records, compressed
	lz4       *lz4.Writer
	abandoned bool // the request may still be on the wire

	compressAbove int
}

func (c *Client) encoder() *encoder {
	if e, ok := c.encoders.Get().(*encoder); ok {
		return e
	}
	return &encoder{compressAbove: c.compressAbove}
}

func (c *Client) release(e *encoder) {
	if !e.abandoned {
		c.encoders.Put(e)
	}
}

// request makes a Produce request of recs, as the next batch of a lane: of those behind the first done, at least
// one, as many as fit. It returns how many.
func (e *encoder) request(clientID string, timeout time.Duration, l *lane, recs run, done int) int {
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
	n := e.batch(l, recs, done, time.Now())
	binary.BigEndian.PutUint32(e.frame[size:], u32(len(e.frame)-size-4))
	seal(e.frame)
	return n
}

// batch appends those of recs behind the first done to the frame, as many as fit into the lane's limit, as one record
// batch, magic 2, stamped with now.
func (e *encoder) batch(l *lane, recs run, done int, now time.Time) int {
	start := len(e.frame)
	body := start + batchHeader
	e.frame = append(e.frame, make([]byte, batchHeader)...)
	n := 0
	for ; done+n < recs.count(); n++ {
		before := len(e.frame)
		if e.frame = recs.appendTo(e.frame, done+n, n); len(e.frame)-body > l.limit && n > 0 {
			e.frame = e.frame[:before]
			break
		}
	}
	codec := compress.None
	if size := len(e.frame) - body; size > e.compressAbove && e.pack(e.frame[body:]) && len(e.packed) < size {
		codec = compress.Lz4
		e.frame = append(e.frame[:body], e.packed...)
	}
	b := e.frame[start:]
	binary.BigEndian.PutUint32(b[atLength:], u32(len(b)-atLength-4))
	binary.BigEndian.PutUint32(b[atLength+4:], ^uint32(0)) // leader epoch: the broker sets it
	b[atMagic] = magicV2
	b[atAttributes+1] = byte(codec)
	binary.BigEndian.PutUint32(b[atLastDelta:], u32(n-1))
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint64(b[atFirstTime:], ms)
	binary.BigEndian.PutUint64(b[atMaxTime:], ms)
	binary.BigEndian.PutUint64(b[atProducer:], uint64(l.producer)) //nolint:gosec // bits
	binary.BigEndian.PutUint16(b[atEpoch:], uint16(l.epoch))       //nolint:gosec // bits
	binary.BigEndian.PutUint32(b[atSequence:], u32(int(l.sequence)))
	binary.BigEndian.PutUint32(b[atCount:], u32(n))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
	return n
}

// pack compresses records into packed. It only fails when memory is full.
func (e *encoder) pack(records []byte) bool {
	if e.lz4 == nil {
		e.lz4 = lz4.NewWriter(nil)
		// Blocks of 64 KiB, as Kafka's Java client has them: the writer's buffers stay small. No checksum: the
		// batch has one of its own.
		if err := e.lz4.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ConcurrencyOption(1), lz4.ChecksumOption(false)); err != nil {
			e.lz4 = nil
			return false
		}
	}
	e.packed = e.packed[:0]
	e.lz4.Reset((*packedWriter)(e))
	_, err := e.lz4.Write(records)
	return errors.Join(err, e.lz4.Close()) == nil
}

// packedWriter appends to packed of an encoder.
type packedWriter encoder

func (w *packedWriter) Write(p []byte) (int, error) {
	w.packed = append(w.packed, p...)
	return len(p), nil
}

// appendRecord writes one record (Kafka documentation, "Record").
func appendRecord(b []byte, r *Record, delta int) []byte {
	const number, room = binary.MaxVarintLen32, 2 // most records have a size of two bytes
	most := 4*number + 2 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		most += 2*number + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	start := len(b)
	b = slices.Grow(b, number+most)[:start+number+most]
	body := b[start+room:]
	body[0], body[1] = 0, 0 // attributes; timestamp: the batch's
	at := putInt(body, 2, delta)
	at = putBytes(body, at, r.Key)
	at = putBytes(body, at, r.Value)
	at = putInt(body, at, len(r.Headers))
	for i := range r.Headers {
		h := &r.Headers[i]
		at = putInt(body, at, len(h.Key))
		at += copy(body[at:], h.Key)
		at = putBytes(body, at, h.Value)
	}
	n := varintSize(at)
	if n != room {
		copy(b[start+n:], body[:at])
	}
	putInt(b, start, at)
	return b[:start+n+at]
}

func putBytes(b []byte, at int, v []byte) int {
	if v == nil {
		b[at] = 1 // -1
		return at + 1
	}
	at = putInt(b, at, len(v))
	return at + copy(b[at:], v)
}

// putInt writes a varint that is not negative.
func putInt(b []byte, at, n int) int {
	if n < 1<<6 {
		b[at] = byte(n << 1) //nolint:gosec // below 1<<7
		return at + 1
	}
	return at + binary.PutVarint(b[at:], int64(n))
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
