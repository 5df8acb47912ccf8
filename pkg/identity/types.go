package identity

import (
	"cmp"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
)

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
	ScopeBrand               // a brand: its hash stands in bytes 1 and 2 of the node, and limits count for each brand
)

// Windows of limits. They are fixed numbers of days, so that whoever counts counts the same.
const (
	week  = 7 * 24 * time.Hour
	month = 30 * 24 * time.Hour
	year  = 365 * 24 * time.Hour
)

// IgnoredIdentifier is an identifier of an event that does not count.
type IgnoredIdentifier struct {
	Type, Value string // as they came
	Reason      Ignored
}

// TypeOf is the type of a node, by its head alone. It is never nil: all types that are not configured are one, without
// a name.
func (r *Rules) TypeOf(n Node) *Type { return r.byRank[n[0]] }

// Extract reads the identifiers of an event: those that count, in the order of their nodes and each once, and those
// that do not. It may be that none counts: see EventIdentifier.
func (r *Rules) Extract(e *event.Event) ([]Identifier, []IgnoredIdentifier) {
	found := e.Identifiers()
	ids := make([]Identifier, 0, max(1, len(found)))
	var ignored []IgnoredIdentifier
	for _, raw := range found {
		id, why := r.Identify(raw)
		if why != "" {
			ignored = append(ignored, IgnoredIdentifier{Type: raw.Type, Value: raw.Value, Reason: why})
			continue
		}
		ids = append(ids, id)
	}
	slices.SortStableFunc(ids, func(a, b Identifier) int { return a.Node.Compare(b.Node) })
	return slices.CompactFunc(ids, func(a, b Identifier) bool { return a.Node == b.Node }), ignored
}

// shippedTypes are the types that are known without a rules file.
func shippedTypes() []Type {
	return []Type{
		{Name: event.UserID, Rank: rankUserID, Limit: Limit{Values: 1}, Known: true},
		{Name: event.Email, Rank: rankEmail, Limit: Limit{Values: 5, Per: year}, Known: true},
		{Name: event.AnonymousID, Rank: rankAnonymousID, Limit: Limit{Values: 5, Per: week}, Device: true},
		{Name: event.Phone, Rank: rankPhone, Limit: Limit{Values: 5, Per: year}, Known: true},
	}
}

// setTypes fills the table by rank; the priority of a type is its place in the list.
func (r *Rules) setTypes(types []Type) {
	last := len(types) + 1
	other := &Type{Rank: rankOther, Priority: last, Limit: Limit{Values: 5}}
	for i := range r.byRank {
		r.byRank[i] = other
	}
	r.byRank[rankEvent] = &Type{Name: TypeEvent, Rank: rankEvent, Priority: last + 1}
	types = slices.Clone(types)
	for i := range types {
		types[i].Priority = cmp.Or(types[i].Priority, i+1)
		r.byRank[types[i].Rank] = &types[i]
	}
}
