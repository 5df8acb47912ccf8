package profile

import (
	"fmt"
	"hash/crc32"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/packed"
)

// StateVersion is the version of a stored State, and its first byte. Version 1 was JSON.
const StateVersion = 2

// AppendBinary appends s as it is stored: the version, and then what is known, times relative to Last.
func (s *State) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, StateVersion, byte(s.capped))
	b = packed.AppendInt(b, s.Last)
	b = packed.AppendInt(b, s.Last-s.First)
	b = packed.AppendInt(b, s.Received-s.Last)
	b = packed.AppendInt(b, s.Events)
	for _, n := range s.types {
		b = packed.AppendInt(b, n)
	}
	b = packed.AppendInt(b, s.Others)
	b = packed.AppendLen(b, len(s.names))
	for _, c := range s.names {
		b = packed.AppendInt(packed.AppendString(b, c.name), c.n)
	}
	b = packed.AppendLen(b, len(s.Audiences))
	for _, name := range s.Audiences {
		b = packed.AppendString(b, name)
	}
	b = s.traits.appendPacked(b, s.Last)
	b = packed.AppendLen(b, len(s.brands))
	for _, x := range s.brands {
		b = packed.AppendString(b, x.name)
		b = packed.AppendInt(b, s.Last-x.last)
		b = packed.AppendInt(b, x.last-x.first)
		b = packed.AppendInt(b, x.events)
		b = x.traits.appendPacked(b, s.Last)
		b = x.orders.appendPacked(b)
		b = x.carts.AppendPacked(b)
	}
	return b, nil
}

// MarshalBinary is AppendBinary to nothing.
func (s *State) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// What the shortest of each takes, so that a count can not ask for more room than there are bytes.
const (
	leastName  = 2
	leastTrait = 3
	leastBrand = 9
	leastSum   = 6
	leastOrder = 11
)

// UnmarshalBinary reads what AppendBinary, or version 1, has written. Nothing of b's memory is kept.
func (s *State) UnmarshalBinary(b []byte) error {
	*s = State{}
	switch {
	case len(b) == 0:
		return nil
	case b[0] == '{':
		return s.readVersion1(b)
	case b[0] != StateVersion:
		return fmt.Errorf("%w: profile of version %d, known %d", packed.ErrNewer, b[0], StateVersion)
	}
	r := packed.ReadShared(b)
	r.Byte()
	s.capped = Capped(r.Byte())
	s.Last = r.Int()
	s.First = s.Last - r.Int()
	s.Received = s.Last + r.Int()
	s.Events = r.Int()
	for i := range s.types {
		s.types[i] = r.Int()
	}
	s.Others = r.Int()
	if n := r.Len(leastName); n > 0 {
		s.names = make([]counted, n)
		for i := range s.names {
			s.names[i] = counted{r.String(), r.Int()}
		}
	}
	if n := r.Len(1); n > 0 {
		s.Audiences = make([]string, n)
		for i := range s.Audiences {
			s.Audiences[i] = r.String()
		}
	}
	s.traits = readTraits(&r, s.Last)
	if n := r.Len(leastBrand); n > 0 {
		s.brands = make([]*brand, n)
		for i := range s.brands {
			s.brands[i] = readBrand(&r, s.Last)
		}
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("read profile: %w", err)
	}
	if r.Left() != 0 {
		return fmt.Errorf("read profile: %d bytes are left: %w", r.Left(), packed.ErrCorrupt)
	}
	s.size = len(b)
	return nil
}

func readBrand(r *packed.Reader, base int64) *brand {
	b := &brand{name: r.String()}
	b.last = base - r.Int()
	b.first = b.last - r.Int()
	b.events = r.Int()
	b.traits = readTraits(r, base)
	b.orders.readPacked(r)
	b.carts.ReadPacked(r)
	return b
}

// What is true of a stored trait, as the lowest bits of its value's length.
const (
	isCopy     = 1 << iota // carried along
	isTogether             // of the same event as the trait before
	traitBits  = 2
)

