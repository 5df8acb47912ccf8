package inlet

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
)

// lines are records that are one line of CSV each, quoted as RFC 4180 says.
type lines struct {
	columns   []string
	number    []bool
	separator rune
}

func newLines(cfg config.CSVLines) (*lines, error) {
	l := &lines{columns: cfg.Columns, number: make([]bool, len(cfg.Columns)), separator: ','}
	if len(cfg.Columns) == 0 {
		return nil, errors.New("csv needs csv.columns")
	}
	if cfg.Separator != "" {
		r, n := utf8.DecodeRuneInString(cfg.Separator)
		if n != len(cfg.Separator) || r == '"' || r == '\r' || r == '\n' || r == utf8.RuneError {
			return nil, fmt.Errorf("csv.separator: want one character, found %q", cfg.Separator)
		}
		l.separator = r
	}
	for i, name := range cfg.Columns {
		if name == "" || slices.Index(cfg.Columns, name) < i {
			return nil, fmt.Errorf("csv.columns: number %d has no name, or that of another", i+1)
		}
	}
	for _, name := range cfg.Numbers {
		i := slices.Index(cfg.Columns, name)
		if i < 0 {
			return nil, fmt.Errorf("csv.numbers: there is no column %q", name)
		}
		l.number[i] = true
	}
	return l, nil
}

// read makes an object of the line: texts by column, numbers as they stand, and null for empty ones.
func (l *lines) read(_ context.Context, value []byte) (read, error) {
	fail := func(format string, args ...any) (read, error) {
		return read{}, &event.Error{Reason: ReasonCSV, Detail: fmt.Sprintf(format, args...)}
	}
	if len(value) == 0 {
		return read{}, &event.Error{Reason: ReasonEmpty, Detail: "the record has no value"}
	}
	if !utf8.Valid(value) {
		return read{}, &event.Error{Reason: event.InvalidUTF8, Detail: "the line is not UTF-8 text"}
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(value, []byte("\uFEFF"))))
	r.Comma, r.FieldsPerRecord = l.separator, len(l.columns)
	fields, err := r.Read()
	if errors.Is(err, csv.ErrFieldCount) {
		return fail("the line has %d columns, want %d", len(fields), len(l.columns))
	}
	if err != nil {
		return fail("%s", err)
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		return fail("the record has more than one line")
	}
	out := []byte{'{'}
	for i, text := range fields {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(event.AppendJSONString(out, l.columns[i]), ':')
		switch {
		case text == "":
			out = append(out, "null"...)
		case l.number[i]:
			if !isNumber(text) {
				return fail("column %s: %q is no number", l.columns[i], text)
			}
			out = append(out, text...)
		default:
			out = event.AppendJSONString(out, text)
		}
	}
	return read{record: append(out, '}')}, nil
}

// isNumber says whether a text is a JSON number.
func isNumber(text string) bool {
	return text != "" && (text[0] == '-' || text[0] >= '0' && text[0] <= '9') && event.CheckJSON([]byte(text)) == nil && text[len(text)-1] > ' '
}
