package event

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Mapping makes Segment-shaped events of JSON records of any other shape, such as a till's sales. It is pure
// and safe for concurrent use: the same record always gives the same event.
//
// A mapping is written as field: source. Fields of the event:
//
//	type, event, name, userId, anonymousId, previousId, groupId, messageId, timestamp, originalTimestamp
//	properties.X, traits.X, context.X      X may go deeper: traits.address.city
//	properties, traits, context            the whole object at once
//	externalIds.TYPE                       an entry of context.externalIds, such as externalIds.loyalty_id
//	properties.products[].X                one object per element of a list, see below
//
// Sources:
//
//	$.sale.total     a path in the record; $.lines[0].sku the first element; $['odd name'] any name
//	$.lines[*]       a list as it is; $.lines[*].sku the list of that member of each element
//	'Order Completed' or "Order Completed"    a literal
//	= record.total / 100                      an expression, in the language of whoever compiles the mapping
//
// Below NAME[] a path with [*] is read from each element in turn (all of one NAME[] must have the same path
// up to [*]); a path without [*] or a literal stands in every object. An expression makes the list as a whole.
//
// What the record does not have is left out; null stays null. Values are copied as they stand: digits and
// escapes are not touched, and times are read as ParseTime does. Without a type the event is a track if
// "event" is mapped, else an identify.
type Mapping struct {
	root    *target
	compile func(text string) (Expression, error)
}

// target is one node of the event to build: a leaf has a source, an inner node has members.
type target struct {
	name    string
	source  *source
	members []*target
	each    []step    // NAME[]: the list whose elements are walked, nil for others
	ids     []*target // context.externalIds: one per type
}

// source is a literal (JSON text), a path or an expression.
type source struct {
	literal    []byte
	path       []step
	expression Expression
	field      string // of the expression
}

// Expression gives the value of a source that is written "= ...": it appends it as JSON to dst. ok is false if there
// is none; nothing is appended then. in is what Event was given beside the record. It is safe for concurrent use and
// gives the same for the same in.
type Expression func(dst []byte, in any) (_ []byte, ok bool, err error)

// step goes down one level: by name, by index, or (all) through every element.
type step struct {
	name  string
	index int
	kind  stepKind
}

type stepKind uint8

const (
	byName stepKind = iota
	byIndex
	all
)

var mappedScalars = []string{"type", "event", "name", "userId", "anonymousId", "previousId", "groupId", "messageId", "timestamp", "originalTimestamp"}

// CompileMapping reads a mapping. The error names every field that is wrong. compile reads the text behind the = of
// an expression; nil: expressions are faults.
func CompileMapping(fields map[string]string, compile func(text string) (Expression, error)) (*Mapping, error) {
	m := &Mapping{root: &target{}, compile: compile}
	var errs []error
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if err := m.add(field, fields[field]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
	}
	if len(fields) == 0 {
		errs = append(errs, errors.New("a mapping has at least one field"))
	}
	if name := m.root.unwalked(); name != "" && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s[]: no member has a path with [*] that says which list to walk", name))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if _, typed := fields["type"]; !typed {
		typ := Identify
		if _, named := fields["event"]; named {
			typ = Track
		}
		m.root.members = append(m.root.members, &target{name: "type", source: &source{literal: AppendJSONString(nil, string(typ))}})
	}
	return m, nil
}

func (m *Mapping) add(field, text string) error {
	src, err := m.source(field, text)
	if err != nil {
		return err
	}
	if slices.Contains(mappedScalars, field) {
		m.root.members = append(m.root.members, &target{name: field, source: src})
		return nil
	}
	if typ, ok := strings.CutPrefix(field, "externalIds."); ok {
		if typ == "" {
			return errors.New("names no type: want externalIds.TYPE")
		}
		context, err := m.root.child("context")
		if err != nil {
			return err
		}
		context.ids = append(context.ids, &target{name: typ, source: src})
		return nil
	}
	names := strings.Split(field, ".")
	if top := names[0]; top != "properties" && top != "traits" && top != "context" {
		return fmt.Errorf("is no field of an event: want one of %s, properties.X, traits.X, context.X, externalIds.TYPE", strings.Join(mappedScalars, ", "))
	}
	if len(names) > 1 && names[0] == "context" && names[1] == "externalIds" {
		return errors.New("want externalIds.TYPE")
	}
	return m.root.put(names, src, nil)
}

