package journey

import (
	"strings"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

const (
	// maxAnswers bounds the consents kept per person and brand, and maxAnswerKey the length of their
	// channel and purpose: a sender that invents them must not grow a person's state without end.
	maxAnswers   = 64
	maxAnswerKey = 64
	// maxAddress is the longest e-mail address (RFC 5321: 64 + 1 + 255, in angle brackets 254 fit a path).
	maxAddress = 254
)

// Names of track events about messages, compared without regard to letter case and separators.
const (
	consentUpdated = "consent updated"
	unsubscribed   = "unsubscribed"
	subscribed     = "subscribed"
)

// learn takes in what an event says of the person: address, name, consent.
func (s *State) learn(e *event.Event, at int64) {
	traits, context := e.Traits(), e.Context("traits")
	if v, ok := trait(traits, context, "email"); ok {
		s.Email.set(bounded(v, maxAddress), at)
	}
	for _, name := range []string{"firstName", "first_name", "firstname"} {
		if v, ok := trait(traits, context, name); ok {
			s.FirstName.set(clean(v), at)
			break
		}
	}
	switch e.Type {
	case event.Identify:
		s.identifyConsent(e, traits, at)
	case event.Track:
		s.trackConsent(e, at)
	}
}

// trait is the text of a trait; false if neither object has it. Null is there, and empty.
func trait(traits, context *fastjson.Value, name string) (string, bool) {
	for _, o := range []*fastjson.Value{traits, context} {
		if o != nil && o.Exists(name) {
			return strings.TrimSpace(event.Text(o.Get(name))), true
		}
	}
	return "", false
}

// bounded is s, or "" if it is longer than n bytes: a cut address is another address.
func bounded(s string, n int) string {
	if len(s) > n {
		return ""
	}
	return s
}

// identifyConsent reads traits.consent.{channel}.{purpose}: true, false, "granted" or "denied".
func (s *State) identifyConsent(e *event.Event, traits *fastjson.Value, at int64) {
	if traits == nil {
		return
	}
	traits.GetObject("consent").Visit(func(channel []byte, v *fastjson.Value) {
		v.GetObject().Visit(func(purpose []byte, v *fastjson.Value) {
			s.consent(e.Brand, string(channel), string(purpose), event.Text(v), at)
		})
	})
}

func (s *State) trackConsent(e *event.Event, at int64) {
	name := plainName(e.Name)
	property := func(name string) string { return event.Text(e.Property(name)) }
	switch name {
	case consentUpdated:
		s.consent(e.Brand, property("channel"), property("purpose"), property("status"), at)
	case unsubscribed, subscribed:
		channel := plainName(property("channel"))
		if channel == "" {
			channel = ChannelEmail // what a link in a mail means
		}
		b := s.brand(e.Brand)
		if _, known := b.Receive[channel]; len(channel) <= maxAnswerKey && (known || len(b.Receive) < maxAnswers) {
			b.Receive = answer(b.Receive, channel, Yes{OK: name == subscribed, At: at})
		}
	}
}

// consent takes one answer in; a status that is none of the four words says nothing.
func (s *State) consent(brand, channel, purpose, status string, at int64) {
	channel, purpose = plainName(channel), plainName(purpose)
	if channel == "" || purpose == "" || len(channel) > maxAnswerKey || len(purpose) > maxAnswerKey {
		return
	}
	var ok bool
	switch plainName(status) {
	case "true", "granted":
		ok = true
	case "false", "denied":
	default:
		return
	}
	b, key := s.brand(brand), consentKey(channel, purpose)
	if _, known := b.Consent[key]; known || len(b.Consent) < maxAnswers {
		b.Consent = answer(b.Consent, key, Yes{OK: ok, At: at})
	}
}

func consentKey(channel, purpose string) string { return channel + "/" + purpose }

// plainName is a name in small letters with single spaces between its words.
func plainName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return ' '
		}
		return r
	}, strings.ToLower(s))
	return strings.Join(strings.Fields(s), " ")
}
