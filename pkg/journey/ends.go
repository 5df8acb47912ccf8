package journey

import (
	"cmp"
	"slices"
	"time"
)

// End is the published end of an instance on its way back into a state that is folded again.
type End struct {
	Published
	Past bool // the state has come to the time of it
}

// Ends are published ends, one for each receipt.
type Ends map[string]*End

// Over says whether an instance has ended.
func (e Ends) Over(receipt string) bool { return e[receipt] != nil }

// Requested takes a record of activations.requested in.
func (e Ends) Requested(value []byte) error {
	p, err := PublishedRequest(value)
	if err == nil {
		e[p.Receipt] = &End{Published: p}
	}
	return err
}

// Settled takes a record of activations.settled in. Of a message its request tells more.
func (e Ends) Settled(value []byte) error {
	p, forMessage, err := PublishedReceipt(value)
	if err == nil && (!forMessage || !e.Over(p.Receipt)) {
		e[p.Receipt] = &End{Published: p}
	}
	return err
}

// Order sorts ends by when they were decided.
func Order(ends []*End) {
	slices.SortFunc(ends, func(a, b *End) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Receipt, b.Receipt)) })
}

// RestoreAll brings ends back, given in their order, that were decided before a time, or all with the zero time. Doing it
// again changes nothing. over is as Restore has it. It says whether s has changed.
func (s *State) RestoreAll(ends []*End, until time.Time, over func(receipt string) bool) (changed bool) {
	for _, x := range ends {
		if !until.IsZero() && x.At >= until.UnixMilli() {
			break
		}
		changed = s.Restore(&x.Published, over) || changed
		x.Past = true
	}
	return changed
}
