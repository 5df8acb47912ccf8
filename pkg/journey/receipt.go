package journey

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
)

// Outcomes of a receipt.
const (
	Delivered  = "delivered"  // the channel took the message
	Failed     = "failed"     // the channel refused it, or could not be reached for long
	Suppressed = "suppressed" // deliberately not sent
	HeldOut    = "held_out"   // not sent, to measure what sending is worth; reserved
	Unknown    = "unknown"    // sent, perhaps: the channel cannot tell
)

// Reasons of a receipt: a closed set, for labels and queries.
const (
	ReasonSent           = "sent"             // delivered
	ReasonPurchased      = "purchased"        // suppressed: an order came first
	ReasonEmptied        = "emptied"          // suppressed: nothing was left in the cart when it was due
	ReasonMerged         = "merged"           // suppressed: the same cart of the same person goes on under another receipt
	ReasonBelowMinimum   = "below_minimum"    // suppressed: the cart is worth less than the journey wants
	ReasonHistorical     = "historical"       // suppressed: history, replayed or long overdue
	ReasonNoConsent      = "no_consent"       // suppressed: nothing is known of a consent
	ReasonConsentDenied  = "consent_denied"   // suppressed: the person said no
	ReasonUnsubscribed   = "unsubscribed"     // suppressed: the person used the link
	ReasonSplit          = "split"            // suppressed: the person turned out to be several after the decision
	ReasonErased         = "erased"           // suppressed: the person was erased
	ReasonSuppressedList = "suppression_list" // suppressed: the address is on the operator's list
	ReasonNoAddress      = "no_address"       // suppressed: no usable address is known
	ReasonChannelOff     = "channel_off"      // suppressed: the channel is not configured
	ReasonAlreadySent    = "already_sent"     // suppressed: this very cart was written about under another receipt
	ReasonTooManyCarts   = "too_many_carts"   // suppressed: more carts at once than a person has
	ReasonJourneyLost    = "journey_lost"     // suppressed: nobody has the journey's version any more
	ReasonTemplate       = "template"         // failed: the message could not be rendered; the detail says where
	ReasonRefused        = "refused"          // failed: the receiver said no, for good
	ReasonUnavailable    = "channel_unavailable"
	ReasonExpired        = "expired"           // failed: too long after the decision to be true still
	ReasonCrash          = "crash_during_send" // unknown: the sender died, or lost its work, while sending
	ReasonNoAnswer       = "no_answer"         // unknown: all was sent, and no answer came
)

// Receipt is one record on activations.settled: the end of one armed instance. Times are UTC milliseconds.
type Receipt struct {
	Receipt   string      `json:"receipt"`           // UUID, one per armed instance
	Message   string      `json:"message,omitempty"` // UUID of the message; "" if none was made
	Journey   string      `json:"journey"`
	Version   string      `json:"version"` // of the journey, as the instance was armed with it
	Brand     string      `json:"brand"`
	Profile   string      `json:"profile"`
	Channel   string      `json:"channel"`
	Outcome   string      `json:"outcome"`
	Reason    string      `json:"reason"`
	Detail    string      `json:"detail,omitempty"`   // in words
	Unfenced  bool        `json:"unfenced,omitempty"` // see Result.Unfence
	Cart      ReceiptCart `json:"cart"`
	ArmedAt   int64       `json:"armedAt"` // event time of what armed it
	DueAt     int64       `json:"dueAt"`   // when it was due, by what was known at its end
	SettledAt int64       `json:"settledAt"`
}

// ReceiptCart is the cart as it stood at the end of the instance.
type ReceiptCart struct {
	ID       string          `json:"id"` // "" if the source sends none
	Value    decimal.Decimal `json:"value"`
	Currency string          `json:"currency,omitempty"`
	Items    decimal.Decimal `json:"items"`
}

