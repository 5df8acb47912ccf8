package hooks

import (
	"strings"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
)

// Names of Segment's e-mail event spec.
const (
	emailDelivered    = "Email Delivered"
	emailOpened       = "Email Opened"
	emailLinkClicked  = "Email Link Clicked"
	emailBounced      = "Email Bounced"
	emailMarkedAsSpam = "Email Marked as Spam"
	unsubscribed      = "Unsubscribed"
)

// complaintSuffix follows the message id of the Unsubscribed that a complaint brings with it.
const complaintSuffix = ":unsubscribed"

// mail is one event of a mail provider, whichever it is.
type mail struct {
	provider  string
	name      string
	id        string // message id of the event
	at        string
	recipient string
	header    string // Message-Id of the mail
	weft      string // id of Weft's message, if the mail carries it as a variable
	subject   string
	link      string
	reason    string
	status    string // of the receiving server, such as 5.1.1
	bounce    string // permanent, temporary, blocked, ...
	group     string // what was unsubscribed from; empty: everything
	ip, agent string
	machine   bool // opened by a machine on the person's behalf, as mail programs do that hide who reads
	tags      []string
}

// event writes it. Whoever complains does not want the next mail either, so a complaint is an unsubscription,
// too.
func (m *mail) event(res *Result) {
	m.write(res)
	if m.name == emailMarkedAsSpam {
		also := *m
		also.name, also.id, also.reason = unsubscribed, m.id+complaintSuffix, "complaint"
		also.write(res)
	}
}

func (m *mail) write(res *Result) {
	e := newTrack(m.name, m.id)
	e.at("timestamp", m.at)
	e.identifier(event.Email, m.recipient)
	e.open("properties")
	header := strings.Trim(m.header, "<> ")
	e.text("email_id", header)
	e.text("message", first(weftMessage(m.weft), weftMessage(header)))
	e.text("email_subject", m.subject)
	e.text("link_url", m.link)
	e.text("reason", m.reason)
	e.text("status", m.status)
	e.text("bounce_type", m.bounce)
	e.text("group", m.group)
	e.flag("machine_open", m.machine)
	if m.name == unsubscribed {
		e.text("channel", "email") // by which decisions know it
	}
	e.list("tags")
	for _, tag := range m.tags {
		if tag != "" {
			e.next()
			e.b = event.AppendJSONString(e.b, tag)
		}
	}
	e.close(']')
	e.close('}')
	e.context(m.provider, "", func() {
		e.text("ip", m.ip)
		e.text("userAgent", m.agent)
	})
	res.add(e)
}

// weftMessage is the id of one of Weft's messages in a Message-Id, id@domain, which is where Weft's own mail has
// it, or in a variable; "" if it is no such id.
func weftMessage(s string) string {
	local, _, _ := strings.Cut(s, "@")
	if len(local) != len(uuid.UUID{}.String()) {
		return ""
	}
	id, err := uuid.Parse(local)
	if err != nil {
		return ""
	}
	return id.String()
}
