package journey

import (
	"time"
)

// MaxState is the most bytes of a stored State. Real ones have some hundreds; a sender that fills carts with
// products of long names could make one of many megabytes, which Redis would carry to and fro with every
// event of that person. Beyond it carts go by commerce.Carts.Shrink, of the brand that has most of them; an
// instance whose cart went ends with ReasonTooManyCarts. All else in a State has its own limit, far below.
const MaxState = 512 << 10

// bound keeps s within MaxState. What is stored is shorter than the events it comes from, so the sum of
// these tells when it is worth measuring.
func (d *Decider) bound(profile string, s *State, now time.Time, res *Result) {
	if s.size <= MaxState/2 {
		return
	}
	for s.measure() > MaxState {
		name := s.mostCarts()
		b := s.Brands[name]
		before := b.openCarts()
		if !b.Carts.Shrink() {
			return
		}
		res.Capped++
		r := run{d, profile, name, s, b, now.UnixMilli(), res}
		r.forgotten(before)
	}
}

// measure is how large s is when stored.
func (s *State) measure() int {
	b, _ := s.AppendBinary(nil) // never fails
	s.size = len(b)
	return s.size
}

// mostCarts is the brand with the largest carts.
func (s *State) mostCarts() string {
	most, size := "", -1
	for _, name := range s.brandNames() {
		if n := len(s.Brands[name].Carts.AppendPacked(nil)); n > size {
			most, size = name, n
		}
	}
	return most
}

// forgotten ends the instances of carts that were open before and are not any more.
func (r *run) forgotten(before map[string]int64) {
	open := r.b.openCarts()
	kept := r.b.Running[:0]
	for _, in := range r.b.Running {
		_, was := before[in.Cart]
		if _, is := open[in.Cart]; was && !is {
			r.receipt(&in, nil, Suppressed, ReasonTooManyCarts, "")
			continue
		}
		kept = append(kept, in)
	}
	clear(r.b.Running[len(kept):])
	r.b.Running = kept
}
