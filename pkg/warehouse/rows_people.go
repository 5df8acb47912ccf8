package warehouse

import (
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// Profile is a row of the table profiles: one published change of a profile, or its end.
type Profile struct {
	Origin
	ID                  uuid.UUID
	Version             uint64
	Tombstone           bool
	FirstSeen, LastSeen time.Time
	Orders              uint64
	Units               decimal.Decimal            // products in these orders
	Revenue             map[string]decimal.Decimal // by currency
	Audiences           []string
	AsOf                time.Time
	Faults              []string
	Traits, Document    []byte
}

// Profiles is the table of profiles.
func Profiles() Table[Profile] {
	type r = Profile
	return newTable(TableProfiles, func(e *r) *Origin { return &e.Origin },
		column("profile_id", func(e *r) uuid.UUID { return e.ID }),
		column("version", func(e *r) uint64 { return e.Version }),
		column("tombstone", func(e *r) bool { return e.Tombstone }),
		column("first_seen", func(e *r) *time.Time { return orNull(e.FirstSeen) }),
		column("last_seen", func(e *r) *time.Time { return orNull(e.LastSeen) }),
		column("orders", func(e *r) uint64 { return e.Orders }),
		column("units", func(e *r) decimal.Decimal { return e.Units }),
		column("revenue", func(e *r) map[string]decimal.Decimal { return e.Revenue }),
		column("audiences", func(e *r) []string { return e.Audiences }),
		column("as_of", func(e *r) *time.Time { return orNull(e.AsOf) }),
		column("faults", func(e *r) []string { return e.Faults }),
		column("traits", func(e *r) []byte { return e.Traits }),
		column("profile", func(e *r) []byte { return e.Document }),
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
		column("brand", func(e *r) string { return e.Brand }),
		column("audience", func(e *r) string { return e.Audience }),
		column("change", func(e *r) string { return e.Change }),
		column("reason", func(e *r) string { return e.Reason }),
		column("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		column("time", func(e *r) time.Time { return e.Time }),
		column("received_at", func(e *r) time.Time { return e.ReceivedAt }),
		column("version", func(e *r) uint64 { return e.Version }),
		column("details", func(e *r) []byte { return e.Details }),
	)
}

// Message is a row of the table messages_requested.
type Message struct {
	Origin
	Brand, Journey, Version, Channel string
	ID, Receipt                      string
	Profile                          uuid.UUID
	CartID                           string
	CartValue                        *decimal.Decimal
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
		column("brand", func(e *r) string { return e.Brand }),
		column("journey", func(e *r) string { return e.Journey }),
		column("version", func(e *r) string { return e.Version }),
		column("channel", func(e *r) string { return e.Channel }),
		column("message", func(e *r) string { return e.ID }),
		column("receipt", func(e *r) string { return e.Receipt }),
		column("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		column("cart_id", func(e *r) string { return e.CartID }),
		column("cart_value", func(e *r) *decimal.Decimal { return e.CartValue }),
		column("currency", func(e *r) string { return e.Currency }),
		column("decided_at", func(e *r) time.Time { return e.DecidedAt }),
		column("received_at", func(e *r) time.Time { return e.DecidedAt }),
		column("faults", func(e *r) []string { return e.Faults }),
		column("address", func(e *r) string { return e.Address }),
		column("content", func(e *r) []byte { return e.Content }),
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
	CartValue                        *decimal.Decimal
	Currency                         string
	CartItems                        *decimal.Decimal
	ArmedAt, DueAt                   time.Time
	SettledAt                        time.Time
	Faults                           []string
}

// Receipts is the table of receipts.
func Receipts() Table[Receipt] {
	type r = Receipt
	return newTable(TableReceipts, func(e *r) *Origin { return &e.Origin },
		column("brand", func(e *r) string { return e.Brand }),
		column("journey", func(e *r) string { return e.Journey }),
		column("version", func(e *r) string { return e.Version }),
		column("channel", func(e *r) string { return e.Channel }),
		column("outcome", func(e *r) string { return e.Outcome }),
		column("reason", func(e *r) string { return e.Reason }),
		column("detail", func(e *r) string { return e.Detail }),
		column("receipt", func(e *r) string { return e.ID }),
		column("message", func(e *r) string { return e.Message }),
		column("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		column("cart_id", func(e *r) string { return e.CartID }),
		column("cart_value", func(e *r) *decimal.Decimal { return e.CartValue }),
		column("currency", func(e *r) string { return e.Currency }),
		column("cart_items", func(e *r) *decimal.Decimal { return e.CartItems }),
		column("armed_at", func(e *r) *time.Time { return orNull(e.ArmedAt) }),
		column("due_at", func(e *r) *time.Time { return orNull(e.DueAt) }),
		column("settled_at", func(e *r) time.Time { return e.SettledAt }),
		column("received_at", func(e *r) time.Time { return e.SettledAt }),
		column("faults", func(e *r) []string { return e.Faults }),
	)
}
