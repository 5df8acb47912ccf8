package event

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/valyala/fastjson"
)

// MaxIDBytes bounds userId, anonymousId, previousId, groupId, messageId and external ids. Segment's own
// limit for a messageId is 100 characters; longer ones were seen from senders that concatenate keys, so the
// door is wider than that, but an id is stored many times over and must be bounded.
const MaxIDBytes = 1024

// Event is one decoded event. Raw JSON values alias the body it was decoded from. It is for one goroutine
// at a time: the accessors parse when first asked.
type Event struct {
	Meta
	Type        Type
	Name        string // event of a track, name of a page or screen
	UserID      string
	AnonymousID string
	PreviousID  string
	GroupID     string
	// Time is when it happened, UTC milliseconds: timestamp, else originalTimestamp, both moved by Skew, else
	// ReceivedAt; one that cannot be read counts as absent.
	Time        time.Time
	TimeClamped bool   // it claimed to be later than ReceivedAt+MaxFuture, so Time is ReceivedAt
	Body        []byte // the whole JSON object as collected

	properties, traits, context []byte // raw objects; nil if absent, null or an empty array
	contextTraits, externalIDs  []byte // below context
	said, original              []byte // timestamp and originalTimestamp as they came
	historical                  bool
	alias                       bool // texts may alias Body

	parsed [3]*fastjson.Value // properties, the person's traits, context; filled when asked for
}

const (
	parsedProperties = iota
	parsedTraits
	parsedContext
)

// fields is where the members of the envelope stand in a body.
type fields struct {
	typ, event, name                       []byte
	userID, anonymousID, previousID, group []byte
	messageID                              []byte
	timestamp, originalTimestamp, sentAt   []byte
	properties, traits, context            []byte
	writeKey                               []byte // of the sender; no part of an event
}

// read finds the members: the first of equal names, and names written without escapes before others.
func (f *fields) read(b []byte, list []member) {
	escaped := false
	for i := range list {
		m := &list[i]
		escaped = escaped || m.keyEscaped
		f.set(View(b[m.keyFrom:m.keyTo]), b[m.from:m.to])
	}
	if !escaped {
		return
	}
	for i := range list {
		if m := &list[i]; m.keyEscaped {
			f.set(unescape(b[m.keyFrom:m.keyTo]), b[m.from:m.to])
		}
	}
}

func (f *fields) set(name string, raw []byte) {
	to := f.member(name)
	if to != nil && *to == nil {
		*to = raw
	}
}

func (f *fields) member(name string) *[]byte {
	switch name {
	case "type":
		return &f.typ
	case "event":
		return &f.event
	case "name":
		return &f.name
	case "userId":
		return &f.userID
	case "anonymousId":
		return &f.anonymousID
	case "previousId":
		return &f.previousID
	case "groupId":
		return &f.group
	case "messageId":
		return &f.messageID
	case "timestamp":
		return &f.timestamp
	case "originalTimestamp":
		return &f.originalTimestamp
	case "sentAt":
		return &f.sentAt
	case "properties":
		return &f.properties
	case "traits":
		return &f.traits
	case "context":
		return &f.context
	case writeKey:
		return &f.writeKey
	}
	return nil
}

// Decode reads an event, for the collector (before Validate) and for the stages behind it. body must not be
// changed afterwards. An absent message id is taken from the body, an absent type is track if the body has
// an event name. The error is an *Error: the record is poison and will stay so.
func Decode(body []byte, m Meta) (*Event, error) {
	var room [24]member
	list, shape, err := scanObject(body, room[:0])
	if err != nil {
		return nil, asError(err)
	}
	var f fields
	f.read(body, list)
	e := &Event{Meta: m, Body: body}
	if err := e.read(&f, shape, nil); err != nil {
		return nil, err
	}
	return e, nil
}

// Complete is Compose and then Decode: the event's Body is what Compose returns.
func Complete(item []byte, fill Filling, m Meta) (*Event, error) {
	body, err := Compose(item, fill)
	if err != nil {
		return nil, err
	}
	return Decode(body, m)
}

