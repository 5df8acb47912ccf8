package warehouse

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"
)

// Table is a table with rows of type R. Its columns are declared once; the INSERT and the order of values
// both come from that.
type Table[R any] struct {
	Name    string
	Columns []Column[R] // those of Origin first

	origin func(*R) *Origin
}

// Column is one column: its name and type, and where its value stands in a row.
type Column[R any] struct {
	Name   string
	buffer func() buffer[R]
}

// buffer gathers the values of one column.
type buffer[R any] struct {
	wire
	add func(r *R)
}

// newTable declares a table whose rows carry their origin.
func newTable[R any](name string, origin func(*R) *Origin, columns ...Column[R]) Table[R] {
	own := []Column[R]{
		word("topic", func(r *R) string { return origin(r).Topic }),
		number("partition", proto.ColumnTypeUInt32, func(r *R) uint32 { return origin(r).Partition }),
		number("offset", proto.ColumnTypeUInt64, func(r *R) uint64 { return origin(r).Offset }),
	}
	return Table[R]{Name: name, Columns: append(own, columns...), origin: origin}
}

// The functions below declare a column of one type each.

// text is a String.
func text[R any](name string, get func(*R) string) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := &texts{}
		return buffer[R]{c, func(r *R) { c.add(get(r)) }}
	}}
}

// blob is a String, too.
func blob[R any](name string, get func(*R) []byte) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := &texts{}
		return buffer[R]{c, func(r *R) { c.addBytes(get(r)) }}
	}}
}

// word is a LowCardinality(String).
func word[R any](name string, get func(*R) string) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := newWords()
		return buffer[R]{c, func(r *R) { c.add(get(r)) }}
	}}
}

// wordList is an Array(LowCardinality(String)).
func wordList[R any](name string, get func(*R) []string) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := newLists()
		return buffer[R]{c, func(r *R) { c.add(get(r)) }}
	}}
}

// money is a Map(LowCardinality(String), Decimal(18, 4)).
func money[R any](name string, get func(*R) []Money) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := newLists()
		c.amounts = newAmounts()
		return buffer[R]{c, func(r *R) { c.addMoney(get(r)) }}
	}}
}

// key is a UUID.
func key[R any](name string, get func(*R) uuid.UUID) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := newUUIDs()
		return buffer[R]{c, func(r *R) { c.addUUID(get(r)) }}
	}}
}

// moment is a DateTime64(3, 'UTC'); a zero time is 1970.
func moment[R any](name string, get func(*R) time.Time) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := newTimes()
		return buffer[R]{c, func(r *R) { c.addTime(get(r)) }}
	}}
}

// maybeMoment is a Nullable(DateTime64(3, 'UTC')); a zero time is NULL.
func maybeMoment[R any](name string, get func(*R) time.Time) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := &nullable{fixed: newTimes()}
		return buffer[R]{c, func(r *R) {
			t := get(r)
			if t.IsZero() {
				c.addNull()
				return
			}
			c.nulls = append(c.nulls, 0)
			c.addTime(t)
		}}
	}}
}

// amount is a Decimal(18, 4).
func amount[R any](name string, get func(*R) Amount) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := newAmounts()
		return buffer[R]{c, func(r *R) { c.addAmount(get(r)) }}
	}}
}

// maybeAmount is a Nullable(Decimal(18, 4)).
func maybeAmount[R any](name string, get func(*R) Amount) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := &nullable{fixed: newAmounts()}
		return buffer[R]{c, func(r *R) {
			a := get(r)
			if !a.Some {
				c.addNull()
				return
			}
			c.nulls = append(c.nulls, 0)
			c.addAmount(a)
		}}
	}}
}

// boolean is a Bool.
func boolean[R any](name string, get func(*R) bool) Column[R] {
	return Column[R]{name, func() buffer[R] {
		c := newBools()
		return buffer[R]{c, func(r *R) { c.addBool(get(r)) }}
	}}
}

// number is a UInt16, UInt32 or UInt64.
func number[R any, N uint16 | uint32 | uint64](name string, as proto.ColumnType, get func(*R) N) Column[R] {
	width := binary.Size(N(0))
	return Column[R]{name, func() buffer[R] {
		c := newNumbers(as, width)
		return buffer[R]{c, func(r *R) {
			v := uint64(get(r))
			for range width {
				c.buf = append(c.buf, byte(v))
				v >>= 8
			}
		}}
	}}
}

// InsertSQL is the statement that inserts into the table, ${database} not yet filled in.
func (t Table[R]) InsertSQL() string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = "`" + c.Name + "`"
	}
	return fmt.Sprintf("INSERT INTO ${database}.%s (%s)", t.Name, strings.Join(names, ", "))
}

// Block is rows of one table on their way into it: one insert. It is for one goroutine at a time.
type Block[R any] struct {
	table Table[R]
	sql   string
	cols  []buffer[R]
	input proto.Input // the same columns, with their names
	rows  int
	skip  map[uint64]bool
}

// NewBlock makes an empty block.
func (t Table[R]) NewBlock() *Block[R] {
	b := &Block[R]{table: t, sql: t.InsertSQL(), cols: make([]buffer[R], len(t.Columns))}
	for i, c := range t.Columns {
		b.cols[i] = c.buffer()
		b.input = append(b.input, proto.InputColumn{Name: c.Name, Data: b.cols[i].wire})
	}
	return b
}

// Add appends a row. All of it is copied.
func (b *Block[R]) Add(r *R) {
	if b.skip[b.table.origin(r).Offset] {
		return
	}
	for _, c := range b.cols {
		c.add(r)
	}
	b.rows++
}

// Skip has Add leave out rows of records with these offsets, until Reset.
func (b *Block[R]) Skip(offsets map[uint64]bool) { b.skip = offsets }

// Rows is how many rows the block has.
func (b *Block[R]) Rows() int { return b.rows }

// Size is how many bytes the block's values take.
func (b *Block[R]) Size() int {
	n := 0
	for _, c := range b.cols {
		n += c.size()
	}
	return n
}

// Values is the rows as text.
func (b *Block[R]) Values() []map[string]string {
	rows := make([]map[string]string, b.rows)
	for i := range rows {
		rows[i] = make(map[string]string, len(b.cols))
	}
	for i, c := range b.cols {
		c.each(func(row int, text string) { rows[row][b.table.Columns[i].Name] = text })
	}
	return rows
}

// Truncate leaves the first rows rows, also where Add panicked in the middle of one more.
func (b *Block[R]) Truncate(rows int) {
	for _, c := range b.cols {
		c.truncate(rows)
	}
	b.rows = rows
}

// Table is the name of the table that the rows are for.
func (b *Block[R]) Table() string { return b.table.Name }

// Reset empties the block and keeps its memory.
func (b *Block[R]) Reset() {
	for _, c := range b.cols {
		c.reset()
	}
	b.rows, b.skip = 0, nil
}

func (b *Block[R]) statement() string { return b.sql }

func (b *Block[R]) columns() proto.Input { return b.input }
