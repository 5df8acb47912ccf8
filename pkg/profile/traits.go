package profile

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

const (
	// MaxTraits is the most traits of one person, and of one person in one brand; removed ones count. Which
	// ones is decided by a hash of the name, as for MaxNames.
	MaxTraits = 300
	// MaxTraitName bounds the name of a trait in bytes; a trait with a longer one is left out of the profile
	// (ClickHouse has the event).
	MaxTraitName = 128
	// MaxTraitValue bounds the value of a trait in bytes of JSON, in the same way.
	MaxTraitValue = 8192
)

// traits are sorted by name. The newest event time wins, and null removes.
type traits []trait

// trait is one value and where it stands in the order of values. A removed trait stays with its time, so
// that an older value arriving late does not bring it back.
type trait struct {
	name   string
	value  string // JSON as it came; "": removed
	at     int64  // event time, ms
	id     uint64 // of source and message id: decides within a millisecond
	isCopy bool   // carried along by another call than identify
}

// before says whether u wins over t. SDKs carry cached traits along in context.traits of every call; such
// a copy must not undo what another device or the server has said since, so it only counts where nobody has
// said anything by identify. The same event's value, coming again, is the same.
func (t trait) before(u trait) bool {
	switch {
	case t.isCopy != u.isCopy:
		return t.isCopy
	case t.at != u.at:
		return t.at < u.at
	}
	return t.id <= u.id
}

func (ts traits) find(name string) (int, bool) {
	return slices.BinarySearchFunc(ts, name, func(t trait, name string) int { return strings.Compare(t.name, name) })
}

// put takes a value in; true: there were too many, and one went.
func (ts *traits) put(t trait) bool {
	i, found := ts.find(t.name)
	if found {
		if (*ts)[i].before(t) {
			(*ts)[i] = t
		}
		return false
	}
	*ts = slices.Insert(*ts, i, t)
	if len(*ts) <= MaxTraits {
		return false
	}
	last := 0
	for i := range *ts {
		if compareNames((*ts)[i].name, (*ts)[last].name) > 0 {
			last = i
		}
	}
	*ts = slices.Delete(*ts, last, last+1)
	return true
}

func (s *State) keepTraits(ts *traits, from ...trait) {
	for _, t := range from {
		if ts.put(t) {
			s.capped |= CappedTraits
		}
	}
}

// applyTraits takes e's traits in. Those of a group call are the group's, not the person's.
func (s *State) applyTraits(b *brand, e *event.Event, rules *Rules) {
	if e.Type == event.Group {
		return
	}
	o := e.Traits().GetObject()
	if o == nil {
		return
	}
	at := trait{at: e.Time.UnixMilli(), id: hash(e.Source, e.MessageID), isCopy: e.Type != event.Identify}
	var room [256]byte
	o.Visit(func(key []byte, v *fastjson.Value) {
		if len(key) == 0 || !utf8.Valid(key) {
			return
		}
		if len(key) > MaxTraitName {
			s.capped |= CappedTraits
			return
		}
		t := at
		if v.Type() != fastjson.TypeNull {
			value := v.MarshalTo(room[:0])
			if len(value) > MaxTraitValue {
				s.capped |= CappedTraits
				return
			}
			if !json.Valid(value) {
				return
			}
			t.value = string(value)
		} else if t.isCopy {
			return // an absent copy says nothing
		}
		t.name = string(key)
		if slices.Contains(rules.BrandTraits, t.name) {
			s.keepTraits(&b.traits, t)
			return
		}
		s.keepTraits(&s.traits, t)
	})
}

// clip shortens s to at most n bytes, at a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
