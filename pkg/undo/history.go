package undo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stored"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// AtOnce is how many events are read together: some megabytes, and a query of a hundred kilobytes.
	AtOnce = 2000
	// nodesAtOnce is how many nodes stand in one query, which has a limit of 256 KiB.
	nodesAtOnce = 2000
	// MaxEvents is the most events of a person who is split: each is told again under a number of its own, of which a command
	// has some million.
	MaxEvents = 900_000
)

// eventKey is the number under which event_parts knows an event, from its row in events.
const eventKey = `bitXor(cityHash64(topic), bitShiftLeft(toUInt64(partition), 48) + offset)`

// Place is where an event stands first, and when it was received.
type Place struct {
	Topic     string    `ch:"topic" json:"t"`
	Partition uint32    `ch:"partition" json:"p"`
	Offset    uint64    `ch:"offset" json:"o"`
	Profile   uuid.UUID `ch:"profile_id" json:"i"` // under which it is stored
	Received  time.Time `ch:"received_at" json:"r"`
	Key       uint64    `ch:"key" json:"-"`
}

// Origin is its text, as in header weft-origin.
func (p *Place) Origin() string { return fmt.Sprintf("%s:%d:%d", p.Topic, p.Partition, p.Offset) }

// Event is a stored event of a person.
type Event struct {
	Place
	Record stream.Record
	Event  *event.Event
	// Nodes are the identifiers that counted for whose it is, the dearest first; never none.
	Nodes []identity.Identifier
}

// History reads what ClickHouse holds of people.
type History struct {
	warehouse stored.Warehouse
	rules     *identity.Rules
}

// NewHistory makes one that reads identifiers as these rules do.
func NewHistory(w stored.Warehouse, rules *identity.Rules) *History { return &History{w, rules} }

