package warehouse

import (
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Table is a table with rows of type R. Its columns are declared once; the INSERT and the order of values
// both come from that.
type Table[R any] struct {
	Name    string
	Columns []Column[R] // those of Origin first

	origin func(*R) *Origin
}

// Column is one column: its name, and where its value stands in a row.
type Column[R any] struct {
	Name   string
	buffer func() buffer[R]
}

// buffer gathers the values of one column.
type buffer[R any] interface {
	add(r *R)
	appendTo(c driver.BatchColumn) error
	text(i int) (string, bool) // as ClickHouse prints it; false: NULL
	reset()
}

// values is the buffer of a column of type T.
type values[R, T any] struct {
	get  func(*R) T
	vals []T
}

func (b *values[R, T]) add(r *R)                            { b.vals = append(b.vals, b.get(r)) }
func (b *values[R, T]) appendTo(c driver.BatchColumn) error { return c.Append(b.vals) }
func (b *values[R, T]) text(i int) (string, bool)           { return text(b.vals[i]) }
func (b *values[R, T]) reset()                              { clear(b.vals); b.vals = b.vals[:0] }

// newTable declares a table whose rows carry their origin.
func newTable[R any](name string, origin func(*R) *Origin, columns ...Column[R]) Table[R] {
	own := []Column[R]{
		column("topic", func(r *R) string { return origin(r).Topic }),
		column("partition", func(r *R) uint32 { return origin(r).Partition }),
		column("offset", func(r *R) uint64 { return origin(r).Offset }),
	}
	return Table[R]{Name: name, Columns: append(own, columns...), origin: origin}
}

// column declares a column.
func column[R, T any](name string, get func(*R) T) Column[R] {
	return Column[R]{Name: name, buffer: func() buffer[R] { return &values[R, T]{get: get} }}
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
	rows  int
	skip  map[uint64]bool
}

// NewBlock makes an empty block.
func (t Table[R]) NewBlock() *Block[R] {
	b := &Block[R]{table: t, sql: t.InsertSQL(), cols: make([]buffer[R], len(t.Columns))}
	for i, c := range t.Columns {
		b.cols[i] = c.buffer()
	}
	return b
}

// Add appends a row. The row's strings and slices must stay as they are until Reset; r itself may be used
// again at once.
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

// Row is row i as text.
func (b *Block[R]) Row(i int) map[string]string {
	row := make(map[string]string, len(b.cols))
	for c, col := range b.cols {
		if v, ok := col.text(i); ok {
			row[b.table.Columns[c].Name] = v
		}
	}
	return row
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

func (b *Block[R]) appendTo(batch driver.Batch) error {
	for i, c := range b.cols {
		if err := c.appendTo(batch.Column(i)); err != nil {
			return fmt.Errorf("column %s: %w", b.table.Columns[i].Name, err)
		}
	}
	return nil
}
