// Package hooks makes events of the webhooks of shop and mail systems: Shopify, WooCommerce, SendGrid, Mailgun,
// and any other by a mapping.
//
// It owns: how each provider proves that a delivery is its own, and what its payloads mean in the Segment spec
// (e-commerce events, e-mail events, Identify). It guarantees that nothing is read of a delivery that is not
// proven, that the same delivery gives the same events with the same message ids however often it comes, that
// digits of money are those of the payload, and that what it makes no event of is told, never dropped without
// a word. It does no I/O, takes the clock as an argument, and must not know HTTP, sources or topics.
package hooks

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// The providers.
const (
	Shopify     = "shopify"
	WooCommerce = "woocommerce"
	SendGrid    = "sendgrid"
	Mailgun     = "mailgun"
	Generic     = "generic"
)

// Providers lists them.
func Providers() []string { return []string{Shopify, WooCommerce, SendGrid, Mailgun, Generic} }

// UnknownTopic is the reason of a delivery, or of an item of one, that is of no kind its provider is known to
// send.
const UnknownTopic = "unknown_topic"

// ErrUnsigned means that a delivery does not prove that its provider sent it, and now: it has no signature, a
// wrong one, or one from another time.
var ErrUnsigned = errors.New("the signature is missing, wrong or out of time")

// Delivery is one request of a provider.
type Delivery struct {
	Header   func(name string) string // value of a header, "" if there is none
	Body     []byte
	Received time.Time
}

// Result is what a delivery means. Its texts do not alias the delivery.
type Result struct {
	Events  [][]byte // in Segment's shape, each with its messageId
	Ignored int      // items of kinds that are known and mean nothing to a customer's journey
	Refused []Refused
}

// Refused is an item that no event can be made of; it is to be kept with the reason. Events reads it once more, alone,
// when a repaired copy of it is replayed.
type Refused struct {
	Item []byte
	Why  *event.Error
	// ID is what names it then in place of the delivery's own header; empty: that header.
	ID string
}

func (r *Result) add(e *built) { r.Events = append(r.Events, e.bytes()) }

func (r *Result) refuse(item []byte, reason, path, format string, args ...any) {
	why := &event.Error{Reason: reason, Path: path, Detail: fmt.Sprintf(format, args...)}
	r.Refused = append(r.Refused, Refused{Item: append([]byte(nil), item...), Why: why})
}

// Hook reads the deliveries of one source. Safe for concurrent use.
type Hook interface {
	// Verify returns ErrUnsigned, maybe wrapped, for a delivery that is not the provider's. A provider that
	// signs a part of the body looks at that part only.
	Verify(d *Delivery) error
	// Events is to be called after Verify. What it can not read is in the result. It reads one of the items that it has
	// refused, as well as whole deliveries.
	Events(d *Delivery) Result
	// Headers are those that Events looks at: with them, what it refuses can be read again.
	Headers() []string
}

// Token is a one-time token and what has come under it, by their hashes.
type Token struct {
	Token, Content Hash
	At             time.Time     // when it was signed, which the proof covers
	Validity       time.Duration // how long from then on it proves something
}

// Memory is what several processes know together of one source's tokens.
type Memory interface {
	// Keep keeps a token, if there is room, and says what has come under it first, in any of them. After an error
	// that is not known.
	Keep(t Token) (content Hash, err error)
}

// ErrTokenUsed means that a token came before, with another event.
var ErrTokenUsed = fmt.Errorf("%w: its token has come with another event before", ErrUnsigned)

// Options say how the deliveries of one source are read.
type Options struct {
	Provider string
	// Secrets prove a delivery: any of them does, so that one can be changed without a gap. Of SendGrid they are
	// public keys.
	Secrets [][]byte
	// Tolerance is how far a signature's own time may be from now; zero: DefaultTolerance of the provider.
	Tolerance time.Duration
	// CustomerType is the identifier type of a shop's customer number: user_id, or one of its own. Empty: the
	// provider's name and "_customer_id".
	CustomerType string
	// Memory, of providers with one-time tokens: nil: each process knows its own.
	Memory  Memory
	Generic GenericOptions
}

// Tolerances of a signature's own time. Providers deliver again for hours after they got no 2xx (SendGrid for a
// day) and do not say whether they sign anew; a replay within this time changes nothing, since its message ids are
// known (stitcher.duplicate_window is longer). Others sign at the time of sending, as Standard Webhooks has it.
const (
	ProviderTolerance = 25 * time.Hour
	GenericTolerance  = 5 * time.Minute
)

// DefaultTolerance is the one of a provider.
func DefaultTolerance(provider string) time.Duration {
	if provider == Generic {
		return GenericTolerance
	}
	return ProviderTolerance
}

// New checks the options. The error names the field.
func New(opt Options) (Hook, error) {
	if len(opt.Secrets) == 0 {
		return nil, errors.New("secret_file: holds no secret")
	}
	if opt.Tolerance == 0 {
		opt.Tolerance = DefaultTolerance(opt.Provider)
	}
	if opt.CustomerType == "" {
		opt.CustomerType = opt.Provider + "_customer_id"
	}
	switch opt.Provider {
	case Shopify:
		return &shopify{secrets: opt.Secrets, customer: opt.CustomerType}, nil
	case WooCommerce:
		return &wooCommerce{secrets: opt.Secrets, customer: opt.CustomerType}, nil
	case SendGrid:
		return newSendGrid(opt)
	case Mailgun:
		return &mailgun{secrets: opt.Secrets, tolerance: opt.Tolerance, memory: opt.Memory, tokens: tokens{most: maxTokens}}, nil
	case Generic:
		return newGeneric(opt)
	}
	return nil, fmt.Errorf("provider: %q is none of %v", opt.Provider, Providers())
}

// parse reads a payload; nil if it is none, which is then in res.
func parse(body []byte, res *Result) *fastjson.Value {
	err := event.CheckJSON(body) // fastjson lets pass what is none
	var v *fastjson.Value
	if err == nil {
		v, err = fastjson.ParseBytes(body)
	}
	if err != nil {
		res.refuse(body, event.Reason(err, event.InvalidJSON), "", "the payload: %v", err)
		return nil
	}
	return v
}

// object is parse of a payload that must be an object.
func object(body []byte, res *Result) *fastjson.Value {
	v := parse(body, res)
	if v != nil && v.Type() != fastjson.TypeObject {
		res.refuse(body, event.InvalidType, "", "the payload is not an object")
		return nil
	}
	return v
}

// digest names content: the same bytes, the same text.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write(p) // never fails
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
