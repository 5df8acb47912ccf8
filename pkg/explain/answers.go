package explain

import (
	"context"
	"slices"
	"time"
)

// Person is who an identifier belongs to.
type Person struct {
	Asked       Identifier `json:"asked"`
	ID          string     `json:"id"` // of today's profile
	Identifiers []Known    `json:"identifiers"`
	FormerIDs   []FormerID `json:"formerIds"` // profile ids of the past that lead here
	Events      uint64     `json:"events"`
	FirstEvent  *time.Time `json:"firstEvent"` // received; null: none is stored
	LastEvent   *time.Time `json:"lastEvent"`
	Merges      int        `json:"merges"`
	Pending     string     `json:"pending,omitempty"` // what is not in the answer yet
}

// Known is one identifier of a person.
type Known struct {
	Identifier
	FirstSeen *time.Time `json:"firstSeen"` // receipt of the first event known to carry it; null: none is stored
	// Linked is the link that first tied it to another identifier; null: it is the person's only one.
	Linked *Link `json:"linked"`
}

// FormerID is a profile id that was merged into another.
type FormerID struct {
	ID     string     `json:"id"`
	Until  time.Time  `json:"until"`  // receipt of the event that ended it
	Into   string     `json:"into"`   // what it became then
	Events uint64     `json:"events"` // stored under this id
	First  *time.Time `json:"firstEvent"`
	Last   *time.Time `json:"lastEvent"`
}

// Show is who an identifier belongs to. ErrNobody: there is no such identifier.
func (e *Explainer) Show(ctx context.Context, asked Identifier) (*Person, error) {
	p, err := e.find(ctx, asked)
	if err != nil {
		return nil, err
	}
	counts, err := e.history.PersonEvents(ctx, p.id)
	if err != nil {
		return nil, err
	}
	out := &Person{Asked: asked, ID: p.id.String(), Merges: len(p.links), Pending: p.pending(), FormerIDs: []FormerID{}}
	first := map[string]time.Time{}
	type span struct {
		events      uint64
		first, last *time.Time
	}
	spans := map[string]span{}
	for _, c := range counts {
		from, to := c.First.UTC(), c.Last.UTC()
		id := c.Profile.String()
		first[id], spans[id] = from, span{c.Events, &from, &to}
		out.Events += c.Events
		if out.FirstEvent == nil || from.Before(*out.FirstEvent) {
			out.FirstEvent = &from
		}
		if out.LastEvent == nil || to.After(*out.LastEvent) {
			out.LastEvent = &to
		}
	}
	linked := p.firstLinks()
	for _, id := range sortedIDs(p.members) {
		k := Known{Identifier: p.name(id), Linked: linked[id]}
		// Before it was linked it was a person of its own, whose events have its id.
		if t, ok := first[id]; ok {
			k.FirstSeen = &t
		}
		if k.Linked != nil && (k.FirstSeen == nil || k.Linked.Time.Before(*k.FirstSeen)) {
			k.FirstSeen = &k.Linked.Time
		}
		out.Identifiers = append(out.Identifiers, k)
	}
	winners := map[string]bool{}
	for _, l := range p.links {
		winners[l.Winner] = true
	}
	for _, l := range p.links {
		s := spans[l.Loser]
		if s.events == 0 && !winners[l.Loser] && l.Moved <= 1 {
			continue // nobody ever saw it
		}
		out.FormerIDs = append(out.FormerIDs, FormerID{ID: l.Loser, Until: l.Time, Into: l.Winner, Events: s.events, First: s.first, Last: s.last})
	}
	return out, nil
}

// firstLinks is the earliest link of each identifier.
func (p *person) firstLinks() map[string]*Link {
	out := map[string]*Link{}
	for i := range p.links { // by time
		for _, id := range p.links[i].Between {
			if out[id.ID] == nil {
				out[id.ID] = &p.links[i]
			}
		}
	}
	return out
}

func (p *person) pending() string {
	if p.complete {
		return ""
	}
	return Pending
}

// Chain is why two identifiers are one person, or that they are not.
type Chain struct {
	From       Identifier `json:"from"`
	To         Identifier `json:"to"`
	SamePerson bool       `json:"samePerson"`
	PersonFrom string     `json:"personFrom"`
	PersonTo   string     `json:"personTo"`
	Links      []Step     `json:"links"` // from From to To
	Pending    string     `json:"pending,omitempty"`
}

// Step is a link as it is walked: Link.Between, in the direction of the chain.
type Step struct {
	From Identifier `json:"from"`
	To   Identifier `json:"to"`
	Link
}

// Why is the chain of links between two identifiers. There is only one: a link is made only between two people, so the
// links of a person are a tree. ErrNobody: one of them is unknown.
func (e *Explainer) Why(ctx context.Context, from, to Identifier) (*Chain, error) {
	a, err := e.find(ctx, from)
	if err != nil {
		return nil, err
	}
	b, err := e.find(ctx, to)
	if err != nil {
		return nil, err
	}
	out := &Chain{From: known(from, a), To: known(to, b), PersonFrom: a.id.String(), PersonTo: b.id.String(), Links: []Step{}}
	if out.SamePerson = a.id == b.id; !out.SamePerson {
		return out, nil
	}
	steps, ok := b.path(from.ID, to.ID)
	if !ok {
		out.Pending = Pending
		return out, nil
	}
	out.Links = steps
	return out, nil
}

// known is an identifier with its name, where only its id was asked.
func known(asked Identifier, p *person) Identifier {
	if asked.Type == "" {
		return p.name(asked.ID)
	}
	return asked
}

// path walks the tree of links.
func (p *person) path(from, to string) ([]Step, bool) {
	if from == to {
		return []Step{}, true
	}
	type edge struct {
		link int
		to   string
	}
	edges := map[string][]edge{}
	for i, l := range p.links {
		a, b := l.Between[0].ID, l.Between[1].ID
		edges[a] = append(edges[a], edge{i, b})
		edges[b] = append(edges[b], edge{i, a})
	}
	came := map[string]edge{from: {-1, ""}} // how each was reached: by which link, from where
	queue := []string{from}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, e := range edges[at] {
			if _, seen := came[e.to]; seen {
				continue
			}
			came[e.to] = edge{e.link, at}
			queue = append(queue, e.to)
		}
	}
	if _, reached := came[to]; !reached {
		return nil, false
	}
	var out []Step
	for at := to; at != from; at = came[at].to {
		l := p.links[came[at].link]
		out = append(out, Step{From: p.name(came[at].to), To: p.name(at), Link: l})
	}
	slices.Reverse(out)
	return out, true
}

// Past is the merges of a person over time.
type Past struct {
	Asked   Identifier `json:"asked"`
	ID      string     `json:"id"`
	Merges  []Link     `json:"merges"` // by time
	Pending string     `json:"pending,omitempty"`
}

// History is the merges that made a person. ErrNobody: there is no such identifier.
func (e *Explainer) History(ctx context.Context, asked Identifier) (*Past, error) {
	p, err := e.find(ctx, asked)
	if err != nil {
		return nil, err
	}
	out := &Past{Asked: asked, ID: p.id.String(), Merges: p.links, Pending: p.pending()}
	if out.Merges == nil {
		out.Merges = []Link{}
	}
	return out, nil
}
