package warehouse

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Result is the answer to a query as text, for people to read.
type Result struct {
	Columns []string
	Rows    [][]string // NULL is ""
}

// Query runs one query and renders its answer as text. ${database} is filled in. The whole answer is held
// in memory: it is for reports, not for exports.
func (c *Client) Query(ctx context.Context, sql string, args ...any) (Result, error) {
	wrap := func(err error) error { return classify(fmt.Errorf("query %q: %w", firstLine(sql), err)) }
	rows, err := c.conn.Query(ctx, c.fill(sql), args...)
	if err != nil {
		return Result{}, wrap(err)
	}
	defer func() { _ = rows.Close() }() // its error is that of Err below
	out := Result{Columns: rows.Columns()}
	types := rows.ColumnTypes()
	for rows.Next() {
		dest := make([]any, len(types))
		for i, t := range types {
			dest[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(dest...); err != nil {
			return Result{}, wrap(err)
		}
		row := make([]string, len(dest))
		for i, d := range dest {
			row[i] = cell(reflect.ValueOf(d).Elem())
		}
		out.Rows = append(out.Rows, row)
	}
	if err := rows.Err(); err != nil {
		return Result{}, wrap(err)
	}
	return out, nil
}

// cell is a value as text.
func cell(v reflect.Value) string {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return x.UTC().Format("2006-01-02 15:04:05.000")
	case []string:
		return strings.Join(x, ", ")
	case fmt.Stringer:
		return x.String()
	default:
		return fmt.Sprint(x)
	}
}
