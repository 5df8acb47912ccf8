package profile

import (
	"encoding/json"
	"slices"
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

// traits by name. The newest event time wins, and null removes.
type traits map[string]trait

// trait is one value and where it stands in the order of values. A removed trait stays with its time, so
// that an older value arriving late does not bring it back.
type trait struct {
	V json.RawMessage `json:"v,omitempty"` // JSON as it came; nil: removed
	T int64           `json:"t"`           // event time, ms
	I uint64          `json:"i"`           // of source and message id: decides within a millisecond
	C bool            `json:"c,omitempty"` // a copy: carried along by another call than identify
}

// before says whether u wins over t. SDKs carry cached traits along in context.traits of every call; such
// a copy must not undo what another device or the server has said since, so it only counts where nobody has
// said anything by identify. The same event's value, coming again, is the same.
func (t trait) before(u trait) bool {
	switch {
	case t.C != u.C:
		return t.C
	case t.T != u.T:
		return t.T < u.T
	}
	return t.I <= u.I
}

func (ts *traits) put(name string, t trait) {
	if old, ok := (*ts)[name]; ok && !old.before(t) {
		return
	}
	if *ts == nil {
		*ts = traits{}
	}
	(*ts)[name] = t
	if len(*ts) <= MaxTraits {
		return
	}
	last := ""
	for n := range *ts {
		if last == "" || compareNames(n, last) > 0 {
			last = n
		}
	}
	delete(*ts, last)
}

func (ts *traits) merge(from traits) {
	for name, t := range from {
		ts.put(name, t)
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
	at := trait{T: e.Time.UnixMilli(), I: hash(e.Source, e.MessageID), C: e.Type != event.Identify}
	o.Visit(func(key []byte, v *fastjson.Value) {
		if len(key) == 0 || len(key) > MaxTraitName || !utf8.Valid(key) {
			return
		}
		name, t := string(key), at
		if v.Type() != fastjson.TypeNull {
			if t.V = v.MarshalTo(nil); len(t.V) > MaxTraitValue || !json.Valid(t.V) {
				return
			}
		} else if t.C {
			return // an absent copy says nothing
		}
		if slices.Contains(rules.BrandTraits, name) {
			b.Traits.put(name, t)
			return
		}
		s.Traits.put(name, t)
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
