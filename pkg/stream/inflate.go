package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go/compress"
)

const (
	// maxInflated bounds what one compressed batch may become: far above max.message.bytes times the ratio of
	// repetitive JSON, low enough that a hostile inlet record cannot take all memory.
	maxInflated = 64 << 20
	// keptInflated is how much memory for decompressed batches is kept: what a Fetch needs for Weft's own.
	keptInflated = parseBytes + maxProduceBytes
	// inflatesTo is how many times its size a batch is expected to become: JSON shrinks to about a quarter.
	inflatesTo = 4
)

// inflated is the memory of decompressed batches.
type inflated struct {
	buf []byte // what does not fit any more goes into a new one
	src bytes.Reader
	lz4 *lz4.Reader
}

func (m *inflated) reset() {
	if m.buf = m.buf[:0]; cap(m.buf) > keptInflated {
		m.buf = nil
	}
}

// inflate decompresses the records of a batch; snappy comes plain or in xerial's frames. The result is valid
// until reset.
func (m *inflated) inflate(codec compress.Compression, body []byte) ([]byte, error) {
	m.src.Reset(body)
	defer m.src.Reset(nil)
	if codec == compress.Lz4 { // what Weft writes itself
		if m.lz4 == nil {
			m.lz4 = lz4.NewReader(nil)
		}
		m.lz4.Reset(&m.src)
		return m.readAll(codec, m.lz4, len(body))
	}
	c := codec.Codec()
	if c == nil {
		return nil, fmt.Errorf("compression %d is unknown: %w", codec, errCorrupt)
	}
	r := c.NewReader(&m.src)
	out, err := m.readAll(codec, r, len(body))
	if e := r.Close(); e != nil && err == nil {
		err = fmt.Errorf("decompress %s: %w: %w", codec, errCorrupt, e)
	}
	return out, err
}

func (m *inflated) readAll(codec compress.Compression, r io.Reader, packed int) ([]byte, error) {
	if cap(m.buf)-len(m.buf) < inflatesTo*packed {
		m.buf = make([]byte, 0, max(inflatesTo*packed, min(2*cap(m.buf), keptInflated)))
	}
	out := m.buf[len(m.buf):]
	for {
		if len(out) > maxInflated {
			return nil, fmt.Errorf("decompress %s: more than %d bytes: %w", codec, maxInflated, errCorrupt)
		}
		if len(out) == cap(out) {
			out = append(make([]byte, 0, max(2*cap(out), bytes.MinRead)), out...)
			m.buf = out[:0]
		}
		n, err := r.Read(out[len(out):cap(out)])
		if out = out[:len(out)+n]; errors.Is(err, io.EOF) {
			m.buf = m.buf[:len(m.buf)+len(out)]
			return out[:len(out):len(out)], nil
		}
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w: %w", codec, errCorrupt, err)
		}
	}
}
