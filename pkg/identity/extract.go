package identity

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
)

// maxPerExpression is how many values one expression may give for one event: as many as context.externalIds may have.
const maxPerExpression = event.MaxExternalIDs

// Variables of expressions.
const (
	varEvent  = "event"
	varSource = "source"
	varBrand  = "brand"
)

// place is where a type is found: a path, by its number among the paths of all types.
type place struct {
	text int
	when []condition
}

// condition says that a path has one of some texts, in any letter case.
type condition struct {
	text   int
	values []string
}

// compile makes the rules of a file. The error joins all faults.
func (r *Rules) compile(file string, s *spec) error {
	c := compiler{file: file, index: map[string]int{}}
	r.named = make(map[string]*typeRule, len(s.types))
	for i := range s.types {
		t := c.typ(r, &s.types[i])
		r.types = append(r.types, t)
		r.named[t.Name] = t
	}
	if err := errors.Join(c.faults...); err != nil {
		return err
	}
	var err error
	if r.paths, err = event.CompilePaths(c.paths); err != nil {
		return &Fault{file, 1, "types", err.Error()} // two ways of writing one path
	}
	r.previous = r.named[s.previous]
	r.devices, r.logOut = s.devices, make(map[string]struct{}, len(s.logOut))
	for _, name := range s.logOut {
		r.logOut[strings.ToLower(strings.TrimSpace(name))] = struct{}{}
	}
	last := 0
	for _, t := range r.types {
		last = max(last, t.Priority)
	}
	none := newBlockList(blockSpec{})
	r.other = &typeRule{Type: Type{Rank: rankOther, Priority: last + 1, Limit: s.other}, block: none}
	r.event = &typeRule{Type: Type{Name: TypeEvent, Rank: rankEvent, Priority: last + 2}, block: none}
	r.part = &typeRule{Type: Type{Name: TypePart, Rank: rankPart, Priority: last + 3}, block: none}
	r.slice = &typeRule{Type: Type{Name: TypeDeviceSlice, Rank: rankDeviceSlice, Priority: last + 4}, block: none}
	for i := range r.byRank {
		r.byRank[i] = &r.other.Type
	}
	for _, t := range append(slices.Clone(r.types), r.event, r.part, r.slice) {
		r.byRank[t.Rank] = &t.Type
	}
	return nil
}

// compiler numbers the paths of all types.
type compiler struct {
	file   string
	paths  []string
	index  map[string]int
	faults []error
}

func (c *compiler) typ(r *Rules, s *typeSpec) *typeRule {
	t := &typeRule{Type: s.Type, steps: s.normalise, format: s.format, pattern: s.pattern, block: newBlockList(s.block)}
	for _, p := range s.find {
		x := place{text: c.path(s, p, p.path)}
		for _, path := range slices.Sorted(maps.Keys(p.when)) {
			x.when = append(x.when, condition{c.path(s, p, path), p.when[path]})
		}
		t.places = append(t.places, x)
	}
	if s.cel == "" {
		return t
	}
	if r.env == nil {
		var err error
		if r.env, err = expr.NewEnv(expr.Options{Variables: []string{varEvent, varSource, varBrand}}); err != nil {
			c.faults = append(c.faults, err)
			return t
		}
	}
	var err error
	if t.cel, err = r.env.Compile(s.cel); err != nil {
		c.faults = append(c.faults, &Fault{c.file, s.celLine, "types." + s.Name + ".find_cel", err.Error()})
	}
	return t
}

// path is the number of a path.
func (c *compiler) path(s *typeSpec, p placeSpec, path string) int {
	if i, ok := c.index[path]; ok {
		return i
	}
	if _, err := event.CompilePaths([]string{path}); err != nil {
		c.faults = append(c.faults, &Fault{c.file, p.line, "types." + s.Name + ".find", err.Error()})
	}
	c.index[path] = len(c.paths)
	c.paths = append(c.paths, path)
	return c.index[path]
}

// extraction is the work on one event. It is for one goroutine, and used again.
type extraction struct {
	rules    *Rules
	event    *event.Event
	texts    event.Texts
	vars     *expr.Vars
	json     []byte
	ids      []Identifier
	ignored  []IgnoredIdentifier
	external func(event.ExternalID) // addExternal: bound once
}

func newExtraction(r *Rules) *extraction {
	x := &extraction{rules: r}
	x.external = x.addExternal
	if r.env != nil {
		x.vars = r.env.NewVars()
	}
	return x
}

