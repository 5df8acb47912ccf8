// Package packed writes and reads the bytes of what Weft keeps in Redis: varints, and strings with their
// length in front.
//
// It owns: the append functions and the Reader that undoes them. It guarantees that a Reader never panics,
// never allocates more than a small multiple of what it was given, and that its first fault sticks, so that
// a decoder may read on and ask once at the end. It must not know what is stored: versions, fields and their
// order belong to the package whose state it is. It does no I/O.
package packed

import (
	"encoding/binary"
	"errors"
)

// ErrNewer says that the bytes are of a version that this binary does not know.
var ErrNewer = errors.New("written by a newer version of weft")

// ErrCorrupt says that the bytes are cut off or were never written by the append functions.
var ErrCorrupt = errors.New("stored value is cut off or malformed")

// AppendUint appends a number that is never negative.
func AppendUint(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }

// AppendInt appends a number; one near zero, of either sign, is short.
func AppendInt(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }

// AppendLen appends a length or a count.
func AppendLen(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) } //nolint:gosec // a length is not negative

// AppendHash appends 64 bits that are no number: a varint of them would be longer.
func AppendHash(b []byte, h uint64) []byte { return binary.LittleEndian.AppendUint64(b, h) }

// AppendString appends a string behind its length.
func AppendString[S ~string | ~[]byte](b []byte, s S) []byte {
	return append(AppendLen(b, len(s)), s...)
}

// Reader reads what the append functions wrote, in their order.
type Reader struct {
	b    []byte
	i    int
	text string // the same bytes, if strings share them
	err  error
}

// Read reads b, which must not change meanwhile; strings are copies.
func Read(b []byte) Reader { return Reader{b: b} }

// ReadShared reads b, and may be given up before b changes: it copies b once, and all strings share the copy.
// For states of many strings that live and end together.
func ReadShared(b []byte) Reader { return Reader{b: b, text: string(b)} }

// Err is the first fault, if there was one: what was read behind it is zero.
func (r *Reader) Err() error { return r.err }

// Left is how many bytes are left to read.
func (r *Reader) Left() int { return len(r.b) - r.i }

// Fail makes the reader fail, for a decoder that has read what can not be.
func (r *Reader) Fail() {
	if r.err == nil {
		r.err = ErrCorrupt
	}
	r.b, r.i = nil, 0
}

// Byte is one byte.
func (r *Reader) Byte() byte {
	if r.i >= len(r.b) {
		r.Fail()
		return 0
	}
	r.i++
	return r.b[r.i-1]
}

// Uint undoes AppendUint.
func (r *Reader) Uint() uint64 {
	if r.i < len(r.b) && r.b[r.i] < 0x80 { // most are small
		r.i++
		return uint64(r.b[r.i-1])
	}
	v, n := binary.Uvarint(r.b[r.i:])
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.i += n
	return v
}

// Int undoes AppendInt.
func (r *Reader) Int() int64 {
	u := r.Uint()
	return int64(u>>1) ^ -int64(u&1) // zigzag, as encoding/binary has it
}

// Hash undoes AppendHash.
func (r *Reader) Hash() uint64 {
	if r.Left() < 8 {
		r.Fail()
		return 0
	}
	r.i += 8
	return binary.LittleEndian.Uint64(r.b[r.i-8:])
}

// Len undoes AppendLen before n things of at least size bytes each: a count that can not be is a fault, so
// that room may be made for all at once.
func (r *Reader) Len(size int) int {
	n := r.Uint()
	if n > uint64(r.Left()/max(size, 1)) { //nolint:gosec // not negative
		r.Fail()
		return 0
	}
	return int(n) //nolint:gosec // checked
}

// String undoes AppendString.
func (r *Reader) String() string { return r.Text(r.Uint()) }

// Text is n bytes, for a length that was told in another way.
func (r *Reader) Text(n uint64) string {
	if n > uint64(r.Left()) { //nolint:gosec // not negative
		r.Fail()
		return ""
	}
	from := r.i
	r.i += int(n) //nolint:gosec // checked
	if r.text != "" {
		return r.text[from:r.i]
	}
	return string(r.b[from:r.i])
}

// Bytes undoes AppendString, too; they are those that the reader was given. Nil if there are none.
func (r *Reader) Bytes() []byte {
	n := r.Len(1)
	if n == 0 {
		return nil
	}
	r.i += n
	return r.b[r.i-n : r.i : r.i]
}

// Rest is all that is left, in the bytes that the reader was given; nil if nothing is.
func (r *Reader) Rest() []byte {
	if r.Left() == 0 {
		return nil
	}
	rest := r.b[r.i:]
	r.i = len(r.b)
	return rest
}
