package stream

import (
	"encoding/binary"
	"unsafe"

	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	recordBytes = int(unsafe.Sizeof(Record{}))
	headerBytes = int(unsafe.Sizeof(topic.Header{}))
	// keptRecords is how much memory for records is kept, and for their headers as much again.
	keptRecords = 1 << 20
	// maxNames bounds the header keys that a parser remembers, so that a producer with random keys cannot
	// grow it.
	maxNames = 64
)

// record reads the record that begins at b[at] into r, its offset relative to the batch's. It returns where
// the next one begins, or -1 if this one does not parse, and the timestamp relative to the batch's first.
func (p *parser) record(b []byte, at int, r *Record) (int, int64) {
	size, at := varint(b, at)
	if at < 0 || size < 0 || size > int64(len(b)-at) {
		return -1, 0
	}
	end := at + int(size)
	b = b[:end:end]
	delta, at := varint(b, at+1) // behind the attributes, of which none are defined
	if at < 0 {
		return -1, 0
	}
	if r.Offset, at = varint(b, at); at < 0 {
		return -1, 0
	}
	if r.Key, at = nullable(b, at); at < 0 {
		return -1, 0
	}
	if r.Value, at = nullable(b, at); at < 0 {
		return -1, 0
	}
	n, at := varint(b, at)
	if at < 0 || n > int64((end-at)/minHeader) {
		return -1, 0
	}
	if r.Headers = nil; n > 0 {
		if at = p.headers(b, at, r, int(n)); at < 0 {
			return -1, 0
		}
	}
	if at != end {
		return -1, 0
	}
	return end, delta
}

// headers reads n headers from b[at] on, and returns where they end.
func (p *parser) headers(b []byte, at int, r *Record, n int) int {
	like := p.slots.last
	r.Headers = p.slots.take(n)
	for i := range r.Headers {
		h, size := &r.Headers[i], short(b, at)
		if at++; size < 0 {
			if size, at = length(b, at-1); size < 0 {
				return -1
			}
		}
		if size > len(b)-at {
			return -1
		}
		key := b[at : at+size]
		if i < len(like) && like[i].Key == string(key) { // records of one producer have the same headers
			h.Key = like[i].Key
		} else {
			h.Key = p.name(key)
		}
		at += size
		size = short(b, at)
		if at++; size < 0 || size > len(b)-at {
			if h.Value, at = nullable(b, at-1); at < 0 {
				return -1
			}
			continue
		}
		h.Value = b[at : at+size : at+size]
		at += size
	}
	return at
}

// name returns a header key as a string; keys repeat, so they are remembered.
func (p *parser) name(b []byte) string {
	if s, ok := p.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(p.names) < maxNames {
		p.names[s] = s
	}
	return s
}

// slots is the memory of headers.
type slots struct {
	all   []topic.Header
	used  int
	given int            // since reset
	last  []topic.Header // given out last
}

func (s *slots) reset() {
	if len(s.all) > keptRecords/headerBytes {
		s.all = nil
	}
	s.used, s.given = 0, 0
}

// take returns n headers to be filled.
func (s *slots) take(n int) []topic.Header {
	if n > len(s.all)-s.used {
		// Those given out stay where they are; the next Fetch has room for all.
		s.all, s.used = make([]topic.Header, max(n, 2*len(s.all))), 0
	}
	s.last = s.all[s.used : s.used+n : s.used+n]
	s.used += n
	s.given += n
	return s.last
}

// short is a length that takes one byte, as most do; -1: it is another varint. It is inlined, varint is not.
func short(b []byte, at int) int {
	if uint(at) < uint(len(b)) && b[at]&0x81 == 0 {
		return int(b[at] >> 1)
	}
	return -1
}

// varint reads one of Kafka's zigzag varints, which are Go's, and returns where it ends, or -1.
func varint(b []byte, at int) (int64, int) {
	if at >= len(b) {
		return 0, -1
	}
	if b[at] < 0x80 {
		return int64(b[at]>>1) ^ -int64(b[at]&1), at + 1
	}
	x, n := binary.Varint(b[at:])
	if n <= 0 {
		return 0, -1
	}
	return x, at + n
}

// length reads the length of bytes, and returns where it ends; -1 if it is none.
func length(b []byte, at int) (int, int) {
	n, at := varint(b, at)
	if at < 0 || n < 0 || n > int64(len(b)-at) {
		return -1, -1
	}
	return int(n), at
}

// nullable reads bytes behind their length, of which -1 means null, and returns where they end, or -1.
func nullable(b []byte, at int) ([]byte, int) {
	n, from := varint(b, at)
	switch {
	case from > 0 && n == -1:
		return nil, from
	case from < 0 || n < 0 || n > int64(len(b)-from):
		return nil, -1
	}
	end := from + int(n)
	return b[from:end:end], end
}

func i64(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } //nolint:gosec // bits