// Extract reads the identifiers of an event: those that count, in the order of their nodes and each once, and those that do
// not. It may be that none counts: see EventIdentifier. The texts may alias the event's body and live as long as it.
//
// Each type is found where its rule says: at the first of its paths that holds a text or a number, else by its expression.
// Beside these count, as Segment's spec has it, the entries of context.externalIds, and the previousId of an alias call,
// unless it is the call's own anonymousId.
func (r *Rules) Extract(e *event.Event) ([]Identifier, []IgnoredIdentifier) {
	x := r.work.Get().(*extraction) //nolint:errcheck // the pool holds nothing else
	x.event, x.ids, x.ignored = e, x.ids[:0], nil
	r.paths.Find(e, &x.texts)
	for _, t := range r.types {
		if text := x.at(t); text != "" {
			x.add(t, t.Name, text)
		} else if t.cel != nil {
			x.evaluate(t)
		}
	}
	e.ExternalIDs(x.external)
	if e.Type == event.Alias {
		if id := strings.TrimSpace(e.PreviousID); id != "" && id != strings.TrimSpace(e.AnonymousID) {
			x.add(r.previous, r.previous.Name, id)
		}
	}
	slices.SortStableFunc(x.ids, func(a, b Identifier) int { return a.Node.Compare(b.Node) })
	ids := slices.Clone(slices.CompactFunc(x.ids, func(a, b Identifier) bool { return a.Node == b.Node }))
	ignored := x.ignored
	x.event, x.ignored = nil, nil
	r.work.Put(x)
	return ids, ignored
}

// at is the text at the first place of a type that has one.
func (x *extraction) at(t *typeRule) string {
	for i := range t.places {
		if text := x.texts.Text(t.places[i].text); text != "" && x.holds(t.places[i].when) {
			return text
		}
	}
	return ""
}

func (x *extraction) holds(when []condition) bool {
	for _, c := range when {
		text := x.texts.Text(c.text)
		if !slices.ContainsFunc(c.values, func(v string) bool { return strings.EqualFold(v, text) }) {
			return false
		}
	}
	return true
}

func (x *extraction) add(t *typeRule, typ, value string) {
	if t.Trust == TrustTrusted && !x.event.Trusted {
		x.ignore(typ, value, IgnoredUntrusted)
		return
	}
	id, why := x.rules.identify(t, typ, value, x.event.Brand)
	if why != "" {
		x.ignore(typ, value, why)
		return
	}
	x.ids = append(x.ids, id)
}

func (x *extraction) ignore(typ, value string, why Ignored) {
	x.ignored = append(x.ignored, IgnoredIdentifier{Type: typ, Value: value, Reason: why})
}

// addExternal takes an entry of context.externalIds. Segment's spec has users and accounts for collections, and one
// encoding; entries that say neither are taken for what their senders mean.
func (x *extraction) addExternal(id event.ExternalID) {
	typ := strings.ToLower(strings.TrimSpace(id.Type))
	t := x.rules.named[typ]
	switch {
	case t == nil && (!validType(typ) || reserved(typ)):
		x.ignore(id.Type, id.ID, IgnoredType)
		return
	case id.Collection != "" && !strings.EqualFold(id.Collection, "users"):
		x.ignore(id.Type, id.ID, IgnoredCollection)
		return
	case id.Encoding != "" && !strings.EqualFold(id.Encoding, "none"):
		x.ignore(id.Type, id.ID, IgnoredEncoding)
		return
	case t == nil:
		t = x.rules.other
	}
	x.add(t, typ, strings.TrimSpace(id.ID))
}

// evaluate asks a type's expression, which gives a text, a number or a list of these.
func (x *extraction) evaluate(t *typeRule) {
	x.vars.SetJSON(varEvent, x.event.Body)
	x.vars.SetText(varSource, x.event.Source)
	x.vars.SetText(varBrand, x.event.Brand)
	var ok bool
	var err error
	if x.json, ok, err = t.cel.AppendJSON(x.json[:0], x.vars); err != nil {
		x.ignore(t.Name, "", IgnoredExpression)
		return
	}
	if !ok || len(x.json) == 0 {
		return
	}
	if x.json[0] != '[' {
		x.addRaw(t, x.json)
		return
	}
	for i, raw := range event.Elements(x.json) {
		if i == maxPerExpression {
			x.ignore(t.Name, "", IgnoredTooMany)
			return
		}
		x.addRaw(t, raw)
	}
}

// addRaw takes a JSON text or number; the room that it stands in is used again.
func (x *extraction) addRaw(t *typeRule, raw []byte) {
	if raw[0] == 't' || raw[0] == 'f' {
		return
	}
	if text := strings.TrimSpace(event.RawText(raw)); text != "" {
		x.add(t, t.Name, strings.Clone(text))
	}
}
