package undo

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weft-cdp/weft/pkg/identity"
)

// maxParts is the most parts of one split: each must not be one person with any other, so that the cost grows with their
// square.
const maxParts = 256

// Errors that say why somebody can not be split so.
var (
	ErrAlone     = errors.New("the person has no other identifier: there is nothing to split")
	ErrNotMember = errors.New("the identifier is not one of the person's")
	ErrTied      = errors.New("the two stay connected by other evidence")
	ErrTooMany   = errors.New("the person would fall into too many parts")
)

// Tie is what says that two identifiers are one person's.
type Tie struct {
	A       string `json:"a"`
	B       string `json:"b"`
	Events  int    `json:"events"`            // that carry both, and were stored
	Example string `json:"example,omitempty"` // message id of one of them, or the cause of a link of which no event is stored
}

// Ties is the evidence that makes one person of a set of nodes: which pairs counted together.
type Ties struct {
	members []string // in order
	ties    map[[2]string]*Tie
	records [][]string // nodes that counted together, where they are two or more, each combination once
	known   map[string]bool
	events  map[string]int // by the dearest node
	names   map[string]identity.Identifier
	seen    map[string]bool // message ids
	rank    func(node string) int
}

// NewTies begins with the members of a person. TypeOf is that of the rules.
func NewTies(members []string, rules *identity.Rules) *Ties {
	return &Ties{
		members: slices.Sorted(slices.Values(members)), ties: map[[2]string]*Tie{}, known: map[string]bool{}, events: map[string]int{},
		names: map[string]identity.Identifier{}, seen: map[string]bool{},
		rank: func(node string) int {
			n, err := identity.ParseNode(node)
			if err != nil {
				return 0
			}
			return rules.TypeOf(n).Priority
		},
	}
}

// Add takes an event in.
func (t *Ties) Add(e *Event) {
	nodes := make([]string, len(e.Nodes))
	for i, id := range e.Nodes {
		nodes[i] = id.Node.String()
		if _, ok := t.names[nodes[i]]; !ok && id.Type != "" {
			t.names[nodes[i]] = identity.Identifier{Type: strings.Clone(id.Type), Value: strings.Clone(id.Value), Node: id.Node}
		}
	}
	t.events[nodes[0]]++
	t.seen[e.Event.MessageID] = true
	t.add(nodes, strings.Clone(e.Event.MessageID), 1)
}

// Link takes in a link of which no event is stored: what an operator has said, or what ClickHouse has forgotten.
func (t *Ties) Link(a, b, messageID string) {
	if !t.seen[messageID] && slices.Contains(t.members, a) && slices.Contains(t.members, b) {
		t.add([]string{a, b}, messageID, 0)
	}
}

func (t *Ties) add(nodes []string, example string, events int) {
	for _, n := range nodes {
		t.known[n] = true
	}
	fresh := false
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			pair := [2]string{min(a, b), max(a, b)}
			tie := t.ties[pair]
			if tie == nil {
				tie = &Tie{A: pair[0], B: pair[1], Example: example}
				t.ties[pair] = tie
				fresh = true
			}
			tie.Events += events
		}
	}
	if fresh || len(nodes) > 2 && !t.recorded(nodes) {
		t.records = append(t.records, slices.Sorted(slices.Values(nodes)))
	}
}

func (t *Ties) recorded(nodes []string) bool {
	sorted := slices.Sorted(slices.Values(nodes))
	return slices.ContainsFunc(t.records, func(r []string) bool { return slices.Equal(r, sorted) })
}

// Name is an identifier of the person, without type and value if no event has named it.
func (t *Ties) Name(node string) identity.Identifier {
	id := t.names[node]
	if id.Node.IsZero() {
		id.Node, _ = identity.ParseNode(node)
	}
	return id
}

// TakeOut is the parts without one identifier: it alone, and each set of those that stay tied without it.
func (t *Ties) TakeOut(node string) ([][]string, error) {
	switch {
	case !slices.Contains(t.members, node):
		return nil, ErrNotMember
	case len(t.members) < 2:
		return nil, ErrAlone
	}
	u := newUnion(t.members)
	for _, r := range t.records {
		rest := slices.DeleteFunc(slices.Clone(r), func(n string) bool { return n == node })
		u.join(rest)
	}
	return t.parts(u, [][]string{{node}})
}

