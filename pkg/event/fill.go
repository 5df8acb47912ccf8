package event

import "slices"

// filler is the memory of FillContext.
type filler struct {
	levels [2]fillLevel // the context, and an object in it
	out    []byte
}

// fillLevel is what is being done to one object.
type fillLevel struct {
	own, fill []member
	front     []byte
	edits     []edit
	merged    []byte
}

// Look lists the members of a body, for RawMember, ContextObject and FillContext, unless it is the body that was read or made
// last. The error is an *Error.
func (r *Reader) Look(body []byte) error {
	if b := r.scan.b; len(b) > 0 && len(b) == len(body) && &b[0] == &body[0] {
		return nil
	}
	return r.listed(body)
}

// LookedContext is the members of the context of the body that was looked at last, and LookedProperties its properties as
// they came.
func (r *Reader) LookedContext() *Object { return r.context.settled(r.scan.b, r.fields.context) }

// LookedProperties is the properties as they came.
func (r *Reader) LookedProperties() []byte { return r.fields.properties }

// FillContext adds to an event's context what fill, an object, has and the context has not, or as null; members of
// members likewise. So nothing that the sender said is changed. The body is edited as text: digits, escapes, key
// order and duplicate keys of everything else stay as they came. body is not changed; if there is nothing to add
// it is returned itself. A context that is no object is left alone: Decode refuses it. The error is an *Error.
//
// What Compose has returned is not scanned again for it, and DecodeComposed does not scan again what it returns.
func (r *Reader) FillContext(body, fill []byte) ([]byte, error) {
	if err := r.Look(body); err != nil {
		return nil, err
	}
	at := findMember(body, r.list, "context")
	own := emptyObject
	if at != nil {
		raw, err := object("context", body[at.from:at.to])
		if err != nil {
			return body, nil //nolint:nilerr // Decode says it
		}
		if raw != nil {
			own = raw
		}
	}
	context, changed, err := r.filler.fill(own, fill, 0)
	if err != nil {
		return nil, err
	}
	if !changed {
		return body, nil
	}
	behind := skipSpace(body, 0) + 1 // the opening brace
	if at == nil {
		r.filler.out = append(append(append(r.filler.out[:0], `"context":`...), context...), ',')
		out := apply(body, r.filler.out, len(r.list) == 0, nil)
		r.move(0, 1+len(r.filler.out)-behind)
		r.list = slices.Insert(r.list, 0, member{keyFrom: 2, keyTo: 2 + len("context"), from: 1 + len(`"context":`), to: len(r.filler.out)})
		r.filled(out, &r.list[0])
		return out, nil
	}
	out := apply(body, nil, false, []edit{{at.from, at.to, context}})
	end := at.to
	r.move(0, 1-behind)
	r.move(end+1-behind, len(context)-(at.to-at.from))
	r.filled(out, at)
	return out, nil
}

// move adds by to the positions of what is listed from a position on.
func (r *Reader) move(from, by int) {
	if by == 0 {
		return
	}
	for i := range r.list {
		m := &r.list[i]
		for _, at := range [...]*int{&m.keyFrom, &m.keyTo, &m.from, &m.to} {
			if *at >= from {
				*at += by
			}
		}
	}
	if o := &r.properties; o.b != nil && o.from >= from {
		for i := range o.list {
			m := &o.list[i]
			m.keyFrom, m.keyTo, m.from, m.to = m.keyFrom+by, m.keyTo+by, m.from+by, m.to+by
		}
		o.from += by
	}
}

// filled notes that the body is out now, in which the context at that member is new.
func (r *Reader) filled(out []byte, at *member) {
	r.scan.b, r.fields = out, fields{}
	r.fields.read(out, r.list)
	if r.properties.b != nil {
		r.properties.b = out
	}
	s := scanner{b: out, depth: 1, top: 1}
	r.context.list = r.context.list[:0]
	if _, err := s.object(at.from, &r.context.list); err != nil {
		r.scan.b = nil // too much has become of it: Decode says it
		return
	}
	r.context.b, r.context.from, r.context.escaped = out, at.from, r.context.escaped[:0]
	r.found.deepest, r.found.keys, r.found.elems = max(r.found.deepest, s.deepest), r.found.keys+s.keys+1, r.found.elems+s.elems
	if r.found.check() != nil {
		r.scan.b = nil // maybe too much: what was in the context before has been counted twice
	}
}

var emptyObject = []byte("{}")

// fill adds to own the members of more that it lacks, and, on the first level, those of its objects. What it returns
// is good until the next object of that level.
func (f *filler) fill(own, more []byte, level int) (_ []byte, changed bool, err error) {
	l := &f.levels[level]
	if l.own, _, err = scanObject(own, l.own[:0]); err != nil {
		return nil, false, asError(err)
	}
	if l.fill, _, err = scanObject(more, l.fill[:0]); err != nil {
		return nil, false, asError(err)
	}
	l.front, l.edits = l.front[:0], l.edits[:0]
	for i := range l.fill {
		key, value := more[l.fill[i].keyFrom:l.fill[i].keyTo], more[l.fill[i].from:l.fill[i].to]
		name := View(key)
		if l.fill[i].keyEscaped {
			name = unescape(key)
		}
		m := findMember(own, l.own, name)
		switch {
		case m == nil:
			l.front = append(append(append(l.front, '"'), key...), `":`...)
			l.front = append(append(l.front, value...), ',')
		case isNull(own[m.from:m.to]):
			l.edits = append(l.edits, edit{m.from, m.to, value})
		case level+1 < len(f.levels) && own[m.from] == '{' && value[0] == '{':
			merged, changed, err := f.fill(own[m.from:m.to], value, level+1)
			if err != nil {
				return nil, false, err
			}
			if changed {
				l.edits = append(l.edits, edit{m.from, m.to, append([]byte(nil), merged...)})
			}
		}
	}
	if len(l.front) == 0 && len(l.edits) == 0 {
		return own, false, nil
	}
	l.merged = applyTo(l.merged[:0], own, l.front, len(l.own) == 0, l.edits)
	return l.merged, true, nil
}