func (ts traits) appendPacked(b []byte, base int64) []byte {
	b = packed.AppendLen(b, len(ts))
	var last trait
	for i, t := range ts {
		b = packed.AppendString(b, t.name)
		is := 0
		if t.isCopy {
			is |= isCopy
		}
		together := i > 0 && t.at == last.at && t.id == last.id
		if together {
			is |= isTogether
		}
		b = packed.AppendLen(b, len(t.value)<<traitBits|is)
		b = append(b, t.value...)
		if !together {
			b = packed.AppendHash(packed.AppendInt(b, base-t.at), t.id)
		}
		last = t
	}
	return b
}

func readTraits(r *packed.Reader, base int64) traits {
	n := r.Len(leastTrait - 1) // together with the one before: name and value
	if n == 0 {
		return nil
	}
	ts := make(traits, n)
	for i := range ts {
		t := &ts[i]
		t.name = r.String()
		head := r.Uint()
		t.isCopy = head&isCopy != 0
		t.value = r.Text(head >> traitBits)
		if head&isTogether == 0 {
			t.at, t.id = base-r.Int(), r.Hash()
		} else if i > 0 {
			t.at, t.id = ts[i-1].at, ts[i-1].id
		} else {
			r.Fail()
		}
	}
	return ts
}

// stock is a list of orders as it is stored, before a checksum: what is found whole when the state is read
// can be read later, too.
type stock struct {
	n     int
	bytes string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (st stock) checksum() uint64 {
	return uint64(crc32.Checksum([]byte(st.bytes), castagnoli))<<32 ^ uint64(st.n) //nolint:gosec // not negative
}

func (os *orders) appendPacked(b []byte) []byte {
	st := os.stock
	if st.n == 0 && len(os.list) > 0 {
		st = stock{len(os.list), string(appendOrders(nil, os.list))}
	}
	b = packed.AppendLen(b, st.n)
	if st.n > 0 {
		b = packed.AppendHash(packed.AppendString(b, st.bytes), st.checksum())
	}
	if b = packed.AppendLen(b, len(os.sums)); len(os.sums) == 0 {
		return b
	}
	b = appendSums(b, os.sums)
	b = append(b, flag(os.cut))
	b = appendSums(packed.AppendLen(b, len(os.older)), os.older)
	b = packed.AppendInt(b, os.last.Placed)
	if os.last.Placed != 0 {
		b = packed.AppendString(b, os.last.ID)
		b = packed.AppendString(b, os.last.Currency)
		b = packed.AppendInt(b, os.last.Amount)
	}
	return b
}

func (os *orders) readPacked(r *packed.Reader) {
	if n := r.Uint(); n > 0 {
		os.stock = stock{int(n), r.String()} //nolint:gosec // as many as there are: see read
		if n > uint64(len(os.stock.bytes)/leastOrder) || r.Hash() != os.stock.checksum() {
			r.Fail()
		}
	}
	n := r.Len(leastSum)
	if n == 0 {
		return
	}
	os.sums = readSums(r, n)
	os.cut = r.Byte() != 0
	os.older = readSums(r, r.Len(leastSum))
	if os.last.Placed = r.Int(); os.last.Placed != 0 {
		os.last.ID, os.last.Currency, os.last.Amount = r.String(), r.String(), r.Int()
	}
}

func flag(is bool) byte {
	if is {
		return 1
	}
	return 0
}

func appendSums(b []byte, sums []sum) []byte {
	for _, x := range sums {
		b = packed.AppendInt(packed.AppendString(b, x.currency), x.orders)
		b = x.units.AppendPacked(x.amount.AppendPacked(b))
	}
	return b
}

func readSums(r *packed.Reader, n int) []sum {
	if n == 0 {
		return nil
	}
	sums := make([]sum, n)
	for i := range sums {
		sums[i] = sum{currency: r.String(), orders: r.Int(), amount: commerce.ReadAmount(r), units: commerce.ReadAmount(r)}
	}
	return sums
}

// statuses are those an order can have, in the order in which they are stored.
var statuses = [...]commerce.OrderStatus{commerce.Completed, commerce.Updated, commerce.Cancelled, commerce.Refunded}

// What a stored order has, as bits above its status.
const (
	hasPlaced  = 4 << iota // and not at the time of its status
	placedThen             // at the time of its status
	hasAmount              // from a report of its own
	amountThen             // from the report of its status
	hasUnits               // from a report of its own
	unitsThen              // from the report of its status
)

func appendOrders(b []byte, list []order) []byte {
	base := int64(0)
	for i := range list {
		base = max(base, list[i].StatusT)
	}
	b = packed.AppendInt(b, base)
	currency := ""
	for i := range list {
		o := &list[i]
		has := statusIndex(o.Status)
		if o.Placed == o.StatusT {
			has |= placedThen
		} else if o.Placed != 0 {
			has |= hasPlaced
		}
		switch {
		case o.Currency == "":
		case o.AmountT == o.StatusT && o.AmountI == o.StatusI:
			has |= amountThen
		default:
			has |= hasAmount
		}
		switch {
		case o.Units == nil:
		case o.UnitsT == o.StatusT && o.UnitsI == o.StatusI:
			has |= unitsThen
		default:
			has |= hasUnits
		}
		b = packed.AppendString(b, o.ID)
		b = append(b, byte(has)) //nolint:gosec // eight bits
		b = packed.AppendHash(packed.AppendInt(b, base-o.StatusT), o.StatusI)
		if has&hasPlaced != 0 {
			b = packed.AppendInt(b, base-o.Placed)
		}
		if has&(hasAmount|amountThen) != 0 {
			b = packed.AppendInt(b, o.Amount)
			if o.Currency == currency {
				b = packed.AppendLen(b, 0)
			} else {
				b = packed.AppendString(b, o.Currency)
			}
			currency = o.Currency
		}
		if has&hasAmount != 0 {
			b = packed.AppendHash(packed.AppendInt(b, base-o.AmountT), o.AmountI)
		}
		if o.Units != nil {
			b = packed.AppendInt(b, *o.Units)
		}
		if has&hasUnits != 0 {
			b = packed.AppendHash(packed.AppendInt(b, base-o.UnitsT), o.UnitsI)
		}
	}
	return b
}

func statusIndex(s commerce.OrderStatus) int {
	for i, x := range statuses {
		if x == s {
			return i
		}
	}
	return 0 // there is no other: see package commerce
}

// read undoes appendOrders. Bytes that are none come out as fewer orders, which the checksum rules out.
func (st stock) read() []order {
	r := packed.ReadShared([]byte(st.bytes))
	list := make([]order, st.n)
	units := make([]int64, st.n)
	base := r.Int()
	currency := ""
	for i := range list {
		o := &list[i]
		o.ID = r.String()
		has := int(r.Byte())
		o.Status = statuses[has&3]
		o.StatusT, o.StatusI = base-r.Int(), r.Hash()
		switch {
		case has&placedThen != 0:
			o.Placed = o.StatusT
		case has&hasPlaced != 0:
			o.Placed = base - r.Int()
		}
		if has&(hasAmount|amountThen) != 0 {
			o.Amount = r.Int()
			if c := r.String(); c != "" {
				currency = c
			}
			o.Currency, o.AmountT, o.AmountI = currency, o.StatusT, o.StatusI
		}
		if has&hasAmount != 0 {
			o.AmountT, o.AmountI = base-r.Int(), r.Hash()
		}
		if has&(hasUnits|unitsThen) != 0 {
			units[i] = r.Int()
			o.Units, o.UnitsT, o.UnitsI = &units[i], o.StatusT, o.StatusI
		}
		if has&hasUnits != 0 {
			o.UnitsT, o.UnitsI = base-r.Int(), r.Hash()
		}
		if r.Err() != nil {
			return list[:i]
		}
	}
	return list
}
