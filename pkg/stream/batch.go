package stream

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/segmentio/kafka-go/compress"

	"github.com/weft-cdp/weft/pkg/topic"
)

// The record batch, magic 2 (Kafka documentation, "Record Batch"): positions of its fields.
const (
	atLength     = 8 // bytes that follow
	atMagic      = 16
	atCRC        = 17
	atAttributes = 21 // the CRC covers from here
	atLastDelta  = 23
	atFirstTime  = 27
	atMaxTime    = 35
	atProducer   = 43
	atEpoch      = 51
	atSequence   = 53
	atCount      = 57
	batchHeader  = 61

	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20

	magicV2 = 2
	// minRecord is the smallest record: six varints and the attributes.
	minRecord = 7
	// minHeader is the smallest header: two varints.
	minHeader = 2
)

// maxInflated bounds what one compressed batch may become: far above max.message.bytes times the ratio of
// repetitive JSON, low enough that a hostile inlet record cannot take all memory.
const maxInflated = 64 << 20

// maxNames bounds the header keys that a parser remembers, so that a producer with random keys cannot grow it.
const maxNames = 64

// errCutShort means that the answer ends within its first batch.
var errCutShort = errors.New("first batch of the answer is incomplete")

// parser turns the batches of one partition into records. It is for one goroutine.
type parser struct {
	topic     string
	partition int
	crc       *crc32.Table
	names     map[string]string
	inAbort   map[int64]struct{} // producers whose transaction will abort, at the batch being read
	headers   []topic.Header     // room for headers: one allocation per many records
}

func newParser(topicName string, partition int) parser {
	return parser{
		topic: topicName, partition: partition, crc: crc32.MakeTable(crc32.Castagnoli),
		names: make(map[string]string), inAbort: make(map[int64]struct{}),
	}
}

// parse returns the records at or after from, and the offset behind the last whole batch. data may end
// within a batch; if that is the first one, the error is errCutShort. Records alias data.
func (p *parser) parse(data []byte, aborted []abortedTxn, from int64) ([]Record, int64, error) {
	slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
	clear(p.inAbort)
	var recs []Record
	next := from
	for first := true; len(data) > 0; first = false {
		if len(data) < batchHeader {
			// An old message may be shorter than a batch's header, but its magic tells.
			if len(data) > atMagic && data[atMagic] < magicV2 {
				return nil, from, errOldFormat
			}
			return recs, next, cut(first)
		}
		size := int(int32(binary.BigEndian.Uint32(data[atLength:]))) + atLength + 4 //nolint:gosec // checked below
		if data[atMagic] < magicV2 {
			return nil, from, fmt.Errorf("magic %d: %w", data[atMagic], errOldFormat)
		}
		if size < batchHeader || data[atMagic] > magicV2 {
			return nil, from, fmt.Errorf("magic %d, %d bytes: %w", data[atMagic], size, errCorrupt)
		}
		if size > len(data) {
			return recs, next, cut(first)
		}
		batch := data[:size:size]
		data = data[size:]
		base := i64(batch)
		last := base + int64(int32(binary.BigEndian.Uint32(batch[atLastDelta:]))) //nolint:gosec // bits
		var err error
		if last < from {
			continue // the broker answers whole batches, from that which holds the offset on
		}
		if recs, aborted, err = p.batch(batch, recs, aborted, base, last, from); err != nil {
			return nil, from, fmt.Errorf("batch at offset %d: %w", base, err)
		}
		next = max(next, last+1)
	}
	return recs, next, nil
}

func cut(first bool) error {
	if first {
		return errCutShort
	}
	return nil
}

