package identity

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
)

// The first byte of a value that is written: what binaries of before splits know as well has version 2, so that a graph in
// which nothing was ever undone is theirs, too. Version 1 is read as well (decodeVersion1).
const (
	plainVersion = 2
	valueVersion = 3 // a byte of state follows the flags
)

// Flags of a value: its second byte.
const (
	flagLinked    = 1 << 0 // parent follows
	flagJoining   = 1 << 1 // target follows
	flagConfirmed = 1 << 2 // the link's merge is known to be in Kafka: no cause and no evidence follow
	flagTrusted   = 1 << 3 // the cause is a record of a trusted source
	flagApart     = 1 << 4 // link follows: compression has moved parent away from it
	flagAlone     = 1 << 5 // no members follow: the node itself is the only one
	flagOneDay    = 1 << 6 // one day follows, that of all members
	flagMore      = 1 << 7 // a second byte of flags follows
)

// Flags of a value's second byte of flags.
const (
	moreDays        = 1 << 0 // a day for each member follows
	moreDegrees     = 1 << 1 // a degree for each member follows
	moreMerges      = 1 << 2 // merges follows
	moreIncarnation = 1 << 3 // incarnation follows
	moreShared      = 1 << 4 // shared follows
	moreCuts        = 1 << 5 // cuts follow
	moreState       = 1 << 6 // a byte of state follows: version 3
	moreKnown       = 1<<7 - 1
)

// Flags of a value's byte of state.
const (
	stateBlocked  = 1 << 0
	stateOperator = 1 << 1
	stateNamed    = 1 << 2 // named follows
	stateParted   = 1 << 3 // origin follows
	stateOrder    = 1 << 4 // order follows
	stateKnown    = 1<<5 - 1
)

// nodeBytes is the length of a node in a value.
const nodeBytes = 16

// value is what the store holds for a node. A node that was never linked has none: it is a root with itself
// as its only member. Values are immutable once decoded or stored.
//
// Encoding, versions 2 and 3: version byte, flags byte, second flags byte if there is one, then a byte of state in version 3,
// revision (8 bytes). Linked: parent,
// and link if it is another node (16 bytes each); joining: target (16 bytes). Joining, or linked and not confirmed: the
// cause = source, message id, rule (each uvarint length and bytes), time (varint, ms), number of evidence (uvarint), each
// type, value (as above), node (16 bytes). Unless alone: the number of members (uvarint) and the members, 16 bytes each,
// ascending. One day of all members, or one each (2 bytes each), or none: all are 0. Then what the second flags say: a degree
// of each member (1 byte), merges (uvarint), incarnation (uvarint), shared (see sharedDevice.append), the number of
// cuts (uvarint) and their two nodes each. Then what the state says: named (uvarint), origin (16 bytes), order: 1 if people
// are forgotten, the number of parts (uvarint), their nodes, and the part of each member (uvarint).
type value struct {
	raw       []byte // as stored; nil: there is no value
	revision  [8]byte
	linked    bool
	joining   bool
	confirmed bool
	trusted   bool // joining: the cause is a record of a trusted source
	parent    Node // linked: where the way to the root goes on; compression moves it
	link      Node // linked: the first parent, which the merge names; never changed
	target    Node // joining: somebody in the component to join
	// cause and evidence are gone once confirmed: Kafka has them, Redis need not keep them, least of all personal data.
	cause    Cause
	evidence []Identifier

	group // frozen once joining or linked

	merges int // of the links that made this component, those whose loser was several identifiers already
	// incarnation is the generation: of a root, above that of whatever its members were split from, and raised by a release.
	// A linked node keeps what it had; a parted one has that of its part.
	incarnation uint64
	shared      *sharedDevice // nil: a device like any other, or no device
	cuts        []cut         // pairs that must not be one person, of which one is a member; ascending

	blocked  bool   // the node counts for nobody
	operator bool   // joining: an operator said so, and caps do not count
	named    uint64 // joining: the generation of target, the root, when the join was judged
	// parted: a split made the link. origin is the root that was split; the members are the node alone, with its day and its
	// degree of then. No node links to a parted one: see stitch.walk.
	parted bool
	origin Node
	order  *order // of a root that is being split: it is frozen
}

