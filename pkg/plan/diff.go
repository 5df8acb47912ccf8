package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Difference is one thing in which two plans differ, or a plan and its traffic.
type Difference struct {
	Rule string // event or call; empty: the plan as a whole
	Path string // field below the event; empty: the rule as a whole
	Text string // in words
	// Breaking: events that were as planned before are not any more. All else is additive.
	Breaking bool
}

func (d Difference) String() string {
	kind, where := "additive", d.Rule
	if d.Breaking {
		kind = "breaking"
	}
	if d.Path != "" {
		where += ": " + d.Path
	}
	if where != "" {
		where += ": "
	}
	return kind + "  " + where + d.Text
}

// Diff compares two plans: what changes for senders when the newer takes the older's place.
func Diff(older, newer File) []Difference {
	var out []Difference
	for _, x := range []struct {
		name      string
		was, is   Action
		otherwise Action
	}{
		{"unplanned", older.Unplanned, newer.Unplanned, Allow},
		{"violations", older.Violations, newer.Violations, Flag},
		{"additional", older.Additional, newer.Additional, Allow},
	} {
		out = append(out, actions("", x.name, or(x.was, x.otherwise), or(x.is, x.otherwise))...)
	}
	was, is := byName(older), byName(newer)
	for _, name := range names(was, is) {
		a, inOld := was[name]
		b, inNew := is[name]
		switch {
		case !inNew:
			out = append(out, Difference{Rule: name, Text: "is not in the newer plan", Breaking: true})
		case !inOld:
			out = append(out, Difference{Rule: name, Text: "is new"})
		default:
			out = append(out, actions(name, "violations", a.Violations, b.Violations)...)
			out = append(out, actions(name, "additional", a.Additional, b.Additional)...)
			out = append(out, fields(name, flat(a.Schema), flat(b.Schema))...)
		}
	}
	return out
}

// DiffTraffic compares a plan with what was learnt from events: what has come that is not planned, and what is
// planned and did not come. Whether events violate the plan, Check says.
func DiffTraffic(planned, seen File) []Difference {
	var out []Difference
	want, got := byName(planned), byName(seen)
	for _, name := range names(want, got) {
		a, inPlan := want[name]
		b, inTraffic := got[name]
		switch {
		case !inTraffic:
			out = append(out, Difference{Rule: name, Text: "is planned, none came"})
		case !inPlan:
			out = append(out, Difference{Rule: name, Text: "came and is not in the plan"})
		default:
			p, s := flat(a.Schema), flat(b.Schema)
			for _, path := range names(p, s) {
				if _, ok := p[path]; !ok {
					out = append(out, Difference{Rule: name, Path: path, Text: "came and is not in the plan: " + s[path].String()})
				} else if _, ok := s[path]; !ok {
					out = append(out, Difference{Rule: name, Path: path, Text: "is planned, in no event", Breaking: p[path].required})
				} else if more := beyond(p[path], s[path]); more != nil {
					out = append(out, Difference{Rule: name, Path: path, Breaking: true,
						Text: fmt.Sprintf("planned as %s, came as %s, too", p[path], strings.Join(more, ", "))})
				}
			}
		}
	}
	return out
}

func or(a, otherwise Action) Action {
	if a == "" {
		return otherwise
	}
	return a
}

func actions(rule, name string, was, is Action) []Difference {
	if was == is {
		return nil
	}
	say := func(a Action) string { return string(or(a, "as the plan has it")) }
	return []Difference{{Rule: rule, Text: fmt.Sprintf("%s: was %s, is %s", name, say(was), say(is)), Breaking: is == Block}}
}

func byName(f File) map[string]RuleFile {
	m := map[string]RuleFile{}
	for _, r := range f.Rules {
		if r.Event != "" {
			m[r.Event] = r
		} else {
			m[strings.ToLower(r.Call)+" (call)"] = r // a track may have that name
		}
	}
	return m
}

func names[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// field is what a schema says of one place.
type field struct {
	types    []string // empty: any
	required bool
}

func (f field) String() string {
	if len(f.types) == 0 {
		return "any type"
	}
	return strings.Join(f.types, " or ")
}

// flat lists the fields of a schema by path, elements of arrays as [].
func flat(schema map[string]any) map[string]field {
	out := map[string]field{}
	flatten(schema, "", out)
	return out
}

func flatten(schema map[string]any, path string, out map[string]field) {
	members, _ := schema["properties"].(map[string]any)
	required := texts(schema["required"])
	for name, below := range members {
		at := strings.TrimPrefix(path+"."+name, ".")
		s, _ := below.(map[string]any) // true and false are schemas, too
		out[at] = field{types: texts(s["type"]), required: slices.Contains(required, name)}
		flatten(s, at, out)
	}
	for _, name := range required {
		if _, named := members[name]; !named {
			out[strings.TrimPrefix(path+"."+name, ".")] = field{required: true}
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		out[path+"[]"] = field{types: texts(items["type"])}
		flatten(items, path+"[]", out)
	}
}

// texts reads a text, or a list of them.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, x := range v {
			if s, ok := x.(string); ok {
				list = append(list, s)
			}
		}
		slices.Sort(list)
		return list
	}
	return nil
}

// beyond is the types of b that a does not take.
func beyond(a, b field) []string {
	if len(a.types) == 0 {
		return nil
	}
	var more []string
	for _, t := range b.types {
		if !slices.Contains(a.types, t) && (t != "integer" || !slices.Contains(a.types, "number")) {
			more = append(more, t)
		}
	}
	return more
}

func fields(rule string, was, is map[string]field) []Difference {
	var out []Difference
	for _, path := range names(was, is) {
		a, inOld := was[path]
		b, inNew := is[path]
		say := func(breaking bool, text string) {
			out = append(out, Difference{Rule: rule, Path: path, Text: text, Breaking: breaking})
		}
		switch {
		case !inNew:
			say(false, "is not in the newer plan: additional fields are as the plan has it")
			continue
		case !inOld && b.required:
			say(true, "is new, and required: "+b.String())
			continue
		case !inOld:
			say(false, "is new: "+b.String())
			continue
		}
		if a.required != b.required {
			say(b.required, map[bool]string{true: "is required now", false: "is not required any more"}[b.required])
		}
		if !slices.Equal(a.types, b.types) {
			narrower := beyond(b, a) != nil || len(a.types) == 0
			say(narrower, fmt.Sprintf("was %s, is %s", a, b))
		}
	}
	return out
}
