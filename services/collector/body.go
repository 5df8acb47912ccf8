package collector

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

var (
	errBodyTooLarge = errors.New("request is too large")
	errNoRoom       = errors.New("too many bytes in flight")
	errGzip         = errors.New("gzip data is damaged")
	errIncomplete   = errors.New("request ended early")
)

const (
	// firstBuffer is what a body of unknown length begins with; most requests of browsers fit.
	firstBuffer = 4 << 10
	// maxFirstBuffer bounds what is set aside on the word of Content-Length alone: otherwise a few silent
	// connections that announce much could keep everybody out.
	maxFirstBuffer = 64 << 10
)

// reader reads request bodies. Safe for concurrent use.
type reader struct {
	buffers sync.Pool
	gzips   sync.Pool
}

// read returns the body, decompressed if its first bytes are gzip's, whatever the headers say. length is
// the declared one, -1 if unknown; most bounds the bytes as sent and decompressed. Errors: errBodyTooLarge and errGzip (with what was read up to there),
// errNoRoom, errIncomplete.
func (r *reader) read(body io.Reader, length int64, most int, room *lease) ([]byte, error) {
	limited := &io.LimitedReader{R: body, N: int64(most) + 1}
	buf, _ := r.buffers.Get().(*bufio.Reader)
	if buf == nil {
		buf = bufio.NewReaderSize(nil, firstBuffer)
	}
	buf.Reset(limited)
	defer func() {
		buf.Reset(nil)
		r.buffers.Put(buf)
	}()
	magic, err := buf.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(errIncomplete, err)
	}
	if len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		out, err := all(buf, length, most, room)
		if err != nil && !errors.Is(err, errBodyTooLarge) && !errors.Is(err, errNoRoom) {
			err = errors.Join(errIncomplete, err)
		}
		return out, err
	}
	return r.inflate(buf, limited, most, room)
}

func (r *reader) inflate(buf *bufio.Reader, limited *io.LimitedReader, most int, room *lease) ([]byte, error) {
	source := &tracked{r: buf}
	z, _ := r.gzips.Get().(*gzip.Reader)
	var err error
	if z == nil {
		z, err = gzip.NewReader(source)
	} else {
		err = z.Reset(source)
	}
	var out []byte
	if err == nil {
		out, err = all(&members{z: z, source: source}, -1, most, room)
	}
	if z != nil {
		r.gzips.Put(z)
	}
	switch {
	case err == nil || errors.Is(err, errBodyTooLarge) || errors.Is(err, errNoRoom):
		return out, err
	case limited.N <= 0:
		return out, errBodyTooLarge
	case source.err != nil && !errors.Is(source.err, io.EOF):
		return nil, errors.Join(errIncomplete, source.err)
	}
	return out, errors.Join(errGzip, err)
}

// members reads packed data of any number of members. The decompressor can do so itself, but takes data that ends within the
// header of a member for whole.
type members struct {
	z      *gzip.Reader
	source *tracked
}

func (m *members) Read(p []byte) (int, error) {
	m.z.Multistream(false)
	n, err := m.z.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if _, err := m.source.r.Peek(1); err != nil {
		if !errors.Is(err, io.EOF) {
			m.source.err = err
		}
		return n, err
	}
	if err := m.z.Reset(m.source); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	return n, nil
}

// tracked remembers an error of the connection, to tell it from one of the data.
type tracked struct {
	r   *bufio.Reader
	err error
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil {
		t.err = err
	}
	return n, err
}

// ReadByte lets the decompressor read exactly as far as it needs.
func (t *tracked) ReadByte() (byte, error) {
	c, err := t.r.ReadByte()
	if err != nil {
		t.err = err
	}
	return c, err
}

// all reads to the end, at most that many bytes.
func all(source io.Reader, length int64, most int, room *lease) ([]byte, error) {
	size, whole := firstBuffer, most+1 // one more than allowed, to see that there is more
	if length >= 0 {
		whole = int(min(length, int64(most))) + 1 // one more, to see the end without growing
		size = min(whole, maxFirstBuffer)
	}
	if !room.grow(size) {
		return nil, errNoRoom
	}
	out := make([]byte, 0, size)
	for {
		n, err := source.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if len(out) > most {
			return out[:most], errBodyTooLarge
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if len(out) == cap(out) {
			size := min(2*cap(out), most+1)
			if cap(out) < whole {
				size = min(size, whole)
			}
			if !room.grow(size) { // the old buffer lives on until the copy is made
				return nil, errNoRoom
			}
			grown := make([]byte, len(out), size)
			copy(grown, out)
			room.give(cap(out))
			out = grown
		}
	}
}
