package replay

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/inlet"
)

// The kinds of files that can be replayed.
const (
	formatJSON  = "json"  // one JSON object per line
	formatCSV   = "csv"   // RFC 4180, any one-character delimiter
	formatSpace = "space" // columns separated by any number of blanks
)

// rowColumn is the column that every row has beside its own: {"id": ..., "occurrence": ...}.
const rowColumn = "row"

// Format is a checked mapping file: how the rows of a file are read, and how each becomes an event. Without
// one, a file holds Segment-shaped JSON lines.
type Format struct {
	kind        string
	comma       rune
	header      bool
	columns     []string // empty: the header line names them
	numbers     map[string]bool
	times       map[string]string // column -> layout of package time
	zone        *time.Location
	mapping     *inlet.Mapping
	fingerprint [sha256.Size]byte
}

// formatFile is the mapping file.
type formatFile struct {
	Format    string            `yaml:"format"`
	Delimiter string            `yaml:"delimiter"`
	Header    bool              `yaml:"header"`
	Columns   []string          `yaml:"columns"`
	Numbers   []string          `yaml:"numbers"`
	Times     map[string]string `yaml:"times"`
	Zone      string            `yaml:"zone"`
	Event     map[string]string `yaml:"event"`
}

// LoadFormat reads a mapping file. Its errors name every fault that is found in it.
func LoadFormat(path string) (*Format, error) {
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("read mapping: %w", err)
	}
	f, err := ParseFormat(text)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	return f, nil
}

// ParseFormat is LoadFormat of a file's content.
func ParseFormat(text []byte) (*Format, error) {
	var file formatFile
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	f := &Format{
		kind: file.Format, header: file.Header, columns: file.Columns,
		numbers: map[string]bool{}, times: map[string]string{}, zone: time.UTC,
	}
	err := errors.Join(f.readShape(file), f.readColumns(file), f.readEvent(file))
	if err != nil {
		return nil, err
	}
	// What stands in the file otherwise (comments, order, blanks) changes no id.
	canonical, err := json.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("fingerprint: %w", err)
	}
	f.fingerprint = sha256.Sum256(canonical)
	return f, nil
}

func (f *Format) readShape(file formatFile) error {
	var errs []error
	switch file.Format {
	case formatCSV:
		f.comma = ','
		if file.Delimiter != "" {
			r, n := utf8.DecodeRuneInString(file.Delimiter)
			if n != len(file.Delimiter) || r == '"' || r == '\r' || r == '\n' || r == utf8.RuneError {
				errs = append(errs, fmt.Errorf("delimiter: want one character, found %q", file.Delimiter))
			}
			f.comma = r
		}
	case formatSpace, formatJSON:
		if file.Delimiter != "" {
			errs = append(errs, fmt.Errorf("delimiter: only for format csv"))
		}
	default:
		errs = append(errs, fmt.Errorf("format: want csv, space or json, found %q", file.Format))
	}
	if file.Format == formatJSON && (file.Header || len(file.Columns)+len(file.Numbers)+len(file.Times) > 0) {
		errs = append(errs, fmt.Errorf("header, columns, numbers and times: not for format json, whose rows name their fields"))
	}
	if file.Format != formatJSON && !file.Header && len(file.Columns) == 0 {
		errs = append(errs, fmt.Errorf("columns: want their names, or header: true if the first line of the file has them"))
	}
	return errors.Join(errs...)
}

func (f *Format) readColumns(file formatFile) error {
	errs := checkColumns(file.Columns)
	known := func(field, name string) {
		if len(file.Columns) > 0 && !slices.Contains(file.Columns, name) {
			errs = append(errs, fmt.Errorf("%s: no column is called %q", field, name))
		}
	}
	for _, name := range file.Numbers {
		known("numbers", name)
		f.numbers[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(file.Times)) {
		known("times", name)
		layout, err := layoutOf(file.Times[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("times.%s: %w", name, err))
		}
		f.times[name] = layout
		if f.numbers[name] {
			errs = append(errs, fmt.Errorf("times.%s: is among the numbers too", name))
		}
	}
	if file.Zone != "" {
		zone, err := time.LoadLocation(file.Zone)
		if err != nil {
			errs = append(errs, fmt.Errorf("zone: want a name such as Europe/Warsaw, found %q", file.Zone))
		}
		f.zone = zone
	}
	return errors.Join(errs...)
}

func checkColumns(names []string) []error {
	var errs []error
	for i, name := range names {
		switch {
		case name == "":
			errs = append(errs, fmt.Errorf("columns: number %d has no name", i+1))
		case name == rowColumn:
			errs = append(errs, fmt.Errorf("columns: %q is the name of what Weft adds to every row", name))
		case slices.Contains(names[:i], name):
			errs = append(errs, fmt.Errorf("columns: %q stands twice", name))
		}
	}
	return errs
}

func (f *Format) readEvent(file formatFile) error {
	if len(file.Event) == 0 {
		return fmt.Errorf("event: want event fields and the columns they come from, such as userId: $.customer")
	}
	m, err := inlet.CompileMapping(file.Event)
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	f.mapping = m
	return nil
}

// layoutOf turns a pattern such as YYYY-MM-DD hh:mm:ss into a layout of package time.
func layoutOf(pattern string) (string, error) {
	layout := strings.NewReplacer("YYYY", "2006", "MM", "01", "DD", "02", "hh", "15", "mm", "04", "ss", "05").Replace(pattern)
	if !strings.Contains(layout, "2006") || !strings.Contains(layout, "01") || !strings.Contains(layout, "02") {
		return "", fmt.Errorf("want a pattern of YYYY, MM, DD, hh, mm and ss, such as YYYY-MM-DD hh:mm:ss, found %q", pattern)
	}
	return layout, nil
}

// object is the JSON object of a row of columns, for the mapping to read. An empty column is null.
func (f *Format) object(columns, fields []string, id string, occurrence uint32) ([]byte, error) {
	if len(fields) != len(columns) {
		return nil, fmt.Errorf("has %d columns, want %d", len(fields), len(columns))
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range columns {
		value, err := f.value(name, fields[i])
		if err != nil {
			return nil, err
		}
		writeString(&b, name)
		b.WriteByte(':')
		b.WriteString(value)
		b.WriteByte(',')
	}
	fmt.Fprintf(&b, `%q:{"id":%q,"occurrence":%d}}`, rowColumn, id, occurrence)
	return b.Bytes(), nil
}

func (f *Format) value(name, text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "null", nil
	}
	if f.numbers[name] {
		return number(name, text)
	}
	if layout := f.times[name]; layout != "" {
		t, err := time.ParseInLocation(layout, text, f.zone)
		if err != nil {
			return "", fmt.Errorf("column %s: %q is no time of the pattern given", name, text)
		}
		text = t.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	var b bytes.Buffer
	writeString(&b, text)
	return b.String(), nil
}

// number is text as a JSON number, its digits as they came but for zeros and a plus in front.
func number(name, text string) (string, error) {
	s := strings.TrimPrefix(text, "+")
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for len(s) > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9' {
		s = s[1:]
	}
	if strings.HasPrefix(s, ".") {
		s = "0" + s
	}
	n := json.Number(sign + s)
	if s == "" || (s[0] < '0' || s[0] > '9') || !json.Valid([]byte(n)) {
		return "", fmt.Errorf("column %s: %q is not a number", name, text)
	}
	return n.String(), nil
}

// writeString writes a JSON string; bytes that are not UTF-8 become U+FFFD.
func writeString(b *bytes.Buffer, s string) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into memory cannot be refused
	b.Truncate(b.Len() - 1)
}
