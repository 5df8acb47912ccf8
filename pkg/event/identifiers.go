package event

import (
	"fmt"
	"slices"
	"strings"
)

// MaxExternalIDs is how many entries context.externalIds may have. SDKs fill in a handful; the bound keeps one
// event from joining thousands of identifiers.
const MaxExternalIDs = 100

// Identifiers returns what the event says about who it is: userId, anonymousId, the person's e-mail and phone
// (traits, else context.traits), context.externalIds, and of an alias the previousId (as a user id). Blank
// and null ones are left out, as are external ids without a type or longer than MaxIDBytes; there are no
// duplicates. Values are as they came, not normalised.
func (e *Event) Identifiers() []Identifier {
	ids := make([]Identifier, 0, 6)
	add := func(typ, value string) {
		id := Identifier{Type: typ, Value: value}
		if strings.TrimSpace(typ) == "" || strings.TrimSpace(value) == "" || len(value) > MaxIDBytes || slices.Contains(ids, id) {
			return
		}
		ids = append(ids, id)
	}
	add(UserID, e.UserID)
	add(AnonymousID, e.AnonymousID)
	email, phone := e.reachableAt()
	add(Email, email)
	add(Phone, phone)
	for _, x := range e.external() {
		add(x.Type, x.Value)
	}
	if e.Type == Alias {
		add(UserID, e.PreviousID)
	}
	return ids
}

// reachableAt reads e-mail and phone of the person.
func (e *Event) reachableAt() (email, phone string) {
	sources := [][]byte{e.traits, e.contextTraits}
	if e.Type == Group {
		sources = sources[1:] // those of a group call are the group's
	}
	for _, raw := range sources {
		if raw == nil {
			continue
		}
		var room [24]member
		list, _, err := scanObject(raw, room[:0])
		if err != nil {
			continue // cannot be: it was scanned as part of the body
		}
		if email == "" {
			email = stringOrNumber(find(raw, list, "email"))
		}
		if phone == "" {
			phone = stringOrNumber(find(raw, list, "phone"))
		}
	}
	return email, phone
}

func stringOrNumber(raw []byte) string {
	if len(raw) == 0 || raw[0] == 't' || raw[0] == 'f' {
		return ""
	}
	return textOf(raw)
}

// external reads context.externalIds: [{"id": ..., "type": ...}, ...]. What is not of that shape is left out.
func (e *Event) external() []Identifier {
	if e.externalIDs == nil {
		return nil
	}
	s := scanner{b: e.externalIDs}
	var items []span
	if _, err := s.array(0, &items); err != nil {
		return nil // cannot be: it was scanned as part of the body
	}
	if len(items) > MaxExternalIDs {
		items = items[:MaxExternalIDs] // Validate has refused it at the door
	}
	var ids []Identifier
	for _, at := range items {
		raw := e.externalIDs[at.from:at.to]
		list, _, err := scanObject(raw, nil)
		if err != nil {
			continue
		}
		id := Identifier{Type: textOf(find(raw, list, "type")), Value: stringOrNumber(find(raw, list, "id"))}
		if strings.TrimSpace(id.Type) != "" && strings.TrimSpace(id.Value) != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

func (e *Event) countExternal() int {
	if len(e.externalIDs) <= 2*MaxExternalIDs { // an element and a comma are two bytes
		return 0
	}
	s := scanner{b: e.externalIDs}
	var items []span
	if _, err := s.array(0, &items); err != nil {
		return 0 // cannot be: it was scanned as part of the body
	}
	return len(items)
}

// Key is the sender's own id for the person, by which events of one sender keep their order: anonymousId,
// else userId, else the first external id, else e-mail, else phone; nil if the event names nobody. It must not be
// changed: of a Reader's event it is a part of the body.
func (e *Event) Key() []byte {
	own := e.AnonymousID
	if own == "" {
		own = e.UserID
	}
	switch {
	case own != "" && e.alias:
		return ViewText(own)
	case own != "":
		return []byte(own)
	}
	if ids := e.external(); len(ids) > 0 {
		return []byte(ids[0].Value)
	}
	if ids := e.Identifiers(); len(ids) > 0 {
		return []byte(ids[0].Value)
	}
	return nil
}

// Validate checks what Segment's calls require of a decoded event (field facts 5.4). Any identifier serves as
// "who": a till has no anonymous id. The error is an *Error.
func (e *Event) Validate() error {
	missing := func(reason, path, detail string) error { return &Error{Reason: reason, Path: path, Detail: detail} }
	switch {
	case e.Type == Alias && e.PreviousID == "":
		return missing(MissingPreviousID, "previousId", "an alias names the id that was used before")
	case e.Type == Alias && e.UserID == "":
		return missing(MissingUserID, "userId", "an alias names the id that is used from now on")
	case e.countExternal() > MaxExternalIDs:
		return missing(TooManyIDs, "context.externalIds", fmt.Sprintf("has more than %d entries", MaxExternalIDs))
	case e.UserID == "" && e.AnonymousID == "" && len(e.Identifiers()) == 0:
		return missing(NoUserAnonID, "userId", "names nobody: neither userId nor anonymousId, e-mail, phone or external id")
	case e.Type == Track && e.Name == "":
		return missing(MissingEvent, "event", "a track has the name of its event")
	case e.Type == Group && e.GroupID == "":
		return missing(MissingGroupID, "groupId", "a group call names its group")
	}
	return nil
}
