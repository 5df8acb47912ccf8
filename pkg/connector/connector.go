// Package connector says how a message is handed to a channel; each channel is a package below it.
//
// It owns: the message as a channel sees it, and the classes of failure by which a caller knows whether to
// try again. It guarantees that every implementation says "unknown" where it cannot tell whether the
// message was taken, and never claims more than the receiver confirmed. It must not know journeys, carts,
// topics or receipts, and keeps no state between messages.
package connector

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Message is one message to hand over.
type Message struct {
	ID        string    // unique: the same message has the same id however often it is tried
	DecidedAt time.Time // stands as its date
	From      string    // RFC 5322 address, may have a name
	ReplyTo   string    // "" for none
	To        string    // plain address
	Subject   string    // one line
	Text      string
	HTML      string            // "" for none
	Headers   map[string]string // further headers; a channel takes those it knows
	Payload   []byte            // the message as JSON, for channels that carry data
}

// Result is what a receiver said when it took a message.
type Result struct {
	Detail string // one line, for the receipt
}

// Sender hands messages to one channel. It is safe for concurrent use.
type Sender interface {
	// Send returns nil when the receiver has taken the message. Every error is an *Error. It respects
	// ctx's deadline but, once the message is on the wire, goes on to learn its fate.
	Send(ctx context.Context, m Message) (Result, error)
	// Idempotent says whether the receiver can tell a message that it has already taken, so that one
	// whose fate is unknown may be sent again.
	Idempotent() bool
}

// Class is what a failure means for the message.
type Class string

// The classes of failure.
const (
	Permanent Class = "permanent" // refused: the same message would be refused again
	Transient Class = "transient" // surely not taken; it may be later
	Unknown   Class = "unknown"   // all was sent, and no answer came: taken or not
)

// Error is a failure to hand over a message.
type Error struct {
	Class      Class
	RetryAfter time.Duration // the receiver's wish, 0 if it had none
	Own        bool          // the trouble is this message's alone: others may well pass
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("%v (%s)", e.Err, e.Class) }

func (e *Error) Unwrap() error { return e.Err }

// Fail makes an error of a class.
func Fail(c Class, format string, args ...any) *Error {
	return &Error{Class: c, Err: fmt.Errorf(format, args...)}
}

// ClassOf is the class of an error that Send returned.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Unknown // whoever gives no class has not thought about it
}
