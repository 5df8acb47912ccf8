package hooks

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// mailgun reads Mailgun's webhooks (documentation.mailgun.com, Webhooks): one event, with a signature in the body
// that covers a time and a random token, but not the event: so a token stands for one event only.
type mailgun struct {
	secrets   [][]byte
	tolerance time.Duration
	memory    Memory // of all processes; nil: none
	tokens    tokens // of this one
}

// maxSignature bounds the member "signature", the only one that is parsed before the sender is known: three short
// texts, and the parent's.
const maxSignature = 1 << 10

// Verify takes the signature of the account, and that of a parent account where the domain is a subaccount's. Of the
// rest of the body, which a stranger may have made, nothing is kept but where its members stand.
func (m *mailgun) Verify(d *Delivery) error {
	var body event.Object
	body.Read(d.Body)
	raw := body.Find("signature").Raw
	if len(raw) > maxSignature {
		return ErrUnsigned
	}
	var res Result
	s := object(raw, &res)
	if s == nil {
		return ErrUnsigned
	}
	at, token := text(s, "timestamp"), text(s, "token")
	if token == "" || !inTime(at, d.Received, m.tolerance) {
		return ErrUnsigned
	}
	for _, name := range []string{"signature", "parent-signature"} {
		mac, err := hex.DecodeString(text(s, name))
		if err != nil || !signed(sha256.New, m.secrets, mac, []byte(at), []byte(token)) {
			continue
		}
		seconds, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return ErrUnsigned
		}
		return m.first(Token{hashed([]byte(token)), hashed(body.Find("event-data").Raw), time.Unix(seconds, 0), m.tolerance}, d.Received)
	}
	return ErrUnsigned
}

// first refuses a token that came with something else before. What others know comes first, so that whoever tries a used
// token here does not make this process refuse the right one.
func (m *mailgun) first(t Token, now time.Time) error {
	if m.memory != nil {
		if was, err := m.memory.Keep(t); err == nil && was != t.Content {
			return ErrTokenUsed
		}
	}
	if !m.tokens.fits(t.Token, t.Content, now, m.tolerance) {
		return ErrTokenUsed
	}
	return nil
}

// Headers implements Hook: all is in the body.
func (m *mailgun) Headers() []string { return nil }

func (m *mailgun) Events(d *Delivery) Result {
	var res Result
	v := object(d.Body, &res)
	if v == nil {
		return res
	}
	data := v.Get("event-data")
	if data == nil && v.Exists("event") {
		data = v // the item alone, as it is refused
	}
	if data == nil || data.Type() != fastjson.TypeObject {
		res.refuse(d.Body, event.InvalidType, "event-data", "is not an object")
		return res
	}
	mailgunEvent(data, &res)
	return res
}

func mailgunEvent(v *fastjson.Value, res *Result) {
	raw := v.MarshalTo(nil)
	status, client := v.Get("delivery-status"), v.Get("client-info")
	x := mail{
		provider: Mailgun, id: text(v, "id"), at: text(v, "timestamp"), recipient: text(v, "recipient"),
		header: text(v, "message", "headers", "message-id"), subject: text(v, "message", "headers", "subject"),
		weft: text(v, "user-variables", "weft_message_id"), link: text(v, "url"),
		ip: text(v, "ip"), agent: text(client, "user-agent"), machine: text(client, "bot") != "",
	}
	switch kind := strings.ToLower(text(v, "event")); kind {
	case "delivered":
		x.name = emailDelivered
	case "opened":
		x.name = emailOpened
	case "clicked":
		x.name = emailLinkClicked
	case "failed":
		if text(v, "severity") == "temporary" { // it is tried again
			res.Ignored++
			return
		}
		x.name, x.bounce = emailBounced, text(v, "severity")
		x.reason = first(text(status, "message"), text(status, "description"), text(v, "reason"))
		x.status = first(text(status, "enhanced-code"), text(status, "code"))
	case "complained":
		x.name = emailMarkedAsSpam
	case "unsubscribed":
		x.name = unsubscribed
	case "accepted", "rejected", "stored", "list_member_uploaded", "list_member_upload_error", "list_uploaded":
		res.Ignored++
		return
	default:
		res.refuse(raw, UnknownTopic, "event", "%.80q is not read", kind)
		return
	}
	if x.id == "" {
		x.id = digest(raw)
	}
	x.id = "mailgun:" + x.id
	x.tags = texts(v.Get("tags"))
	x.event(res)
}
