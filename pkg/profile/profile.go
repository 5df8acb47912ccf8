// Package profile is what Weft knows of one person, folded from events: traits, first and last seen,
// counts, orders and revenue, open carts, and the audiences that follow from them.
//
// It owns: State and how an event or another State changes it, the Document that others read, and audience
// files. It guarantees that a State is a function of the set of events folded into it: any order and any
// tree of merges give the same State (property-tested; the exceptions are MaxOrders and MaxState
// here and commerce.MaxCarts, see there). That each event is folded once is the caller's business (package keyed):
// counts are plain counters. It does no I/O, takes the clock as an argument, and must not know topics,
// Kafka or Redis.
//
// Times are UTC milliseconds, money is decimal with four places per currency and never a float; only an
// audience's expression sees amounts as doubles, to compare them.
package profile

import (
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

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

// State is one person's profile. It is stored by AppendBinary. The zero value is a person of whom nothing is
// known. It is not safe for concurrent use.
type State struct {
	First     int64 // event time, ms; 0: nothing folded yet
	Last      int64
	Received  int64 // newest time of receipt, ms
	Events    int64
	Others    int64    // track events whose names are not in names
	Audiences []string // sorted; as last told to the world

	traits traits
	brands []*brand // by name
	types  [len(eventTypes)]int64
	names  []counted // of track events, by name
	capped Capped    // what a limit has left out, ever
	size   int       // about how large it is when stored: as it was read, and what came in since
}

// eventTypes are those counted, in the order in which they are stored.
var eventTypes = [...]event.Type{event.Track, event.Identify, event.Page, event.Screen, event.Group, event.Alias}

// counted is how often something was.
type counted struct {
	name string
	n    int64
}

// brand is what is known of the person in one brand.
type brand struct {
	name   string
	traits traits
	first  int64
	last   int64
	events int64
	orders orders
	carts  commerce.Carts
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
	b.first, b.last = span(b.first, b.last, t, t, b.events == 0)
	b.events++
	s.Events++
	s.size += len(e.Body)
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
	for i, n := range from.types {
		s.types[i] += n
	}
	s.Others += from.Others
	for _, c := range from.names {
		s.addName(c.name, c.n)
	}
	s.capped |= from.capped
	s.size += from.size
	s.keepTraits(&s.traits, from.traits...)
	for _, fb := range from.brands {
		b := s.brand(fb.name)
		b.first, b.last = span(b.first, b.last, fb.first, fb.last, b.events == 0)
		b.events += fb.events
		s.keepTraits(&b.traits, fb.traits...)
		b.orders.merge(&fb.orders)
		b.carts.Merge(fb.carts)
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
	i, found := slices.BinarySearchFunc(s.brands, name, func(b *brand, name string) int { return strings.Compare(b.name, name) })
	if !found {
		s.brands = slices.Insert(s.brands, i, &brand{name: name})
	}
	return s.brands[i]
}

// span widens first..last to hold from..to; empty: there is nothing to widen.
func span(first, last, from, to int64, empty bool) (int64, int64) {
	if empty {
		return from, to
	}
	return min(first, from), max(last, to)
}

func (s *State) count(e *event.Event) {
	if i := slices.Index(eventTypes[:], e.Type); i >= 0 {
		s.types[i]++
	}
	if e.Type == event.Track {
		s.addName(clip(e.Name, MaxName), 1)
	}
}

// addName counts a name, or, beyond MaxNames, the name with the highest hash under Others. Names only ever
// leave by lower ones coming in, so what stays is the same in any order.
func (s *State) addName(name string, n int64) {
	i, found := slices.BinarySearchFunc(s.names, name, func(c counted, name string) int { return strings.Compare(c.name, name) })
	if found {
		s.names[i].n += n
		return
	}
	s.names = slices.Insert(s.names, i, counted{name, n})
	if len(s.names) <= MaxNames {
		return
	}
	out := 0
	for i := range s.names {
		if compareNames(s.names[i].name, s.names[out].name) > 0 {
			out = i
		}
	}
	s.Others += s.names[out].n
	s.names = slices.Delete(s.names, out, out+1)
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
