package stream

import (
	"encoding/binary"
	"io"
)

// body reads an answer off the wire, so that records go straight into the memory they will be read from.
// After an error every read gives zero.
type body struct {
	r       io.Reader
	left    int // of the answer, not read yet
	err     error
	scratch [256]byte // a topic's name has at most 249
}

func (b *body) fail() {
	if b.err == nil {
		b.err = errMalformed
	}
}

// take returns the next n bytes, until the next read.
func (b *body) take(n int) []byte {
	if b.err == nil && (n < 0 || n > len(b.scratch)) {
		b.fail()
	}
	if b.err != nil {
		return nil
	}
	b.full(b.scratch[:n])
	return b.scratch[:n]
}

// full reads into all of p.
func (b *body) full(p []byte) {
	if b.err == nil && len(p) > b.left {
		b.fail()
	}
	if b.err == nil {
		_, b.err = io.ReadFull(b.r, p)
		b.left -= len(p)
	}
	if b.err != nil {
		clear(p)
	}
}

func (b *body) int16() int16 {
	b.full(b.scratch[:2])
	return int16(binary.BigEndian.Uint16(b.scratch[:])) //nolint:gosec // bits
}

func (b *body) int32() int32 {
	b.full(b.scratch[:4])
	return int32(binary.BigEndian.Uint32(b.scratch[:])) //nolint:gosec // bits
}

func (b *body) int64() int64 {
	b.full(b.scratch[:8])
	return i64(b.scratch[:])
}

// array reads the length of an array whose elements have at least size bytes; null is 0.
func (b *body) array(size int) int {
	n := int(b.int32())
	if n > b.left/size {
		b.fail()
		return 0
	}
	return max(n, 0)
}

// into reads bytes, null being none, into the memory of buf if that is large enough.
func (b *body) into(buf []byte) []byte {
	n := int(b.int32())
	if n > b.left {
		b.fail()
	}
	if n <= 0 || b.err != nil {
		return buf[:0]
	}
	if n > cap(buf) {
		buf = make([]byte, n, max(n, min(2*cap(buf), DefaultFetchBytes)))
	}
	buf = buf[:n]
	b.full(buf)
	return buf
}