// batch appends the records of one batch, if they count, and keeps track of aborted transactions as
// Kafka's own consumer does (Fetcher.nextFetchedRecord).
func (p *parser) batch(b []byte, recs []Record, aborted []abortedTxn, base, last, from int64) ([]Record, []abortedTxn, error) {
	if crc32.Checksum(b[atAttributes:], p.crc) != binary.BigEndian.Uint32(b[atCRC:]) {
		return nil, nil, fmt.Errorf("checksum differs: %w", errCorrupt)
	}
	attributes := binary.BigEndian.Uint16(b[atAttributes:])
	producer := i64(b[atProducer:])
	for len(aborted) > 0 && aborted[0].first <= last {
		p.inAbort[aborted[0].producer] = struct{}{}
		aborted = aborted[1:]
	}
	if attributes&attrControl != 0 {
		// A marker ends its producer's transaction; whatever the producer writes next is another one.
		delete(p.inAbort, producer)
		return recs, aborted, nil
	}
	if _, dead := p.inAbort[producer]; dead && attributes&attrTransactional != 0 {
		return recs, aborted, nil
	}
	body := b[batchHeader:]
	if codec := compress.Compression(attributes & attrCodec); codec != compress.None {
		var err error
		if body, err = inflate(codec, body); err != nil {
			return nil, nil, err
		}
	}
	count := int(int32(binary.BigEndian.Uint32(b[atCount:]))) //nolint:gosec // checked next
	if count < 0 || count > len(body)/minRecord {
		return nil, nil, fmt.Errorf("%d records in %d bytes: %w", count, len(body), errCorrupt)
	}
	recs = slices.Grow(recs, count)
	v := varints{b: body}
	firstTime, stampOf := i64(b[atFirstTime:]), int64(0)
	stamp := time.UnixMilli(firstTime).UTC() // most batches have few different ones
	if attributes&attrLogAppendTime != 0 {
		stamp = time.UnixMilli(i64(b[atMaxTime:])).UTC()
	}
	for range count {
		rec, delta := p.record(&v, base)
		if v.bad {
			return nil, nil, fmt.Errorf("record does not parse: %w", errCorrupt)
		}
		if rec.Offset < from {
			continue
		}
		if delta != stampOf && attributes&attrLogAppendTime == 0 {
			stamp, stampOf = time.UnixMilli(firstTime+delta).UTC(), delta
		}
		rec.Time = stamp
		recs = append(recs, rec)
	}
	return recs, aborted, nil
}

// record reads one record; the second result is its timestamp, relative to the batch's first.
func (p *parser) record(v *varints, base int64) (Record, int64) {
	body := varints{b: v.bytes(v.int())}
	if body.b == nil {
		v.bad = true
		return Record{}, 0
	}
	body.bytes(1) // attributes: none are defined
	delta := body.int()
	rec := Record{Topic: p.topic, Partition: p.partition, Offset: base + body.int()}
	rec.Key = body.nullable()
	rec.Value = body.nullable()
	if n := body.int(); n > 0 {
		if n > int64(len(body.b)/minHeader) {
			v.bad = true
			return Record{}, 0
		}
		rec.Headers = p.room(int(n))
		for i := range rec.Headers {
			key := body.bytes(body.int())
			rec.Headers[i] = topic.Header{Key: p.name(key), Value: body.nullable()}
		}
	}
	v.bad = v.bad || body.bad || len(body.b) != 0
	return rec, delta
}

// room returns n headers, cut from a larger allocation.
func (p *parser) room(n int) []topic.Header {
	const chunk = 512 // 20 KiB: some 50 records of Weft's own
	if n > len(p.headers) {
		p.headers = make([]topic.Header, max(n, chunk))
	}
	hs := p.headers[:n:n]
	p.headers = p.headers[n:]
	return hs
}

// name returns a header key as a string; keys repeat, so they are remembered.
func (p *parser) name(b []byte) string {
	if s, ok := p.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(p.names) < maxNames {
		p.names[s] = s
	}
	return s
}

// varints reads Kafka's zigzag varints, which are Go's, and the bytes between them.
type varints struct {
	b   []byte
	bad bool
}

func (v *varints) int() int64 {
	x, n := binary.Varint(v.b)
	if n <= 0 {
		v.b, v.bad = nil, true
		return 0
	}
	v.b = v.b[n:]
	return x
}

// bytes is never nil unless it is bad.
func (v *varints) bytes(n int64) []byte {
	if v.bad || n < 0 || n > int64(len(v.b)) {
		v.b, v.bad = nil, true
		return nil
	}
	b := v.b[:n:n]
	v.b = v.b[n:]
	return b
}

// nullable reads bytes whose length -1 means null.
func (v *varints) nullable() []byte {
	n := v.int()
	if n == -1 {
		return nil
	}
	return v.bytes(n)
}

func i64(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } //nolint:gosec // bits

// inflate decompresses the records of a batch; snappy comes plain or in xerial's frames.
func inflate(codec compress.Compression, body []byte) ([]byte, error) {
	c := codec.Codec()
	if c == nil {
		return nil, fmt.Errorf("compression %d is unknown: %w", codec, errCorrupt)
	}
	r := c.NewReader(bytes.NewReader(body))
	var out bytes.Buffer
	out.Grow(4 * len(body)) // JSON shrinks to about a quarter
	n, err := out.ReadFrom(io.LimitReader(r, maxInflated+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("decompress %s: %w: %w", codec, errCorrupt, err)
	}
	if n > maxInflated {
		return nil, fmt.Errorf("decompress %s: more than %d bytes: %w", codec, maxInflated, errCorrupt)
	}
	return out.Bytes(), nil
}
