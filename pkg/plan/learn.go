package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weft-cdp/weft/pkg/event"
)

// Bounds of what is learnt, so that senders who put ids where names belong do not fill the memory or the plan.
const (
	// maxLearntEvents is how many event names are learnt; more are counted in Learner.Left.
	maxLearntEvents = 500
	// maxLearntMembers is how many names one object may have; one with more is a map with keys of its own, not a
	// record, and nothing is said of its members.
	maxLearntMembers = 200
	// maxLearntDepth is how deep objects are looked into.
	maxLearntDepth = 8
	// MinSeen is of how many events a field must have been in every one to be written down as required.
	MinSeen = 20
)

// Learner makes a plan of events. It is for one goroutine.
type Learner struct {
	// Left is how many events were left out because too many names had been learnt before.
	Left   int
	tracks map[string]*node
	calls  map[event.Type]*node
}

// NewLearner starts with nothing learnt.
func NewLearner() *Learner {
	return &Learner{tracks: map[string]*node{}, calls: map[event.Type]*node{}}
}

// node is what was seen at one place.
type node struct {
	seen    int            // values, null included
	types   map[string]int // by the names of JSON Schema
	members map[string]*node
	items   *node
	open    bool // an object with too many names, or too deep
}

func newNode() *node { return &node{types: map[string]int{}} }

// Add learns from an event.
func (l *Learner) Add(e *event.Event) {
	var n *node
	raw := e.RawProperties()
	switch {
	case e.Type != event.Track:
		if n = l.calls[e.Type]; n == nil {
			n = newNode()
			l.calls[e.Type] = n
		}
	case l.tracks[e.Name] != nil:
		n = l.tracks[e.Name]
	case len(l.tracks) < maxLearntEvents:
		n = newNode()
		l.tracks[strings.Clone(e.Name)] = n
	default:
		l.Left++
		return
	}
	if holder(e.Type) == "traits" {
		raw = e.RawTraits()
	}
	n.seen++
	if raw == nil {
		return
	}
	if v, err := event.Tree(raw); err == nil { // a decoded event was scanned
		n.member(holder(e.Type)).learn(v, 0)
	}
}

// holder is where a call keeps what its sender wants to say.
func holder(t event.Type) string {
	if t == event.Identify || t == event.Group {
		return "traits"
	}
	return "properties"
}

func (n *node) member(name string) *node {
	if n.members == nil {
		n.members = map[string]*node{}
	}
	m := n.members[name]
	if m == nil {
		m = newNode()
		n.members[name] = m
	}
	return m
}

func (n *node) learn(v any, depth int) {
	n.seen++
	switch v := v.(type) {
	case nil:
		n.types["null"]++
	case bool:
		n.types["boolean"]++
	case string:
		n.types["string"]++
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") {
			n.types["number"]++
		} else {
			n.types["integer"]++
		}
	case []any:
		n.types["array"]++
		for _, x := range v {
			if n.items == nil {
				n.items = newNode()
			}
			n.items.learn(x, depth+1)
		}
	case map[string]any:
		n.types["object"]++
		n.open = n.open || depth >= maxLearntDepth
		for name, x := range v {
			if n.open || n.members[name] == nil && len(n.members) >= maxLearntMembers {
				n.open, n.members = true, nil
				return
			}
			n.member(name).learn(x, depth+1)
		}
	}
}

// Plan is what was learnt: violations are flagged, all else is allowed, until somebody decides more.
func (l *Learner) Plan() File {
	f := File{Unplanned: Allow, Violations: Flag, Additional: Allow}
	for _, name := range slices.Sorted(maps.Keys(l.tracks)) {
		f.Rules = append(f.Rules, RuleFile{Event: name, Schema: l.tracks[name].whole("event")})
	}
	for _, call := range slices.Sorted(maps.Keys(l.calls)) {
		f.Rules = append(f.Rules, RuleFile{Call: string(call), Schema: l.calls[call].whole("call")})
	}
	return f
}

// whole is the schema of an event.
func (n *node) whole(what string) map[string]any {
	s := map[string]any{"description": fmt.Sprintf("learnt from %d %ss", n.seen, what)}
	if members, required := n.object(n.seen); members != nil {
		s["properties"] = members
		if required != nil {
			s["required"] = required
		}
	}
	return s
}

// object is the schemas of the members of n, which was an object so many times.
func (n *node) object(objects int) (members map[string]any, required []any) {
	for _, name := range slices.Sorted(maps.Keys(n.members)) {
		if members == nil {
			members = map[string]any{}
		}
		m := n.members[name]
		members[name] = m.schema()
		if objects >= MinSeen && m.seen == objects {
			required = append(required, name)
		}
	}
	return members, required
}

func (n *node) schema() map[string]any {
	s := map[string]any{}
	types := slices.Sorted(maps.Keys(n.types))
	if slices.Contains(types, "number") { // of which integers are a part
		types = slices.DeleteFunc(types, func(t string) bool { return t == "integer" })
	}
	switch len(types) {
	case 0:
	case 1:
		s["type"] = types[0]
	default:
		list := make([]any, len(types))
		for i := range types {
			list[i] = types[i]
		}
		s["type"] = list
	}
	if members, required := n.object(n.types["object"]); members != nil && !n.open {
		s["properties"] = members
		if required != nil {
			s["required"] = required
		}
	}
	if n.items != nil {
		s["items"] = n.items.schema()
	}
	return s
}
