package event

import (
	"bytes"
	"unsafe"
)

// Reader decodes one event after another without garbage and in one pass, for a stage that is done with one
// before it takes the next. Its zero value is ready. It is for one goroutine.
type Reader struct {
	event               Event
	scan                scanner
	list                []member
	found               shape
	properties, context Object
	fields              fields // of list

	// Of the request that was split last.
	outer  []member
	spans  []span
	raw    [][]byte // its items
	items  listing
	single bool // it is one event, and list has its members

	filler filler
}

// Decode is the function of that name, but the event, and the texts of it, are valid until the next Decode,
// and only as long as body is as it was.
func (r *Reader) Decode(body []byte, m Meta) (*Event, error) {
	if err := r.listed(body); err != nil {
		return nil, err
	}
	return r.read(body, m)
}

// Compose is the function of that name. The event it makes is for DecodeComposed.
func (r *Reader) Compose(item []byte, fill Filling) ([]byte, error) {
	if err := r.listed(item); err != nil {
		return nil, err
	}
	return r.compose(item, fill)
}

// compose is Compose of the item of which the members are listed.
func (r *Reader) compose(item []byte, fill Filling) ([]byte, error) {
	if r.fields.lackNothing(fill) {
		return item, nil
	}
	return compose(item, r.list, fill)
}

// lackNothing says that Compose has nothing to do, as nearly always.
func (f *fields) lackNothing(fill Filling) bool {
	if f.writeKey != nil || fill.Context != nil || fill.Integrations != nil {
		return false
	}
	typ := fill.Type
	if typ == "" {
		var err error
		if typ, err = typeOf(f); err != nil {
			return false
		}
	}
	if RawText(f.typ) != string(typ) || f.typ == nil {
		return false
	}
	if fill.MessageID == nil {
		return true
	}
	id, err := scalar("messageId", f.messageID, true)
	return err != nil || id != ""
}

// DecodeComposed is Decode of what Compose returned last, or of another body made of it. Where it is still the item that
// Compose was given, it is not scanned again.
func (r *Reader) DecodeComposed(body []byte, m Meta) (*Event, error) {
	if item := r.scan.b; len(body) == 0 || len(body) != len(item) || &body[0] != &item[0] {
		return r.Decode(body, m)
	}
	return r.read(body, m)
}

// Forget lets go of what was read. It keeps the memory for what comes.
func (r *Reader) Forget() {
	r.event, r.fields, r.scan.b, r.single = Event{}, fields{}, nil, false
	for _, o := range []*Object{&r.properties, &r.context} {
		o.b, o.escaped = nil, nil
	}
	clear(r.raw)
	r.raw = r.raw[:0]
	r.items.reset()
}

// listed lists the members of body.
func (r *Reader) listed(body []byte) error {
	if r.scan.below == nil {
		r.scan.below = r.below
	}
	r.scan.b, r.scan.depth, r.scan.deepest, r.scan.keys, r.scan.elems = body, 0, 0, 0, 0
	r.properties.b, r.context.b = nil, nil
	r.single = false
	list, found, err := r.scan.whole(r.list[:0])
	if err != nil {
		return asError(err)
	}
	r.list, r.found, r.fields = list, found, fields{}
	r.fields.read(body, list)
	return nil
}

// read reads the event of which the members are listed.
func (r *Reader) read(body []byte, m Meta) (*Event, error) {
	r.event = Event{Meta: m, Body: body, alias: true}
	if err := r.event.read(&r.fields, r.found, r); err != nil {
		return nil, err
	}
	return &r.event, nil
}

// below has the scanner list the members of properties and context, of the first of that name.
func (r *Reader) below(key []byte, from int) *[]member {
	var o *Object
	switch string(key) {
	case "properties":
		o = &r.properties
	case "context":
		o = &r.context
	}
	if o == nil || o.b != nil {
		return nil
	}
	o.b, o.from, o.list, o.escaped = r.scan.b, from, o.list[:0], o.escaped[:0]
	return &o.list
}

