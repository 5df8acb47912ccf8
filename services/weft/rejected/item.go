// Package rejected is the work list of events.rejected: what was set aside and why, and the way back in.
//
// It owns: which records are on the list, what may be replayed, and the form in which they go back (records of
// events.inbox that say which rejected record they are a copy of). It guarantees that a replay keeps source, brand,
// message id, receipt, trust and age of what was rejected, so that whatever was taken before under that message
// id, by an earlier replay or from the sender, is not taken again. It must not know how the collector judges.
package rejected

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Item is one record of events.rejected.
type Item struct {
	Topic     string
	Partition int
	Offset    int64
	At        time.Time // when the event was received; else when it was rejected
	Reason    string
	Error     string
	Service   string
	Origin    string
	Meta      event.Meta
	Body      []byte
	Headers   []topic.Header
	inlet     bool   // a record of a topic
	delivered bool   // an item of a webhook as its provider sent it, which no event was made of
	delivery  string // and the headers by which it is read again
	Replayed  string // position on events.inbox of its copy; empty: it was not replayed
}

// Position names the record: topic:partition:offset.
func (i *Item) Position() string { return Position(i.Topic, i.Partition, i.Offset) }

// Position writes topic:partition:offset.
func Position(topicName string, partition int, offset int64) string {
	return topicName + ":" + strconv.Itoa(partition) + ":" + strconv.FormatInt(offset, 10)
}

// ParsePosition reads partition:offset, with or without a topic in front, which then must be the one given.
func ParsePosition(text, topicName string) (partition int, offset int64, err error) {
	rest, _ := strings.CutPrefix(text, topicName+":")
	a, b, ok := strings.Cut(rest, ":")
	p, err1 := strconv.Atoi(a)
	o, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || p < 0 || o < 0 {
		return 0, 0, fmt.Errorf("want a position such as %s:3:1704 or 3:1704, found %q", topicName, text)
	}
	return p, o, nil
}

// parse reads a record of events.rejected, which it aliases.
func parse(r *stream.Record) Item {
	i := Item{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Body: r.Value, Headers: r.Headers}
	get := func(key string) string { s, _ := topic.Get(r.Headers, key); return s }
	i.Reason, i.Error, i.Service, i.Origin = get(topic.HeaderReason), get(topic.HeaderError), get(topic.HeaderService), get(topic.HeaderOrigin)
	i.Meta, _ = topic.ParseMeta(r.Headers) // what cannot be read stays empty: this is about records that are faulty
	if i.At = i.Meta.ReceivedAt; i.At.IsZero() {
		i.At = r.Time.UTC()
	}
	position, _ := topic.ParsePosition(get(topic.HeaderPosition))
	i.delivery, i.delivered = topic.Get(r.Headers, topic.HeaderDelivery)
	i.inlet = strings.HasPrefix(position.Stage, topic.StageCollector+"/")
	return i
}

// Filter says which items are meant; an empty field: all.
type Filter struct {
	Reasons      []string
	Sources      []string
	Services     []string
	Since, Until time.Time
	Text         string // in the error or the body, in any letter case
	// Replayed keeps items that were replayed already.
	Replayed bool
}

// reasonDuplicate marks traces of repeated message ids, which are no faults.
const reasonDuplicate = "duplicate"

// fits says whether an item is meant. Traces of duplicates are, only if they are asked for by name.
func (f *Filter) fits(i *Item) bool {
	switch {
	case !oneOf(f.Reasons, i.Reason), !oneOf(f.Sources, i.Meta.Source), !oneOf(f.Services, i.Service):
		return false
	case len(f.Reasons) == 0 && i.Reason == reasonDuplicate:
		return false
	case !f.Since.IsZero() && i.At.Before(f.Since), !f.Until.IsZero() && !i.At.Before(f.Until):
		return false
	}
	text := strings.ToLower(f.Text)
	return text == "" || strings.Contains(strings.ToLower(i.Error), text) || strings.Contains(strings.ToLower(string(i.Body)), text)
}

func oneOf(list []string, s string) bool {
	if len(list) == 0 {
		return true
	}
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
