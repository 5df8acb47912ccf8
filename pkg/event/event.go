// Package event is the envelope of one customer event in the Segment spec: decode, normalise, validate,
// and the identifiers it carries.
//
// It owns: the shape of an event, which calls are valid, how times, nulls and letter cases are read, and how
// records of another shape are mapped to events (Mapping). It
// guarantees that digits, key order and escapes of what it does not understand are passed through
// unchanged (the body is never re-encoded). It does no I/O, takes the clock as an argument and imports
// nothing else of Weft.
package event

import "time"

// Type is the call of the Segment spec.
type Type string

// The six calls of the Segment spec.
const (
	Track    Type = "track"
	Identify Type = "identify"
	Page     Type = "page"
	Screen   Type = "screen"
	Group    Type = "group"
	Alias    Type = "alias"
)

// Meta is what Weft itself knows about an event; it travels in record headers, never in the body.
type Meta struct {
	Source     string    // name of the configured source (write key or inlet)
	Brand      string    // brand of the deployment that the source belongs to
	MessageID  string    // unique within the source; judged for duplicates
	ReceivedAt time.Time // UTC, when the collector took it, to the millisecond
	SentAt     time.Time // UTC, when the sender sent it; zero if unknown
	// Skew is what is to be added to the sender's clock: whole milliseconds, 0 unless the collector found it wrong.
	Skew       time.Duration
	Trusted    bool   // may it join two known people
	Historical bool   // old or replayed: counts everywhere, never triggers a message
	Flags      string // what the collector found about it, comma separated: AddFlag, HasFlag; empty: nothing
}

// Identifier is one typed identifier value as it stands in an event, not yet normalised.
type Identifier struct {
	Type  string // user_id, email, phone, anonymous_id, device_id, or any configured
	Value string
}

// Identifier types known by default.
const (
	UserID      = "user_id"
	Email       = "email"
	Phone       = "phone"
	AnonymousID = "anonymous_id"
)
