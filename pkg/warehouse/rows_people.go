package warehouse

import (
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"
)

// Profile is a row of the table profiles: one published change of a profile, or its end.
type Profile struct {
	Origin
	ID                  uuid.UUID
	Version             uint64
	Tombstone           bool
	FirstSeen, LastSeen time.Time
	Orders              uint64
	Units               Amount  // products in these orders
	Revenue             []Money // by currency
	Audiences           []string
	AsOf                time.Time
	Faults              []string
	Traits, Document    []byte
}

// Profiles is the table of profiles.
func Profiles() Table[Profile] {
	type r = Profile
	return newTable(TableProfiles, func(e *r) *Origin { return &e.Origin },
		key("profile_id", func(e *r) uuid.UUID { return e.ID }),
		number("version", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Version }),
		boolean("tombstone", func(e *r) bool { return e.Tombstone }),
		maybeMoment("first_seen", func(e *r) time.Time { return e.FirstSeen }),
		maybeMoment("last_seen", func(e *r) time.Time { return e.LastSeen }),
		number("orders", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Orders }),
		amount("units", func(e *r) Amount { return e.Units }),
		money("revenue", func(e *r) []Money { return e.Revenue }),
		wordList("audiences", func(e *r) []string { return e.Audiences }),
		maybeMoment("as_of", func(e *r) time.Time { return e.AsOf }),
		wordList("faults", func(e *r) []string { return e.Faults }),
		blob("traits", func(e *r) []byte { return e.Traits }),
		blob("profile", func(e *r) []byte { return e.Document }),
	)
}

// AudienceChange is a row of the table audience_changes.
type AudienceChange struct {
	Origin
	Brand, Audience, Change, Reason string
	Profile                         uuid.UUID
	Time, ReceivedAt                time.Time
	Version                         uint64
	Details                         []byte
}

// AudienceChanges is the table of audiences entered and left.
func AudienceChanges() Table[AudienceChange] {
	type r = AudienceChange
	return newTable(TableAudiences, func(e *r) *Origin { return &e.Origin },
		word("brand", func(e *r) string { return e.Brand }),
		word("audience", func(e *r) string { return e.Audience }),
		word("change", func(e *r) string { return e.Change }),
		text("reason", func(e *r) string { return e.Reason }),
		key("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		moment("time", func(e *r) time.Time { return e.Time }),
		moment("received_at", func(e *r) time.Time { return e.ReceivedAt }),
		number("version", proto.ColumnTypeUInt64, func(e *r) uint64 { return e.Version }),
		blob("details", func(e *r) []byte { return e.Details }),
	)
}

// Message is a row of the table messages_requested.
type Message struct {
	Origin
	Brand, Journey, Version, Channel string
	ID, Receipt                      string
	Profile                          uuid.UUID
	CartID                           string
	CartValue                        Amount
	Currency                         string
	DecidedAt                        time.Time
	Faults                           []string
	Address                          string
	Content                          []byte
}

// Messages is the table of messages that were decided.
func Messages() Table[Message] {
	type r = Message
	return newTable(TableMessages, func(e *r) *Origin { return &e.Origin },
		word("brand", func(e *r) string { return e.Brand }),
		word("journey", func(e *r) string { return e.Journey }),
		word("version", func(e *r) string { return e.Version }),
		word("channel", func(e *r) string { return e.Channel }),
		text("message", func(e *r) string { return e.ID }),
		text("receipt", func(e *r) string { return e.Receipt }),
		key("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		text("cart_id", func(e *r) string { return e.CartID }),
		maybeAmount("cart_value", func(e *r) Amount { return e.CartValue }),
		word("currency", func(e *r) string { return e.Currency }),
		moment("decided_at", func(e *r) time.Time { return e.DecidedAt }),
		moment("received_at", func(e *r) time.Time { return e.DecidedAt }),
		wordList("faults", func(e *r) []string { return e.Faults }),
		text("address", func(e *r) string { return e.Address }),
		blob("content", func(e *r) []byte { return e.Content }),
	)
}

// Receipt is a row of the table receipts: the end of one eligible cart.
type Receipt struct {
	Origin
	Brand, Journey, Version, Channel string
	Outcome, Reason, Detail          string
	ID, Message                      string
	Profile                          uuid.UUID
	CartID                           string
	CartValue                        Amount
	Currency                         string
	CartItems                        Amount
	ArmedAt, DueAt                   time.Time
	SettledAt                        time.Time
	Faults                           []string
}

// Receipts is the table of receipts.
func Receipts() Table[Receipt] {
	type r = Receipt
	return newTable(TableReceipts, func(e *r) *Origin { return &e.Origin },
		word("brand", func(e *r) string { return e.Brand }),
		word("journey", func(e *r) string { return e.Journey }),
		word("version", func(e *r) string { return e.Version }),
		word("channel", func(e *r) string { return e.Channel }),
		word("outcome", func(e *r) string { return e.Outcome }),
		word("reason", func(e *r) string { return e.Reason }),
		text("detail", func(e *r) string { return e.Detail }),
		text("receipt", func(e *r) string { return e.ID }),
		text("message", func(e *r) string { return e.Message }),
		key("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		text("cart_id", func(e *r) string { return e.CartID }),
		maybeAmount("cart_value", func(e *r) Amount { return e.CartValue }),
		word("currency", func(e *r) string { return e.Currency }),
		maybeAmount("cart_items", func(e *r) Amount { return e.CartItems }),
		maybeMoment("armed_at", func(e *r) time.Time { return e.ArmedAt }),
		maybeMoment("due_at", func(e *r) time.Time { return e.DueAt }),
		moment("settled_at", func(e *r) time.Time { return e.SettledAt }),
		moment("received_at", func(e *r) time.Time { return e.SettledAt }),
		wordList("faults", func(e *r) []string { return e.Faults }),
	)
}
