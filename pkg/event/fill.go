package event

// Filler adds to contexts of events, one after another, without garbage but the new bodies. Its zero value is
// ready. It is for one goroutine.
type Filler struct {
	body   []member
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

// FillContext adds to an event's context what fill, an object, has and the context has not, or as null; members of
// members likewise. So nothing that the sender said is changed. The body is edited as text: digits, escapes, key
// order and duplicate keys of everything else stay as they came. body is not changed; if there is nothing to add
// it is returned itself. A context that is no object is left alone: Decode refuses it. The error is an *Error.
func (f *Filler) FillContext(body, fill []byte) ([]byte, error) {
	list, _, err := scanObject(body, f.body[:0])
	if err != nil {
		return nil, asError(err)
	}
	f.body = list
	at := findMember(body, list, "context")
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
	context, changed, err := f.fill(own, fill, 0)
	switch {
	case err != nil:
		return nil, err
	case !changed:
		return body, nil
	case at == nil:
		f.out = append(append(append(f.out[:0], `"context":`...), context...), ',')
		return apply(body, f.out, len(list) == 0, nil), nil
	}
	return apply(body, nil, false, []edit{{at.from, at.to, context}}), nil
}

var emptyObject = []byte("{}")

// fill adds to own the members of more that it lacks, and, on the first level, those of its objects. What it returns
// is good until the next object of that level.
func (f *Filler) fill(own, more []byte, level int) (_ []byte, changed bool, err error) {
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
		m := findMember(own, l.own, unescape(key))
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
