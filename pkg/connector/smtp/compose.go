package smtp

import (
	"bytes"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"github.com/weft-cdp/weft/pkg/connector"
)

// HeaderReceipt names the receipt that a mail belongs to.
const HeaderReceipt = "Weft-Receipt"

// passed are the headers of a message that are taken over; others are not the caller's to set.
func passed() []gomail.Header {
	return []gomail.Header{gomail.HeaderListUnsubscribe, gomail.HeaderListUnsubscribePost, HeaderReceipt}
}

// composed is a message as it goes over the wire.
type composed struct {
	from, to string // envelope
	bytes    []byte
}

// compose makes the MIME message. Every fault is permanent: the message itself is wrong.
func (s *Sender) compose(m connector.Message) (*composed, error) {
	for name, v := range map[string]string{"id": m.ID, "from": m.From, "reply_to": m.ReplyTo, "to": m.To, "subject": m.Subject} {
		if strings.ContainsAny(v, "\r\n\x00") {
			return nil, connector.Fail(connector.Permanent, "%s holds a line break", name)
		}
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithEncoding(gomail.EncodingQP))
	if err := msg.From(m.From); err != nil {
		return nil, connector.Fail(connector.Permanent, "from: %w", err)
	}
	if err := msg.To(m.To); err != nil {
		return nil, connector.Fail(connector.Permanent, "to: %w", err)
	}
	if m.ReplyTo != "" {
		if err := msg.ReplyTo(m.ReplyTo); err != nil {
			return nil, connector.Fail(connector.Permanent, "reply_to: %w", err)
		}
	}
	c := &composed{}
	var err error
	if c.from, err = plain(m.From); err != nil {
		return nil, connector.Fail(connector.Permanent, "from: %w", err)
	}
	if c.to, err = plain(m.To); err != nil {
		return nil, connector.Fail(connector.Permanent, "to: %w", err)
	}
	domain := s.cfg.HELO
	if i := strings.LastIndexByte(c.from, '@'); i >= 0 {
		domain = c.from[i+1:]
	}
	msg.SetMessageIDWithValue(m.ID + "@" + domain)
	msg.SetDateWithValue(m.DecidedAt)
	msg.Subject(m.Subject)
	for _, h := range passed() {
		v, ok := m.Headers[h.String()]
		if !ok {
			continue
		}
		if strings.ContainsAny(v, "\r\n\x00") {
			return nil, connector.Fail(connector.Permanent, "header %s holds a line break", h)
		}
		msg.SetGenHeader(h, v)
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, connector.Fail(connector.Permanent, "compose: %w", err)
	}
	c.bytes = b.Bytes()
	return c, nil
}
