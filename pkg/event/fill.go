package event

// FillContext adds to an event's context what fill, an object, has and the context has not, or as null; members of
// members likewise. So nothing that the sender said is changed. The body is edited as text: digits, escapes, key
// order and duplicate keys of everything else stay as they came. body is not changed; if there is nothing to add
// it is returned itself. A context that is no object is left alone: Decode refuses it. The error is an *Error.
func FillContext(body, fill []byte) ([]byte, error) {
	var room [24]member
	list, _, err := scanObject(body, room[:0])
	if err != nil {
		return nil, asError(err)
	}
	at := findMember(body, list, "context")
	own := []byte("{}")
	if at != nil {
		raw, err := object("context", body[at.from:at.to])
		if err != nil {
			return body, nil //nolint:nilerr // Decode says it
		}
		if raw != nil {
			own = raw
		}
	}
	context, err := fillObject(own, fill, 1)
	switch {
	case err != nil:
		return nil, err
	case len(context) == len(own) && &context[0] == &own[0]:
		return body, nil
	case at == nil:
		front := append(append([]byte(`"context":`), context...), ',')
		return apply(body, front, len(list) == 0, nil), nil
	}
	return apply(body, nil, false, []edit{{at.from, at.to, context}}), nil
}

// fillObject adds to own the members of fill that it lacks, and those of its objects down to depth levels below.
func fillObject(own, fill []byte, depth int) ([]byte, error) {
	var room [24]member
	list, _, err := scanObject(own, room[:0])
	if err != nil {
		return nil, asError(err)
	}
	more, _, err := scanObject(fill, nil)
	if err != nil {
		return nil, asError(err)
	}
	var front []byte
	var edits []edit
	for i := range more {
		key, value := fill[more[i].keyFrom:more[i].keyTo], fill[more[i].from:more[i].to]
		m := findMember(own, list, unescape(key))
		switch {
		case m == nil:
			front = append(append(append(front, '"'), key...), `":`...)
			front = append(append(front, value...), ',')
		case isNull(own[m.from:m.to]):
			edits = append(edits, edit{m.from, m.to, value})
		case depth > 0 && own[m.from] == '{' && value[0] == '{':
			inner := own[m.from:m.to]
			merged, err := fillObject(inner, value, depth-1)
			if err != nil {
				return nil, err
			}
			if len(merged) != len(inner) || &merged[0] != &inner[0] {
				edits = append(edits, edit{m.from, m.to, merged})
			}
		}
	}
	if front == nil && edits == nil {
		return own, nil
	}
	return apply(own, front, len(list) == 0, edits), nil
}
