package journey

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/commerce"
)

const (
	// MaxRunning is the most instances that run at once for one person in one brand. Beyond it a new one
	// ends at once. Only a sender that makes a cart id per event meets it (carts are bounded alike).
	MaxRunning = 100
	// maxDecisions is the most decided carts remembered per person and brand; the oldest are forgotten.
	maxDecisions = 100
	// keepDecision is how long the decision on a cart is remembered that is no longer open.
	keepDecision = MaxDelay
)

// State is what the decider knows of one person. The zero value is a person never seen. It is stored by
// AppendBinary and for one goroutine at a time. Times are UTC milliseconds. The names in JSON are those of
// version 1 of what is stored.
type State struct {
	Brands    map[string]*Brand `json:"b,omitempty"`
	Email     Trait             `json:"e,omitzero"`
	FirstName Trait             `json:"n,omitzero"`

	again []*telling // by part: what of the time before a split is not told in full yet

	size int // about how large it is when stored: as it was read, and what came in since
}

// Trait is a text of which the newest by event time holds.
type Trait struct {
	Value string `json:"v,omitempty"` // "" was removed
	At    int64  `json:"t"`
}

// set takes a value of that time; of two of the same time the greater holds, so that order is nothing.
func (t *Trait) set(value string, at int64) {
	if at > t.At || at == t.At && value > t.Value {
		*t = Trait{value, at}
	}
}

// Brand is one person in one brand.
type Brand struct {
	Carts   commerce.Carts `json:"c,omitzero"`
	Active  int64          `json:"a,omitempty"` // last activity
	Consent map[string]Yes `json:"g,omitempty"` // by channel/purpose; absent: unknown
	Receive map[string]Yes `json:"u,omitempty"` // by channel; false: unsubscribed
	Running []Instance     `json:"r,omitempty"` // by cart and journey
	Decided []Decision     `json:"d,omitempty"` // by cart and journey
}

// Yes is an answer of the person to a question, and when it was given.
type Yes struct {
	OK bool  `json:"y,omitempty"`
	At int64 `json:"t"`
}

// answer takes an answer in: the newest by event time holds; of two of the same time, no.
func answer(m map[string]Yes, key string, a Yes) map[string]Yes {
	if m == nil {
		m = map[string]Yes{}
	}
	if old, ok := m[key]; !ok || a.At > old.At || a.At == old.At && !a.OK {
		m[key] = a
	}
	return m
}

// strictest unites the answers of two people who are one: a no of either holds until a yes that is newer
// than all that both said.
func strictest(m, o map[string]Yes) map[string]Yes {
	for k, a := range o {
		old, ok := m[k]
		if ok {
			a = Yes{OK: a.OK && old.OK, At: max(a.At, old.At)}
		}
		if m == nil {
			m = map[string]Yes{}
		}
		m[k] = a
	}
	return m
}

// Instance is one journey waiting with one cart.
type Instance struct {
	Journey    string        `json:"j"`
	Version    string        `json:"v"`
	Channel    string        `json:"ch"`
	Cart       string        `json:"c,omitempty"`
	Receipt    string        `json:"r"`
	Delay      time.Duration `json:"d"`
	ArmedAt    int64         `json:"a"`
	LastOp     int64         `json:"o"`           // last activity on the cart itself
	Historical bool          `json:"h,omitempty"` // the operation that armed it was history
	LastOld    bool          `json:"l,omitempty"` // the last operation on the cart was history
	NotBefore  int64         `json:"n,omitempty"` // its version could not be read; to be tried again then
}

// Decision is the end, when due, of an instance: what the cart must be newer than to arm again.
type Decision struct {
	Journey string `json:"j"`
	Cart    string `json:"c,omitempty"`
	At      int64  `json:"t"`           // by the decider's clock
	Sent    bool   `json:"s,omitempty"` // a message was made,
	Lines   uint64 `json:"l,omitempty"` // of these lines
}

// after says which of two decisions on one cart holds: the later, of two of the same time one that sent.
func (d Decision) after(o Decision) bool {
	switch {
	case d.At != o.At:
		return d.At > o.At
	case d.Sent != o.Sent:
		return d.Sent
	}
	return d.Lines > o.Lines
}

func compareKeys(cartA, journeyA, cartB, journeyB string) int {
	return cmp.Or(cmp.Compare(cartA, cartB), cmp.Compare(journeyA, journeyB))
}

func (b *Brand) findRunning(journey, cart string) (int, bool) {
	return slices.BinarySearchFunc(b.Running, journey, func(i Instance, journey string) int {
		return compareKeys(i.Cart, i.Journey, cart, journey)
	})
}

func (b *Brand) findDecided(journey, cart string) (int, bool) {
	return slices.BinarySearchFunc(b.Decided, journey, func(d Decision, journey string) int {
		return compareKeys(d.Cart, d.Journey, cart, journey)
	})
}

// dueAt is when an instance wants to be decided.
func (b *Brand) dueAt(i *Instance) int64 {
	return max(b.Active, i.LastOp) + i.Delay.Milliseconds()
}

// Due is the earliest time at which an instance wants to be decided.
func (s *State) Due() (time.Time, bool) {
	first, waits := int64(0), false
	for _, b := range s.Brands {
		for i := range b.Running {
			if s.told(b.Running[i].Receipt) {
				continue
			}
			if t := max(b.dueAt(&b.Running[i]), b.Running[i].NotBefore); !waits || t < first {
				first, waits = t, true
			}
		}
	}
	if !waits {
		return time.Time{}, false
	}
	return time.UnixMilli(first).UTC(), true
}

func (s *State) brand(name string) *Brand {
	b := s.Brands[name]
	if b == nil {
		b = &Brand{}
		if s.Brands == nil {
			s.Brands = map[string]*Brand{}
		}
		s.Brands[name] = b
	}
	return b
}

func (s *State) brandNames() []string { return slices.Sorted(maps.Keys(s.Brands)) }

// decide notes the end of an instance at its due time.
func (b *Brand) decide(d Decision, open map[string]int64) {
	i, found := b.findDecided(d.Journey, d.Cart)
	if found {
		b.Decided[i] = d
	} else {
		b.Decided = slices.Insert(b.Decided, i, d)
	}
	b.forget(d.At, open)
}

// forget drops decisions that can bar nothing any more, and the oldest beyond the limit.
func (b *Brand) forget(now int64, open map[string]int64) {
	b.Decided = slices.DeleteFunc(b.Decided, func(d Decision) bool {
		_, isOpen := open[d.Cart]
		return !isOpen && d.At < now-keepDecision.Milliseconds()
	})
	for len(b.Decided) > maxDecisions {
		oldest := 0
		for i := range b.Decided {
			if b.Decided[i].At < b.Decided[oldest].At {
				oldest = i
			}
		}
		b.Decided = slices.Delete(b.Decided, oldest, oldest+1)
	}
}

// openCarts are the open carts and their last activity.
func (b *Brand) openCarts() map[string]int64 {
	m := map[string]int64{}
	for _, c := range b.Carts.Open() {
		m[c.ID] = c.LastActivity
	}
	return m
}

// boughtUntil is up to when everything is bought; 0: nothing ever was.
func (b *Brand) boughtUntil() int64 {
	t := b.Carts.BoughtUntil()
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
