package keyed

import (
	"crypto/rand"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/weft-cdp/weft/pkg/packed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Everything stored begins with a version byte: a newer binary reads the older, an older one refuses.
const (
	cellVersion  = 1
	entryVersion = 1
)

// revLen is the length of a revision, which stands right behind the version byte of a stored state.
const revLen = 8

// cell is a state as it lies in Redis: live, or frozen with a pointer to the key it was merged into.
type cell struct {
	rev       string // as read; "" if the key was never written
	frozen    bool
	delivered bool             // frozen: the payload has arrived
	forward   string           // frozen: the key it was merged into
	moveSeq   int64            // frozen: the move that carries the payload
	notes     map[string]int64 // origin key -> highest move of it that is in
	body      []byte           // encoded S, empty for the zero S; frozen: the payload until delivered
	bodyVer   int
}

const (
	flagFrozen    = 1
	flagDelivered = 2
)

// newRevision makes a revision that never repeats: 64 random bits. Only a repeat within one key's own
// history could do harm, while a request of the past is still on its way.
func newRevision() []byte {
	b := make([]byte, revLen)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return b
}

func (c *cell) encode() []byte {
	b := make([]byte, 0, 64+len(c.body))
	b = append(b, cellVersion)
	b = append(b, newRevision()...)
	var flags byte
	if c.frozen {
		flags |= flagFrozen
	}
	if c.delivered {
		flags |= flagDelivered
	}
	b = append(b, flags)
	if c.frozen {
		b = packed.AppendString(b, c.forward)
		b = packed.AppendInt(b, c.moveSeq)
	}
	b = packed.AppendLen(b, len(c.notes))
	for _, k := range slices.Sorted(maps.Keys(c.notes)) {
		b = packed.AppendString(b, k)
		b = packed.AppendInt(b, c.notes[k])
	}
	b = packed.AppendLen(b, c.bodyVer)
	return append(b, c.body...)
}

var errCorrupt = packed.ErrCorrupt

func decodeCell(b []byte) (*cell, error) {
	if len(b) == 0 {
		return &cell{}, nil
	}
	if b[0] > cellVersion {
		return nil, fmt.Errorf("%w: cell version %d, known %d", ErrNewerState, b[0], cellVersion)
	}
	if len(b) < 1+revLen+1 {
		return nil, errCorrupt
	}
	c := &cell{rev: string(b[1 : 1+revLen])}
	flags := b[1+revLen]
	c.frozen, c.delivered = flags&flagFrozen != 0, flags&flagDelivered != 0
	d := packed.Read(b[2+revLen:])
	if c.frozen {
		c.forward, c.moveSeq = d.String(), d.Int()
	}
	if n := d.Len(2); n > 0 {
		c.notes = make(map[string]int64, n)
		for range n {
			k := d.String()
			c.notes[k] = d.Int()
		}
	}
	c.bodyVer = int(d.Uint()) //nolint:gosec // checked by the reader of the body
	c.body = d.Rest()
	return c, d.Err()
}

// encodeBody encodes a state; the zero encoding stands for the zero state.
func encodeBody[S any](s *S) ([]byte, error) {
	if m, ok := any(s).(encoding.BinaryAppender); ok {
		b, err := m.AppendBinary(nil)
		if err != nil {
			return nil, fmt.Errorf("encode state: %w", err)
		}
		return b, nil
	}
	if m, ok := any(s).(encoding.BinaryMarshaler); ok {
		b, err := m.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("encode state: %w", err)
		}
		return b, nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return b, nil
}

func decodeBody[S any](b []byte, version, known int) (*S, error) {
	s := new(S)
	if version > known {
		return nil, fmt.Errorf("%w: version %d, known %d", ErrNewerState, version, known)
	}
	if len(b) == 0 {
		return s, nil
	}
	var err error
	if m, ok := any(s).(encoding.BinaryUnmarshaler); ok {
		err = m.UnmarshalBinary(b)
	} else {
		err = json.Unmarshal(b, s)
	}
	if err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	return s, nil
}

const (
	entryPass      = 1 // the value is that of the input record at an offset
	entryTombstone = 2
)

// encodeOutput encodes an outbox entry. in is the input record of a passed-through one: its headers are
// not stored again.
func encodeOutput(o *Output, in *Record) []byte {
	b := make([]byte, 0, 64+len(o.Value))
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
		hs = slices.DeleteFunc(slices.Clone(hs), func(h topic.Header) bool {
			v, ok := topic.Get(in.Headers, h.Key)
			return ok && v == string(h.Value)
		})
	}
	b = appendHeaders(b, hs)
	if o.PassThrough {
		return packed.AppendInt(b, o.Offset)
	}
	return append(b, o.Value...)
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
