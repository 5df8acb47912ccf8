// Package explain says who a person is made of, and why: the identifiers, the links between them with the event that made
// each, and the merges over time.
//
// It owns: how an operator names somebody, and the answers, which are the same on the command line and over HTTP. It
// guarantees that a chain of links is one that Weft made, each with its own event, and that it says so where ClickHouse
// does not hold all of it yet. It reads ClickHouse alone, which is a few seconds behind. It must not know how links are
// made, nor change any.
package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// ErrNobody means that nothing is known of an identifier.
var ErrNobody = errors.New("nobody has this identifier")

// ErrInput means that what was asked names no identifier.
var ErrInput = errors.New("not an identifier")

// History is what is asked of ClickHouse; *warehouse.Client has it. It is safe for concurrent use. What the methods give
// is as of the moment of each call: a merge may come between two.
type History interface {
	// CurrentPerson is whose a node is today: its own, unless a merge has moved it.
	CurrentPerson(ctx context.Context, node uuid.UUID) (uuid.UUID, error)
	// PersonMembers is the nodes of a person today, itself included.
	PersonMembers(ctx context.Context, person uuid.UUID) ([]uuid.UUID, error)
	// PersonLinks is the evidence of the merges and splits that have to do with a person, by time; the pieces of one are together.
	PersonLinks(ctx context.Context, person uuid.UUID) ([]warehouse.LinkRow, error)
	// PersonCauses is the stored events that made these links.
	PersonCauses(ctx context.Context, person uuid.UUID) ([]warehouse.CauseRow, error)
	// PersonSetAside is what was set aside of the person's events that were received since a time, the last first.
	PersonSetAside(ctx context.Context, person uuid.UUID, since time.Time, limit int) ([]warehouse.SetAsideRow, error)
	// Suspended is links that caps have stopped, the last first.
	Suspended(ctx context.Context, f warehouse.SuspendedFilter) ([]warehouse.SuspendedRow, error)
	// PersonEvents counts the person's events by the profile id that they are stored with.
	PersonEvents(ctx context.Context, person uuid.UUID) ([]warehouse.ProfileEventsRow, error)
}

var _ History = (*warehouse.Client)(nil)

// Explainer answers questions about people. It is safe for concurrent use.
type Explainer struct {
	history History
	rules   *identity.Rules
}

// New makes an explainer that takes identifiers as these rules do.
func New(h History, rules *identity.Rules) *Explainer { return &Explainer{history: h, rules: rules} }

// Identifier is one identifier; type and value are empty where only its id is known.
type Identifier struct {
	ID    string `json:"id"`
	Type  string `json:"type,omitempty"`
	Value string `json:"value,omitempty"`
}

// String is TYPE:VALUE, or the id if that is all there is.
func (i Identifier) String() string {
	if i.Type == "" {
		return i.ID
	}
	return i.Type + ":" + i.Value
}

// typeProfile is the type of a profile id, current or former.
const typeProfile = "profile"

// Parse reads what an operator names somebody by: a profile id, or TYPE:VALUE as it stands in events, which the rules
// normalise. The brand matters to types whose scope is the brand. An error is ErrInput.
func (e *Explainer) Parse(brand, text string) (Identifier, error) {
	text = strings.TrimSpace(text)
	typ, value, ok := strings.Cut(text, ":")
	if ok {
		return e.Identify(brand, typ, value)
	}
	if _, err := uuid.Parse(text); err != nil {
		return Identifier{}, fmt.Errorf("%w: %q: want a profile id, or TYPE:VALUE such as email:ann@example.com", ErrInput, text)
	}
	return e.Identify(brand, typeProfile, text)
}

// Identify reads an identifier as it stands in events of a brand; the type "profile" takes a profile id. An error is
// ErrInput.
func (e *Explainer) Identify(brand, typ, value string) (Identifier, error) {
	if typ == typeProfile {
		n, err := identity.ParseNode(strings.ToLower(strings.TrimSpace(value)))
		if err != nil {
			return Identifier{}, fmt.Errorf("%w: %q is not a profile id (a UUID of version 8); if it is an identifier, say of which type, such as %s:%s",
				ErrInput, value, event.AnonymousID, value)
		}
		return Identifier{ID: n.String()}, nil
	}
	id, ignored := e.rules.IdentifyIn(brand, event.Identifier{Type: typ, Value: value})
	switch ignored {
	case "":
		return Identifier{ID: id.Node.String(), Type: id.Type, Value: id.Value}, nil
	case identity.IgnoredType:
		return Identifier{}, fmt.Errorf("%w: %q is no type of identifier (user_id, email, phone, anonymous_id, ...), nor profile", ErrInput, typ)
	}
	if ignored == identity.IgnoredBrand {
		return Identifier{}, fmt.Errorf("%w: each brand knows its own %s: say which brand", ErrInput, typ)
	}
	return Identifier{}, fmt.Errorf("%w: %s %q names nobody: %s", ErrInput, typ, value, ignored)
}

