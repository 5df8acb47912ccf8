package identity

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Steps of normalising, as they are written in a rules file. White space around a value goes in any case.
const (
	stepTrim     = "trim"
	stepLower    = "lower"
	stepEmail    = "email"
	stepPlusTags = "email_plus_tags"
	stepPhone    = "phone"
	stepDigits   = "digits"
)

// Formats that a value may have to have.
const (
	formatEmail = "email"
	formatPhone = "phone"
	formatUUID  = "uuid"
)

// types reads the types, in order of the file.
func (r *specReader) types(path string, n *yaml.Node) []typeSpec {
	var list []typeSpec
	ranks, priorities := map[byte]string{}, map[int]string{}
	r.each(n, path, func(at string, key, value *yaml.Node) {
		t := r.typ(at, key, value)
		if other, taken := ranks[t.Rank]; taken && t.Rank != 0 {
			r.fault(key, at+".rank", "%#x is that of %s: the first byte of an id says its type", t.Rank, other)
		}
		if other, taken := priorities[t.Priority]; taken && t.Priority != 0 {
			r.fault(key, at+".priority", "%d is that of %s", t.Priority, other)
		}
		ranks[t.Rank], priorities[t.Priority] = t.Name, t.Name
		list = append(list, t)
	})
	if len(list) > maxTypes {
		r.fault(n, path, "has %d types, at most %d", len(list), maxTypes)
	}
	if len(list) == 0 {
		r.fault(n, path, "has none: no event would name anybody")
	}
	return list
}

func (r *specReader) typ(at string, key, n *yaml.Node) typeSpec {
	t := typeSpec{line: key.Line, Type: Type{Name: key.Value, Limit: Limit{Values: 5}}}
	if !validType(t.Name) || reserved(t.Name) {
		r.fault(key, at, "want at most %d lower-case letters, digits and _ . : - for a type's name, and none of %s", maxTypeBytes, strings.Join(reservedTypes(), ", "))
	}
	r.object(n, at, map[string]func(string, *yaml.Node){
		"rank":     func(path string, n *yaml.Node) { t.Rank = r.rank(path, n) },
		"priority": func(path string, n *yaml.Node) { t.Priority = r.number(path, n, 1, 1000) },
		"limit":    func(path string, n *yaml.Node) { t.Limit = r.limit(path, n) },
		"known":    func(path string, n *yaml.Node) { t.Known = r.truth(path, n) },
		"device":   func(path string, n *yaml.Node) { t.Device = r.truth(path, n) },
		"weak":     func(path string, n *yaml.Node) { t.Weak = r.truth(path, n) },
		"trust": func(path string, n *yaml.Node) {
			if r.oneOf(path, n, "any", "trusted") == "trusted" {
				t.Trust = TrustTrusted
			}
		},
		"scope": func(path string, n *yaml.Node) {
			if r.oneOf(path, n, "shared", "brand") == "brand" {
				t.Scope = ScopeBrand
			}
		},
		"find": func(path string, n *yaml.Node) { t.find = r.places(path, n) },
		"find_cel": func(path string, n *yaml.Node) {
			t.cel, t.celLine = r.text(path, n), resolved(n).Line
		},
		"normalise": func(path string, n *yaml.Node) { t.normalise = r.steps(path, n) },
		"format":    func(path string, n *yaml.Node) { t.format = r.oneOf(path, n, formatEmail, formatPhone, formatUUID) },
		"pattern":   func(path string, n *yaml.Node) { t.pattern = r.pattern(path, n, "") },
		"block":     func(path string, n *yaml.Node) { t.block = r.block(path, n) },
	})
	if t.Rank == 0 {
		r.fault(key, at+".rank", "is missing: the type's place in the order of ids, from 0x01 to %#x, its own and for ever the same", maxRank)
	}
	if t.Known && (t.Device || t.Weak) {
		r.fault(key, at, "known (names a person) goes with neither device nor weak")
	}
	return t
}

// rank reads a type's place in the order of nodes.
func (r *specReader) rank(path string, n *yaml.Node) byte {
	x := r.number(path, n, 1, maxRank)
	if x == rankOther {
		r.fault(n, path, "%#x is that of all types that are not listed here", rankOther)
	}
	return byte(x) //nolint:gosec // at most maxRank
}

// steps reads how values are normalised.
func (r *specReader) steps(path string, n *yaml.Node) []string {
	known := []string{stepTrim, stepLower, stepEmail, stepPlusTags, stepPhone, stepDigits}
	steps := r.texts(path, n, len(known))
	for i, s := range steps {
		if !slices.Contains(known, s) {
			r.fault(n, path, "want some of %s, found %q", strings.Join(known, ", "), s)
		}
		if slices.Contains(steps[:i], s) {
			r.fault(n, path, "%q stands twice", s)
		}
	}
	if i := slices.Index(steps, stepDigits); i >= 0 && len(slices.DeleteFunc(slices.Clone(steps), func(s string) bool { return s == stepTrim })) > 1 {
		r.fault(n, path, "digits leaves nothing of what the other steps make: give it alone")
	}
	return steps
}

// places reads where a type is found.
func (r *specReader) places(path string, n *yaml.Node) []placeSpec {
	if resolved(n).Kind == yaml.ScalarNode {
		return []placeSpec{{path: r.text(path, n), line: n.Line}}
	}
	var list []placeSpec
	r.list(path, n, maxPlaces, func(at string, x *yaml.Node) {
		p := placeSpec{line: x.Line}
		if resolved(x).Kind == yaml.ScalarNode {
			p.path = r.text(at, x)
		} else {
			r.object(x, at, map[string]func(string, *yaml.Node){
				"path": func(path string, n *yaml.Node) { p.path = r.text(path, n) },
				"when": func(path string, n *yaml.Node) {
					p.when = map[string][]string{}
					r.each(n, path, func(at string, key, value *yaml.Node) { p.when[key.Value] = r.texts(at, value, maxPlaces) })
				},
			})
		}
		list = append(list, p)
	})
	return list
}

// order gives types without a priority those behind all that have one, by name.
func (r *specReader) order(s *spec) {
	last := 0
	var rest []*typeSpec
	for i := range s.types {
		last = max(last, s.types[i].Priority)
		if s.types[i].Priority == 0 {
			rest = append(rest, &s.types[i])
		}
	}
	slices.SortFunc(rest, func(a, b *typeSpec) int { return strings.Compare(a.Name, b.Name) })
	for i, t := range rest {
		t.Priority = last + 1 + i
	}
}
