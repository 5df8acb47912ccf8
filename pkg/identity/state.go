package identity

import "encoding/binary"

// state is the flags of what only undoing, blocking and operators write; 0: the value is one of version 2.
func (v *value) state() byte {
	var s byte
	set := func(flag byte, when bool) {
		if when {
			s |= flag
		}
	}
	set(stateBlocked, v.blocked)
	set(stateOperator, v.operator)
	set(stateNamed, v.named != 0)
	set(stateParted, v.parted)
	set(stateOrder, v.order != nil)
	return s
}

// setState takes the flags in, and says whether they may stand together, and with what was read before.
func (v *value) setState(s byte) bool {
	v.blocked, v.operator, v.parted = s&stateBlocked != 0, s&stateOperator != 0, s&stateParted != 0
	joins := v.operator || s&stateNamed != 0
	return s&^stateKnown == 0 && (!joins || v.joining) && (!v.parted || v.confirmed) && (s&stateOrder == 0 || !v.linked && !v.joining)
}

func (v *value) appendState(b []byte, s byte) []byte {
	if s&stateNamed != 0 {
		b = binary.AppendUvarint(b, v.named)
	}
	if s&stateParted != 0 {
		b = append(b, v.origin[:]...)
	}
	if o := v.order; o != nil {
		forget := byte(0)
		if o.forget {
			forget = 1
		}
		b = binary.AppendUvarint(append(b, forget), uint64(len(o.into)))
		for _, n := range o.into {
			b = append(b, n[:]...)
		}
		for _, p := range o.part {
			b = binary.AppendUvarint(b, uint64(p)) //nolint:gosec // never negative
		}
	}
	return b
}

func (v *value) decodeState(d *decoder, s byte) {
	if s&stateNamed != 0 {
		v.named = d.uvarint()
		d.bad = d.bad || v.named == 0
	}
	if s&stateParted != 0 {
		v.origin = d.node()
	}
	if s&stateOrder == 0 {
		return
	}
	forget := d.take(1)[0]
	o := &order{forget: forget == 1}
	for range d.count(nodeBytes) {
		o.into = append(o.into, d.node())
	}
	for range v.size() {
		p := d.uvarint()
		if d.bad || forget > 1 || p >= uint64(len(o.into)) {
			d.bad = true
			return
		}
		o.part = append(o.part, int(p)) //nolint:gosec // checked
	}
	v.order = o
}
