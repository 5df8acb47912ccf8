package keyed

import (
	"crypto/rand"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/weft-cdp/weft/pkg/packed"
)

// A stored state begins with a version byte: a newer binary reads the older, an older one refuses. A cell
// without blocked origins is written as version 1, which a binary of before them reads, and one that neither is gone
// nor waits for what is told again as version 2 at most.
const (
	cellPlain   = 1
	cellBlocked = 2
	cellVersion = 3
)

// revLen is the length of a revision, which stands right behind the version byte of a stored state.
const revLen = 8

// cell is a state as it lies in Redis: live, frozen with a pointer to the key it was merged into, or frozen and gone.
type cell struct {
	rev       string // as read; "" if the key was never written
	frozen    bool
	delivered bool             // frozen: the payload has arrived
	gone      bool             // frozen: it was split or erased, and takes nothing in any more
	waiting   bool             // live: what was before it is still being told again
	forward   string           // frozen: the key it was merged into; gone: where readers look on, if anywhere
	moveSeq   int64            // frozen: the move that carries the payload
	notes     map[string]int64 // origin key -> highest move of it that is in
	blocked   map[string]int64 // origin key -> the move of its payload, which can not be merged for now
	body      []byte           // encoded S, empty for the zero S; frozen: the payload until delivered
	bodyVer   int
}

const (
	flagFrozen    = 1
	flagDelivered = 2
	flagBlocked   = 4
	flagGone      = 8
	flagWaiting   = 16
)

// newRevision makes a revision that never repeats: 64 random bits. Only a repeat within one key's own
// history could do harm, while a request of the past is still on its way; so all states of one script, which
// writes a key once, may share one.
func newRevision() [revLen]byte {
	var b [revLen]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return b
}

// appendHead appends all of a cell but the body.
func (c *cell) appendHead(b []byte, rev [revLen]byte) []byte {
	version, flags := byte(cellPlain), byte(0)
	if c.frozen {
		flags |= flagFrozen
	}
	if c.delivered {
		flags |= flagDelivered
	}
	if len(c.blocked) > 0 {
		version, flags = cellBlocked, flags|flagBlocked
	}
	if c.gone {
		version, flags = cellVersion, flags|flagGone
	}
	if c.waiting {
		version, flags = cellVersion, flags|flagWaiting
	}
	b = append(b, version)
	b = append(b, rev[:]...)
	b = append(b, flags)
	if c.frozen {
		b = packed.AppendString(b, c.forward)
		b = packed.AppendInt(b, c.moveSeq)
	}
	b = appendNotes(b, c.notes)
	if len(c.blocked) > 0 {
		b = appendNotes(b, c.blocked)
	}
	return packed.AppendLen(b, c.bodyVer)
}

func (c *cell) encode() []byte {
	return append(c.appendHead(make([]byte, 0, 64+len(c.body)), newRevision()), c.body...)
}

func appendNotes(b []byte, notes map[string]int64) []byte {
	b = packed.AppendLen(b, len(notes))
	if len(notes) == 0 {
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(notes)) {
		b = packed.AppendString(b, k)
		b = packed.AppendInt(b, notes[k])
	}
	return b
}

func decodeCell(b []byte) (*cell, error) {
	c := new(cell)
	return c, c.decode(b)
}

// decode reads into a cell, whose body shares b.
func (c *cell) decode(b []byte) error {
	*c = cell{}
	if len(b) == 0 {
		return nil
	}
	if b[0] > cellVersion {
		return fmt.Errorf("%w: cell version %d, known %d", ErrNewerState, b[0], cellVersion)
	}
	if len(b) < 1+revLen+1 {
		return errCorrupt
	}
	c.rev = string(b[1 : 1+revLen])
	flags := b[1+revLen]
	c.frozen, c.delivered = flags&flagFrozen != 0, flags&flagDelivered != 0
	c.gone, c.waiting = flags&flagGone != 0, flags&flagWaiting != 0
	d := packed.Read(b[2+revLen:])
	if c.frozen {
		c.forward, c.moveSeq = d.String(), d.Int()
	}
	c.notes = readNotes(&d)
	if flags&flagBlocked != 0 {
		c.blocked = readNotes(&d)
	}
	c.bodyVer = int(d.Uint()) //nolint:gosec // checked by the reader of the body
	c.body = d.Rest()
	return d.Err()
}

func readNotes(d *packed.Reader) map[string]int64 {
	n := d.Len(2)
	if n == 0 {
		return nil
	}
	notes := make(map[string]int64, n)
	for range n {
		k := d.String()
		notes[k] = d.Int()
	}
	return notes
}

var errCorrupt = packed.ErrCorrupt

// appendBody appends a state; the zero encoding stands for the zero state.
func appendBody[S any](b []byte, s *S) ([]byte, error) {
	var err error
	switch m := any(s).(type) {
	case encoding.BinaryAppender:
		b, err = m.AppendBinary(b)
	case encoding.BinaryMarshaler:
		var text []byte
		text, err = m.MarshalBinary()
		b = append(b, text...)
	default:
		var text []byte
		text, err = json.Marshal(s)
		b = append(b, text...)
	}
	if err != nil {
		return b, fmt.Errorf("encode state: %w", err)
	}
	return b, nil
}

func decodeBody[S any](b []byte, version, known int) (*S, error) {
	s := new(S)
	return s, decodeBodyInto(s, b, version, known)
}

// decodeBodyInto reads a state into s, which is zero.
func decodeBodyInto[S any](s *S, b []byte, version, known int) error {
	if version > known {
		return fmt.Errorf("%w: version %d, known %d", ErrNewerState, version, known)
	}
	if len(b) == 0 {
		return nil
	}
	var err error
	if m, ok := any(s).(encoding.BinaryUnmarshaler); ok {
		err = m.UnmarshalBinary(b)
	} else {
		err = json.Unmarshal(b, s)
	}
	if errors.Is(err, packed.ErrNewer) {
		return fmt.Errorf("%w: %w", ErrNewerState, err)
	}
	if err != nil {
		return fmt.Errorf("decode state: %w", err)
	}
	return nil
}