// put adds the leaf at names below t.
func (t *target) put(names []string, src *source, each *target) error {
	name, list := strings.CutSuffix(names[0], "[]")
	if name == "" {
		return errors.New("has an empty name between two dots")
	}
	if strings.ContainsAny(name, "[]") {
		return fmt.Errorf("%q: on this side a list is written NAME[], as in properties.products[].sku", name)
	}
	if len(names) == 1 {
		if list {
			return errors.New("want a member behind []: to copy a list as it is, map it without []")
		}
		if slices.ContainsFunc(t.members, func(x *target) bool { return x.name == name }) {
			return fmt.Errorf("%q is mapped both as a whole and by its members", name)
		}
		t.members = append(t.members, &target{name: name, source: src})
		return nil
	}
	next, err := t.child(name)
	if err != nil {
		return err
	}
	if !list {
		if next.each != nil {
			return fmt.Errorf("%q is mapped both with and without []", name)
		}
		return next.put(names[1:], src, each)
	}
	if each != nil {
		return errors.New("[] may stand once")
	}
	if src.expression != nil {
		return errors.New("an expression makes the list as a whole: map it without [], as in = record.lines.map(l, {\"sku\": l.sku})")
	}
	if len(next.members) > 0 && next.each == nil {
		return fmt.Errorf("%q is mapped both with and without []", name)
	}
	if err := next.walk(src); err != nil {
		return err
	}
	return next.put(names[1:], src, next)
}

// unwalked names a list below t whose path no member gives; empty if there is none.
func (t *target) unwalked() string {
	if t.each != nil && len(t.each) == 0 {
		return t.name
	}
	for _, x := range t.members {
		if name := x.unwalked(); name != "" {
			return name
		}
	}
	return ""
}

// walk cuts the path of a member of NAME[] at its [*] and notes the list.
func (t *target) walk(src *source) error {
	if t.each == nil {
		t.each = []step{}
	}
	at := slices.IndexFunc(src.path, func(s step) bool { return s.kind == all })
	if at < 0 {
		return nil
	}
	list := src.path[:at]
	if len(t.each) == 0 && at > 0 {
		t.each = list
	}
	if !slices.Equal(t.each, list) {
		return errors.New("walks another list than the other members of this []")
	}
	src.path = append([]step{{kind: all}}, src.path[at+1:]...)
	return nil
}

// child returns the inner node called name, made if it is new.
func (t *target) child(name string) (*target, error) {
	for _, x := range t.members {
		if x.name == name {
			if x.source != nil {
				return nil, fmt.Errorf("%q is mapped both as a whole and by its members", name)
			}
			return x, nil
		}
	}
	x := &target{name: name}
	t.members = append(t.members, x)
	return x, nil
}

// source reads what stands for a field.
func (m *Mapping) source(field, text string) (*source, error) {
	code, ok := strings.CutPrefix(strings.TrimSpace(text), "=")
	if !ok {
		return parseSource(text)
	}
	if m.compile == nil {
		return nil, errors.New("an expression is not possible here: want a path or a literal")
	}
	x, err := m.compile(strings.TrimSpace(code))
	if err != nil {
		return nil, err
	}
	return &source{expression: x, field: field}, nil
}

// parseSource reads a path or a literal.
func parseSource(text string) (*source, error) {
	text = strings.TrimSpace(text)
	if n := len(text); n >= 2 && (text[0] == '\'' || text[0] == '"') && text[n-1] == text[0] {
		return &source{literal: AppendJSONString(nil, text[1:n-1])}, nil
	}
	rest, ok := strings.CutPrefix(text, "$")
	if !ok {
		return nil, fmt.Errorf("%q is neither a path such as $.sale.id nor a literal in quotes such as 'Order Completed' nor an expression such as = record.total", text)
	}
	src := &source{}
	for rest != "" {
		s, tail, err := parseStep(rest)
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", text, err)
		}
		if s.kind == all && slices.ContainsFunc(src.path, func(x step) bool { return x.kind == all }) {
			return nil, fmt.Errorf("path %q: [*] may stand once", text)
		}
		src.path = append(src.path, s)
		rest = tail
	}
	return src, nil
}

func parseStep(s string) (step, string, error) {
	switch {
	case s[0] == '.':
		end := strings.IndexAny(s[1:], ".[")
		if end < 0 {
			end = len(s) - 1
		}
		if end == 0 {
			return step{}, "", errors.New("a dot without a name")
		}
		return step{name: s[1 : 1+end]}, s[1+end:], nil
	case strings.HasPrefix(s, "['") || strings.HasPrefix(s, `["`):
		end := strings.Index(s[2:], s[1:2]+"]")
		if end < 0 {
			return step{}, "", errors.New("a name in brackets that does not end")
		}
		return step{name: s[2 : 2+end]}, s[2+end+2:], nil
	case s[0] == '[':
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return step{}, "", errors.New("[ without ]")
		}
		if s[1:end] == "*" {
			return step{kind: all}, s[end+1:], nil
		}
		n, err := strconv.ParseUint(s[1:end], 10, 16)
		if err != nil {
			return step{}, "", fmt.Errorf("%q is neither an index nor *", s[:end+1])
		}
		return step{index: int(n), kind: byIndex}, s[end+1:], nil
	}
	return step{}, "", fmt.Errorf("%q: expected a dot or a bracket", s)
}

