package warehouse

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"
)

// Types of the columns, as ClickHouse names them.
const (
	typeTime   = proto.ColumnType("DateTime64(3, 'UTC')")
	typeAmount = proto.ColumnType("Decimal(18, 4)")
)

// fixed is a column of values of one width.
type fixed struct {
	name  proto.ColumnType
	width int
	buf   []byte
	text  func(b []byte) string // of one value
}

// Type is proto.ColInput's.
func (c *fixed) Type() proto.ColumnType { return c.name }

// Rows is proto.ColInput's.
func (c *fixed) Rows() int { return len(c.buf) / c.width }

// EncodeColumn is proto.ColInput's.
func (c *fixed) EncodeColumn(b *proto.Buffer) { b.Buf = append(b.Buf, c.buf...) }

// WriteColumn is proto.ColInput's.
func (c *fixed) WriteColumn(w *proto.Writer) { written(w, c) }

func (c *fixed) size() int { return len(c.buf) }
func (c *fixed) reset()    { c.buf = c.buf[:0] }

func (c *fixed) truncate(rows int) { c.buf = c.buf[:rows*c.width] }

func (c *fixed) each(yield func(int, string)) {
	for i := range c.Rows() {
		yield(i, c.text(c.buf[i*c.width:(i+1)*c.width]))
	}
}

func (c *fixed) add64(v uint64) { c.buf = binary.LittleEndian.AppendUint64(c.buf, v) }

func (c *fixed) addTime(t time.Time) {
	c.add64(uint64(millis(t))) //nolint:gosec // two's complement, as the column wants it
}

// millis is a time as the columns hold it: in milliseconds since 1970; a zero time is 1970.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func (c *fixed) addAmount(a Amount) {
	c.add64(uint64(a.Units)) //nolint:gosec // two's complement, as the column wants it
}

func (c *fixed) addBool(v bool) {
	b := byte(0)
	if v {
		b = 1
	}
	c.buf = append(c.buf, b)
}

// addUUID: ClickHouse keeps a UUID as two numbers of eight bytes, the first half first.
func (c *fixed) addUUID(id uuid.UUID) {
	c.add64(binary.BigEndian.Uint64(id[:8]))
	c.add64(binary.BigEndian.Uint64(id[8:]))
}

func newTimes() *fixed {
	return &fixed{name: typeTime, width: 8, text: func(b []byte) string {
		return time.UnixMilli(int64(binary.LittleEndian.Uint64(b))).UTC().Format(timeText) //nolint:gosec // as addTime
	}}
}

func newAmounts() *fixed {
	return &fixed{name: typeAmount, width: 8, text: func(b []byte) string {
		return Amount{Units: int64(binary.LittleEndian.Uint64(b))}.String() //nolint:gosec // as addAmount
	}}
}

func newBools() *fixed {
	return &fixed{name: proto.ColumnTypeBool, width: 1, text: func(b []byte) string { return strconv.FormatBool(b[0] == 1) }}
}

func newUUIDs() *fixed {
	return &fixed{name: proto.ColumnTypeUUID, width: 16, text: func(b []byte) string {
		var id uuid.UUID
		binary.BigEndian.PutUint64(id[:8], binary.LittleEndian.Uint64(b))
		binary.BigEndian.PutUint64(id[8:], binary.LittleEndian.Uint64(b[8:]))
		return id.String()
	}}
}

func newNumbers(name proto.ColumnType, width int) *fixed {
	return &fixed{name: name, width: width, text: func(b []byte) string {
		var wide [8]byte
		copy(wide[:], b)
		return strconv.FormatUint(binary.LittleEndian.Uint64(wide[:]), 10)
	}}
}

// nullable is a column that has no value in some rows.
type nullable struct {
	*fixed
	nulls []byte // 1 for each row without a value
}

func (c *nullable) addNull() {
	c.nulls = append(c.nulls, 1)
	c.add64(0)
}

// Type is proto.ColInput's.
func (c *nullable) Type() proto.ColumnType { return proto.ColumnTypeNullable.Sub(c.name) }

