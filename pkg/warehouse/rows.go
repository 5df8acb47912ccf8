package warehouse

import (
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// Names of the tables that journey-writer fills.
const (
	TableEvents     = "events"
	TableRejected   = "events_rejected"
	TableIdentities = "identities"
	TableRedirects  = "profile_redirects"
	TableProfiles   = "profiles"
	TableAudiences  = "audience_changes"
	TableMessages   = "messages_requested"
	TableReceipts   = "receipts"
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
	Price, Quantity, Value, Revenue, Total   *decimal.Decimal
	Currency                                 string
	URL, Path, Referrer, Title               string
	UTMSource, UTMMedium, UTMCampaign        string
	UTMTerm, UTMContent                      string
	DeviceType, OS, App, Locale, Library     string
	Faults                                   []string
	Properties, Traits, Address, Context     []byte
	IP                                       string
}

// Events is the table of events.
func Events() Table[Event] {
	type r = Event
	text := func(name string, get func(*r) string) Column[r] { return column(name, get) }
	money := func(name string, get func(*r) *decimal.Decimal) Column[r] { return column(name, get) }
	return newTable(TableEvents, func(e *r) *Origin { return &e.Origin },
		text("brand", func(e *r) string { return e.Brand }),
		text("source", func(e *r) string { return e.Source }),
		text("type", func(e *r) string { return e.Type }),
		text("name", func(e *r) string { return e.Name }),
		column("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		text("user_id", func(e *r) string { return e.UserID }),
		text("anonymous_id", func(e *r) string { return e.AnonymousID }),
		text("previous_id", func(e *r) string { return e.PreviousID }),
		text("group_id", func(e *r) string { return e.GroupID }),
		text("message_id", func(e *r) string { return e.MessageID }),
		column("time", func(e *r) time.Time { return e.Time }),
		column("time_clamped", func(e *r) bool { return e.TimeClamped }),
		column("original_timestamp", func(e *r) *time.Time { return orNull(e.OriginalTimestamp) }),
		column("sent_at", func(e *r) *time.Time { return orNull(e.SentAt) }),
		column("received_at", func(e *r) time.Time { return e.ReceivedAt }),
		column("trusted", func(e *r) bool { return e.Trusted }),
		column("historical", func(e *r) bool { return e.Historical }),
		text("order_id", func(e *r) string { return e.OrderID }),
		text("checkout_id", func(e *r) string { return e.CheckoutID }),
		text("cart_id", func(e *r) string { return e.CartID }),
		text("product_id", func(e *r) string { return e.ProductID }),
		text("category", func(e *r) string { return e.Category }),
		money("price", func(e *r) *decimal.Decimal { return e.Price }),
		money("quantity", func(e *r) *decimal.Decimal { return e.Quantity }),
		money("value", func(e *r) *decimal.Decimal { return e.Value }),
		money("revenue", func(e *r) *decimal.Decimal { return e.Revenue }),
		money("total", func(e *r) *decimal.Decimal { return e.Total }),
		text("currency", func(e *r) string { return e.Currency }),
		text("url", func(e *r) string { return e.URL }),
		text("path", func(e *r) string { return e.Path }),
		text("referrer", func(e *r) string { return e.Referrer }),
		text("title", func(e *r) string { return e.Title }),
		text("utm_source", func(e *r) string { return e.UTMSource }),
		text("utm_medium", func(e *r) string { return e.UTMMedium }),
		text("utm_campaign", func(e *r) string { return e.UTMCampaign }),
		text("utm_term", func(e *r) string { return e.UTMTerm }),
		text("utm_content", func(e *r) string { return e.UTMContent }),
		text("device_type", func(e *r) string { return e.DeviceType }),
		text("os", func(e *r) string { return e.OS }),
		text("app", func(e *r) string { return e.App }),
		text("locale", func(e *r) string { return e.Locale }),
		text("library", func(e *r) string { return e.Library }),
		column("faults", func(e *r) []string { return e.Faults }),
		column("properties", func(e *r) []byte { return e.Properties }),
		column("traits", func(e *r) []byte { return e.Traits }),
		text("ip", func(e *r) string { return e.IP }),
		column("address", func(e *r) []byte { return e.Address }),
		column("context", func(e *r) []byte { return e.Context }),
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
		column("brand", func(e *r) string { return e.Brand }),
		column("source", func(e *r) string { return e.Source }),
		column("reason", func(e *r) string { return e.Reason }),
		column("error", func(e *r) string { return e.Error }),
		column("service", func(e *r) string { return e.Service }),
		column("origin", func(e *r) string { return e.From }),
		column("message_id", func(e *r) string { return e.MessageID }),
		column("received_at", func(e *r) time.Time { return orEpoch(e.ReceivedAt) }),
		column("historical", func(e *r) bool { return e.Historical }),
		column("key", func(e *r) []byte { return e.Key }),
		column("body", func(e *r) []byte { return e.Body }),
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
}

// Identities is the table of merges with their evidence.
func Identities() Table[Identity] {
	type r = Identity
	return newTable(TableIdentities, func(e *r) *Origin { return &e.Origin },
		column("brand", func(e *r) string { return e.Brand }),
		column("loser", func(e *r) uuid.UUID { return e.Loser }),
		column("winner", func(e *r) uuid.UUID { return e.Winner }),
		column("members", func(e *r) uint32 { return e.Members }),
		column("version", func(e *r) uint64 { return e.Version }),
		column("rule", func(e *r) string { return e.Rule }),
		column("cause", func(e *r) string { return e.Cause }),
		column("message_id", func(e *r) string { return e.MessageID }),
		column("time", func(e *r) time.Time { return e.Time }),
		column("received_at", func(e *r) time.Time { return e.ReceivedAt }),
		column("n", func(e *r) uint16 { return e.N }),
		column("type", func(e *r) string { return e.Type }),
		column("value", func(e *r) string { return e.Value }),
		column("node", func(e *r) uuid.UUID { return e.Node }),
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
		column("profile_id", func(e *r) uuid.UUID { return e.Profile }),
		column("current", func(e *r) uuid.UUID { return e.Current }),
		column("version", func(e *r) uint64 { return e.Version }),
	)
}

// orNull makes a zero time NULL.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// orEpoch makes a zero time 1970, which is in the range of the column.
func orEpoch(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}
