// Package plan is tracking plans: what events a source is expected to send, as a JSON Schema per event name, and
// what happens to those that are not as planned.
//
// It owns: the plan's file, the check of one event against it, learning a plan from events (Learner), and the
// comparison of plans (Diff). It guarantees that an event which nothing in the plan speaks against is let through
// without decoding it: without 'block' in the file no event is ever refused, and a new event, a new field or a
// wider value breaks nothing unless the plan says so. It does no I/O but reading the plan's file, and must not know
// where events come from.
package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/event"
)

// Action is what happens to an event that is not as planned.
type Action string

// The actions, from the mildest on. Each is counted.
const (
	Allow Action = "allow" // let through
	Flag  Action = "flag"  // let through with the flag plan_violation
	Block Action = "block" // to events.rejected with the reason plan_violation
)

// severity orders the actions.
func (a Action) severity() int { return slices.Index([]Action{Allow, Flag, Block}, a) }

// The names under which violations are counted that no rule of the plan's own is about.
const (
	Unplanned  = "(unplanned)"  // an event that no rule names
	Additional = "(additional)" // a field that the rule's schema does not name
)

// File is a plan as it is written down.
type File struct {
	Unplanned  Action     `yaml:"unplanned,omitempty"`  // a track that no rule names; default allow
	Violations Action     `yaml:"violations,omitempty"` // an event that its rule's schema refuses; default flag
	Additional Action     `yaml:"additional,omitempty"` // a field that its rule's schema does not name; default allow
	Rules      []RuleFile `yaml:"rules"`
}

// RuleFile is one rule: what one event, or one call, looks like.
type RuleFile struct {
	Event      string         `yaml:"event,omitempty"` // name of a track
	Call       string         `yaml:"call,omitempty"`  // or one of identify, page, screen, group, alias
	Violations Action         `yaml:"violations,omitempty"`
	Additional Action         `yaml:"additional,omitempty"`
	Schema     map[string]any `yaml:"schema"` // JSON Schema of the whole event, draft 2020-12 unless it says another
}

// Plan is a checked plan. It is never changed and safe for concurrent use.
type Plan struct {
	file      File
	unplanned Action
	tracks    map[string]*rule
	calls     map[event.Type]*rule
}

type rule struct {
	name       string
	violations Action
	additional Action
	schema     *jsonschema.Schema
	closed     map[string]bool // where the schema was closed for additional: URLs of subschemas
}

// Load reads a plan's file.
func Load(path string) (*Plan, error) {
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	p, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", path, err)
	}
	return p, nil
}

// Parse reads a plan: YAML, of which JSON is a part. The error names every rule that is wrong.
func Parse(text []byte) (*Plan, error) {
	var f File
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New(strings.NewReplacer("yaml: ", "", " in type plan.File", "", " in type plan.RuleFile", "").Replace(err.Error()))
	}
	return New(f)
}

// New checks a plan. The error names every rule that is wrong.
func New(f File) (*Plan, error) {
	p := &Plan{file: f, tracks: map[string]*rule{}, calls: map[event.Type]*rule{}}
	var errs []error
	pick := func(path string, said, otherwise Action) Action {
		if said == "" {
			return otherwise
		}
		if said.severity() < 0 {
			errs = append(errs, fmt.Errorf("%s: want allow, flag or block, found %q", path, said))
		}
		return said
	}
	p.unplanned = pick("unplanned", f.Unplanned, Allow)
	violations := pick("violations", f.Violations, Flag)
	additional := pick("additional", f.Additional, Allow)
	if len(f.Rules) == 0 {
		errs = append(errs, errors.New("rules: a plan has at least one"))
	}
	for i, rf := range f.Rules {
		at := "rules[" + strconv.Itoa(i) + "]"
		r := &rule{
			name:       rf.Event,
			violations: pick(at+".violations", rf.Violations, violations),
			additional: pick(at+".additional", rf.Additional, additional),
		}
		if err := p.place(r, rf); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		if err := r.compile(rf.Schema, i); err != nil {
			errs = append(errs, fmt.Errorf("%s (%s): schema: %w", at, r.name, err))
		}
	}
	return p, errors.Join(errs...)
}

// place puts a rule where Check finds it.
func (p *Plan) place(r *rule, f RuleFile) error {
	if (f.Event == "") == (f.Call == "") {
		return errors.New("want either event, the name of a track, or call")
	}
	if f.Event != "" {
		if p.tracks[f.Event] != nil {
			return fmt.Errorf("event: a second rule for %q", f.Event)
		}
		p.tracks[f.Event] = r
		return nil
	}
	call, ok := event.ParseType(f.Call)
	if !ok || call == event.Track {
		return fmt.Errorf("call: want identify, page, screen, group or alias, found %q; a track is named by event", f.Call)
	}
	if p.calls[call] != nil {
		return fmt.Errorf("call: a second rule for %s", call)
	}
	r.name = string(call)
	p.calls[call] = r
	return nil
}

// Rules are the names that violations of the plan can be counted under: a closed set.
func (p *Plan) Rules() []string {
	names := []string{Unplanned}
	for _, r := range p.file.Rules {
		if name := r.Event; name != "" {
			names = append(names, name)
		} else {
			names = append(names, strings.ToLower(r.Call))
		}
	}
	return names
}

// File is the plan as it was given.
func (p *Plan) File() File { return p.file }

// noRefs refuses schemas outside of the plan: a plan is one file, and nothing is fetched.
type noRefs struct{}

func (noRefs) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s: a plan's schemas refer to nothing outside of themselves", url)
}

func (r *rule) compile(schema map[string]any, i int) error {
	if schema == nil {
		return errors.New("is missing")
	}
	text, err := json.Marshal(schema)
	if err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	url := "plan:///rules/" + strconv.Itoa(i)
	if r.additional != Allow {
		r.closed = map[string]bool{}
		top, _ := doc.(map[string]any)
		for _, name := range []string{"properties", "traits"} { // the rest of an event is the SDKs', not the source's
			members, _ := top["properties"].(map[string]any)
			if below, ok := members[name].(map[string]any); ok {
				r.shut(below, url+"#/properties/"+name)
			}
		}
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(noRefs{})
	if err := c.AddResource(url, doc); err != nil {
		return err
	}
	r.schema, err = c.Compile(url)
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), url, ""))
	}
	return nil
}

// applicators say more about an object's members from another place, so that additionalProperties would not see
// them: where one stands, unevaluatedProperties is used, which does.
var applicators = []string{"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas"}

// shut has the schema at url refuse members that it does not name, and all objects below it. A schema that names
// no members, or that says itself what others may be, stays as it is.
func (r *rule) shut(schema map[string]any, url string) {
	members, named := schema["properties"].(map[string]any)
	_, said := schema["additionalProperties"]
	_, saidToo := schema["unevaluatedProperties"]
	if named && !said && !saidToo {
		keyword := "additionalProperties"
		for _, a := range applicators {
			if _, ok := schema[a]; ok {
				keyword = "unevaluatedProperties"
			}
		}
		schema[keyword] = false
		r.closed[url] = true
		r.closed[url+"/unevaluatedProperties"] = true // there the library blames the false itself
	}
	for name, below := range members {
		if below, ok := below.(map[string]any); ok {
			r.shut(below, url+"/properties/"+pointer(name))
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		r.shut(items, url+"/items")
	}
}