// order is what a root becomes whose component is split.
type order struct {
	forget bool   // nothing of the members is kept
	into   []Node // the parts
	part   []int  // of each member, in order
}

// partOf says which part a member belongs to.
func (v *value) partOf(n Node) (Node, bool) {
	i, ok := v.find(n)
	if v.order == nil || !ok {
		return Node{}, false
	}
	return v.order.into[v.order.part[i]], true
}

// cut are two nodes that must not be one person, in order.
type cut [2]Node

// absent is the value of a node that the store has none for.
func absent(n Node) *value { return &value{group: group{members: append([]byte(nil), n[:]...)}} }

// encode writes the value of node n.
func (v *value) encode() []byte {
	b := make([]byte, 0, 128+len(v.members)+len(v.days)+len(v.degrees))
	var flags, more byte
	set := func(to *byte, flag byte, when bool) {
		if when {
			*to |= flag
		}
	}
	alone := v.size() == 1
	day, oneDay := v.oneDay()
	set(&flags, flagLinked, v.linked)
	set(&flags, flagJoining, v.joining)
	set(&flags, flagConfirmed, v.confirmed)
	set(&flags, flagTrusted, v.trusted)
	set(&flags, flagApart, v.linked && v.link != v.parent)
	set(&flags, flagAlone, alone)
	set(&flags, flagOneDay, oneDay && day != 0)
	set(&more, moreDays, !oneDay)
	set(&more, moreDegrees, len(v.degrees) > 0)
	set(&more, moreMerges, v.merges > 0)
	set(&more, moreIncarnation, v.incarnation > 0)
	set(&more, moreShared, v.shared != nil)
	set(&more, moreCuts, len(v.cuts) > 0)
	state := v.state()
	set(&more, moreState, state != 0)
	set(&flags, flagMore, more != 0)
	b = append(b, plainVersion, flags)
	if more != 0 {
		b = append(b, more)
	}
	if state != 0 {
		b[0] = valueVersion
		b = append(b, state)
	}
	b = append(b, v.revision[:]...)
	if v.linked {
		b = append(b, v.parent[:]...)
		if v.link != v.parent {
			b = append(b, v.link[:]...)
		}
	}
	if v.joining {
		b = append(b, v.target[:]...)
	}
	if v.caused() {
		b = v.appendCause(b)
	}
	if !alone {
		b = binary.AppendUvarint(b, uint64(v.size())) //nolint:gosec // never negative
		b = append(b, v.members...)
	}
	switch {
	case !oneDay:
		b = append(b, v.days...)
	case day != 0:
		b = binary.BigEndian.AppendUint16(b, day)
	}
	return v.appendState(v.appendMore(b, more), state)
}

// caused says whether the value holds the cause of a join or a link.
func (v *value) caused() bool { return v.joining || v.linked && !v.confirmed }

func (v *value) appendCause(b []byte) []byte {
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
	return b
}

func (v *value) appendMore(b []byte, more byte) []byte {
	b = append(b, v.degrees...)
	if more&moreMerges != 0 {
		b = binary.AppendUvarint(b, uint64(v.merges)) //nolint:gosec // a count
	}
	if more&moreIncarnation != 0 {
		b = binary.AppendUvarint(b, v.incarnation)
	}
	if v.shared != nil {
		b = v.shared.append(b)
	}
	if more&moreCuts != 0 {
		b = binary.AppendUvarint(b, uint64(len(v.cuts)))
		for _, c := range v.cuts {
			b = append(append(b, c[0][:]...), c[1][:]...)
		}
	}
	return b
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
	v, err := decodeValue(n, raw)
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
	case v.order != nil && slices.ContainsFunc(v.order.into, func(p Node) bool { return !p.Before(n) }):
		err = fmt.Errorf("%w: a part is a later node", ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("value of node %s: %w", n, err)
	}
	return v, nil
}

