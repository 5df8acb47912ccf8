// Package profile is what Weft knows of one person, folded from events: traits, first and last seen,
// counts, orders and revenue, open carts, and the audiences that follow from them.
//
// It owns: State and how an event or another State changes it, the Document that others read, and audience
// files. It guarantees that a State is a function of the set of events folded into it: any order and any
// tree of merges give the same State (property-tested; the exceptions are MaxOrders here and
// commerce.MaxCarts, see there). That each event is folded once is the caller's business (package keyed):
// counts are plain counters. It does no I/O, takes the clock as an argument, and must not know topics,
// Kafka or Redis.
//
// Times are UTC milliseconds, money is decimal with four places per currency and never a float; only an
// audience's expression sees amounts as doubles, to compare them.
package profile

import (
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

// StateVersion is the version of State's stored form. A newer binary reads the older.
const StateVersion = 1

const (
	// MaxNames is the most event names counted one by one; the others are counted together. Which ones is
	// decided by a hash of the name, not by who came first, so that it does not depend on order: the
	// MaxNames names with the lowest hashes.
	MaxNames = 200
	// MaxName bounds a counted event name in bytes; a longer one is cut at a character.
	MaxName = 100
)

// Rules are what a deployment decides about profiles.
type Rules struct {
	// BrandTraits are the traits kept per brand; all others are kept once per person.
	BrandTraits []string
}

// State is one person's profile as it is stored: JSON with short private names. The zero value is a person
// of whom nothing is known. It is not safe for concurrent use.
type State struct {
	Traits    traits            `json:"t,omitempty"`
	Brands    map[string]*brand `json:"b,omitempty"`
	First     int64             `json:"f,omitempty"` // event time, ms; 0: nothing folded yet
	Last      int64             `json:"l,omitempty"`
	Received  int64             `json:"r,omitempty"` // newest time of receipt, ms
	Events    int64             `json:"e,omitempty"`
	Types     map[string]int64  `json:"y,omitempty"`
	Names     map[string]int64  `json:"n,omitempty"` // of track events
	Others    int64             `json:"o,omitempty"` // track events whose names are not in Names
	Audiences []string          `json:"a,omitempty"` // sorted; as last told to the world
}

// brand is what is known of the person in one brand.
type brand struct {
	Traits traits           `json:"t,omitempty"`
	First  int64            `json:"f,omitempty"`
	Last   int64            `json:"l,omitempty"`
	Events int64            `json:"e,omitempty"`
	Orders map[string]order `json:"o,omitempty"` // by order id
	Older  map[string]sum   `json:"x,omitempty"` // orders beyond MaxOrders, by currency
	Carts  commerce.Carts   `json:"c,omitzero"`
}

// Apply folds one event. The errors name fields of order and cart events that could not be read; the event
// is folded all the same, without that part. Nothing of e's memory is kept.
func (s *State) Apply(e *event.Event, rules *Rules) []error {
	t := e.Time.UnixMilli()
	s.First, s.Last = span(s.First, s.Last, t, t, s.Events == 0)
	if !e.ReceivedAt.IsZero() {
		s.Received = max(s.Received, e.ReceivedAt.UnixMilli())
	}
	b := s.brand(e.Brand)
	b.First, b.Last = span(b.First, b.Last, t, t, b.Events == 0)
	b.Events++
	s.Events++
	s.count(e)
	s.applyTraits(b, e, rules)
	return b.applyCommerce(e)
}

// Merge takes in the profile of a key that turned out to be the same person; from stays as it is.
// Memberships are those of s: they are found anew by Settle, and those of from end with its key.
func (s *State) Merge(from *State) {
	if from.Events == 0 {
		return
	}
	s.First, s.Last = span(s.First, s.Last, from.First, from.Last, s.Events == 0)
	s.Received = max(s.Received, from.Received)
	s.Events += from.Events
	for typ, n := range from.Types {
		s.addType(typ, n)
	}
	s.Others += from.Others
	for name, n := range from.Names {
		s.addName(name, n)
	}
	s.Traits.merge(from.Traits)
	for name, fb := range from.Brands {
		b := s.brand(name)
		b.First, b.Last = span(b.First, b.Last, fb.First, fb.Last, b.Events == 0)
		b.Events += fb.Events
		b.Traits.merge(fb.Traits)
		b.mergeOrders(fb)
		b.Carts.Merge(fb.Carts)
	}
}

// Version grows with every event folded and with every merge: of two documents of one profile id, the one
// with the higher version is the newer.
func (s *State) Version() int64 { return s.Events }

// AsOf is when the newest event of the profile was received; zero if there is none.
func (s *State) AsOf() time.Time {
	if s.Received == 0 {
		return time.Time{}
	}
	return millis(s.Received)
}

func (s *State) brand(name string) *brand {
	b := s.Brands[name]
	if b == nil {
		if s.Brands == nil {
			s.Brands = map[string]*brand{}
		}
		b = &brand{}
		s.Brands[name] = b
	}
	return b
}

// span widens first..last to hold from..to; empty: there is nothing to widen.
func span(first, last, from, to int64, empty bool) (int64, int64) {
	if empty {
		return from, to
	}
	return min(first, from), max(last, to)
}

func (s *State) count(e *event.Event) {
	s.addType(string(e.Type), 1)
	if e.Type == event.Track {
		s.addName(clip(e.Name, MaxName), 1)
	}
}

func (s *State) addType(typ string, n int64) {
	if s.Types == nil {
		s.Types = map[string]int64{}
	}
	s.Types[typ] += n
}

// addName counts a name, or, beyond MaxNames, the name with the highest hash under Others. Names only ever
// leave by lower ones coming in, so what stays is the same in any order.
func (s *State) addName(name string, n int64) {
	if s.Names == nil {
		s.Names = map[string]int64{}
	}
	s.Names[name] += n
	if len(s.Names) <= MaxNames {
		return
	}
	out := slices.MaxFunc(slices.Collect(maps.Keys(s.Names)), compareNames)
	s.Others += s.Names[out]
	delete(s.Names, out)
}

func compareNames(a, b string) int {
	switch x, y := hash(a), hash(b); {
	case x != y && x < y, x == y && a < b:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// hash is 64 bits of FNV-1a over the parts, each ended by a zero byte.
func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p)) // never fails
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

func millis(t int64) time.Time { return time.UnixMilli(t).UTC() }
