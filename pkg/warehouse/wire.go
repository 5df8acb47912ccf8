package warehouse

import (
	"encoding/binary"

	"github.com/ClickHouse/ch-go/proto"
)

// The columns of this package hold their values as they go over the wire (ClickHouse's Native format), in
// memory that the next block uses again: a value is copied when it is added, and a whole column when it is
// sent.

// wire is a column of any type.
type wire interface {
	proto.ColInput
	// each gives the values as ClickHouse prints them, in order; NULL is left out.
	each(yield func(row int, text string))
	// size is the bytes of its values.
	size() int
	// truncate leaves the first rows values, also where adding one more was cut off by a panic.
	truncate(rows int)
	reset()
}

// written is WriteColumn of every column; it is used by connections without compression only.
func written(w *proto.Writer, c proto.ColInput) { w.ChainBuffer(c.EncodeColumn) }

// texts is a String.
type texts struct {
	buf []byte // each value behind its length, a varint
	n   int
}

func (c *texts) add(s string) {
	c.buf = append(binary.AppendUvarint(c.buf, uint64(len(s))), s...)
	c.n++
}

func (c *texts) addBytes(b []byte) {
	c.buf = append(binary.AppendUvarint(c.buf, uint64(len(b))), b...)
	c.n++
}

// Type is proto.ColInput's.
func (*texts) Type() proto.ColumnType { return proto.ColumnTypeString }

// Rows is proto.ColInput's.
func (c *texts) Rows() int { return c.n }

// EncodeColumn is proto.ColInput's.
func (c *texts) EncodeColumn(b *proto.Buffer) { b.Buf = append(b.Buf, c.buf...) }

// WriteColumn is proto.ColInput's.
func (c *texts) WriteColumn(w *proto.Writer) { written(w, c) }

func (c *texts) size() int { return len(c.buf) }
func (c *texts) reset()    { c.buf, c.n = c.buf[:0], 0 }

func (c *texts) truncate(rows int) {
	rest := c.buf
	for range rows {
		length, n := binary.Uvarint(rest)
		rest = rest[n+int(length):] //nolint:gosec // a length that add has put there
	}
	c.buf, c.n = c.buf[:len(c.buf)-len(rest)], rows
}

func (c *texts) each(yield func(int, string)) {
	rest := c.buf
	for i := range c.n {
		length, n := binary.Uvarint(rest)
		rest = rest[n:]
		yield(i, string(rest[:length]))
		rest = rest[length:]
	}
}

// words is a LowCardinality(String): the distinct values of the block once, and a number for each row.
type words struct {
	known  map[string]uint32 // the number of each value
	values []string          // by number; our own copies
	bytes  int               // of the values
	keys   []byte            // the number of each row, of width bytes
	width  int               // 1, 2 or 4, as the highest number needs
	n      int
	last   uint32 // the number added last: it comes again more often than not
}

const (
	// keysVersion begins a LowCardinality column: a dictionary with additional keys.
	keysVersion = 1
	// keysFlags: the column has a dictionary of its own (bit 9), which replaces any before (bit 10).
	keysFlags = 1<<9 | 1<<10
	// maxWords is how many values a dictionary keeps its memory for.
	maxWords = 1 << 12
)

func newWords() *words { return &words{known: map[string]uint32{}, width: 1} }

func (c *words) add(s string) {
	if c.n == 0 || s != c.values[c.last] {
		c.find(s)
	}
	c.n++
	c.keys = appendKey(c.keys, c.width, c.last)
}

// find makes s the value added last; a new one gets a number.
func (c *words) find(s string) {
	key, ok := c.known[s]
	if !ok {
		own := string(append([]byte(nil), s...)) // the caller's may alias memory that is used again
		key = uint32(len(c.values))              //nolint:gosec // no more than rows
		c.known[own] = key
		c.values = append(c.values, own)
		c.bytes += len(own)
		if width := widthOf(key); width > c.width {
			c.widen(width)
		}
	}
	c.last = key
}

func widthOf(key uint32) int {
	switch {
	case key < 1<<8:
		return 1
	case key < 1<<16:
		return 2
	}
	return 4
}

func appendKey(b []byte, width int, key uint32) []byte {
	switch width {
	case 1:
		return append(b, byte(key)) //nolint:gosec // width is wide enough
	case 2:
		return binary.LittleEndian.AppendUint16(b, uint16(key)) //nolint:gosec // width is wide enough
	}
	return binary.LittleEndian.AppendUint32(b, key)
}

func (c *words) key(row int) uint32 {
	switch c.width {
	case 1:
		return uint32(c.keys[row])
	case 2:
		return uint32(binary.LittleEndian.Uint16(c.keys[2*row:]))
	}
	return binary.LittleEndian.Uint32(c.keys[4*row:])
}

func (c *words) widen(width int) {
	keys := make([]byte, 0, max(c.n*width, cap(c.keys)))
	for i := range c.n {
		keys = appendKey(keys, width, c.key(i))
	}
	c.keys, c.width = keys, width
}

// Type is proto.ColInput's.
func (*words) Type() proto.ColumnType { return "LowCardinality(String)" }

// Rows is proto.ColInput's.
func (c *words) Rows() int { return c.n }

// EncodeState is proto.StateEncoder's.
func (*words) EncodeState(b *proto.Buffer) { b.PutInt64(keysVersion) }

// EncodeColumn is proto.ColInput's.
func (c *words) EncodeColumn(b *proto.Buffer) {
	if c.n == 0 {
		return
	}
	kind := map[int]int64{1: int64(proto.KeyUInt8), 2: int64(proto.KeyUInt16), 4: int64(proto.KeyUInt32)}[c.width]
	b.PutInt64(keysFlags | kind)
	b.PutInt64(int64(len(c.values)))
	for _, v := range c.values {
		b.PutString(v)
	}
	b.PutInt64(int64(c.n))
	b.Buf = append(b.Buf, c.keys...)
}

// WriteColumn is proto.ColInput's.
func (c *words) WriteColumn(w *proto.Writer) { written(w, c) }

func (c *words) size() int { return c.bytes + len(c.keys) }

func (c *words) reset() {
	if len(c.values) > maxWords {
		*c = *newWords()
		return
	}
	clear(c.known)
	clear(c.values)
	c.values, c.keys, c.bytes, c.width, c.n, c.last = c.values[:0], c.keys[:0], 0, 1, 0, 0
}

// truncate takes the values out that only later rows have, too: numbers are given in the order of rows.
func (c *words) truncate(rows int) {
	distinct := 0
	for i := range rows {
		distinct = max(distinct, int(c.key(i))+1)
	}
	for _, v := range c.values[distinct:] {
		delete(c.known, v)
		c.bytes -= len(v)
	}
	clear(c.values[distinct:])
	c.values, c.keys, c.n, c.last = c.values[:distinct], c.keys[:rows*c.width], rows, 0
}

func (c *words) each(yield func(int, string)) {
	for i := range c.n {
		yield(i, c.values[c.key(i)])
	}
}

var (
	_ wire               = (*texts)(nil)
	_ wire               = (*words)(nil)
	_ proto.StateEncoder = (*words)(nil)
)
