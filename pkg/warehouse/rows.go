package warehouse

import (
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"
)

// Names of the tables that journey-writer fills.
const (
	TableEvents     = "events"
	TableRejected   = "events_rejected"
	TableIdentities = "identities"
	TableRedirects  = "profile_redirects"
	TableMoves      = "identity_moves"
	TableProfiles   = "profiles"
	TableAudiences  = "audience_changes"
	TableMessages   = "messages_requested"
	TableReceipts   = "receipts"

	TableEventParts   = "event_parts"
	TableMessageParts = "message_parts"
	TableSuspensions  = "identity_suspensions"
	TableCommands     = "identity_commands"

	TableErased = "erased_rows" // which an erasure fills
)

// Origin is the record that a row was made from. It stands on every row, so that an audit can prove that
// each record was stored once.
type Origin struct {
	Topic     string
	Partition uint32
	Offset    uint64
}

// Event is a row of the table events. Zero times of Nullable columns are stored as NULL, as are nil
// decimals.
type Event struct {
	Origin
	Brand, Source, Type, Name                string
	Profile                                  uuid.UUID
	UserID, AnonymousID, PreviousID, GroupID string
	MessageID                                string
	Time                                     time.Time
	TimeClamped                              bool
	OriginalTimestamp, SentAt                time.Time
	ReceivedAt                               time.Time
	Trusted, Historical                      bool
	OrderID, CheckoutID, CartID, ProductID   string
	Category                                 string
	Price, Quantity, Value, Revenue, Total   Amount
	Currency                                 string
	URL, Path, Referrer, Title               string
	UTMSource, UTMMedium, UTMCampaign        string
	UTMTerm, UTMContent                      string
	DeviceType, OS, App, Locale, Library     string
	Faults, Flags, SetAside                  []string
	Properties, Traits, Address, Context     []byte
	IP                                       string
}

