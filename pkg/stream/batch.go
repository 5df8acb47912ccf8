package stream

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/segmentio/kafka-go/compress"
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

// parseBytes is how much memory the records of one Fetch may take before no further batch is added to them:
// so a Fetch gives this and one batch at the most, however well the log is compressed.
const parseBytes = 512 << 10

// errCutShort means that the answer ends within its first batch.
var errCutShort = errors.New("first batch of the answer is incomplete")

// castagnoli is the polynomial of the checksum.
var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant

// parser turns the batches of one partition into records. It is for one goroutine. What it returns lives in
// memory that it uses again.
type parser struct {
	topic     string
	partition int

	data    []byte       // batches not read yet
	aborted []abortedTxn // transactions that will abort, behind the batch being read, by their first offsets
	inAbort map[int64]struct{}
	next    int64 // offset behind what was read
	whole   bool  // a whole batch was read of this answer

	recs   []Record
	slots  slots
	names  map[string]string
	bodies inflated
}

func newParser(topicName string, partition int) parser {
	return parser{topic: topicName, partition: partition, names: make(map[string]string), inAbort: make(map[int64]struct{})}
}

// start takes an answer, to give its records at or after from. data may end within a batch.
func (p *parser) start(data []byte, aborted []abortedTxn, from int64) {
	if len(aborted) > 1 {
		slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
	}
	clear(p.inAbort)
	p.data, p.aborted, p.next, p.whole = data, aborted, from, false
}

// some says that there is more to be read.
func (p *parser) some() bool { return len(p.data) > 0 }

// more returns the records of the next batches, until they take limit bytes of memory, and the offset behind
// the last of them. They alias the answer, and are valid until the next call. If the answer ends within its
// first batch, the error is errCutShort; after any error, nothing of the answer is to be used.
func (p *parser) more(limit int) ([]Record, int64, error) {
	if p.recs = p.recs[:0]; cap(p.recs) > keptRecords/recordBytes {
		p.recs = nil
	}
	p.slots.reset()
	p.bodies.reset()
	for taken := 0; len(p.data) > 0 && taken < limit; {
		size, err := batchSize(p.data)
		if err != nil {
			return nil, p.next, err
		}
		if size > len(p.data) {
			p.data = nil
			if !p.whole {
				return nil, p.next, errCutShort
			}
			break
		}
		batch := p.data[:size:size]
		p.data, p.whole = p.data[size:], true
		base, last := i64(batch), lastOffset(batch)
		if last < p.next {
			continue // the broker answers whole batches, from that which holds the offset on
		}
		n, err := p.batch(batch, base, last)
		if err != nil {
			return nil, p.next, fmt.Errorf("batch at offset %d: %w", base, err)
		}
		taken += n
		p.next = last + 1
	}
	return p.recs, p.next, nil
}

// batchSize is the size of the batch that data begins with: beyond data, if that ends within it.
func batchSize(data []byte) (int, error) {
	if len(data) > atMagic && data[atMagic] < magicV2 { // an old message may be shorter than a batch's header
		return 0, fmt.Errorf("magic %d: %w", data[atMagic], errOldFormat)
	}
	if len(data) < batchHeader {
		return batchHeader, nil
	}
	size := int(int32(binary.BigEndian.Uint32(data[atLength:]))) + atLength + 4 //nolint:gosec // checked next
	if size < batchHeader || data[atMagic] > magicV2 {
		return 0, fmt.Errorf("magic %d, %d bytes: %w", data[atMagic], size, errCorrupt)
	}
	return size, nil
}

func lastOffset(batch []byte) int64 {
	return i64(batch) + int64(int32(binary.BigEndian.Uint32(batch[atLastDelta:]))) //nolint:gosec // bits
}

// behind is the offset behind the last whole batch of an answer from an offset on, by the batches' headers.
func behind(data []byte, from int64) int64 {
	for {
		size, err := batchSize(data)
		if err != nil || size > len(data) {
			return from
		}
		from = max(from, lastOffset(data)+1)
		data = data[size:]
	}
}

// batch adds the records of one batch, if they count, and keeps track of aborted transactions as Kafka's own
// consumer does (Fetcher.nextFetchedRecord). It returns how much memory the records take.
func (p *parser) batch(b []byte, base, last int64) (int, error) {
	if crc32.Checksum(b[atAttributes:], castagnoli) != binary.BigEndian.Uint32(b[atCRC:]) {
		return 0, fmt.Errorf("checksum differs: %w", errCorrupt)
	}
	attributes := binary.BigEndian.Uint16(b[atAttributes:])
	producer := i64(b[atProducer:])
	for len(p.aborted) > 0 && p.aborted[0].first <= last {
		p.inAbort[p.aborted[0].producer] = struct{}{}
		p.aborted = p.aborted[1:]
	}
	if attributes&attrControl != 0 {
		// A marker ends its producer's transaction; whatever the producer writes next is another one.
		delete(p.inAbort, producer)
		return 0, nil
	}
	if attributes&attrTransactional != 0 {
		if _, dead := p.inAbort[producer]; dead {
			return 0, nil
		}
	}
	body, size := b[batchHeader:], 0
	if codec := compress.Compression(attributes & attrCodec); codec != compress.None {
		var err error
		if body, err = p.bodies.inflate(codec, body); err != nil {
			return 0, err
		}
		size = len(body)
	}
	count := int(int32(binary.BigEndian.Uint32(b[atCount:]))) //nolint:gosec // checked next
	if count < 0 || count > len(body)/minRecord {
		return 0, fmt.Errorf("%d records in %d bytes: %w", count, len(body), errCorrupt)
	}
	headers := p.slots.given
	if err := p.records(b, body, count, base); err != nil {
		return 0, err
	}
	return size + count*recordBytes + (p.slots.given-headers)*headerBytes, nil
}

// records reads all records of a batch and keeps those from next on.
func (p *parser) records(b, body []byte, count int, base int64) error {
	firstTime, stampOf := i64(b[atFirstTime:]), int64(0)
	stamp := time.UnixMilli(firstTime).UTC() // most batches have few different ones
	logAppend := binary.BigEndian.Uint16(b[atAttributes:])&attrLogAppendTime != 0
	if logAppend {
		stamp = time.UnixMilli(i64(b[atMaxTime:])).UTC()
	}
	p.recs = slices.Grow(p.recs, count)
	n := len(p.recs)
	recs := p.recs[:n+count]
	at := 0
	for range count {
		r := &recs[n]
		var delta int64
		if at, delta = p.record(body, at, r); at < 0 {
			return fmt.Errorf("record does not parse: %w", errCorrupt)
		}
		r.Topic, r.Partition, r.Offset = p.topic, p.partition, base+r.Offset
		if delta != stampOf && !logAppend {
			stamp, stampOf = time.UnixMilli(firstTime+delta).UTC(), delta
		}
		if r.Time = stamp; r.Offset >= p.next {
			n++
		}
	}
	p.recs = recs[:n]
	return nil
}