// read fills e from the members of its body; r, if any, knows those of its context.
func (e *Event) read(f *fields, found shape, r *Reader) error {
	body := e.Body
	if err := found.check(); err != nil {
		return err
	}
	if !utf8.Valid(body) {
		return &Error{Reason: InvalidUTF8, Detail: "the event is not UTF-8 text"}
	}
	var err error
	if e.Type, err = typeOf(f); err != nil {
		return err
	}
	name, nameField := f.name, "name"
	if e.Type == Track {
		name, nameField = f.event, "event"
	}
	for _, x := range [...]struct {
		field string
		raw   []byte
		to    *string
	}{
		{nameField, name, &e.Name}, {"userId", f.userID, &e.UserID}, {"anonymousId", f.anonymousID, &e.AnonymousID},
		{"previousId", f.previousID, &e.PreviousID}, {"groupId", f.group, &e.GroupID},
	} {
		if len(x.raw) == 0 {
			continue
		}
		if *x.to, err = scalar(x.field, x.raw, e.alias); err != nil {
			return err
		}
	}
	messageID, err := scalar("messageId", f.messageID, e.alias)
	if err != nil {
		return err
	}
	if e.MessageID == "" {
		e.MessageID = messageID
	}
	for _, x := range [...]struct {
		field string
		raw   []byte
		to    *[]byte
	}{{"properties", f.properties, &e.properties}, {"traits", f.traits, &e.traits}, {"context", f.context, &e.context}} {
		if *x.to, err = object(x.field, x.raw); err != nil {
			return err
		}
	}
	if err := e.readContext(r); err != nil {
		return err
	}
	e.readTimes(f)
	return nil
}

// typeOf reads the type in any letter case.
func typeOf(f *fields) (Type, error) {
	s := RawText(f.typ)
	if t, ok := asWritten(s); ok {
		return t, nil
	}
	if s = strings.TrimSpace(s); s == "" {
		if isNull(f.typ) && strings.TrimSpace(RawText(f.event)) != "" {
			return Track, nil
		}
		if !isNull(f.typ) && f.typ[0] != '"' {
			return "", &Error{Reason: InvalidType, Path: "type", Detail: "is not a string"}
		}
		return "", &Error{Reason: MissingType, Path: "type", Detail: "says not which call this is, and there is no event name"}
	}
	if t, ok := ParseType(s); ok {
		return t, nil
	}
	return "", &Error{Reason: UnknownType, Path: "type", Detail: fmt.Sprintf("%.40q is not track, identify, page, screen, group or alias", s)}
}

// ParseType reads one of the six calls, in any letter case.
func ParseType(s string) (Type, bool) { return asWritten(strings.ToLower(s)) }

// asWritten is ParseType in lower case, as nearly all write it.
func asWritten(s string) (Type, bool) {
	for _, t := range [...]Type{Track, Identify, Page, Screen, Group, Alias} {
		if string(t) == s {
			return t, true // the constant: s may alias a body
		}
	}
	return "", false
}

func isNull(raw []byte) bool { return len(raw) == 0 || raw[0] == 'n' }

// scalar reads an id or a name: text or a number's digits as they came; null and absent are "". With alias it
// may alias raw.
func scalar(field string, raw []byte, alias bool) (string, error) {
	if isNull(raw) {
		return "", nil
	}
	if c := raw[0]; c == '{' || c == '[' || c == 't' || c == 'f' {
		return "", &Error{Reason: InvalidType, Path: field, Detail: "is neither a string nor a number"}
	}
	s := RawText(raw)
	if !alias {
		s = strings.Clone(s)
	}
	if blank(s) {
		return "", nil
	}
	if len(s) > MaxIDBytes && field != "name" && field != "event" {
		return "", &Error{Reason: IDTooLong, Path: field, Detail: fmt.Sprintf("has %d bytes, at most %d", len(s), MaxIDBytes)}
	}
	return s, nil
}

// blank says whether s is white space; nearly always its first byte tells.
func blank(s string) bool {
	if s != "" && s[0] > ' ' && s[0] < utf8.RuneSelf {
		return false
	}
	return strings.TrimSpace(s) == ""
}

// object reads a member that holds an object. An empty array is what PHP makes of an empty object.
func object(field string, raw []byte) ([]byte, error) {
	if isNull(raw) {
		return nil, nil
	}
	if raw[0] == '[' && skipSpace(raw, 1) == len(raw)-1 {
		return nil, nil
	}
	if raw[0] != '{' {
		return nil, &Error{Reason: InvalidType, Path: field, Detail: "is not an object"}
	}
	return raw, nil
}

func (e *Event) readContext(r *Reader) error {
	if e.context == nil {
		return nil
	}
	if r != nil {
		o := r.Context()
		return e.takeContext(o.b, o.list)
	}
	var room [24]member
	list, _, err := scanObject(e.context, room[:0])
	if err != nil {
		return asError(err)
	}
	return e.takeContext(e.context, list)
}

