package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"
)

// valueVersion is the first byte of every stored value.
const valueVersion = 1

// Flags of a value: its second byte.
const (
	flagLinked    = 1 << 0 // parent and link follow
	flagJoining   = 1 << 1 // target follows
	flagConfirmed = 1 << 2 // the link's merge is known to be in Kafka
	flagsKnown    = flagLinked | flagJoining | flagConfirmed
)

// nodeBytes is the length of a node in a value.
const nodeBytes = 16

// value is what the store holds for a node. A node that was never linked has none: it is a root with itself
// as its only member. Values are immutable once decoded or stored.
//
// Encoding, version 1: version byte, flags byte, revision (8 bytes); linked: parent, link (16 bytes each);
// joining: target (16 bytes); either: cause = source, message id, rule (each uvarint length and bytes), time
// (varint, ms), number of evidence (uvarint), each type, value (as above), node (16 bytes); then the number of
// members (uvarint) and the members, 16 bytes each, ascending.
type value struct {
	raw       []byte // as stored; nil: there is no value
	revision  [8]byte
	linked    bool
	joining   bool
	confirmed bool
	parent    Node // linked: where the way to the root goes on; compression moves it
	link      Node // linked: the first parent, which the merge names; never changed
	target    Node // joining: somebody in the component to join
	cause     Cause
	evidence  []Identifier // gone once confirmed: Kafka has it, Redis need not keep personal data
	members   []byte       // packed nodes, ascending, self included; frozen once joining or linked
}

// absent is the value of a node that the store has none for.
func absent(n Node) *value { return &value{members: append([]byte(nil), n[:]...)} }

func (v *value) size() int { return len(v.members) / nodeBytes }

func (v *value) member(i int) Node { return Node(v.members[i*nodeBytes : (i+1)*nodeBytes]) }

// has says whether n is listed as a member.
func (v *value) has(n Node) bool {
	i := sort.Search(v.size(), func(i int) bool { return bytes.Compare(v.members[i*nodeBytes:(i+1)*nodeBytes], n[:]) >= 0 })
	return i < v.size() && v.member(i) == n
}

// unionMembers merges two packed, ascending lists.
func unionMembers(a, b []byte) []byte {
	out := make([]byte, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		c := bytes.Compare(a[:nodeBytes], b[:nodeBytes])
		if c <= 0 {
			out = append(out, a[:nodeBytes]...)
			a = a[nodeBytes:]
			if c == 0 {
				b = b[nodeBytes:]
			}
			continue
		}
		out = append(out, b[:nodeBytes]...)
		b = b[nodeBytes:]
	}
	return append(append(out, a...), b...)
}

// encode writes v.
func (v *value) encode() []byte {
	b := make([]byte, 0, 128+len(v.members))
	var flags byte
	if v.linked {
		flags |= flagLinked
	}
	if v.joining {
		flags |= flagJoining
	}
	if v.confirmed {
		flags |= flagConfirmed
	}
	b = append(b, valueVersion, flags)
	b = append(b, v.revision[:]...)
	if v.linked {
		b = append(b, v.parent[:]...)
		b = append(b, v.link[:]...)
	}
	if v.joining {
		b = append(b, v.target[:]...)
	}
	if v.linked || v.joining {
		b = appendText(b, v.cause.Source)
		b = appendText(b, v.cause.MessageID)
		b = appendText(b, string(v.cause.Rule))
		b = binary.AppendVarint(b, v.cause.Time.UnixMilli())
		b = binary.AppendUvarint(b, uint64(len(v.evidence)))
		for _, e := range v.evidence {
			b = appendText(b, e.Type)
			b = appendText(b, e.Value)
			b = append(b, e.Node[:]...)
		}
	}
	b = binary.AppendUvarint(b, uint64(v.size())) //nolint:gosec // never negative
	return append(b, v.members...)
}

// stamp draws a revision, which no value ever had before, and encodes v.
func (v *value) stamp() error {
	if _, err := rand.Read(v.revision[:]); err != nil {
		return fmt.Errorf("draw a revision: %w", err)
	}
	v.raw = v.encode()
	return nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads the value of node n; nil bytes are the absent value. The members alias raw.
func decode(n Node, raw []byte) (*value, error) {
	if raw == nil {
		return absent(n), nil
	}
	v, err := decodeValue(raw)
	if err != nil {
		return nil, fmt.Errorf("value of node %s: %w", n, err)
	}
	switch {
	case !v.has(n):
		err = fmt.Errorf("%w: it does not list itself", ErrCorrupt)
	case v.linked && (!v.parent.Before(n) || !v.link.Before(n) || v.link.Before(v.parent)):
		err = fmt.Errorf("%w: it is linked to a later node", ErrCorrupt)
	case v.joining && !v.target.Before(n):
		err = fmt.Errorf("%w: it is joining a later node", ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("value of node %s: %w", n, err)
	}
	return v, nil
}

// decodeValue reads what encode wrote, and nothing else.
func decodeValue(raw []byte) (*value, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrCorrupt)
	}
	if raw[0] != valueVersion {
		if raw[0] > valueVersion {
			return nil, fmt.Errorf("%w: %d, known %d", ErrNewerVersion, raw[0], valueVersion)
		}
		return nil, fmt.Errorf("%w: version %d", ErrCorrupt, raw[0])
	}
	d := decoder{b: raw[1:]}
	v := &value{raw: raw}
	flags := d.take(1)[0]
	v.linked, v.joining, v.confirmed = flags&flagLinked != 0, flags&flagJoining != 0, flags&flagConfirmed != 0
	if flags&^flagsKnown != 0 || v.linked && v.joining || v.confirmed && !v.linked {
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
		v.cause = Cause{Source: d.text(), MessageID: d.text(), Rule: Rule(d.text()), Time: time.UnixMilli(d.varint()).UTC()}
		for range d.count(nodeBytes + 2) {
			v.evidence = append(v.evidence, Identifier{Type: d.text(), Value: d.text(), Node: d.node()})
		}
	}
	count := d.count(nodeBytes)
	v.members = d.take(count * nodeBytes)
	if d.bad || len(d.b) > 0 || count == 0 {
		return nil, fmt.Errorf("%w: %d bytes cut short or with a rest", ErrCorrupt, len(raw))
	}
	for i := range count {
		if m := v.member(i); !m.valid() || i > 0 && !v.member(i-1).Before(m) {
			return nil, fmt.Errorf("%w: member %d", ErrCorrupt, i)
		}
	}
	return v, nil
}

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

// count reads a number of things of at least size bytes each.
func (d *decoder) count(size int) int {
	x, n := binary.Uvarint(d.b)
	if n <= 0 || x > math.MaxInt32 || int(x) > (len(d.b)-n)/size {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return int(x)
}

func (d *decoder) text() string { return string(d.take(d.count(1))) }

// sorted orders identifiers by node, without repeats, in a copy.
func sorted(ids []Identifier) []Identifier {
	out := slices.Clone(ids)
	slices.SortStableFunc(out, func(a, b Identifier) int { return a.Node.Compare(b.Node) })
	return slices.CompactFunc(out, func(a, b Identifier) bool { return a.Node == b.Node })
}
