package explain

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
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
	Splits      []Split    `json:"splits,omitempty"` // by time: what it was split off from others by
	SetAside    []SetAside `json:"setAside,omitempty"`
	Pending     string     `json:"pending,omitempty"` // what is not in the answer yet
}

// Known is one identifier of a person.
type Known struct {
	Identifier
	FirstSeen *time.Time `json:"firstSeen"` // receipt of the first event known to carry it; null: none is stored
	// Linked is the link that first tied it to another identifier; null: it is the person's only one.
	Linked *Link `json:"linked"`
}

// SetAside is what was set aside of an event that names the person, lately: for whom the event is was decided without it.
type SetAside struct {
	Type   string    `json:"type"`   // of the identifier
	Reason string    `json:"reason"` // limit, untrusted, governor, cut, shared_device, weak, blocked
	Events uint64    `json:"events"`
	Last   time.Time `json:"last"`   // receipt of the last of these
	Stored string    `json:"stored"` // topic:partition:offset of its row in ClickHouse
	Source string    `json:"source"`
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
	aside, err := e.history.PersonSetAside(ctx, p.id, time.Now().Add(-lately), maxSetAside)
	if err != nil {
		return nil, err
	}
	out := &Person{Asked: asked, ID: p.id.String(), Merges: len(p.links), Splits: p.splits, Pending: p.pending(), FormerIDs: []FormerID{}}
	for _, a := range aside {
		out.SetAside = append(out.SetAside, SetAside{Type: a.Type, Reason: a.Reason, Events: a.Events, Last: a.Last.UTC(), Source: a.Source,
			Stored: fmt.Sprintf("%s:%d:%d", a.Topic, a.Partition, a.Offset)})
	}
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
	winners, ended := map[string]bool{}, map[string]bool{}
	endings := slices.Clone(p.links)
	endings = append(endings, p.parts...)
	slices.SortStableFunc(endings, func(a, b Link) int { return a.Time.Compare(b.Time) })
	for _, l := range endings {
		winners[l.Winner] = true
	}
	for _, l := range endings {
		s := spans[l.Loser]
		if s.events == 0 && !winners[l.Loser] && l.Moved <= 1 {
			continue // nobody ever saw it
		}
		if ended[l.Loser] || !p.has(l.Loser) {
			continue // it had ended before, or belongs to somebody from whom this person was split off
		}
		ended[l.Loser] = true
		out.FormerIDs = append(out.FormerIDs, FormerID{ID: l.Loser, Until: l.Time, Into: l.Winner, Events: s.events, First: s.first, Last: s.last})
	}
	return out, nil
}

// Bounds of what a person's answer says of identifiers that were set aside.
const (
	lately      = 30 * 24 * time.Hour
	maxSetAside = 20 // pairs of type and reason: there are more only where somebody makes up types
)

func (p *person) has(id string) bool {
	return slices.ContainsFunc(p.members, func(m uuid.UUID) bool { return m.String() == id })
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
	Links      []Step     `json:"links"`           // from From to To
	Split      *Split     `json:"split,omitempty"` // the last one that went between them
	Pending    string     `json:"pending,omitempty"`
}

// Step is a link as it is walked: Link.Between, in the direction of the chain.
type Step struct {
	From Identifier `json:"from"`
	To   Identifier `json:"to"`
	Link
}

// Why is the chain of links between two identifiers. There is only one where nobody was split: a link is made only between two
// people, so the links of a person are a tree. Where a split has put two identifiers into one part that no link ties, the chain
// goes over the part. ErrNobody: one of them is unknown.
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
		out.Split = between(a, b, from.ID, to.ID)
		return out, nil
	}
	steps, ok := b.path(b.links, from.ID, to.ID)
	if !ok {
		steps, ok = b.path(slices.Concat(b.links, b.parts), from.ID, to.ID)
	}
	if !ok {
		out.Pending = Pending
		return out, nil
	}
	out.Links = steps
	return out, nil
}

// between is the last split that gave two identifiers to two people.
func between(a, b *person, from, to string) *Split {
	var last *Split
	for i := range a.splits {
		s := &a.splits[i]
		one, other := a.parted[s.Command+" "+from], b.parted[s.Command+" "+to]
		if one != "" && other != "" && one != other {
			last = s
		}
	}
	return last
}

// known is an identifier with its name, where only its id was asked.
func known(asked Identifier, p *person) Identifier {
	if asked.Type == "" {
		return p.name(asked.ID)
	}
	return asked
}

// path walks links.
func (p *person) path(links []Link, from, to string) ([]Step, bool) {
	if from == to {
		return []Step{}, true
	}
	type edge struct {
		link int
		to   string
	}
	edges := map[string][]edge{}
	for i, l := range links {
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
		l := links[came[at].link]
		out = append(out, Step{From: p.name(came[at].to), To: p.name(at), Link: l})
	}
	slices.Reverse(out)
	return out, true
}

// Past is the merges and splits of a person over time.
type Past struct {
	Asked   Identifier `json:"asked"`
	ID      string     `json:"id"`
	Merges  []Link     `json:"merges"`           // by time
	Splits  []Split    `json:"splits,omitempty"` // by time
	Pending string     `json:"pending,omitempty"`
}

// History is the merges and splits that made a person. ErrNobody: there is no such identifier.
func (e *Explainer) History(ctx context.Context, asked Identifier) (*Past, error) {
	p, err := e.find(ctx, asked)
	if err != nil {
		return nil, err
	}
	out := &Past{Asked: asked, ID: p.id.String(), Merges: p.links, Splits: p.splits, Pending: p.pending()}
	if out.Merges == nil {
		out.Merges = []Link{}
	}
	return out, nil
}
