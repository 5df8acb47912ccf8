package keyed

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/weft-cdp/weft/pkg/packed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// entryVersion begins every entry of an outbox and of the moves: a newer binary reads the older, an older one
// refuses.
const entryVersion = 1

const (
	entryPass      = 1 // the value is that of the input record at an offset
	entryTombstone = 2
)

// encodeOutput encodes an outbox entry. in is the input record of a passed-through one: its headers are
// not stored again.
func encodeOutput(o *Output, in *Record) []byte {
	return appendOutput(make([]byte, 0, 64+len(o.Value)), o, in)
}

func appendOutput(b []byte, o *Output, in *Record) []byte {
	b = append(b, entryVersion)
	var flags byte
	if o.PassThrough {
		flags |= entryPass
	} else if o.Value == nil {
		flags |= entryTombstone
	}
	b = append(b, flags)
	b = packed.AppendString(b, o.Topic)
	b = packed.AppendString(b, o.Key)
	hs := o.Headers
	if o.PassThrough && in != nil {
		same := func(h topic.Header) bool { return has(in.Headers, h) }
		if slices.ContainsFunc(hs, same) {
			hs = slices.DeleteFunc(slices.Clone(hs), same)
		}
	}
	b = appendHeaders(b, hs)
	if o.PassThrough {
		return packed.AppendInt(b, o.Offset)
	}
	return append(b, o.Value...)
}

// has says whether the first header of h's key is h.
func has(hs []topic.Header, h topic.Header) bool {
	for i := range hs {
		if hs[i].Key == h.Key {
			return bytes.Equal(hs[i].Value, h.Value)
		}
	}
	return false
}

func decodeOutput(b []byte) (Output, error) {
	if len(b) < 2 {
		return Output{}, errCorrupt
	}
	if b[0] > entryVersion {
		return Output{}, fmt.Errorf("%w: outbox version %d, known %d", ErrNewerState, b[0], entryVersion)
	}
	flags := b[1]
	d := packed.Read(b[2:])
	o := Output{Topic: d.String(), Key: d.String(), Headers: readHeaders(&d)}
	switch {
	case flags&entryPass != 0:
		o.PassThrough, o.Offset = true, d.Int()
	case flags&entryTombstone == 0:
		o.Value = append([]byte{}, d.Rest()...)
	}
	return o, d.Err()
}

// move is a change for a key of another slot: the payload of a frozen key, or a late record of it.
type move struct {
	seq    int64  // in the origin's slot; set by position in the list
	origin string // the frozen key
	late   *Record
}

func encodeMove(m *move) []byte {
	b := packed.AppendString([]byte{entryVersion}, m.origin)
	if m.late == nil {
		return b
	}
	r := m.late
	b = packed.AppendString(b, r.Topic)
	b = packed.AppendInt(b, int64(r.Partition))
	b = packed.AppendInt(b, r.Offset)
	b = appendHeaders(b, r.Headers)
	return append(b, r.Value...)
}

func decodeMove(b []byte) (*move, error) {
	if len(b) == 0 {
		return nil, errCorrupt
	}
	if b[0] > entryVersion {
		return nil, fmt.Errorf("%w: move version %d, known %d", ErrNewerState, b[0], entryVersion)
	}
	d := packed.Read(b[1:])
	m := &move{origin: d.String()}
	if d.Err() != nil || d.Left() == 0 {
		return m, d.Err()
	}
	var r Record
	r.Topic = d.String()
	r.Partition, r.Offset = int(d.Int()), d.Int()
	r.Headers = readHeaders(&d)
	r.Key, r.Value = []byte(m.origin), d.Rest()
	if d.Err() != nil {
		return nil, d.Err()
	}
	rec, err := parseRecord(r.Record)
	if err != nil {
		return nil, err
	}
	m.late = &rec
	return m, nil
}

func appendHeaders(b []byte, hs []topic.Header) []byte {
	b = packed.AppendLen(b, len(hs))
	for _, h := range hs {
		b = packed.AppendString(b, h.Key)
		b = packed.AppendString(b, h.Value)
	}
	return b
}

func readHeaders(d *packed.Reader) []topic.Header {
	n := d.Len(2)
	hs := make([]topic.Header, 0, n)
	for range n {
		hs = append(hs, topic.Header{Key: d.String(), Value: []byte(d.String())})
	}
	return hs
}
