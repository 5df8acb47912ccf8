package stream

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/weft-cdp/weft/pkg/topic"
)

// run is records on their way into batches.
type run interface {
	count() int
	// appendTo writes the i-th record as the delta-th of its batch.
	appendTo(b []byte, i, delta int) []byte
	size(i int) int // in a batch, uncompressed
}

// unencoded is records that are encoded on their way.
type unencoded []Record

func (r unencoded) count() int                             { return len(r) }
func (r unencoded) appendTo(b []byte, i, delta int) []byte { return appendRecord(b, &r[i], delta) }
func (r unencoded) size(i int) int                         { return recordSize(&r[i], 0) }

// deltaWidth is how many bytes the offset delta of a record takes that is encoded before it is known which
// of its batch it will be: enough for a million, where a batch has at most maxProduceBytes/minRecord. A varint
// may be longer than it needs to be, for all readers of the format.
const deltaWidth = 3

func putWideDelta(b []byte, n int) {
	z := uint32(n) << 1                                                //nolint:gosec // below 1<<20
	b[0], b[1], b[2] = byte(z)|0x80, byte(z>>7)|0x80, byte(z>>14)&0x7f //nolint:gosec // seven bits each
}

// AppendEncoded appends a record as it stands in a batch, to be kept and produced later without being encoded
// again; see Encoded. It is the same encoding but for the offset delta, which is set when the batch is made.
func AppendEncoded(b []byte, r *Record) []byte {
	start := len(b)
	b = appendRecord(b, r, 1<<(7*deltaWidth-2)) // the smallest that needs deltaWidth bytes
	_, at := varint(b, start)
	putWideDelta(b[at+2:], 0)
	return b
}

// EncodedSize is how many bytes AppendEncoded takes at most.
func EncodedSize(r *Record) int { return recordSize(r, 1<<(7*deltaWidth-2)) }

// Encoded is records of one partition that AppendEncoded has written. The zero value is empty. It is for one
// goroutine.
type Encoded struct {
	data []byte
	at   []int // where each begins
}

var _ run = (*Encoded)(nil)

// Add takes records over: data is copied. The error means that data is not what AppendEncoded has written;
// nothing of it is taken then.
func (e *Encoded) Add(data []byte) error {
	n, from := len(e.at), len(e.data)
	for at := 0; at < len(data); {
		size, body := varint(data, at)
		if body < 0 || size < 2+deltaWidth || size > int64(len(data)-body) || data[body+2]&0x80 == 0 ||
			data[body+3]&0x80 == 0 || data[body+4]&0x80 != 0 {
			e.at = e.at[:n]
			return fmt.Errorf("encoded record at byte %d does not parse: %w", at, errCorrupt)
		}
		e.at = append(e.at, from+at)
		at = body + int(size)
	}
	e.data = append(e.data, data...)
	return nil
}

// Len is how many records there are.
func (e *Encoded) Len() int { return len(e.at) }

// Bytes is how much memory they take.
func (e *Encoded) Bytes() int { return len(e.data) }

// Reset empties it and keeps its memory.
func (e *Encoded) Reset() { e.data, e.at = e.data[:0], e.at[:0] }

// Record returns the i-th record. It shares memory with e.
func (e *Encoded) Record(i int) (Record, error) {
	var r Record
	p := parser{names: map[string]string{}}
	raw := e.raw(i)
	if end, _ := p.record(raw, 0, &r); end != len(raw) {
		return Record{}, fmt.Errorf("encoded record %d does not parse: %w", i, errCorrupt)
	}
	r.Offset = 0
	r.Headers = append([]topic.Header(nil), r.Headers...)
	return r, nil
}

func (e *Encoded) raw(i int) []byte {
	end := len(e.data)
	if i+1 < len(e.at) {
		end = e.at[i+1]
	}
	return e.data[e.at[i]:end]
}

func (e *Encoded) count() int     { return len(e.at) }
func (e *Encoded) size(i int) int { return len(e.raw(i)) }

func (e *Encoded) appendTo(b []byte, i, delta int) []byte {
	start := len(b)
	b = append(b, e.raw(i)...)
	_, n := binary.Varint(b[start:])
	putWideDelta(b[start+n+2:], delta)
	return b
}

// ProduceEncoded is Produce of records that are encoded already, without the first from of them.
func (c *Client) ProduceEncoded(ctx context.Context, topicName string, partition int, e *Encoded, from int) error {
	return c.produce(ctx, topicName, partition, e, from)
}
