package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/weft-cdp/weft/pkg/event"
)

const (
	// maxViolations is how many violations of one event are told: the first of them say it.
	maxViolations = 10
	// maxNumberText and maxExponent bound the numbers that schemas are held against: they are compared as fractions
	// of whole numbers, of which 1e999999999 has a billion digits. No float64 is longer or larger.
	maxNumberText = 400
	maxExponent   = 400
)

// Violation is one thing that is not as planned.
type Violation struct {
	Rule   string // of Plan.Rules: the event or call, or Unplanned
	Path   string // where in the event, such as properties.products.0.price; empty: the event as a whole
	Detail string // in words
	Action Action
	// Additional: it is about a field that the schema does not name.
	Additional bool
}

// Verdict is what the plan says of one event.
type Verdict struct {
	Action     Action // the severest of the violations'; Allow if there are none
	Violations []Violation
}

// Worst is the first of the severest violations; there is at least one if Action is not Allow.
func (v *Verdict) Worst() *Violation {
	for i := range v.Violations {
		if v.Violations[i].Action == v.Action {
			return &v.Violations[i]
		}
	}
	return nil
}

func (v *Verdict) add(x Violation) {
	if x.Action.severity() > v.Action.severity() {
		v.Action = x.Action
	}
	if len(v.Violations) < maxViolations {
		v.Violations = append(v.Violations, x)
		return
	}
	if last := &v.Violations[maxViolations-1]; x.Action.severity() > last.Action.severity() {
		*last = x // so that Worst finds one
	}
}

// Check judges an event. Only an event that a rule is about is decoded.
func (p *Plan) Check(e *event.Event) Verdict {
	v := Verdict{Action: Allow}
	r := p.calls[e.Type]
	if e.Type == event.Track {
		if r = p.tracks[e.Name]; r == nil {
			v.add(Violation{Rule: Unplanned, Path: "event", Detail: fmt.Sprintf("the plan has no event %.100q", e.Name), Action: p.unplanned})
			return v
		}
	}
	if r == nil { // a call that the plan does not speak of
		return v
	}
	tree, err := event.Tree(e.Body)
	if err == nil {
		err = affordable(tree)
	}
	if err == nil {
		err = r.schema.Validate(tree)
	}
	if faults, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		var loose []Violation
		r.collect(faults, &v, &loose)
		if len(v.Violations) == 0 {
			for _, x := range loose {
				v.add(x)
			}
		}
	} else if err != nil {
		v.add(Violation{Rule: r.name, Detail: err.Error(), Action: r.violations})
	}
	return v
}

// affordable refuses numbers that would cost more to compare than an event is worth.
func affordable(v any) error {
	switch v := v.(type) {
	case json.Number:
		_, exponent, _ := strings.Cut(strings.ToLower(string(v)), "e")
		if n, err := strconv.Atoi(exponent); len(v) > maxNumberText || exponent != "" && (err != nil || n > maxExponent || n < -maxExponent) {
			return fmt.Errorf("the number %.20s... is out of any range", v)
		}
	case map[string]any:
		for _, x := range v {
			if err := affordable(x); err != nil {
				return err
			}
		}
	case []any:
		for _, x := range v {
			if err := affordable(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect adds what is at the leaves of a schema's error: there the field is named. Of alternatives none of which
// fits, the choice itself is told: each of them would say something else. What unevaluatedProperties finds goes to
// loose: where a part of the schema is violated, the members that this part names count as not named at all.
func (r *rule) collect(f *jsonschema.ValidationError, v *Verdict, loose *[]Violation) {
	choice := false
	switch f.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf, *kind.Not:
		choice = true
	}
	if len(f.Causes) > 0 && !choice {
		for _, c := range f.Causes {
			r.collect(c, v, loose)
		}
		return
	}
	x := Violation{Rule: r.name, Path: strings.Join(f.InstanceLocation, "."), Detail: detail(f, choice), Action: r.violations}
	if r.closed[f.SchemaURL] {
		switch k := f.ErrorKind.(type) {
		case *kind.AdditionalProperties:
			for _, name := range k.Properties {
				v.add(r.additionalField(x.Path, name))
			}
			return
		case *kind.FalseSchema:
			*loose = append(*loose, r.additionalField("", x.Path))
			return
		}
	}
	if k, ok := f.ErrorKind.(*kind.Required); ok && len(k.Missing) == 1 { // name the field itself
		x.Path = strings.TrimPrefix(x.Path+"."+k.Missing[0], ".")
		x.Detail = "is missing"
	}
	v.add(x)
}

func (r *rule) additionalField(path, name string) Violation {
	return Violation{
		Rule: r.name, Path: strings.TrimPrefix(path+"."+name, "."), Detail: "is not in the plan", Action: r.additional, Additional: true,
	}
}

// detail is the library's text without the place, which Violation.Path has.
func detail(f *jsonschema.ValidationError, choice bool) string {
	if choice {
		return "fits none of the alternatives"
	}
	text := f.Error()
	if _, rest, ok := strings.Cut(text, ": "); ok {
		text = rest
	}
	return text
}

// pointer writes a member's name as a part of a JSON pointer in a URL (RFC 6901, section 6).
func pointer(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}
