package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
)

// maxLine bounds one line: more than the door takes in one request.
const maxLine = 4 << 20

// maxEvent is the door's default limit of an event (collector.max_event_bytes). The door takes a larger one
// without complaint and puts it on events.rejected; here its line can be named.
const maxEvent = 900_000

// chainBytes is how much of the running hash over all rows is kept: it tells a changed file from one with
// lines added, not a forger from an honest one.
const chainBytes = 8

// row is one line of the file, or one record of a CSV file that goes over several.
type row struct {
	number int64 // from 1, of what can become an event: blank lines and the header are none
	line   int64 // first line of it, from 1
	offset int64 // bytes of the file, unpacked, up to its end
	chain  [chainBytes]byte
	event  []byte // nil if fault
	key    []byte // what keeps its order: the sender's own id
	fault  error  // why it cannot become an event
}

// rows reads a file. It gives each row an id that depends only on the mapping, the row's content and how
// many equal rows stand before it: so a file replayed twice, or with rows added, gives the same ids, and
// equal rows stay distinct.
type rows struct {
	format     *Format // nil: Segment-shaped JSON lines
	historical bool
	records    source
	columns    []string
	number     int64
	chain      [chainBytes]byte
	seen       map[uint64]uint32 // equal rows by 64 bits of their hash; a collision only skips a number
}

// record is a row as it stands in the file.
type record struct {
	line, offset int64
	text         []byte   // of a JSON line
	fields       []string // of a row of columns
	fault        error
}

// source gives the records of a file one after the other, at its end io.EOF.
type source interface{ next() (record, error) }

func newRows(r io.Reader, format *Format, historical bool) (*rows, error) {
	x := &rows{format: format, historical: historical, seen: map[uint64]uint32{}}
	in := bufio.NewReaderSize(r, 1<<16)
	if bom, err := in.Peek(3); err == nil && bytes.Equal(bom, []byte("\xEF\xBB\xBF")) {
		_, _ = in.Discard(3) // was peeked at
	}
	switch {
	case format == nil || format.kind == formatJSON:
		x.records = &lineSource{in: in}
	case format.kind == formatSpace:
		x.records = &lineSource{in: in, split: true}
	default:
		c := csv.NewReader(in)
		c.Comma, c.FieldsPerRecord = format.comma, -1
		x.records = &csvSource{in: c}
	}
	if format == nil {
		return x, nil
	}
	x.columns = format.columns
	if !format.header {
		return x, nil
	}
	first, err := x.records.next()
	if err != nil {
		return nil, fmt.Errorf("read the header line: %w", err)
	}
	if len(x.columns) == 0 {
		for _, name := range first.fields {
			x.columns = append(x.columns, strings.TrimSpace(name))
		}
		if err := errors.Join(checkColumns(x.columns)...); err != nil {
			return nil, fmt.Errorf("header line: %w", err)
		}
	}
	return x, nil
}

// next returns the next row, at the end of the file io.EOF.
func (x *rows) next() (row, error) {
	rec, err := x.records.next()
	if err != nil {
		return row{}, err
	}
	x.number++
	sum := x.hash(rec)
	chained := sha256.Sum256(append(x.chain[:], sum[:]...))
	copy(x.chain[:], chained[:])
	r := row{number: x.number, line: rec.line, offset: rec.offset, chain: x.chain, fault: rec.fault}
	if r.fault == nil {
		r.event, r.key, r.fault = x.event(rec, sum)
	}
	return r, nil
}

// hash is that of the mapping and the row's content. Line ends do not count.
func (x *rows) hash(rec record) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("weft replay 1\x00"))
	if x.format != nil {
		h.Write(x.format.fingerprint[:])
	}
	var n [binary.MaxVarintLen64]byte
	part := func(s []byte) {
		h.Write(n[:binary.PutUvarint(n[:], uint64(len(s)))])
		h.Write(s)
	}
	part(rec.text)
	for _, f := range rec.fields {
		part([]byte(f))
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}