// Without is the parts without what ties two identifiers to each other. ErrTied: they are one person's all the same; the ties
// are a way from one to the other.
func (t *Ties) Without(a, b string) ([][]string, []Tie, error) {
	if a == b || !slices.Contains(t.members, a) || !slices.Contains(t.members, b) {
		return nil, nil, ErrNotMember
	}
	u := newUnion(t.members)
	var kept [][]string
	loose := map[string]bool{} // stood in what is left out
	for _, r := range t.records {
		if slices.Contains(r, a) && slices.Contains(r, b) {
			for _, n := range r {
				loose[n] = true
			}
			continue
		}
		kept = append(kept, r)
		u.join(r)
	}
	if u.root(a) == u.root(b) {
		return nil, t.way(kept, a, b), ErrTied
	}
	dear := a // who else stood in what is left out goes with the dearer of the two, as its events do
	if t.rank(b) < t.rank(a) {
		dear = b
	}
	for n := range loose {
		if r := u.root(n); r != u.root(a) && r != u.root(b) {
			u.join([]string{dear, n})
		}
	}
	of := func(n string) []string {
		return slices.DeleteFunc(slices.Clone(t.members), func(m string) bool { return u.root(m) != u.root(n) })
	}
	parts, err := t.parts(u, [][]string{of(a), of(b)})
	return parts, nil, err
}

// way is a shortest way from a to b.
func (t *Ties) way(records [][]string, a, b string) []Tie {
	came := map[string]string{a: ""}
	for queue := []string{a}; len(queue) > 0; queue = queue[1:] {
		for _, r := range records {
			if !slices.Contains(r, queue[0]) {
				continue
			}
			for _, n := range r {
				if _, ok := came[n]; !ok {
					came[n] = queue[0]
					queue = append(queue, n)
				}
			}
		}
	}
	var out []Tie
	for at := b; at != a && came[at] != ""; at = came[at] {
		tie := *t.ties[[2]string{min(at, came[at]), max(at, came[at])}]
		tie.A, tie.B = came[at], at
		out = append(out, tie)
	}
	slices.Reverse(out)
	return out
}

// parts completes the parts that are named by those that are left. Identifiers of which nothing is stored stay with the part
// that has most events.
func (t *Ties) parts(u *union, parts [][]string) ([][]string, error) {
	var unknown []string
	placed := set(slices.Concat(parts...))
	at := map[string]int{}
	for _, m := range t.members {
		switch {
		case placed[m]:
		case !t.known[m]:
			unknown = append(unknown, m)
		default:
			i, ok := at[u.root(m)]
			if !ok {
				i = len(parts)
				at[u.root(m)] = i
				parts = append(parts, nil)
			}
			parts[i] = append(parts[i], m)
		}
	}
	if len(parts) == 1 {
		parts = append(parts, nil)
	}
	if len(unknown) > 0 {
		most, best := 1, -1
		for i, p := range parts {
			n := 0
			for _, m := range p {
				n += t.events[m]
			}
			if n > best && (i > 0 || len(p) > 1) {
				most, best = i, n
			}
		}
		parts[most] = append(parts[most], unknown...)
	}
	for _, p := range parts {
		slices.Sort(p)
	}
	if len(parts) > maxParts {
		return nil, fmt.Errorf("%w: %d, and %d are the most", ErrTooMany, len(parts), maxParts)
	}
	return parts, nil
}

// Parts says whose an event is after a split.
type Parts map[string]int

// NewParts makes the index of a command's parts.
func NewParts(parts [][]string) Parts {
	p := Parts{}
	for i, nodes := range parts {
		for _, n := range nodes {
			p[n] = i
		}
	}
	return p
}

// Of is the part of an event: that of the dearest identifier among those that counted.
func (p Parts) Of(e *Event) int { return p[e.Nodes[0].Node.String()] }

// union is a set of sets.
type union struct{ parent map[string]string }

func newUnion(nodes []string) *union {
	u := &union{parent: make(map[string]string, len(nodes))}
	for _, n := range nodes {
		u.parent[n] = n
	}
	return u
}

func (u *union) root(n string) string {
	for u.parent[n] != n {
		u.parent[n] = u.parent[u.parent[n]]
		n = u.parent[n]
	}
	return n
}

func (u *union) join(nodes []string) {
	for i := 1; i < len(nodes); i++ {
		a, b := u.root(nodes[0]), u.root(nodes[i])
		u.parent[max(a, b)] = min(a, b)
	}
}
