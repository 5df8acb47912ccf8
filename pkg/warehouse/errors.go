package warehouse

import (
	"context"
	"errors"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// ErrPermanent means that the same call will fail in the same way until a person acts: no such table, no
// right, a value that fits no column. Every other error may pass.
var ErrPermanent = errors.New("clickhouse refuses this for good")

// ErrDeadline means that an insert was not sent, because its deadline had passed.
var ErrDeadline = errors.New("insert is past its deadline")

// Server error codes that repeating cannot help (src/Common/ErrorCodes.cpp).
var permanentCodes = map[int32]bool{
	6:   true, // CANNOT_PARSE_TEXT
	10:  true, // NOT_FOUND_COLUMN_IN_BLOCK
	16:  true, // NO_SUCH_COLUMN_IN_TABLE
	36:  true, // BAD_ARGUMENTS
	43:  true, // ILLEGAL_TYPE_OF_ARGUMENT
	46:  true, // UNKNOWN_FUNCTION
	47:  true, // UNKNOWN_IDENTIFIER
	53:  true, // TYPE_MISMATCH
	60:  true, // UNKNOWN_TABLE
	62:  true, // SYNTAX_ERROR
	69:  true, // ARGUMENT_OUT_OF_BOUND
	81:  true, // UNKNOWN_DATABASE
	115: true, // UNKNOWN_SETTING
	164: true, // READONLY
	192: true, // UNKNOWN_USER
	193: true, // WRONG_PASSWORD
	194: true, // REQUIRED_PASSWORD
	349: true, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
	407: true, // DECIMAL_OVERFLOW
	497: true, // ACCESS_DENIED
	516: true, // AUTHENTICATION_FAILED
}

// classify marks permanent errors.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrPermanent) || errors.Is(err, context.Canceled) {
		return err
	}
	if code, ok := serverCode(err); ok && permanentCodes[code] {
		return fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	return err
}

// serverCode is ClickHouse's own error code, if err is an answer of the server.
func serverCode(err error) (int32, bool) {
	if ex, ok := errors.AsType[*clickhouse.Exception](err); ok {
		return ex.Code, true
	}
	if ex, ok := errors.AsType[*ch.Exception](err); ok {
		return int32(ex.Code), true //nolint:gosec // the same codes
	}
	return 0, false
}
