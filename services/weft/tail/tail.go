// Package tail shows events in a terminal as they come.
//
// It owns: the filters, and the line that an event is shown as. It guarantees that what a sender put into an event
// cannot take over the terminal (control characters are shown as they would be written in Go). It must not know
// where records come from.
package tail

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Filter says which events are shown; an empty field: all.
type Filter struct {
	Sources []string // of these sources
	Names   []string // with one of these names: event of a track, name of a page or screen
	Types   []string // calls: track, identify, ...
	Person  string   // that carry this identifier, whichever, or belong to the profile of this id
	Flag    string   // with this flag
}

// fits says whether an event is to be shown. key is the record's: the profile id on events.identified.
func (f *Filter) fits(e *event.Event, key []byte) bool {
	return oneOf(f.Sources, e.Source) && oneOf(f.Names, e.Name) && oneOf(f.Types, string(e.Type)) &&
		(f.Flag == "" || e.HasFlag(f.Flag)) && (f.Person == "" || f.named(e, key))
}

func (f *Filter) named(e *event.Event, key []byte) bool {
	if string(key) == f.Person {
		return true
	}
	for _, id := range e.Identifiers() {
		if strings.EqualFold(strings.TrimSpace(id.Value), f.Person) {
			return true
		}
	}
	return false
}

func oneOf(list []string, s string) bool {
	if len(list) == 0 {
		return true
	}
	for _, x := range list {
		if strings.EqualFold(x, s) {
			return true
		}
	}
	return false
}

// Printer writes events. It is for one goroutine.
type Printer struct {
	Out    io.Writer
	Filter Filter
	JSON   bool // one object per line instead of a line for people
	Colour bool
	Zone   *time.Location // of the times shown to people; nil: UTC

	Shown int // events written
}

// Record shows a record of events.collected or events.identified if it is an event that fits. What is no event
// (merges, the unreadable), or was told before (the events of somebody who was split), is passed over.
func (p *Printer) Record(r *stream.Record) error {
	if kind, ok := topic.Get(r.Headers, topic.HeaderKind); ok && topic.Kind(kind) != topic.KindEvent {
		return nil
	}
	if _, again := topic.Get(r.Headers, topic.HeaderRefold); again {
		return nil
	}
	meta, err := topic.ParseMeta(r.Headers)
	if err != nil {
		return nil // not ours
	}
	e, err := event.Decode(r.Value, meta)
	if err != nil || !p.Filter.fits(e, r.Key) {
		return nil
	}
	p.Shown++
	line := p.line(e, r)
	if p.JSON {
		if line, err = jsonLine(e, r); err != nil {
			return err
		}
	}
	_, err = io.WriteString(p.Out, line+"\n")
	return err
}

// jsonLine is an event with what Weft knows about it.
func jsonLine(e *event.Event, r *stream.Record) (string, error) {
	line, err := json.Marshal(struct {
		Topic      string          `json:"topic"`
		Partition  int             `json:"partition"`
		Offset     int64           `json:"offset"`
		Key        string          `json:"key"`
		Source     string          `json:"source"`
		Brand      string          `json:"brand"`
		MessageID  string          `json:"messageId"`
		ReceivedAt time.Time       `json:"receivedAt"`
		Time       time.Time       `json:"time"`
		Flags      []string        `json:"flags,omitempty"`
		Historical bool            `json:"historical,omitempty"`
		Event      json.RawMessage `json:"event"`
	}{
		r.Topic, r.Partition, r.Offset, string(r.Key), e.Source, e.Brand, e.MessageID, e.ReceivedAt, e.Time, e.AppendFlags(nil), e.Historical, e.Body,
	})
	if err != nil {
		return "", fmt.Errorf("print an event: %w", err)
	}
	return string(line), nil
}

// Colours of terminals (ECMA-48, SGR).
const (
	reset  = "\x1b[0m"
	faint  = "\x1b[2m"
	bold   = "\x1b[1m"
	yellow = "\x1b[33m"
)

const (
	// maxValue is how much of one value a line shows, and maxValues of how many properties.
	maxValue  = 40
	maxValues = 6
)

// line is an event for people: when, source, what, who, and the first of what it says.
func (p *Printer) line(e *event.Event, r *stream.Record) string {
	paint := func(colour, s string) string {
		if !p.Colour || s == "" {
			return s
		}
		return colour + s + reset
	}
	zone := p.Zone
	if zone == nil {
		zone = time.UTC
	}
	what := string(e.Type)
	if e.Name != "" {
		what = Safe(e.Name)
		if e.Type != event.Track {
			what = string(e.Type) + " " + what
		}
	}
	parts := []string{
		paint(faint, e.ReceivedAt.In(zone).Format("15:04:05.000")),
		fmt.Sprintf("%-14s", Safe(e.Source)),
		paint(bold, fmt.Sprintf("%-24s", what)),
		who(e, r),
	}
	if flags := strings.Join(e.AppendFlags(nil), ","); flags != "" {
		parts = append(parts, paint(yellow, "["+Safe(flags)+"]"))
	}
	if values := values(e); values != "" {
		parts = append(parts, paint(faint, values))
	}
	return strings.TrimRight(strings.Join(parts, "  "), " ")
}

// who is the first identifier of an event.
func who(e *event.Event, r *stream.Record) string {
	if ids := e.Identifiers(); len(ids) > 0 {
		return Safe(ids[0].Type + "=" + cut(ids[0].Value))
	}
	return Safe(cut(string(r.Key)))
}

// values are the first properties, or traits, that are no objects.
func values(e *event.Event) string {
	raw := e.RawProperties()
	if raw == nil {
		raw = e.RawTraits()
	}
	var o event.Object
	o.Read(raw)
	var list []string
	for i := range o.Len() {
		v := o.Value(i)
		if v.Absent() || v.Raw[0] == '{' {
			continue
		}
		if len(list) == maxValues {
			list = append(list, "...")
			break
		}
		text := v.Text()
		if v.Raw[0] == '[' {
			text = "[" + strconv.Itoa(len(event.Elements(v.Raw))) + "]"
		}
		list = append(list, Safe(o.Name(i))+"="+Safe(cut(text)))
	}
	return strings.Join(list, " ")
}

// cut shortens a text by whole characters.
func cut(s string) string {
	n := 0
	for i := range s {
		if n == maxValue {
			return s[:i] + "..."
		}
		n++
	}
	return s
}

// Safe is a text with what could command a terminal, or look like another text, written as in Go.
func Safe(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			quoted := strconv.Quote(s)
			return quoted[1 : len(quoted)-1]
		}
	}
	return s
}