// takeContext reads the members of the context, which stand in b.
func (e *Event) takeContext(b []byte, list []member) (err error) {
	if e.contextTraits, err = object("context.traits", find(b, list, "traits")); err != nil {
		return err
	}
	if ids := find(b, list, "externalIds"); len(ids) > 0 && ids[0] == '[' {
		e.externalIDs = ids
	}
	e.historical = string(find(b, list, "historical")) == "true"
	return nil
}

func (e *Event) readTimes(f *fields) {
	if e.SentAt.IsZero() {
		e.SentAt, _ = ParseTime(e.text(f.sentAt))
	}
	e.said, e.original = f.timestamp, f.originalTimestamp
	e.setTime()
}

// setTime works out when it happened.
func (e *Event) setTime() {
	t, ok := e.ClaimedTime()
	t = t.Add(e.Skew)
	e.TimeClamped = false
	switch {
	case !ok:
		e.Time = e.ReceivedAt
	case !e.ReceivedAt.IsZero() && t.After(e.ReceivedAt.Add(MaxFuture)):
		e.Time, e.TimeClamped = e.ReceivedAt, true
	default:
		e.Time = t
	}
}

// ClaimedTime is when it happened by the sender's clock: timestamp, else originalTimestamp; false if it says
// neither, so that it happened as of its receipt.
func (e *Event) ClaimedTime() (time.Time, bool) {
	t, ok := ParseTime(e.text(e.said))
	if !ok {
		t, ok = ParseTime(e.text(e.original))
	}
	return t, ok
}

// Correct moves the event by what the sender's clock is off.
func (e *Event) Correct(skew time.Duration) {
	e.Skew = skew
	e.setTime()
}

// OwnTime is the sender's own clock, where Time may be another: originalTimestamp, or the time that was clamped or
// corrected; zero: there is none but Time.
func (e *Event) OwnTime() time.Time {
	if !e.TimeClamped && e.Skew == 0 && isNull(e.original) {
		return time.Time{}
	}
	for _, raw := range [][]byte{e.original, e.said} {
		if t, ok := ParseTime(e.text(raw)); ok {
			return t
		}
	}
	return time.Time{}
}

// SaysHistorical tells whether the sender itself marked the event: context.historical is true.
func (e *Event) SaysHistorical() bool { return e.historical }

// Property returns the value below "properties", nil if absent.
func (e *Event) Property(path ...string) *fastjson.Value {
	return e.parse(parsedProperties, e.properties).Get(path...)
}

// Context returns the value below "context", nil if absent.
func (e *Event) Context(path ...string) *fastjson.Value {
	return e.parse(parsedContext, e.context).Get(path...)
}

// Traits returns the person's traits: "traits", else context.traits; an object, or nil. The traits of a
// group call are the group's, so there it is context.traits only.
func (e *Event) Traits() *fastjson.Value { return e.parse(parsedTraits, e.personTraits()) }

func (e *Event) personTraits() []byte {
	if e.traits != nil && e.Type != Group {
		return e.traits
	}
	return e.contextTraits
}

// parse cannot meet an error: the text was scanned more strictly than fastjson reads, and its depth is
// below fastjson's.
func (e *Event) parse(which int, raw []byte) *fastjson.Value {
	if e.parsed[which] == nil && raw != nil {
		v, err := fastjson.ParseBytes(raw)
		if err != nil {
			return nil
		}
		e.parsed[which] = v
	}
	return e.parsed[which]
}

// RawProperties returns the object "properties" as it came; nil if absent.
func (e *Event) RawProperties() []byte { return e.properties }

// RawTraits returns the object "traits" as it came, a group's included, else context.traits; nil if absent.
func (e *Event) RawTraits() []byte {
	if e.traits != nil {
		return e.traits
	}
	return e.contextTraits
}

// RawPersonTraits returns the person's traits as they came; nil if absent. See Traits.
func (e *Event) RawPersonTraits() []byte { return e.personTraits() }

// RawContext returns the object "context" as it came; nil if absent.
func (e *Event) RawContext() []byte { return e.context }

// Text is the text of a JSON string, number (its digits as they came), true or false; "" for nil, null,
// arrays and objects.
func Text(v *fastjson.Value) string {
	if v == nil {
		return ""
	}
	switch v.Type() {
	case fastjson.TypeString:
		return strings.ToValidUTF8(string(v.GetStringBytes()), "\uFFFD")
	case fastjson.TypeNumber, fastjson.TypeTrue, fastjson.TypeFalse:
		return string(v.MarshalTo(nil))
	}
	return ""
}