// Request is one record on activations.requested: one message, ready to deliver. Whoever delivers it
// writes its receipt.
type Request struct {
	ID        string            `json:"id"`      // message id: UUID made from the receipt's
	Receipt   string            `json:"receipt"` // see Receipt
	Journey   string            `json:"journey"`
	Version   string            `json:"version"`
	Brand     string            `json:"brand"`
	Profile   string            `json:"profile"`
	Channel   string            `json:"channel"`
	Purpose   string            `json:"purpose"`
	From      string            `json:"from,omitempty"`
	ReplyTo   string            `json:"replyTo,omitempty"`
	To        string            `json:"to,omitempty"` // e-mail address
	Subject   string            `json:"subject,omitempty"`
	Text      string            `json:"text,omitempty"`
	HTML      string            `json:"html,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"` // of the mail: List-Unsubscribe
	Cart      RequestCart       `json:"cart"`
	ArmedAt   int64             `json:"armedAt"`
	ChangedAt int64             `json:"changedAt"` // last activity on the cart itself, as known at the decision
	DueAt     int64             `json:"dueAt"`
	DecidedAt int64             `json:"decidedAt"`
	Unfenced  bool              `json:"unfenced,omitempty"` // see Result.Unfence
}

// RequestCart is the cart that a message is about.
type RequestCart struct {
	ReceiptCart
	Lines []commerce.Line `json:"lines"` // at most MaxLines
}

// Settle is the receipt of a delivered, failed or lost message.
func (r *Request) Settle(outcome, reason, detail string, settledAt int64) Receipt {
	rec := Receipt{
		Receipt: r.Receipt, Message: r.ID, Journey: r.Journey, Version: r.Version, Brand: r.Brand, Profile: r.Profile,
		Channel: r.Channel, Outcome: outcome, Reason: reason, Detail: cutDetail(detail), Cart: r.Cart.ReceiptCart,
		ArmedAt: r.ArmedAt, DueAt: r.DueAt, SettledAt: settledAt,
	}
	if r.Unfenced {
		rec.unfence()
	}
	return rec
}

// unfencedDetail is what such a receipt says to analysts, who see its detail.
const unfencedDetail = "decided without events that wait in a collector's spool, which an operator had overridden"

func (r *Receipt) unfence() {
	r.Unfenced = true
	if r.Detail != "" {
		r.Detail = "; " + r.Detail
	}
	r.Detail = cutDetail(unfencedDetail + r.Detail)
}

// Unfence marks what was decided: an operator had the fence pass events that were acknowledged and are only in a
// collector's spool, so the decision may not know of an order among them.
func (res *Result) Unfence() {
	for i := range res.Requests {
		res.Requests[i].Unfenced = true
	}
	for i := range res.Receipts {
		res.Receipts[i].unfence()
	}
}

// maxDetail bounds what a foreign server may put into our receipts, in bytes.
const maxDetail = 500

func cutDetail(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	return strings.ToValidUTF8(s, "")
}

// Encode is the record's value: JSON, with < and & as they are, because people read the topic.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// DecodeRequest reads a record of activations.requested. The error is permanent.
func DecodeRequest(b []byte) (*Request, error) {
	var r Request
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	if r.ID == "" || r.Receipt == "" || r.Channel == "" {
		return nil, fmt.Errorf("read request: id, receipt and channel are wanted")
	}
	return &r, nil
}

// The name spaces of the ids, made once for Weft: an id is a version 5 UUID of the name in its space.
const (
	receiptSpace = "7c1d3b52-9f0e-5c1a-8a55-2f6d0f6a4b01"
	messageSpace = "7c1d3b52-9f0e-5c1a-8a55-2f6d0f6a4b02"
)

// derive makes an id from parts; each stands with its length, so that no two lists give one name.
func derive(space string, parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%d:%s", len(p), p)
	}
	return uuid.NewSHA1(uuid.MustParse(space), []byte(b.String())).String()
}

func messageID(receipt string) string { return derive(messageSpace, receipt) }