// Events is the table of events.
func Events() Table[Event] {
	type r = Event
	return newTable(TableEvents, func(e *r) *Origin { return &e.Origin },
		word("brand", func(e *r) string { return e.Brand }),
		word("source", func(e *r) string { return e.Source }),
		word("type", func(e *r) string { return e.Type }),
		word("name", func(e *r) string { return e.Name }),
		key("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		text("user_id", func(e *r) string { return e.UserID }),
		text("anonymous_id", func(e *r) string { return e.AnonymousID }),
		text("previous_id", func(e *r) string { return e.PreviousID }),
		text("group_id", func(e *r) string { return e.GroupID }),
		text("message_id", func(e *r) string { return e.MessageID }),
		moment("time", func(e *r) time.Time { return e.Time }),
		boolean("time_clamped", func(e *r) bool { return e.TimeClamped }),
		maybeMoment("original_timestamp", func(e *r) time.Time { return e.OriginalTimestamp }),
		maybeMoment("sent_at", func(e *r) time.Time { return e.SentAt }),
		moment("received_at", func(e *r) time.Time { return e.ReceivedAt }),
		boolean("trusted", func(e *r) bool { return e.Trusted }),
		boolean("historical", func(e *r) bool { return e.Historical }),
		text("order_id", func(e *r) string { return e.OrderID }),
		text("checkout_id", func(e *r) string { return e.CheckoutID }),
		text("cart_id", func(e *r) string { return e.CartID }),
		text("product_id", func(e *r) string { return e.ProductID }),
		word("category", func(e *r) string { return e.Category }),
		maybeAmount("price", func(e *r) Amount { return e.Price }),
		maybeAmount("quantity", func(e *r) Amount { return e.Quantity }),
		maybeAmount("value", func(e *r) Amount { return e.Value }),
		maybeAmount("revenue", func(e *r) Amount { return e.Revenue }),
		maybeAmount("total", func(e *r) Amount { return e.Total }),
		word("currency", func(e *r) string { return e.Currency }),
		text("url", func(e *r) string { return e.URL }),
		text("path", func(e *r) string { return e.Path }),
		text("referrer", func(e *r) string { return e.Referrer }),
		text("title", func(e *r) string { return e.Title }),
		word("utm_source", func(e *r) string { return e.UTMSource }),
		word("utm_medium", func(e *r) string { return e.UTMMedium }),
		word("utm_campaign", func(e *r) string { return e.UTMCampaign }),
		text("utm_term", func(e *r) string { return e.UTMTerm }),
		text("utm_content", func(e *r) string { return e.UTMContent }),
		word("device_type", func(e *r) string { return e.DeviceType }),
		word("os", func(e *r) string { return e.OS }),
		word("app", func(e *r) string { return e.App }),
		word("locale", func(e *r) string { return e.Locale }),
		word("library", func(e *r) string { return e.Library }),
		wordList("faults", func(e *r) []string { return e.Faults }),
		wordList("flags", func(e *r) []string { return e.Flags }),
		wordList("set_aside", func(e *r) []string { return e.SetAside }),
		blob("properties", func(e *r) []byte { return e.Properties }),
		blob("traits", func(e *r) []byte { return e.Traits }),
		text("ip", func(e *r) string { return e.IP }),
		blob("address", func(e *r) []byte { return e.Address }),
		blob("context", func(e *r) []byte { return e.Context }),
	)
}

// Rejected is a row of the table events_rejected.
type Rejected struct {
	Origin
	Brand, Source, Reason, Error, Service string
	From                                  string // topic:partition:offset, or the HTTP path
	MessageID                             string
	ReceivedAt                            time.Time // zero: unknown, stored as 1970
	Historical                            bool
	Key, Body                             []byte
}

// RejectedEvents is the table of what could not be taken, and why.
func RejectedEvents() Table[Rejected] {
	type r = Rejected
	return newTable(TableRejected, func(e *r) *Origin { return &e.Origin },
		word("brand", func(e *r) string { return e.Brand }),
		word("source", func(e *r) string { return e.Source }),
		word("reason", func(e *r) string { return e.Reason }),
		text("error", func(e *r) string { return e.Error }),
		word("service", func(e *r) string { return e.Service }),
		text("origin", func(e *r) string { return e.From }),
		text("message_id", func(e *r) string { return e.MessageID }),
		moment("received_at", func(e *r) time.Time { return e.ReceivedAt }),
		boolean("historical", func(e *r) bool { return e.Historical }),
		blob("key", func(e *r) []byte { return e.Key }),
		blob("body", func(e *r) []byte { return e.Body }),
	)
}

// Identity is a row of the table identities: one piece of evidence of one merge.
type Identity struct {
	Origin
	Brand            string
	Loser, Winner    uuid.UUID
	Members          uint32
	Version          uint64
	Rule, Cause      string
	MessageID        string
	Time, ReceivedAt time.Time
	N                uint16
	Type, Value      string
	Node             uuid.UUID
	Actor, Reason    string // of a split
}

// Identities is the table of merges with their evidence.
func Identities() Table[Identity] {
	type r = Identity
	return newTable(TableIdentities, func(e *r) *Origin { return &e.Origin },
		word("brand", func(e *r) string { return e.Brand }),
		key("loser", func(e *r) uuid.UUID { return e.Loser }),
		key("winner", func(e *r) uuid.UUID { return e.Winner }),
		number("members", proto.ColumnTypeUInt32, func(e *r) uint32 { return e.Members }),
		number("version", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Version }),
		word("rule", func(e *r) string { return e.Rule }),
		text("cause", func(e *r) string { return e.Cause }),
		text("message_id", func(e *r) string { return e.MessageID }),
		moment("time", func(e *r) time.Time { return e.Time }),
		moment("received_at", func(e *r) time.Time { return e.ReceivedAt }),
		number("n", proto.ColumnTypeUInt16, func(e *r) uint16 { return e.N }),
		word("type", func(e *r) string { return e.Type }),
		text("value", func(e *r) string { return e.Value }),
		key("node", func(e *r) uuid.UUID { return e.Node }),
		text("actor", func(e *r) string { return e.Actor }),
		text("reason", func(e *r) string { return e.Reason }),
	)
}

// Move is a row of the table identity_moves: one identifier that a merge or a split moved to another person.
type Move struct {
	Origin
	Node                 uuid.UUID
	Incarnation          uint32 // above 0: a split, which begins its history anew
	Version              uint64
	Person               uuid.UUID
	ValidFrom, KnownFrom time.Time
}

// Moves is the table of who each identifier was, and when.
func Moves() Table[Move] {
	type r = Move
	return newTable(TableMoves, func(e *r) *Origin { return &e.Origin },
		key("node", func(e *r) uuid.UUID { return e.Node }),
		number("incarnation", proto.ColumnTypeUInt32, func(e *r) uint32 { return e.Incarnation }),
		number("version", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Version }),
		key("person", func(e *r) uuid.UUID { return e.Person }),
		moment("valid_from", func(e *r) time.Time { return e.ValidFrom }),
		moment("known_from", func(e *r) time.Time { return e.KnownFrom }),
	)
}

// Redirect is a row of the table profile_redirects.
type Redirect struct {
	Origin
	Profile, Current uuid.UUID
	Version          uint64
}

// Redirects is the table that says which person a merged profile is today.
func Redirects() Table[Redirect] {
	type r = Redirect
	return newTable(TableRedirects, func(e *r) *Origin { return &e.Origin },
		key("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		key("current", func(e *r) uuid.UUID { return e.Current }),
		number("version", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Version }),
	)
}
