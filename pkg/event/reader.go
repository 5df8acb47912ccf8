package event

import (
	"bytes"
	"unsafe"
)

// Reader decodes one event after another without garbage, for a stage that is done with one before it takes
// the next. Its zero value is ready. It is for one goroutine.
type Reader struct {
	event Event
	list  []member
	below []member // of the context
}

// Decode is the function of that name, but the event, and the texts of it, are valid until the next Decode,
// and only as long as body is as it was.
func (r *Reader) Decode(body []byte, m Meta) (*Event, error) {
	list, deepest, err := scanObject(body, r.list[:0])
	if err != nil {
		return nil, asError(err)
	}
	r.list = list
	if r.below == nil {
		r.below = make([]member, 0, cap(list))
	}
	r.event = Event{Meta: m, Body: body, alias: true}
	if err := r.event.read(list, deepest, r.below); err != nil {
		return nil, err
	}
	return &r.event, nil
}

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

// View is b as text, without a copy: it lives and changes as b does.
func View(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // says so
}

// Object reads the members of objects of decoded events, one object after another, without garbage. Its zero
// value is ready.
type Object struct {
	b       []byte
	list    []member
	escaped []string // names of the last members, where they are written with escapes
}

// Read begins anew with a raw object; nil, and what is no object, has no members.
func (o *Object) Read(raw []byte) {
	o.b, o.escaped = raw, o.escaped[:0]
	list, _, err := scanObject(raw, o.list[:0])
	if err != nil {
		o.list = o.list[:0]
		return
	}
	o.list = list
	for i := range list {
		if bytes.IndexByte(o.key(i), '\\') >= 0 {
			o.last()
			return
		}
	}
}

// last moves members whose names are written with escapes behind all others: of equal names these count
// before, as in fastjson.
func (o *Object) last() {
	var plain, escaped []member
	for i, m := range o.list {
		if key := o.key(i); bytes.IndexByte(key, '\\') >= 0 {
			escaped = append(escaped, m)
			o.escaped = append(o.escaped, unescape(key))
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

// Raw is the value of member i, as it came.
func (o *Object) Raw(i int) []byte { return o.b[o.list[i].from:o.list[i].to] }
