package collector

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Reasons of the collector's own, beside those of package event.
const (
	reasonEmptyRecord   = "empty_record"   // a record of an inlet without a value
	reasonInvalidHeader = "invalid_header" // a record of an inlet with a weft- header that cannot be read
	reasonPanic         = "record_panic"   // a record of an inlet on which the collector's code panics: a defect
	reasonInvalidGzip   = "invalid_gzip"
	reasonTooManyEvents = "too_many_events"
	reasonRefused       = "refused_by_kafka" // too large for the broker's own limit
)

const (
	// maxErrorText bounds the header weft-error.
	maxErrorText = 500
	// maxKeptBytes is how much of a request that cannot be read, or of a record that Kafka refuses, is kept on
	// events.rejected: enough to see what it was.
	maxKeptBytes = 64 << 10
)

// intake makes records of items, the same for both doors. Safe for concurrent use.
type intake struct {
	cfg     config.Collector
	now     func() time.Time
	metrics *metrics
}

// record is a record with the topic it is for.
type record struct {
	stream.Record
	meta   event.Meta
	reason string // "" for events.collected, else for events.rejected
}

// take checks, completes and stamps one item. origin says where it came from, in words for events.rejected;
// place is put before its error.
func (in *intake) take(item []byte, meta event.Meta, fill event.Filling, origin, place string) record {
	reject := func(why error) record {
		if meta.MessageID == "" && fill.MessageID != nil {
			meta.MessageID = fill.MessageID() // its own could not be read
		}
		return in.reject(item, meta, nil, why, origin, place)
	}
	if len(item) > in.cfg.MaxEventBytes {
		return reject(in.tooLarge(item))
	}
	e, err := event.Complete(item, fill, meta)
	if err != nil {
		return reject(err)
	}
	if len(e.Body) > in.cfg.MaxEventBytes {
		return reject(in.tooLarge(e.Body))
	}
	if err := e.Validate(); err != nil {
		return in.reject(item, e.Meta, e.Key(), err, origin, place)
	}
	m := e.Meta
	m.Historical = m.Historical || e.SaysHistorical() || m.ReceivedAt.Sub(e.Time) > in.cfg.HistoricalAfter
	return record{Record: stream.Record{Key: e.Key(), Value: e.Body, Headers: topic.MetaHeaders(m)}, meta: m}
}

func (in *intake) tooLarge(item []byte) error {
	return &event.Error{Reason: event.TooLarge, Detail: fmt.Sprintf("the event has %d bytes, at most %d", len(item), in.cfg.MaxEventBytes)}
}

// reject makes a record of events.rejected: the bytes as they came (at most max_event_bytes of them), and why.
func (in *intake) reject(item []byte, meta event.Meta, key []byte, why error, origin, place string) record {
	reason := event.Reason(why, event.InvalidJSON)
	text := why.Error()
	if place != "" {
		text = place + ": " + text
	}
	headers := append(topic.MetaHeaders(meta),
		topic.Header{Key: topic.HeaderReason, Value: []byte(reason)},
		topic.Header{Key: topic.HeaderError, Value: []byte(text[:min(len(text), maxErrorText)])},
		topic.Header{Key: topic.HeaderService, Value: []byte(topic.StageCollector)},
		topic.Header{Key: topic.HeaderOrigin, Value: []byte(origin)},
	)
	item = item[:min(len(item), in.cfg.MaxEventBytes)]
	return record{Record: stream.Record{Key: key, Value: item, Headers: headers}, meta: meta, reason: reason}
}

// acknowledged counts a record that Kafka has.
func (in *intake) acknowledged(r *record) {
	if r.reason == "" {
		in.metrics.events.WithLabelValues(r.meta.Source, "stored").Inc()
		return
	}
	in.metrics.events.WithLabelValues(r.meta.Source, "rejected").Inc()
	in.metrics.rejected.WithLabelValues(r.meta.Source, r.reason).Inc()
}

// newMessageID makes an id for an event whose sender gave none: a UUIDv7, so that ids of one time lie together.
func newMessageID() string {
	id, err := uuid.NewV7()
	if err != nil {
		return uuid.NewString() // the random source failed for v7; v4 panics rather than repeat itself
	}
	return id.String()
}
