package event

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Paths are places in events whose texts are read together: userId, anonymousId, previousId, groupId, type, event, and
// below properties, traits and context, as in context.device.id or context.integrations["Google Analytics"].clientId.
// They are safe for concurrent use.
//
// As everywhere, the traits of a group call are the group's: there a path below traits finds nothing, one below
// context.traits does.
type Paths struct {
	fields []envelopeField
	roots  []pathRoot
	count  int
}

// envelopeField is a path of one step.
type envelopeField struct {
	of   func(*Event) string
	slot int
}

// pathRoot is an object that Decode has found, with what is to be found below it.
type pathRoot struct {
	of   func(*Event) []byte
	node pathNode
}

// pathNode is a member to be found.
type pathNode struct {
	name   string
	quoted []byte // the name as it stands in a text that writes it without escapes
	slot   int    // of its text; -1: only what is below it is wanted
	below  []*pathNode
}

// Texts are what Find found. Its zero value is ready; it is for one goroutine, and may be used again.
type Texts struct {
	texts   []string
	objects []Object // one per level
}

// Text is the text, or the number's digits, at path i of those that the Paths were made of; empty if it is anything else.
// It may alias the event's body.
func (t *Texts) Text(i int) string { return t.texts[i] }

// CompilePaths reads paths. The error is that of the first that cannot be read.
func CompilePaths(paths []string) (*Paths, error) {
	p := &Paths{count: len(paths), roots: []pathRoot{
		{of: func(e *Event) []byte { return e.properties }, node: pathNode{name: "properties", slot: -1}},
		{of: (*Event).ownTraits, node: pathNode{name: "traits", slot: -1}},
		{of: func(e *Event) []byte { return e.contextTraits }, node: pathNode{name: "context.traits", slot: -1}},
		{of: func(e *Event) []byte { return e.context }, node: pathNode{name: "context", slot: -1}},
	}}
	for slot, path := range paths {
		if err := p.add(path, slot); err != nil {
			return nil, fmt.Errorf("path %q: %w", path, err)
		}
	}
	return p, nil
}

// ownTraits are the traits of the call, if they are the person's.
func (e *Event) ownTraits() []byte {
	if e.Type == Group {
		return nil
	}
	return e.traits
}

func (p *Paths) add(path string, slot int) error {
	if of := envelopeText(path); of != nil {
		p.fields = append(p.fields, envelopeField{of, slot})
		return nil
	}
	var names []string
	for rest := "." + path; rest != ""; {
		s, tail, err := parseStep(rest)
		if err != nil {
			return err
		}
		if s.kind != byName {
			return errors.New("want names only: a list has no single value")
		}
		names, rest = append(names, s.name), tail
	}
	if len(names) > 2 && names[0] == "context" && names[1] == "traits" {
		names = append([]string{"context.traits"}, names[2:]...)
	}
	for i := range p.roots {
		if root := &p.roots[i]; root.node.name == names[0] && len(names) > 1 {
			return root.node.add(names[1:], slot)
		}
	}
	return errors.New("want userId, anonymousId, previousId, groupId, type, event, properties.X, traits.X or context.X")
}

func envelopeText(path string) func(*Event) string {
	switch path {
	case "userId":
		return func(e *Event) string { return e.UserID }
	case "anonymousId":
		return func(e *Event) string { return e.AnonymousID }
	case "previousId":
		return func(e *Event) string { return e.PreviousID }
	case "groupId":
		return func(e *Event) string { return e.GroupID }
	case "type":
		return func(e *Event) string { return string(e.Type) }
	case "event":
		return func(e *Event) string { return e.Name }
	}
	return nil
}

func (n *pathNode) add(names []string, slot int) error {
	i := slices.IndexFunc(n.below, func(x *pathNode) bool { return x.name == names[0] })
	if i < 0 {
		i = len(n.below)
		n.below = append(n.below, &pathNode{name: names[0], quoted: AppendJSONString(nil, names[0]), slot: -1})
	}
	next := n.below[i]
	if len(names) > 1 {
		return next.add(names[1:], slot)
	}
	if next.slot >= 0 {
		return errors.New("stands twice")
	}
	next.slot = slot
	return nil
}

// Find reads the texts of an event into t, which keeps nothing of what it held.
func (p *Paths) Find(e *Event, t *Texts) {
	t.texts = slices.Grow(t.texts[:0], p.count)[:p.count]
	clear(t.texts)
	for _, f := range p.fields {
		t.texts[f.slot] = strings.TrimSpace(f.of(e))
	}
	for i := range p.roots {
		if root := &p.roots[i]; len(root.node.below) > 0 {
			root.node.find(root.of(e), t, 0)
		}
	}
}

func (n *pathNode) find(raw []byte, t *Texts, level int) {
	if len(raw) == 0 || raw[0] != '{' || !n.promised(raw) {
		return
	}
	for len(t.objects) <= level {
		t.objects = append(t.objects, Object{})
	}
	t.objects[level].Read(raw)
	for _, x := range n.below {
		v := t.objects[level].Find(x.name)
		if x.slot >= 0 && len(v.Raw) > 0 && v.Raw[0] != 't' && v.Raw[0] != 'f' {
			t.texts[x.slot] = strings.TrimSpace(v.Text())
		}
		if len(x.below) > 0 {
			x.find(v.Raw, t, level+1)
		}
	}
}

// promised says whether anything below n may stand in raw: looking for the names costs a tenth of reading the members. A
// name may also be written with escapes, so that anything may stand in a text that has some.
func (n *pathNode) promised(raw []byte) bool {
	return bytes.IndexByte(raw, '\\') >= 0 || slices.ContainsFunc(n.below, func(x *pathNode) bool { return x.standsIn(raw) })
}

func (n *pathNode) standsIn(raw []byte) bool {
	return bytes.Contains(raw, n.quoted) && (n.slot >= 0 || slices.ContainsFunc(n.below, func(x *pathNode) bool { return x.standsIn(raw) }))
}

// ExternalID is an entry of context.externalIds as Segment documents it. Collection and Encoding are empty where the
// entry does not say.
type ExternalID struct {
	ID, Type, Collection, Encoding string
}

// ExternalIDs calls do with the entries of context.externalIds, at most MaxExternalIDs. What has no id or no type is left
// out. The texts may alias the event's body.
func (e *Event) ExternalIDs(do func(ExternalID)) {
	if e.externalIDs == nil {
		return
	}
	var o Object
	for i, raw := range Elements(e.externalIDs) {
		if i == MaxExternalIDs {
			return // Validate has refused it at the door
		}
		o.Read(raw)
		id := o.Find("id")
		if len(id.Raw) == 0 || id.Raw[0] == 't' || id.Raw[0] == 'f' {
			continue
		}
		x := ExternalID{ID: id.Text(), Type: o.Find("type").Text(), Collection: o.Find("collection").Text(), Encoding: o.Find("encoding").Text()}
		if strings.TrimSpace(x.ID) != "" && strings.TrimSpace(x.Type) != "" {
			do(x)
		}
	}
}
