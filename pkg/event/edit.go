package event

import (
	"errors"
	"fmt"
	"slices"
)

// Path names a place in an event, or in any JSON text: properties.total, context['odd name'].id,
// properties.products[0].sku; properties.products[*].email is that member of every element. Its methods edit
// text in place: digits, escapes, key order and everything else stay as they came. A text that is no JSON is
// left alone.
type Path struct {
	text  string
	steps []step
}

// ParsePath reads a path.
func ParsePath(text string) (Path, error) {
	rest := text
	if text != "" && text[0] != '[' {
		rest = "." + text
	}
	p := Path{text: text}
	for rest != "" {
		s, tail, err := parseStep(rest)
		if err != nil {
			return Path{}, fmt.Errorf("path %q: %w", text, err)
		}
		p.steps = append(p.steps, s)
		rest = tail
	}
	if len(p.steps) == 0 || p.steps[0].kind != byName {
		return Path{}, fmt.Errorf("path %q: begin with the name of a member, such as properties.total", text)
	}
	return p, nil
}

func (p Path) String() string { return p.text }

// Under is the path of a member of p.
func (p Path) Under(name string) Path {
	return Path{p.text + "." + name, append(slices.Clone(p.steps), step{name: name})}
}

// Wild says whether the path has a [*], so that it may name many places.
func (p Path) Wild() bool {
	return slices.ContainsFunc(p.steps, func(s step) bool { return s.kind == all })
}

// Leaf is the name that the path ends in; empty if it ends in an element.
func (p Path) Leaf() string { return p.steps[len(p.steps)-1].name }

// Beside says whether p and q name members of the same object.
func (p Path) Beside(q Path) bool {
	n := len(p.steps) - 1
	return n == len(q.steps)-1 && p.Leaf() != "" && q.Leaf() != "" && slices.Equal(p.steps[:n], q.steps[:n])
}

// Find returns the raw value at the path, with [*] the first of them; nil if there is none.
func (p Path) Find(text []byte) []byte {
	steps := p.steps
	if p.Wild() {
		steps = slices.Clone(steps)
		for i := range steps {
			if steps[i].kind == all {
				steps[i] = step{kind: byIndex}
			}
		}
	}
	return lookup(text[skipSpace(text, 0):], steps)
}

// Replace puts what with makes of each value at the path in its place; nil leaves a value as it is. Of equal
// names in one object all are replaced: what is hidden must not stand in the text at all.
func (p Path) Replace(text []byte, with func(raw []byte) []byte) []byte {
	var edits []edit
	p.visit(text, func(at place) {
		if raw := with(text[at.value.from:at.value.to]); raw != nil {
			edits = append(edits, edit{at.value.from, at.value.to, raw})
		}
	})
	return splice(text, edits)
}

// Remove takes out the members at the path, all of equal names. A path that ends in an element removes
// nothing: the others would change their places.
func (p Path) Remove(text []byte) []byte {
	var edits []edit
	p.visit(text, func(at place) {
		if at.cut.to > at.cut.from {
			edits = append(edits, edit{from: at.cut.from, to: at.cut.to})
		}
	})
	return splice(text, edits)
}

// Rename gives the members at the path another name; an object that has one of that name already is left alone.
func (p Path) Rename(text []byte, name string) []byte {
	var edits []edit
	quoted := AppendJSONString(nil, name)
	p.visit(text, func(at place) {
		if at.key.to > at.key.from && findMember(text[at.base:], at.siblings, name) == nil {
			edits = append(edits, edit{at.key.from - 1, at.key.to + 1, quoted})
		}
	})
	return splice(text, edits)
}

var errWildSet = errors.New("a value is set at one place: [*] names many")

// Set puts raw, a JSON value, at the path. What is missing on the way there is made, and null counts as missing;
// another kind of value in the way is an error, and so is an element that the array does not have.
func (p Path) Set(text, raw []byte) ([]byte, error) {
	if p.Wild() {
		return nil, errWildSet
	}
	from, to := 0, len(text)
	for i, s := range p.steps {
		value := text[from:to]
		switch {
		case s.kind == byIndex:
			items := elements(value)
			if len(value) == 0 || value[0] != '[' || s.index >= len(items) {
				return nil, fmt.Errorf("%s: there is no element %d", p.text, s.index)
			}
			from, to = from+items[s.index].from, from+items[s.index].to
		case i > 0 && isNull(value):
			if err := p.buildable(i); err != nil {
				return nil, err
			}
			return splice(text, []edit{{from, to, p.build(i, raw)}}), nil
		default:
			list, _, err := scanObject(value, nil)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.text, asError(err))
			}
			m := findMember(value, list, s.name)
			if m == nil {
				if err := p.buildable(i); err != nil {
					return nil, err
				}
				return p.insert(text, from, to, list, i, raw), nil
			}
			from, to = from+m.from, from+m.to
		}
	}
	return splice(text, []edit{{from, to, raw}}), nil
}