func (x *rows) event(rec record, sum [sha256.Size]byte) (body, key []byte, err error) {
	body = rec.text
	id := ""
	if x.format != nil && x.format.kind != formatJSON {
		n := x.occurrence(sum)
		id = rowID(sum, n)
		if body, err = x.format.object(x.columns, rec.fields, id, n); err != nil {
			return nil, nil, err
		}
	}
	if x.format != nil {
		if body, err = x.format.mapping.Event(body); err != nil {
			return nil, nil, err
		}
	}
	var fill event.Filling
	if id != "" {
		fill.MessageID = func() string { return id }
	}
	if x.historical {
		fill.Context = []byte(`{"historical":true}`)
	}
	if body, err = event.Compose(body, fill); err != nil {
		return nil, nil, err
	}
	e, err := event.Decode(body, event.Meta{})
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		return nil, nil, err
	}
	if e.MessageID == "" {
		own := func() string { return rowID(sum, x.occurrence(sum)) }
		if body, err = event.Compose(body, event.Filling{MessageID: own}); err != nil {
			return nil, nil, err
		}
	}
	if len(body) > maxEvent {
		return nil, nil, &event.Error{Reason: event.TooLarge, Detail: fmt.Sprintf("the event has %d bytes, at most %d", len(body), maxEvent)}
	}
	return body, e.Key(), nil
}

// occurrence is how many rows of that hash came before.
func (x *rows) occurrence(sum [sha256.Size]byte) uint32 {
	short := binary.BigEndian.Uint64(sum[:])
	n := x.seen[short]
	x.seen[short] = n + 1
	return n
}

// rowID is a UUIDv8 of the row's hash and its occurrence.
func rowID(sum [sha256.Size]byte, occurrence uint32) string {
	h := sha256.Sum256(binary.BigEndian.AppendUint32(sum[:], occurrence))
	var id uuid.UUID
	copy(id[:], h[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// lineSource reads lines, whole or split at blanks. Blank ones are left out.
type lineSource struct {
	in     *bufio.Reader
	split  bool
	line   int64
	offset int64
}

func (s *lineSource) next() (record, error) {
	for {
		text, n, err := s.read()
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return record{}, err // also of a line cut short: its beginning is no row
		}
		s.line++
		s.offset += n
		rec := record{line: s.line, offset: s.offset}
		if n > maxLine {
			rec.fault = fmt.Errorf("the line has %d bytes, at most %d", n, maxLine)
			return rec, nil
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if s.split {
			rec.fields = strings.Fields(string(text))
		} else {
			rec.text = text
		}
		return rec, nil
	}
}

// read returns the next line and how many bytes of the file it takes. Of one longer than maxLine only the
// length is kept. The last line may come with io.EOF.
func (s *lineSource) read() (text []byte, n int64, err error) {
	for {
		part, err := s.in.ReadSlice('\n')
		n += int64(len(part))
		if n <= maxLine {
			text = append(text, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return text, n, err
	}
}

// csvSource reads RFC 4180.
type csvSource struct{ in *csv.Reader }

func (s *csvSource) next() (record, error) {
	fields, err := s.in.Read()
	if bad, ok := errors.AsType[*csv.ParseError](err); ok {
		return record{line: int64(bad.StartLine), offset: s.in.InputOffset(), fields: slices.Clone(fields), fault: bad.Err}, nil
	}
	if err != nil {
		return record{}, err
	}
	line, _ := s.in.FieldPos(0)
	return record{line: int64(line), offset: s.in.InputOffset(), fields: fields}, nil
}

// opened is a file to replay, unpacked on the way if its content is gzip.
type opened struct {
	io.Reader
	file *os.File
	size int64
	read *counter // bytes of the file as it stands on the disk
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func open(path string) (*opened, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("open the file to replay: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at the file to replay: %w", err), f.Close())
	}
	o := &opened{file: f, size: info.Size(), read: &counter{r: f}}
	in := bufio.NewReaderSize(o.read, 1<<16)
	o.Reader = in
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		if o.Reader, err = gzip.NewReader(in); err != nil {
			return nil, errors.Join(fmt.Errorf("unpack %s: %w", path, err), f.Close())
		}
	}
	return o, nil
}
