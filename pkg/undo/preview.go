package undo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Folds is what events become: the rules of profile-builder and activator.
type Folds struct {
	Profile   profile.Rules
	Audiences *profile.Audiences
	Journeys  []*journey.Journey
}

// Waiting is a journey that waits with a cart.
type Waiting struct {
	Journey string    `json:"journey"`
	Brand   string    `json:"brand"`
	Cart    string    `json:"cart,omitempty"`
	ArmedAt time.Time `json:"armedAt"`
}

// Person is one person as folded from events.
type Person struct {
	Identifiers []explain.Identifier `json:"identifiers"`
	Events      int                  `json:"events"`
	FirstEvent  *time.Time           `json:"firstEvent,omitempty"` // received
	LastEvent   *time.Time           `json:"lastEvent,omitempty"`
	Profile     profile.Document     `json:"profile"` // its id is empty: it gets one with the command
	Running     []Waiting            `json:"running"`
}

// Preview is what a split will make of a person, and the command that does it.
type Preview struct {
	Person  string           `json:"person"` // today's profile id
	Now     Person           `json:"now"`
	Parts   []Person         `json:"parts"` // as the command has them
	Command identity.Command `json:"command"`
	Tied    []Tie            `json:"tied,omitempty"` // instead of parts: what keeps the two together
}

// Question says how a person is to be split: without one identifier, or without what ties two.
type Question struct {
	Person  string   // profile id
	Members []string // of the person, as shown
	Out     string   // node to take out; empty: Link
	Link    [2]string
	// Parts are given where they are known already: Out and Link are not looked at then.
	Parts [][]string
}

// Previewer answers what splits will do.
type Previewer struct {
	history *History
	rules   *identity.Rules
	folds   func() (Folds, error)
	links   func(ctx context.Context, person string) ([][2]string, []string, error)
	now     func() time.Time
}

// NewPreviewer makes one. folds gives the rules as they are at each preview; links gives the pairs of a person's links, with the message id of each; nil: events alone count.
func NewPreviewer(h *History, rules *identity.Rules, folds func() (Folds, error), links func(ctx context.Context, person string) ([][2]string, []string, error), now func() time.Time) *Previewer {
	return &Previewer{h, rules, folds, links, now}
}

// Preview folds a person's events as the split will have them. ErrTied comes with Tied; other errors of Ties with nothing.
func (p *Previewer) Preview(ctx context.Context, q Question) (*Preview, error) {
	folds, err := p.folds()
	if err != nil {
		return nil, err
	}
	places, err := p.history.Places(ctx, q.Members)
	if err != nil {
		return nil, err
	}
	if len(places) > MaxEvents {
		return nil, fmt.Errorf("the person has %d events, and %d are the most that are told again", len(places), MaxEvents)
	}
	decisions, err := p.history.Decisions(ctx, q.Members)
	if err != nil {
		return nil, err
	}
	members := set(q.Members)
	ties := NewTies(q.Members, p.rules)
	if err := p.each(ctx, members, places, func(e *Event) { ties.Add(e) }); err != nil {
		return nil, err
	}
	if p.links != nil {
		pairs, causes, err := p.links(ctx, q.Person)
		if err != nil {
			return nil, err
		}
		for i, pair := range pairs {
			if len(q.Parts) == 0 && q.Out == "" && (pair == q.Link || pair == [2]string{q.Link[1], q.Link[0]}) {
				continue
			}
			ties.Link(pair[0], pair[1], causes[i])
		}
	}
	out := &Preview{Person: q.Person}
	parts := q.Parts
	switch {
	case len(parts) > 0:
	case q.Out != "":
		parts, err = ties.TakeOut(q.Out)
	default:
		parts, out.Tied, err = ties.Without(q.Link[0], q.Link[1])
	}
	if errors.Is(err, ErrTied) {
		return out, err
	}
	if err != nil {
		return nil, err
	}
	out.Command = identity.Command{Kind: identity.CommandSplit, Person: q.Person, Members: slices.Sorted(slices.Values(q.Members)), Parts: parts}
	now := p.now()
	whole := newFolded(folds, q.Person, decisions)
	each := make([]*folded, len(parts))
	for i := range parts {
		each[i] = newFolded(folds, "", decisions)
	}
	index := NewParts(parts)
	err = p.each(ctx, members, places, func(e *Event) {
		whole.add(e)
		each[index.Of(e)].add(e)
	})
	if err != nil {
		return nil, err
	}
	out.Now = whole.person(q.Members, ties, now)
	for i := range parts {
		out.Parts = append(out.Parts, each[i].person(parts[i], ties, now))
	}
	return out, nil
}

