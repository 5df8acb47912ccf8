package replay

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/weft-cdp/weft/pkg/event"
)

// Any mapping file and any file of rows: faults, or events that the door can read, the same each time.
func FuzzRows(f *testing.F) {
	const mapping = "format: csv\ndelimiter: ';'\nheader: true\nnumbers: [price]\ntimes: {at: '2006-01-02'}\nevent: {type: \"'track'\", event: \"'E'\", userId: $.who, timestamp: $.at, properties.price: $.price}\n"
	f.Add(mapping, "who;at;price\nu;2026-11-22;1.10\n\"a\nb\";x;1e5\n")
	f.Add("format: space\ncolumns: [a, b]\nevent: {userId: $.a, event: $.b}\n", "1 2\n\n 3   4 5\r\n")
	f.Add("format: json\nevent: {userId: $.a}\n", "{\"a\":1}\nnull\n")
	f.Add("", "{\"userId\":\"u\",\"type\":\"page\"}\n{")
	f.Fuzz(func(t *testing.T, mapping, file string) {
		var format *Format
		if mapping != "" {
			var err error
			if format, err = ParseFormat([]byte(mapping)); err != nil {
				return
			}
		}
		first, second := readRows(t, file, format), readRows(t, file, format)
		if strings.Join(first, "\n") != strings.Join(second, "\n") {
			t.Fatalf("%q by %q: %q, then %q", file, mapping, first, second)
		}
	})
}

// readRows is the events of a file, or what is wrong with each of its rows.
func readRows(t *testing.T, file string, format *Format) []string {
	rows, err := newRows(strings.NewReader(file), format, true)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for {
		r, err := rows.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				out = append(out, err.Error())
			}
			return out
		}
		if r.fault != nil {
			out = append(out, r.fault.Error())
			continue
		}
		if _, err := event.Decode(r.event, event.Meta{}); err != nil {
			t.Fatalf("line %d of %q became %q: %v", r.line, file, r.event, err)
		}
		out = append(out, string(r.event))
	}
}
