package event

// Filling is what the collector adds to an event where the sender left it out.
type Filling struct {
	Type      Type          // from the path of a single call: counts more than the body's; empty: the body's
	MessageID func() string // called if the body has none; nil: then it stays without
	// Context and Integrations are the raw batch-level objects of these names: members that the event's own lack are
	// added; nil: none.
	Context, Integrations []byte
}

// edit replaces text[from:to).
type edit struct {
	from, to int
	with     []byte
}

// Compose makes the body that is stored: it has "type" and "messageId", and the batch-level context and
// integrations are in its own. It has no "writeKey" any more: it says who may send, and everybody reads what is stored. The text is edited in place, never encoded anew, so digits, escapes, key order and duplicate keys
// of everything else stay as they came. item is not changed; if nothing is missing it is returned itself. What
// else may be wrong with the event is for Decode and Validate to say. The error is an *Error.
func Compose(item []byte, fill Filling) ([]byte, error) {
	var room [24]member
	list, _, err := scanObject(item, room[:0])
	if err != nil {
		return nil, asError(err)
	}
	return compose(item, list, fill)
}

func compose(item []byte, list []member, fill Filling) ([]byte, error) {
	var err error
	typ := fill.Type
	if typ == "" {
		f := fields{typ: find(item, list, "type"), event: find(item, list, "event")}
		if typ, err = typeOf(&f); err != nil {
			return nil, err
		}
	}
	var front []byte // members to stand before all others
	var edits []edit
	put := func(name string, m *member, value string) {
		if m == nil {
			front = append(AppendJSONString(front, name), ':')
			front = append(AppendJSONString(front, value), ',')
			return
		}
		edits = append(edits, edit{m.from, m.to, AppendJSONString(nil, value)})
	}
	if m := findMember(item, list, "type"); m == nil || RawText(item[m.from:m.to]) != string(typ) {
		put("type", m, string(typ))
	}
	if fill.MessageID != nil {
		m := findMember(item, list, "messageId")
		missing := m == nil
		if !missing {
			s, err := scalar("messageId", item[m.from:m.to], true)
			missing = err == nil && s == "" // a faulty one is for Decode to name
		}
		if missing {
			put("messageId", m, fill.MessageID())
		}
	}
	for _, x := range [...]struct {
		name  string
		batch []byte
	}{{"integrations", fill.Integrations}, {"context", fill.Context}} {
		if x.batch == nil {
			continue
		}
		merged, at, err := mergeObject(item, list, x.name, x.batch)
		if err != nil {
			if x.name == "integrations" {
				continue // they stay as they came: nobody reads them
			}
			return nil, err
		}
		switch {
		case merged == nil:
		case at == nil:
			front = append(append(append(AppendJSONString(front, x.name), ':'), merged...), ',')
		default:
			edits = append(edits, edit{at.from, at.to, merged})
		}
	}
	keys := writeKeys(item, list)
	for n := range keys {
		cut := cutOf(list, keys, n)
		edits = append(edits, edit{cut.from, cut.to, nil})
	}
	if front == nil && edits == nil {
		return item, nil
	}
	return apply(item, front, len(list) == len(keys), edits), nil
}

// mergeObject returns the new object of that name of the item and which member it replaces; nil: nothing to do.
func mergeObject(item []byte, list []member, name string, batch []byte) ([]byte, *member, error) {
	outer, _, err := scanObject(batch, nil)
	if err != nil {
		return nil, nil, asError(err)
	}
	if len(outer) == 0 {
		return nil, nil, nil
	}
	at := findMember(item, list, name)
	if at == nil {
		return batch, nil, nil
	}
	own, err := object(name, item[at.from:at.to])
	if err != nil {
		return nil, nil, err
	}
	if own == nil {
		return batch, at, nil
	}
	inner, _, err := scanObject(own, nil)
	if err != nil {
		return nil, nil, asError(err)
	}
	taken := make(map[string]bool, len(inner))
	for _, m := range inner {
		taken[unescape(own[m.keyFrom:m.keyTo])] = true
	}
	var more []byte
	for _, m := range outer {
		key := batch[m.keyFrom:m.keyTo]
		if taken[unescape(key)] {
			continue
		}
		if len(inner) > 0 || more != nil {
			more = append(more, ',')
		}
		more = append(append(append(more, '"'), key...), `":`...)
		more = append(more, batch[m.from:m.to]...)
	}
	if more == nil {
		return nil, nil, nil
	}
	end := len(own) - 1 // the closing brace: a scanned value has no white space around it
	return append(append(append(make([]byte, 0, len(own)+len(more)), own[:end]...), more...), '}'), at, nil
}

// apply writes item with front behind the opening brace and the edits made.
func apply(item, front []byte, empty bool, edits []edit) []byte {
	size := len(item) + len(front)
	for _, x := range edits {
		size += len(x.with)
	}
	return applyTo(make([]byte, 0, size), item, front, empty, edits)
}

// applyTo is apply that appends to out.
func applyTo(out, item, front []byte, empty bool, edits []edit) []byte {
	open := skipSpace(item, 0) + 1
	out = append(out, '{')
	if empty && len(front) > 0 {
		front = front[:len(front)-1] // no comma before the closing brace
	}
	out = append(out, front...)
	i := open
	for len(edits) > 0 {
		next := 0
		for k := range edits {
			if edits[k].from < edits[next].from {
				next = k
			}
		}
		x := edits[next]
		edits = append(edits[:next], edits[next+1:]...)
		out = append(append(out, item[i:x.from]...), x.with...)
		i = x.to
	}
	return append(out, item[i:]...)
}
