package writer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// ruleSplit is the rule of rows of identities that tie the members of a split person to their parts.
const ruleSplit = "split"

// readParted takes a record of kind split: where a member of a split person went.
func (t *eventRows) readParted(r *stream.Record, m event.Meta) error {
	p, err := parseParted(r.Value)
	if err != nil {
		return &poison{reasonSplit, err}
	}
	if p.Into == "" {
		return &poison{reasonSplit, errors.New("into: is missing")}
	}
	// The versions of all merges before are of a lower generation, and those behind of the same with the part's size.
	row := warehouse.Identity{
		Origin: originOf(r), Brand: m.Brand, Loser: uuid.MustParse(p.Node), Winner: uuid.MustParse(p.Into),
		Members: 1, Version: p.Generation << identity.GenerationShift, Rule: ruleSplit, Cause: p.Command, MessageID: p.Command,
		Time: inRange(p.Time), ReceivedAt: inRange(m.ReceivedAt), Actor: p.Actor, Reason: p.Reason,
	}
	if m.ReceivedAt.IsZero() {
		row.ReceivedAt = row.Time
	}
	t.identities.Add(&row)
	// As known from now on it is the part's, and always was.
	move := warehouse.Move{
		Origin: row.Origin, Node: row.Loser, Incarnation: uint32(p.Generation), Version: row.Version, Person: row.Winner, //nolint:gosec // checked by parseParted
		KnownFrom: row.Time,
	}
	if known := inRange(r.Time); known.After(row.Time) {
		move.KnownFrom = known
	}
	t.moves.Add(&move)
	t.redirects.Add(&warehouse.Redirect{Origin: row.Origin, Profile: row.Loser, Current: row.Winner, Version: row.Version})
	return nil
}

// readRefolded takes the record that ends what a split tells a part again: the part's own node begins its history then.
func (t *eventRows) readRefolded(r *stream.Record) error {
	var p identity.Part
	if err := json.Unmarshal(r.Value, &p); err != nil {
		return &poison{reasonSplit, err}
	}
	node, err := identity.ParseNode(p.Node)
	if err != nil {
		return &poison{reasonSplit, fmt.Errorf("node: %w", err)}
	}
	if err := checkGeneration(p.Generation); err != nil {
		return &poison{reasonSplit, err}
	}
	t.moves.Add(&warehouse.Move{
		Origin: originOf(r), Node: uuid.UUID(node), Incarnation: uint32(p.Generation), Version: p.Generation << identity.GenerationShift, //nolint:gosec // checked
		Person: uuid.UUID(node), KnownFrom: inRange(r.Time),
	})
	return nil
}

// checkGeneration wants one that leaves room for itself in a version, which Kafka's readers take for a signed number.
func checkGeneration(n uint64) error {
	if n == 0 || n >= 1<<(64-identity.GenerationShift-1) {
		return fmt.Errorf("generation: %d is not above 0 and below 2^31", n)
	}
	return nil
}

// parseParted reads the value of a record of kind split or erase.
func parseParted(b []byte) (identity.Parted, error) {
	var p identity.Parted
	if err := json.Unmarshal(b, &p); err != nil {
		return p, err
	}
	if _, err := identity.ParseNode(p.Node); err != nil {
		return p, fmt.Errorf("node: %w", err)
	}
	if _, err := identity.ParseNode(p.Into); p.Into != "" && err != nil {
		return p, fmt.Errorf("into: %w", err)
	}
	switch {
	case p.Command == "":
		return p, errors.New("command: is missing")
	case p.Time.IsZero():
		return p, errors.New("time: is missing")
	case p.Into == "":
		return p, nil
	}
	return p, checkGeneration(p.Generation)
}

// readToldAgain takes an event that a split has told again: its row is there, and now it is of another person. The record's key
// is the part.
func (t *eventRows) readToldAgain(r *stream.Record, m event.Meta, command string) error {
	first, part, err := toldAgain(r)
	if err != nil {
		return err
	}
	e, err := t.reader.Decode(r.Value, m)
	if err != nil {
		return &poison{event.Reason(err, reasonRecord), err}
	}
	row := warehouse.EventPart{
		Origin: originOf(r), Event: first, Person: part, Command: command, Version: version(r), Brand: m.Brand,
		Time: inRange(e.Time), KnownFrom: inRange(r.Time),
	}
	if change, is, err := commerce.ChangeOf(e); err == nil && is {
		row.Cart, row.CartID = true, change.CartID
	}
	t.parts.Add(&row)
	return nil
}