// Properties is the members of the properties of the event that was decoded last.
func (r *Reader) Properties() *Object { return r.properties.settled(r.event.Body, r.event.properties) }

// Context is the members of its context.
func (r *Reader) Context() *Object { return r.context.settled(r.event.Body, r.event.context) }

// text is textOf, without a copy where e may alias its body.
func (e *Event) text(raw []byte) string {
	if e.alias {
		return RawText(raw)
	}
	return textOf(raw)
}

// RawText is the text of a raw member of a decoded event: of a string, a number, true or false; "" for null,
// arrays, objects and nil. It aliases raw wherever it can.
func RawText(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '{', '[', 'n':
		return ""
	case '"':
		if raw = raw[1 : len(raw)-1]; bytes.IndexByte(raw, '\\') >= 0 {
			return unescape(raw)
		}
	}
	return View(raw) // Decode has seen that it is UTF-8
}

// ViewText is s as bytes, without a copy: they must not be changed.
func ViewText(s string) []byte {
	return unsafe.Slice(unsafe.StringData(s), len(s)) //nolint:gosec // says so
}

// View is b as text, without a copy: it lives and changes as b does.
func View(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // says so
}

// Object reads the members of objects of decoded events, one object after another, without garbage. Its zero
// value is ready.
type Object struct {
	b       []byte // what the members stand in
	from    int    // where the object begins, if the scanner listed it; else below zero
	list    []member
	escaped []string // names of the last members, where they are written with escapes
}

// Read begins anew with a raw object; nil, and what is no object, has no members.
func (o *Object) Read(raw []byte) {
	o.b, o.from, o.escaped = raw, -1, o.escaped[:0]
	if len(raw) == 0 {
		o.list = o.list[:0]
		return
	}
	list, _, err := scanObject(raw, o.list[:0])
	if err != nil {
		o.list = o.list[:0]
		return
	}
	o.list = list
	o.last()
}

// settled is o as the object raw, which the scanner may have listed already.
func (o *Object) settled(body, raw []byte) *Object {
	switch {
	case len(raw) == 0:
		o.b, o.list, o.escaped = nil, o.list[:0], o.escaped[:0]
	case o.b == nil || o.from < 0 || o.from >= len(body) || &body[o.from] != &raw[0]:
		o.Read(raw)
	case len(o.escaped) == 0:
		o.last()
	}
	return o
}

// last moves members whose names are written with escapes behind all others: of equal names these count
// before, as in fastjson.
func (o *Object) last() {
	some := false
	for i := range o.list {
		some = some || o.list[i].keyEscaped
	}
	if !some {
		return
	}
	var plain, escaped []member
	for i, m := range o.list {
		if m.keyEscaped {
			escaped = append(escaped, m)
			o.escaped = append(o.escaped, unescape(o.key(i)))
		} else {
			plain = append(plain, m)
		}
	}
	o.list = append(append(o.list[:0], plain...), escaped...)
}

func (o *Object) key(i int) []byte { return o.b[o.list[i].keyFrom:o.list[i].keyTo] }

// Len is how many members there are. Of equal names the one with the lowest number counts.
func (o *Object) Len() int { return len(o.list) }

// Name is the name of member i.
func (o *Object) Name(i int) string {
	if plain := len(o.list) - len(o.escaped); i >= plain {
		return o.escaped[i-plain]
	}
	return View(o.key(i))
}

// Value is the value of member i.
func (o *Object) Value(i int) Value {
	m := &o.list[i]
	return Value{o.b[m.from:m.to], !m.escaped}
}

// Value is a member's value as it came.
type Value struct {
	Raw   []byte // nil: there is none
	plain bool   // it has no escapes, if it is a string
}

// Text is RawText of it.
func (v Value) Text() string {
	if v.plain && len(v.Raw) > 0 && v.Raw[0] == '"' {
		return View(v.Raw[1 : len(v.Raw)-1])
	}
	return RawText(v.Raw)
}

// Absent says that there is no such member, or that it is null.
func (v Value) Absent() bool { return isNull(v.Raw) }
