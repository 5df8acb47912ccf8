package topic

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
)

// Header is one Kafka record header.
type Header struct {
	Key   string
	Value []byte
}

// Header keys, the same on every topic. A foreign producer needs none of them.
const (
	HeaderSchema     = "weft-schema"      // version of the record's schema, decimal
	HeaderKind       = "weft-kind"        // Kind
	HeaderPosition   = "weft-position"    // Position: stage:partition:sequence
	HeaderAt         = "weft-at"          // offset of the record whose body this one passes on, in the position's partition
	HeaderSource     = "weft-source"      // name of the configured source
	HeaderBrand      = "weft-brand"       // brand of the deployment
	HeaderMessageID  = "weft-message-id"  // the event's id, unique within its source
	HeaderReceivedAt = "weft-received-at" // UTC milliseconds when the collector took it
	HeaderSentAt     = "weft-sent-at"     // UTC milliseconds when the sender sent it, if it said so
	HeaderSkew       = "weft-skew"        // milliseconds to add to the sender's clock, which is off; absent: none
	HeaderTrust      = "weft-trust"       // "trusted" or "untrusted"
	HeaderHistorical = "weft-historical"  // "1": never triggers a message
	HeaderFlags      = "weft-flags"       // what the collector found about the event, comma separated, such as bot
	HeaderSetAside   = "weft-set-aside"   // events.identified: identifiers that did not count for whose the event is, type:reason, comma separated
	HeaderReason     = "weft-reason"      // events.rejected: stable reason code, such as invalid_json
	HeaderError      = "weft-error"       // events.rejected: the error in words, naming the field
	HeaderService    = "weft-service"     // events.rejected: the stage that rejected it
	HeaderOrigin     = "weft-origin"      // events.rejected: topic:partition:offset it came from, the HTTP path, or the source position of an output that was too large
)

// HeaderReplayOf stands on records of events.inbox that are a repaired copy of one of events.rejected, whose
// topic:partition:offset it names (with /N behind it on all but the last copy of a request of several events: what
// ends in between is not done). The collector takes such a record as its source's own: it keeps the headers for
// source, brand, message id, receipt, trust and age.
const HeaderReplayOf = "weft-replay-of"

// HeaderDelivery stands on records of events.rejected that are an item of a webhook as its provider sent it: the headers
// of the delivery by which its reader reads it again, as in a URL's query; empty: it needs none.
const HeaderDelivery = "weft-delivery"

// SchemaVersion is the version of all record schemas that this binary writes. A newer binary reads the
// older; an older one refuses a newer record cleanly.
const SchemaVersion = 1

// Kind says what a record on events.identified is.
type Kind string

// The kinds of records on events.identified. A record without the header is an event.
const (
	KindEvent Kind = "event"
	KindMerge Kind = "merge"
	KindSplit Kind = "split"
	KindErase Kind = "erase"

	// KindDecision and KindRefolded belong to a split, as events with HeaderRefold do: what was decided before the split, and
	// that all of it has been told.
	KindDecision Kind = "decision"
	KindRefolded Kind = "refolded"
)

// HeaderRefold names the command of which a record of events.identified tells again what was before it: the record is for
// the profile of its key alone, and nobody is told of it outside. HeaderOrigin beside it is where an event stands on
// events.identified first. On profiles.changed it stands on the first word about a part, and names the command that made it.
const HeaderRefold = "weft-refold"

// KindSuspend is, on identities.linked alone, a link that a cap of the governor has stopped.
const KindSuspend Kind = "suspend"

// Kinds of identities.linked alone: a part that a split has made, a node that is blocked or shared, and how a command ended.
const (
	KindPart    Kind = "part"
	KindState   Kind = "state"
	KindCommand Kind = "command"
)

// Position says where a record came from (rule 1): the sequence only grows per stage and partition.
type Position struct {
	Stage     string // a stage, or "collector/TOPIC" for records of a Kafka inlet
	Partition int
	Seq       int64
}

// Source is the text under which a consumer remembers the highest sequence of this source.
func (p Position) Source() string { return p.Stage + ":" + strconv.Itoa(p.Partition) }

func (p Position) String() string { return p.Source() + ":" + strconv.FormatInt(p.Seq, 10) }

// ParsePosition reads what Position.String wrote.
func ParsePosition(s string) (Position, error) {
	i := strings.LastIndexByte(s, ':')
	j := -1
	if i > 0 {
		j = strings.LastIndexByte(s[:i], ':')
	}
	if j <= 0 {
		return Position{}, fmt.Errorf("header %s: %q is not stage:partition:sequence", HeaderPosition, s)
	}
	part, err1 := strconv.Atoi(s[j+1 : i])
	seq, err2 := strconv.ParseInt(s[i+1:], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return Position{}, fmt.Errorf("header %s: %q: %w", HeaderPosition, s, err)
	}
	return Position{Stage: s[:j], Partition: part, Seq: seq}, nil
}

// Get returns the value of the first header with that key.
func Get(hs []Header, key string) (string, bool) {
	for i := range hs {
		if hs[i].Key == key {
			return string(hs[i].Value), true
		}
	}
	return "", false
}

