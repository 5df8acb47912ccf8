package hooks

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// sendGrid reads SendGrid's Event Webhook (twilio.com/docs/sendgrid, Event Webhook Reference): a list of events,
// signed as a whole, with its time, on an elliptic curve.
type sendGrid struct {
	keys      []*ecdsa.PublicKey
	tolerance time.Duration
}

func newSendGrid(opt Options) (*sendGrid, error) {
	s := &sendGrid{tolerance: opt.Tolerance}
	var errs []error
	for i, text := range opt.Secrets {
		key, err := publicKey(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("secret_file: verification key %d: %w", i+1, err))
		}
		s.keys = append(s.keys, key)
	}
	return s, errors.Join(errs...)
}

func (s *sendGrid) Verify(d *Delivery) error {
	at := d.Header("X-Twilio-Email-Event-Webhook-Timestamp")
	signature, err := base64.StdEncoding.DecodeString(d.Header("X-Twilio-Email-Event-Webhook-Signature"))
	if err != nil || !inTime(at, d.Received, s.tolerance) {
		return ErrUnsigned
	}
	h := sha256.New()
	_, _ = h.Write([]byte(at)) // never fails
	_, _ = h.Write(d.Body)
	for _, key := range s.keys {
		if ecdsa.VerifyASN1(key, h.Sum(nil), signature) {
			return nil
		}
	}
	return ErrUnsigned
}

// Headers implements Hook: all but the proof is in the body.
func (s *sendGrid) Headers() []string { return nil }

func (s *sendGrid) Events(d *Delivery) Result {
	var res Result
	v := parse(d.Body, &res)
	if v == nil {
		return res
	}
	list, err := v.Array()
	if v.Type() == fastjson.TypeObject && v.Exists("event") {
		list, err = []*fastjson.Value{v}, nil // the item alone, as it is refused
	}
	if err != nil {
		res.refuse(d.Body, event.InvalidType, "", "the payload is not a list")
		return res
	}
	for _, item := range list {
		sendGridEvent(item, &res)
	}
	return res
}

func sendGridEvent(v *fastjson.Value, res *Result) {
	raw := v.MarshalTo(nil)
	m := mail{
		provider: SendGrid, id: text(v, "sg_event_id"), at: text(v, "timestamp"), recipient: text(v, "email"), header: text(v, "smtp-id"),
		weft: text(v, "weft_message_id"), link: text(v, "url"), reason: first(text(v, "reason"), text(v, "response")), status: text(v, "status"),
		bounce: text(v, "type"), group: text(v, "asm_group_id"), ip: text(v, "ip"), agent: text(v, "useragent"),
		machine: v.GetBool("sg_machine_open"),
	}
	switch kind := strings.ToLower(text(v, "event")); kind {
	case "delivered":
		m.name, m.bounce = emailDelivered, ""
	case "open":
		m.name = emailOpened
	case "click":
		m.name = emailLinkClicked
	case "bounce":
		m.name = emailBounced
	case "spamreport":
		m.name = emailMarkedAsSpam
	case "unsubscribe", "group_unsubscribe":
		m.name = unsubscribed
	case "processed", "deferred", "dropped", "group_resubscribe", "account_status_change":
		res.Ignored++
		return
	default:
		res.refuse(raw, UnknownTopic, "event", "%.80q is not read", kind)
		return
	}
	if m.id == "" {
		m.id = digest(raw)
	}
	m.id = "sendgrid:" + m.id
	m.tags = texts(v.Get("category"))
	m.event(res)
}

// texts reads one text or a list of them.
func texts(v *fastjson.Value) []string {
	if v == nil || v.Type() != fastjson.TypeArray {
		return []string{event.Text(v)}
	}
	list := v.GetArray()
	out := make([]string, 0, len(list))
	for _, x := range list {
		out = append(out, event.Text(x))
	}
	return out
}