// EncodeColumn is proto.ColInput's.
func (c *nullable) EncodeColumn(b *proto.Buffer) {
	b.Buf = append(b.Buf, c.nulls...)
	c.fixed.EncodeColumn(b)
}

// WriteColumn is proto.ColInput's.
func (c *nullable) WriteColumn(w *proto.Writer) { written(w, c) }

func (c *nullable) size() int { return len(c.nulls) + c.fixed.size() }

func (c *nullable) truncate(rows int) {
	c.nulls = c.nulls[:rows]
	c.fixed.truncate(rows)
}

func (c *nullable) reset() {
	c.nulls = c.nulls[:0]
	c.fixed.reset()
}

func (c *nullable) each(yield func(int, string)) {
	c.fixed.each(func(i int, text string) {
		if c.nulls[i] == 0 {
			yield(i, text)
		}
	})
}

// lists is an Array(LowCardinality(String)), or with amounts a Map(LowCardinality(String), Decimal(18, 4)).
type lists struct {
	ends    *fixed // where each row's entries end
	keys    *words
	amounts *fixed // nil: an array
}

func newLists() *lists { return &lists{ends: newNumbers(proto.ColumnTypeUInt64, 8), keys: newWords()} }

func (c *lists) add(vs []string) {
	for _, v := range vs {
		c.keys.add(v)
	}
	c.ends.add64(uint64(c.keys.n)) //nolint:gosec // a count
}

func (c *lists) addMoney(vs []Money) {
	for _, v := range vs {
		c.keys.add(v.Currency)
		c.amounts.addAmount(v.Amount)
	}
	c.ends.add64(uint64(c.keys.n)) //nolint:gosec // a count
}

// Type is proto.ColInput's.
func (c *lists) Type() proto.ColumnType {
	if c.amounts == nil {
		return "Array(LowCardinality(String))"
	}
	return "Map(LowCardinality(String), Decimal(18, 4))"
}

// Rows is proto.ColInput's.
func (c *lists) Rows() int { return c.ends.Rows() }

// EncodeState is proto.StateEncoder's.
func (c *lists) EncodeState(b *proto.Buffer) { c.keys.EncodeState(b) }

// EncodeColumn is proto.ColInput's.
func (c *lists) EncodeColumn(b *proto.Buffer) {
	c.ends.EncodeColumn(b)
	c.keys.EncodeColumn(b)
	if c.amounts != nil {
		c.amounts.EncodeColumn(b)
	}
}

// WriteColumn is proto.ColInput's.
func (c *lists) WriteColumn(w *proto.Writer) { written(w, c) }

func (c *lists) size() int {
	n := c.ends.size() + c.keys.size()
	if c.amounts != nil {
		n += c.amounts.size()
	}
	return n
}

func (c *lists) truncate(rows int) {
	c.ends.truncate(rows)
	entries := 0
	if rows > 0 {
		entries = int(binary.LittleEndian.Uint64(c.ends.buf[8*(rows-1):])) //nolint:gosec // a count that add has put there
	}
	c.keys.truncate(entries)
	if c.amounts != nil {
		c.amounts.truncate(entries)
	}
}

func (c *lists) reset() {
	c.ends.reset()
	c.keys.reset()
	if c.amounts != nil {
		c.amounts.reset()
	}
}

func (c *lists) each(yield func(int, string)) {
	var entries []string
	c.keys.each(func(_ int, text string) { entries = append(entries, "'"+sqlEscaper.Replace(text)+"'") })
	left, right := "[", "]"
	if c.amounts != nil {
		left, right = "{", "}"
		c.amounts.each(func(i int, text string) { entries[i] += ":" + text })
	}
	from := uint64(0)
	for i := range c.Rows() {
		end := binary.LittleEndian.Uint64(c.ends.buf[8*i:])
		yield(i, left+strings.Join(entries[from:end], ",")+right)
		from = end
	}
}

var (
	_ wire               = (*fixed)(nil)
	_ wire               = (*nullable)(nil)
	_ wire               = (*lists)(nil)
	_ proto.StateEncoder = (*lists)(nil)
)