// View is Get without a copy: the text lives and changes as the header does.
func View(hs []Header, key string) (string, bool) {
	for i := range hs {
		if hs[i].Key == key {
			return event.View(hs[i].Value), true
		}
	}
	return "", false
}

// MetaHeaders writes m, with the schema version.
func MetaHeaders(m event.Meta) []Header {
	hs := make([]Header, 0, 12)
	add := func(k, v string) {
		if v != "" {
			hs = append(hs, Header{k, []byte(v)})
		}
	}
	add(HeaderSchema, strconv.Itoa(SchemaVersion))
	add(HeaderSource, m.Source)
	add(HeaderBrand, m.Brand)
	add(HeaderMessageID, m.MessageID)
	add(HeaderReceivedAt, strconv.FormatInt(m.ReceivedAt.UnixMilli(), 10))
	if !m.SentAt.IsZero() {
		add(HeaderSentAt, strconv.FormatInt(m.SentAt.UnixMilli(), 10))
	}
	if m.Skew != 0 {
		add(HeaderSkew, strconv.FormatInt(m.Skew.Milliseconds(), 10))
	}
	if m.Trusted {
		add(HeaderTrust, "trusted")
	} else {
		add(HeaderTrust, "untrusted")
	}
	if m.Historical {
		add(HeaderHistorical, "1")
	}
	add(HeaderFlags, m.Flags)
	return hs
}

// metaRoom is how many records' headers a MetaWriter takes memory for at a time: some 12 KB, which live as long as one of
// these records does.
const metaRoom = 32

// MetaWriter writes the headers of one event after another, of which most differ in nothing but the message id, with
// little garbage. Its zero value is ready. It is for one goroutine.
type MetaWriter struct {
	last event.Meta // without its message id
	like []Header   // what it became, with room for a message id
	room []Header
}

// Headers is MetaHeaders. The values must not be changed: records share them, and m's texts.
func (w *MetaWriter) Headers(m event.Meta) []Header {
	id := m.MessageID
	if id == "" {
		return MetaHeaders(m)
	}
	if m.MessageID = ""; w.like == nil || m != w.last {
		w.last, m.MessageID = m, id
		w.like = MetaHeaders(m)
	}
	n := len(w.like)
	if len(w.room) < n {
		w.room = make([]Header, max(n, metaRoom*len(w.like)))
	}
	hs := w.room[:n:n]
	w.room = w.room[n:]
	for i := range w.like {
		if hs[i] = w.like[i]; hs[i].Key == HeaderMessageID {
			hs[i].Value = event.ViewText(id)
		}
	}
	return hs
}

// maxSkew, a century in milliseconds, is more than every clock is off that can be read as a time at all.
const maxSkew = 100 * 366 * 24 * 3600 * 1000

// ErrNewerSchema means that the record was written by a newer binary: this one must not touch it.
var ErrNewerSchema = errors.New("record has a newer schema than this binary knows")

// ParseMeta reads what MetaHeaders wrote. Missing headers give zero values; a malformed one is an error
// that names it.
func ParseMeta(hs []Header) (event.Meta, error) {
	return parseMeta(hs, func(b []byte) string { return string(b) })
}

// ViewMeta is ParseMeta without copies: the texts live and change as the headers do.
func ViewMeta(hs []Header) (event.Meta, error) { return parseMeta(hs, event.View) }

func parseMeta(hs []Header, text func([]byte) string) (event.Meta, error) {
	var m event.Meta
	var errs []error
	millis := func(key string, v []byte) time.Time {
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("header %s: %q is not milliseconds", key, v))
			return time.Time{}
		}
		return time.UnixMilli(n).UTC()
	}
	for _, h := range hs {
		switch h.Key {
		case HeaderSchema:
			if n, err := strconv.Atoi(string(h.Value)); err != nil {
				errs = append(errs, fmt.Errorf("header %s: %q is not a number", h.Key, h.Value))
			} else if n > SchemaVersion {
				errs = append(errs, fmt.Errorf("%w: %d, known %d", ErrNewerSchema, n, SchemaVersion))
			}
		case HeaderSource:
			m.Source = text(h.Value)
		case HeaderBrand:
			m.Brand = text(h.Value)
		case HeaderMessageID:
			m.MessageID = text(h.Value)
		case HeaderReceivedAt:
			m.ReceivedAt = millis(h.Key, h.Value)
		case HeaderSentAt:
			m.SentAt = millis(h.Key, h.Value)
		case HeaderSkew:
			n, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil || n > maxSkew || n < -maxSkew {
				errs = append(errs, fmt.Errorf("header %s: %q is not milliseconds of at most a century", h.Key, h.Value))
				continue
			}
			m.Skew = time.Duration(n) * time.Millisecond
		case HeaderTrust:
			m.Trusted = string(h.Value) == "trusted"
		case HeaderHistorical:
			m.Historical = string(h.Value) == "1"
		case HeaderFlags:
			m.Flags = text(h.Value)
		}
	}
	return m, errors.Join(errs...)
}
