package journey

import (
	"maps"
	"slices"

	"github.com/weft-cdp/weft/pkg/packed"
)

// What the shortest of each takes.
const (
	leastTelling = 5
	leastActive  = 2
	leastEnd     = 9
)

// What is true of a stored end, as bits.
const (
	isPast = 1 << iota
	isDecided
	isOfMessage // a message was made,
	isKnown     // of lines that are known
)

func (t *telling) appendPacked(b []byte, base int64) []byte {
	b = packed.AppendInt(packed.AppendString(b, t.part), base-t.last)
	b = packed.AppendLen(b, len(t.active))
	for _, brand := range slices.Sorted(maps.Keys(t.active)) {
		b = packed.AppendInt(packed.AppendString(b, brand), base-t.active[brand])
	}
	b = packed.AppendLen(b, len(t.armed))
	for _, receipt := range t.armed {
		b = packed.AppendString(b, receipt)
	}
	b = packed.AppendLen(b, len(t.ends))
	for _, x := range t.ends {
		b = packed.AppendString(b, x.Receipt)
		b = packed.AppendString(b, x.Journey)
		b = packed.AppendString(b, x.Brand)
		b = packed.AppendString(b, x.Profile)
		b = packed.AppendString(b, x.Cart)
		b = packed.AppendInt(b, base-x.ArmedAt)
		b = packed.AppendInt(b, base-x.At)
		b = append(b, flag(x.Past, isPast)|flag(x.Decided, isDecided)|flag(x.Sent, isOfMessage)|flag(x.Known, isKnown))
		b = packed.AppendUint(b, x.Lines)
	}
	return b
}

func readTelling(r *packed.Reader, base int64) *telling {
	t := &telling{part: r.String(), last: base - r.Int()}
	if n := r.Len(leastActive); n > 0 {
		t.active = make(map[string]int64, n)
		for range n {
			brand := r.String()
			t.active[brand] = base - r.Int()
		}
	}
	for range r.Len(1) {
		t.armed = append(t.armed, r.String())
	}
	for range r.Len(leastEnd) {
		x := &End{Published: Published{
			Receipt: r.String(), Journey: r.String(), Brand: r.String(), Profile: r.String(), Cart: r.String(),
			ArmedAt: base - r.Int(), At: base - r.Int(),
		}}
		is := r.Byte()
		x.Past, x.Decided, x.Sent, x.Known = is&isPast != 0, is&isDecided != 0, is&isOfMessage != 0, is&isKnown != 0
		x.Lines = r.Uint()
		t.ends = append(t.ends, x)
	}
	return t
}
