package profile

import (
	"cmp"
	"slices"
)

// MaxState is the most bytes of a stored State. Real ones have one or two thousand; the limits of each part
// alone would allow a broken sender some megabytes, which Redis would carry to and fro with every event of
// that person. Beyond it go, in this order and only as much as is needed: carts, by commerce.Carts.Shrink, of
// the brand that has most of them; trait values, the longest first, down to longTrait; the older half of the
// orders of the brand that has most of them, which go into its totals. What is left is below MaxState by the
// limits of its parts.
const MaxState = 1 << 20

// longTrait is the length of a trait's value from which on it may go for MaxState.
const longTrait = 256

// Capped says what a limit has left out of a profile, ever. The events themselves are in ClickHouse in full.
type Capped uint8

// What can be left out.
const (
	CappedNames      Capped = 1 << iota // event names beyond MaxNames are counted together
	CappedTraits                        // traits beyond MaxTraits, with longer names or values than are kept, or beyond MaxState
	CappedOrders                        // orders beyond MaxOrders or MaxState are kept as totals only
	CappedCurrencies                    // amounts in currencies beyond MaxCurrencies
	CappedCarts                         // carts or parts of them: commerce.MaxOps, commerce.MaxCarts, MaxState
)

// cappedNames are the names of all that can be left out, in the order of the bits: labels of metrics.
var cappedNames = [...]string{"names", "traits", "orders", "currencies", "carts"}

// Names are the names of what was left out; nil if nothing was.
func (c Capped) Names() []string {
	var names []string
	for i, name := range cappedNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// Capped is what a limit has left out of s.
func (s *State) Capped() Capped {
	c := s.capped
	if s.Others > 0 {
		c |= CappedNames
	}
	for _, b := range s.brands {
		if len(b.orders.older) > 0 {
			c |= CappedOrders
		}
		if b.orders.cut {
			c |= CappedCurrencies
		}
		if b.carts.Forgotten {
			c |= CappedCarts
		}
	}
	return c
}

// bound keeps s within MaxState. What is stored is shorter than the events it comes from, so the sum of these
// tells when it is worth measuring.
func (s *State) bound() {
	if s.size <= MaxState/2 {
		return
	}
	for s.measure() > MaxState && (s.shrinkCarts() || s.dropTrait() || s.sumOrders()) {
	}
}

// measure is how large s is when stored.
func (s *State) measure() int {
	b, _ := s.AppendBinary(nil) // never fails
	s.size = len(b)
	return s.size
}

// largest is the brand of which there is most, by size; nil if there is none of it.
func (s *State) largest(size func(*brand) int) *brand {
	var most *brand
	n := 0
	for _, b := range s.brands {
		if m := size(b); m > n {
			most, n = b, m
		}
	}
	return most
}

func (s *State) shrinkCarts() bool {
	const none = 32 // what carts take that hold nothing but the time of a purchase
	b := s.largest(func(b *brand) int { return len(b.carts.AppendPacked(nil)) - none })
	return b != nil && b.carts.Shrink()
}

// dropTrait takes the longest value out of the person's and the brands' traits.
func (s *State) dropTrait() bool {
	var in *traits
	at, most := 0, longTrait
	look := func(ts *traits) {
		for i, t := range *ts {
			if len(t.value) > most {
				in, at, most = ts, i, len(t.value)
			}
		}
	}
	look(&s.traits)
	for _, b := range s.brands {
		look(&b.traits)
	}
	if in == nil {
		return false
	}
	*in = slices.Delete(*in, at, at+1)
	s.capped |= CappedTraits
	return true
}

func (s *State) sumOrders() bool {
	b := s.largest(func(b *brand) int { return b.orders.len() })
	if b == nil {
		return false
	}
	n := len(b.orders.all())
	b.orders.sumOldest(cmp.Or(n/2, n))
	b.orders.settle()
	return true
}