// insert adds the member of step i to the object at text[from:to).
func (p Path) insert(text []byte, from, to int, list []member, i int, raw []byte) []byte {
	for to > from && text[to-1] != '}' { // white space behind the whole
		to--
	}
	at, comma := to-1, ""
	if len(list) > 0 {
		at, comma = from+list[len(list)-1].to, ","
	}
	object := p.build(i, raw)
	return splice(text, []edit{{at, at, append([]byte(comma), object[1:len(object)-1]...)}})
}

// buildable refuses to make elements of arrays that are not there.
func (p Path) buildable(i int) error {
	if slices.ContainsFunc(p.steps[i:], func(s step) bool { return s.kind == byIndex }) {
		return fmt.Errorf("%s: there is no such array", p.text)
	}
	return nil
}

// build makes the object of step i and all below it, around raw.
func (p Path) build(i int, raw []byte) []byte {
	out := raw
	for k := len(p.steps) - 1; k >= i; k-- {
		object := append(AppendJSONString([]byte{'{'}, p.steps[k].name), ':')
		out = append(append(object, out...), '}')
	}
	return out
}

// place is one value that a path names; positions are those of the whole text.
type place struct {
	value    span
	key      span     // without quotes; empty for elements
	cut      span     // what to take out so that the member is gone; empty for elements
	siblings []member // of the object, relative to base
	base     int
}

// visit calls do for every place, in order.
func (p Path) visit(text []byte, do func(place)) {
	at := skipSpace(text, 0)
	visit(text, span{at, len(text)}, p.steps, do)
}

func visit(text []byte, at span, steps []step, do func(place)) {
	raw, s := text[at.from:at.to], steps[0]
	reach := func(x place) {
		if len(steps) == 1 {
			do(x)
			return
		}
		visit(text, x.value, steps[1:], do)
	}
	switch {
	case len(raw) == 0:
	case s.kind == byName && raw[0] == '{':
		list, _, err := scanObject(raw, nil)
		if err != nil {
			return
		}
		var hits []int
		for i, m := range list {
			if unescape(raw[m.keyFrom:m.keyTo]) == s.name {
				hits = append(hits, i)
			}
		}
		for n, i := range hits {
			m := list[i]
			reach(place{
				value: span{at.from + m.from, at.from + m.to}, key: span{at.from + m.keyFrom, at.from + m.keyTo},
				cut: shift(cutOf(list, hits, n), at.from), siblings: list, base: at.from,
			})
		}
	case s.kind != byName && raw[0] == '[':
		for i, e := range elements(raw) {
			if s.kind == all || i == s.index {
				reach(place{value: shift(e, at.from)})
			}
		}
	}
}

func shift(s span, by int) span { return span{s.from + by, s.to + by} }

// cutOf is what goes with member hits[n] of list when all of hits go: it and one comma, so that the cuts of
// neighbours do not overlap.
func cutOf(list []member, hits []int, n int) span {
	i := hits[n]
	if i > n { // one before it stays: the comma in front goes too
		return span{list[i-1].to, list[i].to}
	}
	if i == len(list)-1 { // all go
		return span{list[i].keyFrom - 1, list[i].to}
	}
	return span{list[i].keyFrom - 1, list[i+1].keyFrom - 1}
}

// splice makes the edits, which do not overlap; without any it returns text itself.
func splice(text []byte, edits []edit) []byte {
	if len(edits) == 0 {
		return text
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	size := len(text)
	for _, x := range edits {
		size += len(x.with) - (x.to - x.from)
	}
	out := make([]byte, 0, size)
	i := 0
	for _, x := range edits {
		out = append(append(out, text[i:x.from]...), x.with...)
		i = x.to
	}
	return append(out, text[i:]...)
}