// decodeValue reads what encode wrote, and version 1.
func decodeValue(n Node, raw []byte) (*value, error) {
	switch {
	case len(raw) == 0:
		return nil, fmt.Errorf("%w: empty", ErrCorrupt)
	case raw[0] > valueVersion:
		return nil, fmt.Errorf("%w: %d, known %d", ErrNewerVersion, raw[0], valueVersion)
	case raw[0] == 1:
		return decodeVersion1(raw)
	case raw[0] != valueVersion && raw[0] != plainVersion:
		return nil, fmt.Errorf("%w: version %d", ErrCorrupt, raw[0])
	}
	d := decoder{b: raw[1:]}
	v := &value{raw: raw}
	flags, more, state := d.take(1)[0], byte(0), byte(0)
	if flags&flagMore != 0 {
		more = d.take(1)[0]
	}
	if more&moreState != 0 {
		state = d.take(1)[0]
	}
	v.linked, v.joining, v.confirmed, v.trusted = flags&flagLinked != 0, flags&flagJoining != 0, flags&flagConfirmed != 0, flags&flagTrusted != 0
	if more&^moreKnown != 0 || flags&flagMore != 0 && more == 0 || v.linked && v.joining || v.confirmed && !v.linked ||
		flags&flagApart != 0 && !v.linked || v.trusted && !v.joining || flags&flagOneDay != 0 && more&moreDays != 0 ||
		(state != 0) != (more&moreState != 0) || (state != 0) != (raw[0] == valueVersion) || !v.setState(state) {
		return nil, fmt.Errorf("%w: version %d, flags %#x %#x %#x", ErrCorrupt, raw[0], flags, more, state)
	}
	copy(v.revision[:], d.take(len(v.revision)))
	if v.linked {
		v.parent = d.node()
		v.link = v.parent
		if flags&flagApart != 0 {
			v.link = d.node()
			d.bad = d.bad || v.link == v.parent
		}
	}
	if v.joining {
		v.target = d.node()
	}
	if v.caused() {
		v.cause, v.evidence = d.cause()
	}
	if err := v.decodeGroup(&d, n, flags, more); err != nil {
		return nil, err
	}
	v.decodeMore(&d, more)
	v.decodeState(&d, state)
	if d.bad || len(d.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes cut short or with a rest", ErrCorrupt, len(raw))
	}
	return v, nil
}

// decodeGroup reads the members, their days and their degrees.
func (v *value) decodeGroup(d *decoder, n Node, flags, more byte) error {
	if flags&flagAlone != 0 {
		v.members = append([]byte(nil), n[:]...)
	} else {
		count := d.count(nodeBytes)
		v.members = d.take(count * nodeBytes)
		if d.bad || count < 2 { // one stands for itself
			return fmt.Errorf("%w: %d members, or cut short", ErrCorrupt, count)
		}
		if err := v.ordered(); err != nil {
			return err
		}
	}
	switch {
	case flags&flagOneDay != 0:
		day := binary.BigEndian.Uint16(d.take(dayBytes))
		d.bad = d.bad || day == 0
		v.days = sameDays(day, v.size())
	case more&moreDays != 0:
		v.days = d.take(v.size() * dayBytes)
		if d.bad {
			break
		}
		if _, one := v.oneDay(); one {
			return fmt.Errorf("%w: days of one kind", ErrCorrupt)
		}
	}
	if more&moreDegrees != 0 {
		v.degrees = d.take(v.size())
	}
	return nil
}

func (v *value) decodeMore(d *decoder, more byte) {
	if more&moreMerges != 0 {
		v.merges = int(d.uvarint() & maxCount)
		d.bad = d.bad || v.merges == 0
	}
	if more&moreIncarnation != 0 {
		v.incarnation = d.uvarint()
		d.bad = d.bad || v.incarnation == 0
	}
	if more&moreShared != 0 {
		v.shared = d.device()
	}
	if more&moreCuts != 0 {
		for range d.count(2 * nodeBytes) {
			v.cuts = append(v.cuts, cut{d.node(), d.node()})
		}
		d.bad = d.bad || len(v.cuts) == 0
	}
}

// sorted orders identifiers by node, without repeats, in a copy.
func sorted(ids []Identifier) []Identifier {
	out := slices.Clone(ids)
	slices.SortStableFunc(out, func(a, b Identifier) int { return a.Node.Compare(b.Node) })
	return slices.CompactFunc(out, func(a, b Identifier) bool { return a.Node == b.Node })
}
