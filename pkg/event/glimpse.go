package event

// Glimpse reads what can be read of an item as it came, valid or not, with what Compose would add: whom it names
// (Identifiers) and its context. It is for those who must know whose it is also where it cannot be taken. An item that
// is no JSON object names nobody.
func Glimpse(item []byte, fill Filling) *Event {
	e := &Event{Type: fill.Type, Body: item}
	list, _, err := scanObject(item, nil)
	if err != nil {
		return e
	}
	var f fields
	f.read(item, list)
	if e.Type == "" {
		e.Type, _ = typeOf(&f)
	}
	e.Name = stringOrNumber(f.event)
	e.UserID, e.AnonymousID, e.PreviousID = stringOrNumber(f.userID), stringOrNumber(f.anonymousID), stringOrNumber(f.previousID)
	e.properties, _ = object("properties", f.properties)
	e.traits, _ = object("traits", f.traits)
	e.context, _ = object("context", f.context)
	if fill.Context != nil {
		if merged, _, err := mergeObject(item, list, "context", fill.Context); err != nil {
			e.context = fill.Context
		} else if merged != nil {
			e.context = merged
		}
	}
	if e.context == nil {
		return e
	}
	if list, _, err = scanObject(e.context, nil); err != nil {
		return e
	}
	e.contextTraits, _ = object("context.traits", find(e.context, list, "traits"))
	if ids := find(e.context, list, "externalIds"); len(ids) > 0 && ids[0] == '[' {
		e.externalIDs = ids
	}
	return e
}
