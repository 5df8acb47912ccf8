package identity

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Flags of version 1.
const (
	flagsVersion1 = flagLinked | flagJoining | flagConfirmed
)

// decodeVersion1 reads a value as Weft wrote it before there were limits: version byte, flags byte, revision (8 bytes);
// linked: parent, link; joining: target; either: cause and evidence, as in version 2; then the number of members and the
// members. Days were not kept: they read as 0, long ago.
func decodeVersion1(raw []byte) (*value, error) {
	d := decoder{b: raw[1:]}
	v := &value{raw: raw}
	flags := d.take(1)[0]
	v.linked, v.joining, v.confirmed = flags&flagLinked != 0, flags&flagJoining != 0, flags&flagConfirmed != 0
	if flags&^flagsVersion1 != 0 || v.linked && v.joining || v.confirmed && !v.linked {
		return nil, fmt.Errorf("%w: flags %#x", ErrCorrupt, flags)
	}
	copy(v.revision[:], d.take(len(v.revision)))
	if v.linked {
		v.parent, v.link = d.node(), d.node()
	}
	if v.joining {
		v.target = d.node()
	}
	if v.linked || v.joining {
		v.cause, v.evidence = d.cause()
		v.trusted = v.joining // nobody was judged then: what was begun is completed
	}
	if v.confirmed {
		v.cause, v.evidence = Cause{}, nil
	}
	count := d.count(nodeBytes)
	v.members = d.take(count * nodeBytes)
	if d.bad || len(d.b) > 0 || count == 0 {
		return nil, fmt.Errorf("%w: %d bytes cut short or with a rest", ErrCorrupt, len(raw))
	}
	return v, v.ordered()
}

// maxCount bounds a count that is read: nothing that Weft counts in a value comes near.
const maxCount = math.MaxInt32

// decoder reads from b and remembers that it ran short, so that callers check once.
type decoder struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, or n zero bytes (at most a small field's worth) if there are not so many.
func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, min(n, nodeBytes))
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) node() Node { return Node(d.take(nodeBytes)) }

func (d *decoder) varint() int64 {
	x, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) uvarint() uint64 {
	x, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) time() time.Time { return time.UnixMilli(d.varint()).UTC() }

// count reads a number of things of at least size bytes each.
func (d *decoder) count(size int) int {
	x, n := binary.Uvarint(d.b)
	if n <= 0 || x > maxCount || int(x) > (len(d.b)-n)/size {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return int(x)
}

func (d *decoder) text() string { return string(d.take(d.count(1))) }

// cause reads a cause and its evidence.
func (d *decoder) cause() (Cause, []Identifier) {
	c := Cause{Source: d.text(), MessageID: d.text(), Rule: Rule(d.text()), Time: d.time()}
	var evidence []Identifier
	for range d.count(nodeBytes + 2) {
		evidence = append(evidence, Identifier{Type: d.text(), Value: d.text(), Node: d.node()})
	}
	return c, evidence
}