func (p *Previewer) each(ctx context.Context, members map[string]bool, places []Place, see func(e *Event)) error {
	for some := range slices.Chunk(places, AtOnce) {
		events, err := p.history.Events(ctx, members, some)
		if err != nil {
			return err
		}
		for i := range events {
			see(&events[i])
		}
	}
	return nil
}

// folded is a person as its events make it, by the folds of the stages.
type folded struct {
	folds   Folds
	key     string
	profile profile.State
	state   journey.State
	facts   []journey.Published // in the order of their times
	over    map[string]bool     // receipts
	next    int
	events  int
	first   time.Time
	last    time.Time
}

// requestedTopic is how the name of the topic ends whose records are requests; the others are receipts.
var requestedTopic = topic.Set{}.ActivationsRequested()

func newFolded(folds Folds, key string, decisions []stream.Record) *folded {
	f := &folded{folds: folds, key: key, over: map[string]bool{}}
	requested := map[string]bool{}
	for i := range decisions {
		if !strings.HasSuffix(decisions[i].Topic, requestedTopic) {
			continue
		}
		if x, err := journey.PublishedRequest(decisions[i].Value); err == nil {
			f.facts = append(f.facts, x)
			f.over[x.Receipt], requested[x.Receipt] = true, true
		}
	}
	for i := range decisions {
		if strings.HasSuffix(decisions[i].Topic, requestedTopic) {
			continue
		}
		if x, _, err := journey.PublishedReceipt(decisions[i].Value); err == nil && !requested[x.Receipt] {
			f.facts = append(f.facts, x)
			f.over[x.Receipt] = true
		}
	}
	slices.SortStableFunc(f.facts, func(a, b journey.Published) int { return int(a.At - b.At) })
	return f
}

func (f *folded) restore(until time.Time) {
	for f.next < len(f.facts) && f.facts[f.next].At < until.UnixMilli() {
		f.state.Restore(&f.facts[f.next], func(receipt string) bool { return f.over[receipt] })
		f.next++
	}
}

func (f *folded) add(e *Event) {
	if f.events++; f.events == 1 {
		f.first = e.Received
	}
	f.last = e.Received
	_ = f.profile.Apply(e.Event, &f.folds.Profile) // what can not be read counts as an event, as in the builder
	f.restore(e.Received)
	d := journey.Decider{Journeys: f.folds.Journeys, Version: f.version}
	d.Observe(f.key, &f.state, e.Event, e.Received)
}

func (f *folded) version(name, version string) (*journey.Journey, error) {
	for _, j := range f.folds.Journeys {
		if j.Name == name && j.Version == version {
			return j, nil
		}
	}
	return nil, nil //nolint:nilnil // nobody has it any more: see journey.Decider
}

func (f *folded) person(nodes []string, ties *Ties, now time.Time) Person {
	f.restore(now.Add(time.Hour))
	f.state.Drop(func(in *journey.Instance, due int64) bool { return f.over[in.Receipt] || due < now.UnixMilli() })
	if f.folds.Audiences != nil && f.profile.Events > 0 {
		f.profile.Settle(f.key, f.folds.Audiences, now)
	}
	out := Person{Events: f.events, Profile: f.profile.Document(f.key), Running: []Waiting{}}
	for _, n := range nodes {
		id := ties.Name(n)
		out.Identifiers = append(out.Identifiers, explain.Identifier{ID: n, Type: id.Type, Value: id.Value})
	}
	if f.events > 0 {
		out.FirstEvent, out.LastEvent = &f.first, &f.last
	}
	for _, name := range sortedBrands(f.state.Brands) {
		for _, in := range f.state.Brands[name].Running {
			out.Running = append(out.Running, Waiting{Journey: in.Journey, Brand: name, Cart: in.Cart, ArmedAt: time.UnixMilli(in.ArmedAt).UTC()})
		}
	}
	return out
}

func sortedBrands(m map[string]*journey.Brand) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
