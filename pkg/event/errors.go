package event

import (
	"errors"
	"fmt"
)

// Reason codes of invalid events: stable, they stand in the header weft-reason and in metrics.
const (
	InvalidJSON       = "invalid_json"
	InvalidUTF8       = "invalid_utf8"
	TooDeep           = "too_deep"
	TooLarge          = "too_large"
	TooManyKeys       = "too_many_keys"
	TooManyEvents     = "too_many_events" // of a batch
	InvalidType       = "invalid_type"    // a field has a JSON type that cannot be read
	IDTooLong         = "id_too_long"
	TooManyIDs        = "too_many_ids"
	MissingType       = "missing_type"
	UnknownType       = "unknown_type"
	NoUserAnonID      = "no_user_anon_id" // Segment's own name
	MissingEvent      = "missing_event"
	MissingGroupID    = "missing_group_id"
	MissingPreviousID = "missing_previous_id"
	MissingUserID     = "missing_user_id"
	ExpressionFailed  = "expression_failed" // of a mapping or a transformation, on this event
)

// Error says why an event cannot be taken. It is permanent: the same bytes give the same error.
type Error struct {
	Reason string // one of the codes above
	Path   string // the field, such as "context.traits"; empty: the event as a whole
	Detail string // in words
}

func (e *Error) Error() string {
	if e.Path == "" {
		return e.Reason + ": " + e.Detail
	}
	return fmt.Sprintf("%s: %s: %s", e.Reason, e.Path, e.Detail)
}

// Reason returns the reason code of err, or fallback if err is no *Error.
func Reason(err error, fallback string) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return fallback
}

var (
	errNotObject = &Error{Reason: InvalidType, Detail: "the event is not a JSON object"}
	tooManyKeys  = &Error{Reason: TooManyKeys, Detail: fmt.Sprintf("its objects have more than %d members together", MaxKeys)}
	// One reason for both: there is too much of it.
	tooManyElements = &Error{Reason: TooManyKeys, Detail: fmt.Sprintf("its arrays have more than %d elements together", MaxElements)}
)

// asError gives scan errors their reason code.
func asError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Reason: InvalidJSON, Detail: err.Error()}
}
