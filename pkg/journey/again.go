package journey

import (
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

// maxEnds is the most ends that are kept for one part while it is told again, the newest: a person with a cart each day
// for years. What an older one ended is long due, and ends without a word like all that is.
const maxEnds = 1000

// telling is what a state holds for a part of a split person while the events of before are told again. Live events come
// between them, in any order.
type telling struct {
	part   string           // its profile id
	ends   []*End           // of everybody that it was one with, in their order
	armed  []string         // receipts of running instances that an event armed which was told again
	active map[string]int64 // by brand: the last activity that was told again
	last   int64            // when the last of those events happened
}

// over says whether an instance had ended before the split.
func (t *telling) over(receipt string) bool { return t.end(receipt) != nil }

func (t *telling) end(receipt string) *End {
	i := slices.IndexFunc(t.ends, func(x *End) bool { return x.Receipt == receipt })
	if i < 0 {
		return nil
	}
	return t.ends[i]
}

// telling is that of a part, made if there is none.
func (s *State) telling(part string) *telling {
	for _, t := range s.again {
		if t.part == part {
			return t
		}
	}
	t := &telling{part: part}
	s.again = append(s.again, t)
	slices.SortFunc(s.again, func(a, b *telling) int { return compareKeys(a.part, "", b.part, "") })
	return t
}

// Over says whether an instance had ended before the split of which is still being told: nothing is said of it again.
func (s *State) Over(receipt string) bool {
	return slices.ContainsFunc(s.again, func(t *telling) bool { return t.over(receipt) })
}

// told says whether an instance was armed by an event that was told again: it waits until all is told.
func (s *State) told(receipt string) bool {
	return slices.ContainsFunc(s.again, func(t *telling) bool { return slices.Contains(t.armed, receipt) })
}

// Bring takes the published end of an instance in, of somebody whom a part was one with: the value of a record of
// activations.requested or activations.settled.
func (s *State) Bring(part string, value []byte, requested bool) error {
	t := s.telling(part)
	ends := make(Ends, len(t.ends)+1)
	for _, x := range t.ends {
		ends[x.Receipt] = x
	}
	read := ends.Settled
	if requested {
		read = ends.Requested
	}
	if err := read(value); err != nil {
		return err
	}
	t.ends = t.ends[:0]
	for _, x := range ends {
		t.ends = append(t.ends, x)
	}
	Order(t.ends)
	t.ends = slices.Delete(t.ends, 0, max(0, len(t.ends)-maxEnds))
	return nil
}

// Again takes in one event of a part that is told again. What was decided before it is brought back first. Nothing is
// said of it: it was, in another state.
func (d *Decider) Again(profile, part string, s *State, e *event.Event, now time.Time) Result {
	t := s.telling(part)
	if !e.ReceivedAt.IsZero() {
		s.restore(t, e.ReceivedAt)
	}
	before := s.receipts()
	res := d.Observe(profile, s, e, now)
	at := happened(e)
	t.last = max(t.last, at)
	if commerce.IsActivity(e) {
		if t.active == nil {
			t.active = map[string]int64{}
		}
		t.active[e.Brand] = max(t.active[e.Brand], at)
	}
	// What it armed may have been decided before its time, where clocks differ.
	s.Drop(func(in *Instance, _ int64) bool {
		x := t.end(in.Receipt)
		return x != nil && x.Past
	})
	after := s.receipts()
	t.armed = slices.DeleteFunc(t.armed, func(r string) bool { return !after[r] })
	for r := range after {
		if !before[r] {
			t.armed = append(t.armed, r)
		}
	}
	slices.Sort(t.armed)
	return Result{Capped: res.Capped, Unreadable: res.Unreadable}
}

// restore brings back what was decided before a time and was not brought back yet; the zero time: all of it.
func (s *State) restore(t *telling, until time.Time) {
	ends := t.ends
	for len(ends) > 0 && ends[0].Past {
		ends = ends[1:]
	}
	s.RestoreAll(ends, until, t.over)
}

func (s *State) receipts() map[string]bool {
	m := map[string]bool{}
	for _, b := range s.Brands {
		for i := range b.Running {
			m[b.Running[i].Receipt] = true
		}
	}
	return m
}

// Whole ends the telling of a part, which was split off at asOf. What was due by then was decided for the person that was, or
// should have been: it ends without a word. What is due later lives on. A cart that a live event has touched meanwhile, while
// what was told again had not ended yet, arms anew.
func (d *Decider) Whole(profile, part string, s *State, asOf, now time.Time) Result {
	t := s.telling(part)
	s.restore(t, time.Time{})
	s.again = slices.DeleteFunc(s.again, func(o *telling) bool { return o == t })
	if len(s.again) == 0 {
		s.again = nil
	}
	var res Result
	newest := max(t.last, asOf.UnixMilli())
	for _, name := range s.brandNames() {
		b := s.Brands[name]
		b.Running = slices.DeleteFunc(b.Running, func(in Instance) bool {
			return t.over(in.Receipt) || slices.Contains(t.armed, in.Receipt) && in.LastOp <= newest &&
				max(t.active[name], in.LastOp)+in.Delay.Milliseconds() < asOf.UnixMilli()
		})
		for i := range b.Running {
			if slices.Contains(t.armed, b.Running[i].Receipt) {
				res.Armed++
			}
		}
		before := b.openCarts()
		for cart, last := range before {
			if last > newest {
				delete(before, cart)
			}
		}
		r := run{d, profile, name, s, b, now.UnixMilli(), &res}
		r.reconcile(before, cause{id: "whole\x00" + part, at: asOf.UnixMilli(), merge: true})
	}
	return res
}

// unite takes in what another state holds that moves here.
func (s *State) unite(from *State) {
	for _, o := range from.again {
		t := s.telling(o.part)
		for _, x := range o.ends {
			if !t.over(x.Receipt) {
				t.ends = append(t.ends, x)
			}
		}
		Order(t.ends)
		t.armed = slices.Compact(slices.Sorted(slices.Values(append(t.armed, o.armed...))))
		t.last = max(t.last, o.last)
		for brand, at := range o.active {
			if t.active == nil {
				t.active = map[string]int64{}
			}
			t.active[brand] = max(t.active[brand], at)
		}
	}
}