// Places lists the events of the person with these members, in the order of their receipt: those stored under a member,
// unless an earlier split has moved them elsewhere, and those that one has moved to a member.
func (h *History) Places(ctx context.Context, members []string) ([]Place, error) {
	in := set(members)
	found := map[string]Place{}
	moved := map[string]string{} // by origin: to whom a split has moved it last
	for some := range slices.Chunk(members, nodesAtOnce) {
		list := literals(some)
		var parts []struct {
			N uint64 `ch:"n"`
		}
		if err := h.warehouse.Select(ctx, &parts, `SELECT count() AS n FROM ${database}.event_parts WHERE person IN (`+list+`)`); err != nil {
			return nil, fmt.Errorf("look for events of earlier splits: %w", err)
		}
		where := `profile_id IN (` + list + `)`
		if len(parts) > 0 && parts[0].N > 0 {
			where += ` OR ` + eventKey + ` IN (SELECT event FROM ${database}.event_parts WHERE person IN (` + list + `))`
		}
		var rows []Place
		if err := h.warehouse.Select(ctx, &rows, `SELECT topic, partition, offset, profile_id, received_at, `+eventKey+` AS key FROM ${database}.events WHERE `+where); err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		for i := range rows {
			found[rows[i].Origin()] = rows[i]
		}
		var gone []struct {
			Topic     string    `ch:"event_topic"`
			Partition uint32    `ch:"event_partition"`
			Offset    uint64    `ch:"event_offset"`
			Person    uuid.UUID `ch:"person_now"`
		}
		err := h.warehouse.Select(ctx, &gone, `SELECT event_topic, event_partition, event_offset, argMax(person, version) AS person_now FROM ${database}.event_parts
WHERE event IN (SELECT `+eventKey+` FROM ${database}.events WHERE `+where+`) GROUP BY event_topic, event_partition, event_offset`)
		if err != nil {
			return nil, fmt.Errorf("look where earlier splits have moved events: %w", err)
		}
		for i := range gone {
			at := Place{Topic: gone[i].Topic, Partition: gone[i].Partition, Offset: gone[i].Offset}
			moved[at.Origin()] = gone[i].Person.String()
		}
	}
	out := make([]Place, 0, len(found))
	for origin, p := range found {
		whose, ok := moved[origin]
		if !ok {
			whose = p.Profile.String()
		}
		if in[whose] {
			p.Received = p.Received.UTC()
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Place) int {
		return cmp.Or(a.Received.Compare(b.Received), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return out, nil
}

// Events reads the events of at most AtOnce places, in their order. Members are the person's.
func (h *History) Events(ctx context.Context, members map[string]bool, places []Place) ([]Event, error) {
	if len(places) == 0 {
		return nil, nil
	}
	first, last := places[0].Received, places[0].Received
	profiles, topics := map[string]bool{}, map[string]bool{}
	at := make([]string, len(places))
	for i := range places {
		p := &places[i]
		if p.Received.Before(first) {
			first = p.Received
		}
		if p.Received.After(last) {
			last = p.Received
		}
		profiles[p.Profile.String()], topics[p.Topic] = true, true
		at[i] = fmt.Sprintf("(%d,%d)", p.Partition, p.Offset)
	}
	var rows []stored.Event
	err := h.warehouse.Select(ctx, &rows, stored.EventColumns+fmt.Sprintf(` WHERE toUnixTimestamp64Milli(received_at) BETWEEN %d AND %d`, first.UnixMilli(), last.UnixMilli())+
		` AND topic IN (`+literals(keys(topics))+`) AND profile_id IN (`+literals(keys(profiles))+`) AND (partition, offset) IN (`+strings.Join(at, ",")+`)`)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	byOrigin := make(map[string]*stored.Event, len(rows))
	for i := range rows {
		p := Place{Topic: rows[i].Topic, Partition: rows[i].Partition, Offset: rows[i].Offset}
		byOrigin[p.Origin()] = &rows[i]
	}
	out := make([]Event, len(places))
	for i := range places {
		row := byOrigin[places[i].Origin()]
		if row == nil {
			return nil, fmt.Errorf("read events: %s is not in ClickHouse any more", places[i].Origin())
		}
		if out[i], err = h.event(members, places[i], row); err != nil {
			return nil, fmt.Errorf("make event %s again: %w", places[i].Origin(), err)
		}
	}
	return out, nil
}

func (h *History) event(members map[string]bool, p Place, row *stored.Event) (Event, error) {
	out := Event{Place: p}
	var err error
	if out.Record, err = row.Record(); err != nil {
		return out, err
	}
	meta, err := topic.ParseMeta(out.Record.Headers)
	if err != nil {
		return out, err
	}
	if out.Event, err = event.Decode(out.Record.Value, meta); err != nil {
		return out, err
	}
	out.Nodes = h.counted(members, out.Event, row)
	return out, nil
}

// counted are the identifiers of an event that counted for whose it is. All of them are members of its person.
func (h *History) counted(members map[string]bool, e *event.Event, row *stored.Event) []identity.Identifier {
	ids, _ := h.rules.Extract(e)
	ids = slices.DeleteFunc(ids, func(id identity.Identifier) bool { return !members[id.Node.String()] })
	apart := map[string]bool{}
	for _, pair := range row.SetAside {
		if i := strings.LastIndexByte(pair, ':'); i > 0 {
			apart[pair[:i]] = true
		}
	}
	counted := slices.DeleteFunc(slices.Clone(ids), func(id identity.Identifier) bool { return apart[id.Type] })
	if len(counted) == 0 {
		counted = ids
	}
	if len(counted) == 0 { // known by nothing but the event itself, or read by other rules than today's
		own := h.rules.EventIdentifier(e.Source, e.MessageID)
		if !members[own.Node.String()] {
			own = identity.Identifier{}
			own.Node, _ = identity.ParseNode(row.Profile.String())
		}
		counted = append(counted, own)
	}
	slices.SortStableFunc(counted, func(a, b identity.Identifier) int {
		return cmp.Or(cmp.Compare(h.rules.TypeOf(a.Node).Priority, h.rules.TypeOf(b.Node).Priority), a.Node.Compare(b.Node))
	})
	return counted
}

// Decisions are the requests and receipts of the person with these members, those of people included whom earlier splits
// have made the person of.
func (h *History) Decisions(ctx context.Context, members []string) ([]stream.Record, error) {
	seen := map[string]bool{}
	var out []stream.Record
	for some := range slices.Chunk(members, nodesAtOnce) {
		list := literals(some)
		recs, err := stored.Decisions(ctx, h.warehouse, `profile_id IN (`+list+`) OR receipt IN (SELECT receipt FROM ${database}.message_parts WHERE person IN (`+list+`))`)
		if err != nil {
			return nil, err
		}
		for _, r := range recs {
			if at := origin(&r); !seen[at] {
				seen[at] = true
				out = append(out, r)
			}
		}
	}
	return out, nil
}

func origin(r *stream.Record) string { return fmt.Sprintf("%s:%d:%d", r.Topic, r.Partition, r.Offset) }

// literals is a list for IN. The texts are ids and names of topics.
func literals(texts []string) string {
	var b strings.Builder
	for i, t := range texts {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\'')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(t))
		b.WriteByte('\'')
	}
	return b.String()
}

func set(texts []string) map[string]bool {
	m := make(map[string]bool, len(texts))
	for _, t := range texts {
		m[t] = true
	}
	return m
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