// readDecision takes a request or receipt that a split tells a part of.
func (t *eventRows) readDecision(r *stream.Record) error {
	command, _ := topic.View(r.Headers, topic.HeaderRefold)
	first, part, err := toldAgain(r)
	if err != nil {
		return err
	}
	v, err := document(r)
	if err != nil {
		return err
	}
	row := warehouse.MessagePart{
		Origin: originOf(r), Receipt: text(v, "receipt"), Decision: first, Person: part, Command: command, Version: version(r),
		Brand: text(v, "brand"), CartID: text(v, "cart", "id"), ArmedAt: millis(v, "armedAt"), EndedAt: millis(v, "settledAt"),
		KnownFrom: inRange(r.Time),
	}
	if row.EndedAt.IsZero() {
		row.EndedAt = millis(v, "decidedAt")
	}
	if row.Receipt == "" || row.EndedAt.IsZero() {
		return &poison{reasonRecord, errors.New("receipt, and settledAt or decidedAt are wanted")}
	}
	t.messages.Add(&row)
	return nil
}

// toldAgain reads where a record that a split tells again stands first, and the part that it is told.
func toldAgain(r *stream.Record) (warehouse.Origin, uuid.UUID, error) {
	text, _ := topic.Get(r.Headers, topic.HeaderOrigin)
	at, err := topic.ParsePosition(text) // topic:partition:offset has its form
	if err != nil || at.Seq < 0 || at.Partition < 0 {
		return warehouse.Origin{}, uuid.Nil, &poison{reasonHeaders, fmt.Errorf("header %s: %.80q is not topic:partition:offset", topic.HeaderOrigin, text)}
	}
	part, err := profileID(r)
	return warehouse.Origin{Topic: at.Stage, Partition: uint32(at.Partition), Offset: uint64(at.Seq)}, part, err //nolint:gosec // not negative
}

// linkRows reads identities.linked: of the links themselves, which came by events.identified, nothing.
type linkRows struct {
	suspensions adder[warehouse.Suspension]
	commands    adder[warehouse.Command]
}

func (t *linkRows) read(r *stream.Record, m event.Meta) error {
	if len(r.Value) == 0 { // what stood under this key is gone
		return nil
	}
	kind, _ := topic.View(r.Headers, topic.HeaderKind)
	switch topic.Kind(kind) {
	case topic.KindMerge, topic.KindSplit, topic.KindErase, topic.KindPart, topic.KindState:
		return nil
	case topic.KindSuspend:
		return t.readSuspension(r, m)
	case topic.KindCommand:
		return t.readCommand(r)
	}
	return &poison{reasonKind, fmt.Errorf("header %s: %.40q is not known to this version", topic.HeaderKind, kind)}
}

func (t *linkRows) readSuspension(r *stream.Record, m event.Meta) error {
	s, err := identity.ParseSuspension(r.Value)
	if err != nil {
		return &poison{reasonRecord, err}
	}
	row := warehouse.Suspension{
		Origin: originOf(r), Brand: m.Brand, Source: m.Source, A: named(s.Evidence[0]), B: named(s.Evidence[1]), Cap: string(s.Cap),
		Rule: string(s.Cause.Rule), Cause: s.Cause.Source, MessageID: s.Cause.MessageID, Time: inRange(s.Cause.Time), KnownFrom: inRange(r.Time),
	}
	t.suspensions.Add(&row)
	return nil
}

// named is an identifier whose node ParseSuspension or ParseCommand has checked.
func named(e identity.Evidence) warehouse.Named {
	return warehouse.Named{Node: uuid.MustParse(e.Node), Type: e.Type, Value: e.Value}
}

func (t *linkRows) readCommand(r *stream.Record) error {
	c, err := identity.ParseCommand(r.Value)
	if err != nil {
		return &poison{reasonRecord, err}
	}
	v, err := document(r)
	if err != nil {
		return err
	}
	row := warehouse.Command{
		Origin: originOf(r), ID: c.ID, Kind: string(c.Kind), Actor: c.Actor, Reason: c.Reason, At: inRange(c.At), Split: c.Split,
		Outcome: text(v, "outcome"), Error: text(v, "error"), KnownFrom: inRange(r.Time), Details: r.Value,
	}
	if row.Outcome == "" {
		return &poison{reasonRecord, errors.New("outcome is wanted")}
	}
	if c.Person != "" {
		if row.Person, err = uuid.Parse(c.Person); err != nil {
			return &poison{reasonRecord, fmt.Errorf("person: %w", err)}
		}
	}
	if len(c.Identifiers) > 0 {
		row.A = named(c.Identifiers[0])
	}
	if len(c.Identifiers) > 1 {
		row.B = named(c.Identifiers[1])
		if strings.Compare(c.Identifiers[1].Node, c.Identifiers[0].Node) < 0 { // the order of nodes is that of their text
			row.A, row.B = row.B, row.A
		}
	}
	t.commands.Add(&row)
	return nil
}