// Event makes the event of one record; in is for the expressions. The error is an *Error. Whether the event is valid is
// for Decode and Validate to say.
func (m *Mapping) Event(record []byte, in any) ([]byte, error) {
	_, found, err := scanObject(record, nil)
	if err != nil {
		return nil, asError(err)
	}
	if err := found.check(); err != nil {
		return nil, err
	}
	if !utf8.Valid(record) {
		return nil, &Error{Reason: InvalidUTF8, Detail: "the record is not UTF-8 text"}
	}
	record = record[skipSpace(record, 0):]
	return m.root.build(make([]byte, 0, len(record)+256), given{record: record, in: in})
}

// given is what the event is made of.
type given struct {
	record  []byte
	element []byte // the current one of a list, nil outside
	in      any
}

// build appends the object of t's members.
func (t *target) build(dst []byte, of given) (_ []byte, err error) {
	dst = append(dst, '{')
	first := true
	for _, x := range t.members {
		mark := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		dst = append(AppendJSONString(dst, x.name), ':')
		from := len(dst)
		switch {
		case x.source != nil:
			dst, err = x.source.append(dst, of)
		case x.each != nil:
			dst, err = x.list(dst, of)
		default:
			if dst, err = x.build(dst, of); len(dst) == from+2 { // nothing of it is there
				dst = dst[:from]
			}
		}
		if err != nil {
			return nil, err
		}
		if len(dst) == from {
			dst = dst[:mark]
			continue
		}
		first = false
	}
	if len(t.ids) > 0 {
		if dst, err = t.externalIDs(dst, of, first); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func (t *target) externalIDs(dst []byte, of given, first bool) ([]byte, error) {
	mark, none := len(dst), true
	if !first {
		dst = append(dst, ',')
	}
	dst = append(dst, `"externalIds":[`...)
	for _, x := range t.ids {
		id, err := x.source.append(nil, of)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(textOf(id)) == "" {
			continue
		}
		if !none {
			dst = append(dst, ',')
		}
		none = false
		dst = append(append(append(dst, `{"id":`...), id...), `,"type":`...)
		dst = append(AppendJSONString(dst, x.name), '}')
	}
	if none {
		return dst[:mark], nil
	}
	return append(dst, ']'), nil
}

// list appends one object per element of the walked list; nothing if there is no such list.
func (t *target) list(dst []byte, of given) (_ []byte, err error) {
	raw := lookup(of.record, t.each)
	if len(raw) == 0 || raw[0] != '[' {
		return dst, nil
	}
	dst = append(dst, '[')
	for i, at := range elements(raw) {
		if i > 0 {
			dst = append(dst, ',')
		}
		of.element = raw[at.from:at.to]
		if dst, err = t.build(dst, of); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

// append adds the value; nothing if the record does not have it.
func (s *source) append(dst []byte, of given) ([]byte, error) {
	if s.expression != nil {
		dst, _, err := s.expression(dst, of.in)
		if err != nil {
			return nil, &Error{Reason: ExpressionFailed, Path: s.field, Detail: err.Error()}
		}
		return dst, nil
	}
	return s.copied(dst, of), nil
}

// copied adds what a literal or a path stands for.
func (s *source) copied(dst []byte, of given) []byte {
	if s.path == nil {
		if s.literal == nil {
			return append(dst, of.record...)
		}
		return append(dst, s.literal...)
	}
	if of.element != nil && s.path[0].kind == all {
		return append(dst, lookup(of.element, s.path[1:])...)
	}
	at := slices.IndexFunc(s.path, func(x step) bool { return x.kind == all })
	if at < 0 {
		return append(dst, lookup(of.record, s.path)...)
	}
	list := lookup(of.record, s.path[:at])
	if len(list) == 0 || list[0] != '[' {
		return dst
	}
	if at == len(s.path)-1 {
		return append(dst, list...)
	}
	dst = append(dst, '[')
	first := true
	for _, e := range elements(list) {
		v := lookup(list[e.from:e.to], s.path[at+1:])
		if v == nil {
			v = []byte("null") // keeps the places of the others
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, v...)
	}
	return append(dst, ']')
}

// lookup returns the raw value at path below raw, which was scanned before; nil if there is none.
func lookup(raw []byte, path []step) []byte {
	for _, s := range path {
		if len(raw) == 0 {
			return nil
		}
		switch {
		case s.kind == byName && raw[0] == '{':
			var room [32]member
			list, _, err := scanObject(raw, room[:0])
			if err != nil {
				return nil // cannot be: it was scanned
			}
			raw = find(raw, list, s.name)
		case s.kind == byIndex && raw[0] == '[':
			items := elements(raw)
			if s.index >= len(items) {
				return nil
			}
			raw = raw[items[s.index].from:items[s.index].to]
		default:
			return nil
		}
	}
	return raw
}

// elements finds the elements of a scanned array.
func elements(raw []byte) []span {
	s := scanner{b: raw}
	var items []span
	if _, err := s.array(0, &items); err != nil {
		return nil // cannot be: it was scanned
	}
	return items
}
