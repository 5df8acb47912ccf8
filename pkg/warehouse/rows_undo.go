package warehouse

import (
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"
)

// EventPart is a row of the table event_parts: an event that a split has told again, and the part that it went to.
type EventPart struct {
	Origin
	Event     Origin // where it stands first
	Person    uuid.UUID
	Command   string
	Version   uint64
	Brand     string
	Time      time.Time
	Cart      bool
	CartID    string
	KnownFrom time.Time
}

// EventParts is the table that says to which part of a split person an event went.
func EventParts() Table[EventPart] {
	type r = EventPart
	return newTable(TableEventParts, func(e *r) *Origin { return &e.Origin },
		word("event_topic", func(e *r) string { return e.Event.Topic }),
		number("event_partition", proto.ColumnTypeUInt32, func(e *r) uint32 { return e.Event.Partition }),
		number("event_offset", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Event.Offset }),
		key("person", func(e *r) uuid.UUID { return e.Person }),
		text("command", func(e *r) string { return e.Command }),
		number("version", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Version }),
		word("brand", func(e *r) string { return e.Brand }),
		moment("time", func(e *r) time.Time { return e.Time }),
		boolean("cart", func(e *r) bool { return e.Cart }),
		text("cart_id", func(e *r) string { return e.CartID }),
		moment("known_from", func(e *r) time.Time { return e.KnownFrom }),
	)
}

// MessagePart is a row of the table message_parts: a request or receipt that a split has told a part of.
type MessagePart struct {
	Origin
	Receipt          string
	Decision         Origin // where it stands first
	Person           uuid.UUID
	Command          string
	Version          uint64
	Brand, CartID    string
	ArmedAt, EndedAt time.Time
	KnownFrom        time.Time
}

// MessageParts is the table of messages of split persons.
func MessageParts() Table[MessagePart] {
	type r = MessagePart
	return newTable(TableMessageParts, func(e *r) *Origin { return &e.Origin },
		text("receipt", func(e *r) string { return e.Receipt }),
		word("decision_topic", func(e *r) string { return e.Decision.Topic }),
		number("decision_partition", proto.ColumnTypeUInt32, func(e *r) uint32 { return e.Decision.Partition }),
		number("decision_offset", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Decision.Offset }),
		key("person", func(e *r) uuid.UUID { return e.Person }),
		text("command", func(e *r) string { return e.Command }),
		number("version", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Version }),
		word("brand", func(e *r) string { return e.Brand }),
		text("cart_id", func(e *r) string { return e.CartID }),
		moment("armed_at", func(e *r) time.Time { return e.ArmedAt }),
		moment("ended_at", func(e *r) time.Time { return e.EndedAt }),
		moment("known_from", func(e *r) time.Time { return e.KnownFrom }),
	)
}

// Named is an identifier with its value.
type Named struct {
	Node        uuid.UUID
	Type, Value string
}

// Suspension is a row of the table identity_suspensions: a link that a cap has stopped.
type Suspension struct {
	Origin
	Brand, Source   string
	A, B            Named
	Cap, Rule       string
	Cause           string
	MessageID       string
	Time, KnownFrom time.Time
}

// Suspensions is the table of links that a cap has stopped.
func Suspensions() Table[Suspension] {
	type r = Suspension
	return newTable(TableSuspensions, func(e *r) *Origin { return &e.Origin },
		word("brand", func(e *r) string { return e.Brand }),
		word("source", func(e *r) string { return e.Source }),
		key("a", func(e *r) uuid.UUID { return e.A.Node }),
		key("b", func(e *r) uuid.UUID { return e.B.Node }),
		word("a_type", func(e *r) string { return e.A.Type }),
		word("b_type", func(e *r) string { return e.B.Type }),
		text("a_value", func(e *r) string { return e.A.Value }),
		text("b_value", func(e *r) string { return e.B.Value }),
		word("cap", func(e *r) string { return e.Cap }),
		word("rule", func(e *r) string { return e.Rule }),
		text("cause", func(e *r) string { return e.Cause }),
		text("message_id", func(e *r) string { return e.MessageID }),
		moment("time", func(e *r) time.Time { return e.Time }),
		moment("known_from", func(e *r) time.Time { return e.KnownFrom }),
	)
}

// Command is a row of the table identity_commands: what an operator has said, and how it ended.
type Command struct {
	Origin
	ID, Kind       string
	Actor, Reason  string
	At             time.Time
	Person         uuid.UUID
	A, B           Named
	Split          string
	Outcome, Error string
	KnownFrom      time.Time
	Details        []byte
}

// Commands is the table of what operators have said.
func Commands() Table[Command] {
	type r = Command
	return newTable(TableCommands, func(e *r) *Origin { return &e.Origin },
		text("command", func(e *r) string { return e.ID }),
		word("kind", func(e *r) string { return e.Kind }),
		text("actor", func(e *r) string { return e.Actor }),
		text("reason", func(e *r) string { return e.Reason }),
		moment("at", func(e *r) time.Time { return e.At }),
		key("person", func(e *r) uuid.UUID { return e.Person }),
		key("a", func(e *r) uuid.UUID { return e.A.Node }),
		key("b", func(e *r) uuid.UUID { return e.B.Node }),
		word("a_type", func(e *r) string { return e.A.Type }),
		word("b_type", func(e *r) string { return e.B.Type }),
		text("a_value", func(e *r) string { return e.A.Value }),
		text("b_value", func(e *r) string { return e.B.Value }),
		text("split", func(e *r) string { return e.Split }),
		word("outcome", func(e *r) string { return e.Outcome }),
		text("error", func(e *r) string { return e.Error }),
		moment("known_from", func(e *r) time.Time { return e.KnownFrom }),
		blob("details", func(e *r) []byte { return e.Details }),
	)
}
