package identity

import "time"

// Type is what the rules say about one type of identifier. It is never changed.
type Type struct {
	Name string
	// Rank is the first byte of the type's nodes: its place in the fixed order. It belongs to this type alone, but for
	// types that are not configured, which share one.
	Rank byte
	// Priority orders the types where a limit breaks: 1 is the dearest, the highest number is set aside first. No two
	// types have the same one.
	Priority int
	Limit    Limit
	Known    bool // names a person: user_id, email, phone
	Device   bool // names a device, which several people may use: anonymous_id, device ids
	Weak     bool // never joins anybody, such as a fingerprint
	Trust    Trust
	Scope    Scope
}

// Limit is how many values of a type one person may have.
type Limit struct {
	Values int           // 0: any number
	Per    time.Duration // that were linked within this time, whole days; 0: ever
}

// Trust is from which sources identifiers of a type count.
type Trust uint8

// Values of Trust.
const (
	TrustAny     Trust = iota // any
	TrustTrusted              // those that are configured as trusted
)

// Scope is what values of a type are unique within.
type Scope uint8

// Values of Scope. Only identifiers of shared types can join people of two brands.
const (
	ScopeShared Scope = iota // the deployment: the same value is the same node whatever the brand
	ScopeBrand               // a brand: a hash of it stands in bytes 1 and 2 of the node, so that limits count for each brand
)

func (s Scope) String() string {
	if s == ScopeBrand {
		return "brand"
	}
	return "shared"
}

// Windows of limits. They are fixed numbers of days, so that whoever counts counts the same.
const (
	week  = 7 * 24 * time.Hour
	month = 30 * 24 * time.Hour
	year  = 365 * 24 * time.Hour
)

// IgnoredIdentifier is an identifier of an event that does not count.
type IgnoredIdentifier struct {
	Type, Value string // as they came, but for white space around the value
	Reason      Ignored
}

// TypeOf is the type of a node, by its head alone. It is never nil: all types that are not configured are one, without
// a name.
func (r *Rules) TypeOf(n Node) *Type { return r.byRank[n[0]] }