// Event is the event that made a link.
type Event struct {
	Source    string `json:"source,omitempty"` // empty where the event is no longer, or not yet, in ClickHouse
	Brand     string `json:"brand,omitempty"`
	Type      string `json:"type,omitempty"`
	Name      string `json:"name,omitempty"`
	MessageID string `json:"messageId"`
	Position  string `json:"position"`         // where it came in: stage:partition:sequence, or topic:partition:offset
	Stored    string `json:"stored,omitempty"` // topic:partition:offset of its row in ClickHouse
}

// Link is one link of a person, which made two people one: this event said that these two identifiers are one person's.
type Link struct {
	Between   [2]Identifier `json:"between"`
	Rule      string        `json:"rule"`
	Time      time.Time     `json:"time"`      // when the event was received
	KnownFrom *time.Time    `json:"knownFrom"` // when the merge was published; null: not kept
	Event     Event         `json:"event"`
	Loser     string        `json:"loser"`  // the profile id that ended
	Winner    string        `json:"winner"` // the one it became
	Moved     int           `json:"moved"`  // identifiers of the loser
	Said                    // of a link by an operator
}

// Said is who has said something of identities, and why.
type Said struct {
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Split is a split of a person, as one of its parts has it.
type Split struct {
	Command   string     `json:"command"`
	Time      time.Time  `json:"time"`      // when it was said
	KnownFrom *time.Time `json:"knownFrom"` // when it was carried out
	Part      string     `json:"part"`      // the profile id that the part got
	Members   int        `json:"members"`   // identifiers of this person that went there
	Said
}

// person is all that ClickHouse holds of one.
type person struct {
	id       uuid.UUID
	members  []uuid.UUID
	links    []Link                // the merges between these members
	splits   []Split               // by time
	parts    []Link                // each member with the part that it went to, of these splits
	parted   map[string]string     // by command and id: the part that it went to, whoever has that now
	names    map[string]Identifier // by id
	complete bool                  // every merge is there
}

// load reads a person with the links.
func (e *Explainer) load(ctx context.Context, id uuid.UUID) (*person, error) {
	p := &person{id: id, names: map[string]Identifier{}}
	var err error
	if p.members, err = e.history.PersonMembers(ctx, id); err != nil {
		return nil, err
	}
	rows, err := e.history.PersonLinks(ctx, id)
	if err != nil {
		return nil, err
	}
	var causes []warehouse.CauseRow
	if len(rows) > 0 {
		if causes, err = e.history.PersonCauses(ctx, id); err != nil {
			return nil, err
		}
	}
	p.link(rows, causes)
	return p, nil
}

// ruleSplit is the rule of rows that tie the members of a split person to their parts.
const ruleSplit = "split"

// link makes links of the pieces of evidence. After a split some have to do with others as well: those are left out.
func (p *person) link(rows []warehouse.LinkRow, causes []warehouse.CauseRow) {
	type when struct {
		messageID string
		received  int64
	}
	events := make(map[when]warehouse.CauseRow, len(causes))
	for _, c := range causes {
		events[when{c.MessageID, c.ReceivedAt.UnixMilli()}] = c
	}
	is := make(map[string]bool, len(p.members))
	for _, m := range p.members {
		is[m.String()] = true
	}
	p.parted = map[string]string{}
	lost := map[string]bool{}
	for i := 0; i < len(rows); {
		r, end := rows[i], i+1
		for end < len(rows) && rows[end].Loser == r.Loser && rows[end].Cause == r.Cause {
			end++
		}
		if is[r.Loser.String()] {
			lost[r.Loser.String()] = true
		}
		l := linkOf(rows[i:end])
		if c, ok := events[when{r.MessageID, r.Time.UnixMilli()}]; ok {
			l.Event.Source, l.Event.Brand, l.Event.Type, l.Event.Name = c.Source, c.Brand, c.Type, c.Name
			l.Event.Stored = fmt.Sprintf("%s:%d:%d", c.Topic, c.Partition, c.Offset)
		}
		i = end
		for _, id := range l.Between {
			if id.Type != "" && is[id.ID] {
				p.names[id.ID] = id
			}
		}
		switch whole := is[l.Between[0].ID] && is[l.Between[1].ID]; {
		case l.Rule == ruleSplit:
			p.part(l, whole)
		case whole:
			p.links = append(p.links, l)
		}
	}
	delete(lost, p.id.String())
	// Each merge, and each split, ends the ids of others.
	p.complete = len(lost) >= len(is)-1
}

// linkOf is the link that pieces of evidence are of.
func linkOf(pieces []warehouse.LinkRow) Link {
	r := pieces[0]
	l := Link{
		Rule: r.Rule, Time: r.Time.UTC(), Loser: r.Loser.String(), Winner: r.Winner.String(), Moved: int(r.Members),
		Event: Event{MessageID: r.MessageID, Position: r.Cause}, Said: Said{Actor: r.Actor, Reason: r.Reason},
		Between: [2]Identifier{{ID: r.Winner.String()}, {ID: r.Loser.String()}},
	}
	if r.KnownFrom.Unix() > 0 {
		known := r.KnownFrom.UTC()
		l.KnownFrom = &known
	}
	if len(pieces) == len(l.Between) { // the two that the event carried
		for n, piece := range pieces {
			l.Between[n] = Identifier{ID: piece.Node.String(), Type: piece.Type, Value: piece.Value}
		}
	}
	return l
}

// part notes where a member went in a split; whole says that the part is of this person, too.
func (p *person) part(l Link, whole bool) {
	p.parted[l.Event.Position+" "+l.Loser] = l.Winner
	if !whole {
		return
	}
	p.parts = append(p.parts, l)
	i := slices.IndexFunc(p.splits, func(s Split) bool { return s.Command == l.Event.Position && s.Part == l.Winner })
	if i < 0 {
		i = len(p.splits)
		p.splits = append(p.splits, Split{Command: l.Event.Position, Time: l.Time, KnownFrom: l.KnownFrom, Part: l.Winner, Said: l.Said})
	}
	p.splits[i].Members++
	if k := l.KnownFrom; k != nil && (p.splits[i].KnownFrom == nil || k.Before(*p.splits[i].KnownFrom)) {
		p.splits[i].KnownFrom = k
	}
}

// name is an identifier with what is known of it.
func (p *person) name(id string) Identifier {
	if n, ok := p.names[id]; ok {
		return n
	}
	return Identifier{ID: id}
}

// find is the person that an identifier belongs to today; ErrNobody if there is none.
func (e *Explainer) find(ctx context.Context, asked Identifier) (*person, error) {
	node, err := uuid.Parse(asked.ID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	id, err := e.history.CurrentPerson(ctx, node)
	if err != nil {
		return nil, err
	}
	p, err := e.load(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(p.members) > 1 {
		return p, nil
	}
	// Nobody else is linked to it: then there is an event of its own, or nothing.
	events, err := e.history.PersonEvents(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNobody, asked)
	}
	p.names[asked.ID] = asked
	if asked.Type == "" {
		p.names[asked.ID] = e.guess(asked.ID, events[0])
	}
	return p, nil
}

// guess names a node that is linked to no other by what its events carry.
func (e *Explainer) guess(id string, events warehouse.ProfileEventsRow) Identifier {
	for typ, value := range map[string]string{event.UserID: events.UserID, event.AnonymousID: events.AnonymousID} {
		if n, ignored := e.rules.Identify(event.Identifier{Type: typ, Value: value}); ignored == "" && n.Node.String() == id {
			return Identifier{ID: id, Type: n.Type, Value: n.Value}
		}
	}
	return Identifier{ID: id}
}

// Pending says that a merge is not in ClickHouse yet, which holds it within seconds.
const Pending = "not every link of this person is in ClickHouse yet; ask again in a few seconds"

func sortedIDs(members []uuid.UUID) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.String()
	}
	slices.Sort(out) // the order of nodes: the person's own id is the first
	return slices.Compact(out)
}
