package collector

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/collector/enrich"
	"github.com/weft-cdp/weft/services/collector/skew"
)

// Reasons of the collector's own, beside those of package event.
const (
	reasonInvalidHeader = "invalid_header" // a record of an inlet with a weft- header that cannot be read
	reasonPanic         = "record_panic"   // an item on which the collector's code panics: a defect
	reasonInvalidGzip   = "invalid_gzip"
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
	// suppressed are the people of whom nothing is stored; nil: there is no such list.
	suppressed *suppression.List
	// erased are people of whom nothing is stored either; nil: there is no Redis.
	erased *suppression.Erased
	// glimpse is event.Glimpse; a test has it panic.
	glimpse func(item []byte, fill event.Filling) *event.Event
	proxies enrich.Proxies
	clocks  *skew.Clocks
	tokens  *tokens // of webhooks, that all collectors know; nil: each its own
	// senders are the sources by name, filled while the collector is made: a repaired copy of a rejected event is its
	// source's, whichever door it was rejected at.
	senders map[string]sourceReader
	desks   sync.Pool
}

// sourceReader is a source, and of a topic what reads its records.
type sourceReader struct {
	source *source
	reader recordReader // nil: the source sends over HTTP
}

// desk is what items are read and stamped with, one after another. For one goroutine.
type desk struct {
	reader    event.Reader
	headers   topic.MetaWriter
	enriching enrich.Work
	item      item // the one at hand: here, because steps get its address
	recs      []record
}

// maxKeptRecords bounds the records for which a desk keeps memory: some 100 KB.
const maxKeptRecords = 256

// room is memory for the records of a request.
func (d *desk) room(n int) []record {
	if n > cap(d.recs) {
		d.recs = make([]record, n)
	}
	d.recs = d.recs[:n]
	return d.recs
}

func (in *intake) desk() *desk {
	if d, ok := in.desks.Get().(*desk); ok {
		return d
	}
	return &desk{}
}

// release takes a desk back when a request is answered. It holds nothing of it.
func (in *intake) release(d *desk) {
	if cap(d.recs) > maxKeptRecords {
		d.recs = nil
	}
	clear(d.recs)
	d.item = item{}
	d.enriching.Forget()
	d.reader.Forget()
	in.desks.Put(d)
}

// newIntake reads the suppression list for the first time.
func newIntake(cfg config.Collector, now func() time.Time, m *metrics) (*intake, error) {
	proxies, err := enrich.ParseProxies(cfg.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("collector.trusted_proxies%w", err)
	}
	in := &intake{cfg: cfg, now: now, metrics: m, proxies: proxies, clocks: skew.New(cfg.SkewThreshold), glimpse: event.Glimpse}
	if cfg.SuppressionFile != "" {
		if in.suppressed, err = suppression.Open(cfg.SuppressionFile); err != nil {
			return nil, fmt.Errorf("collector.suppression_file: %w", err)
		}
	}
	return in, nil
}

// Why something is kept on no topic.
const (
	leftSuppressed = "suppressed" // the person, or the lack of consent, forbids it
	leftSkipped    = "skipped"    // a record that is no event by its source's own rules: a tombstone, when
	leftDropped    = "dropped"    // a transformation says so
	leftDiscarded  = "discarded"  // a record that cannot be an event, of a source whose dead_letter is drop
)

// know notes a source by its name.
func (in *intake) know(src *source, reader recordReader) {
	if in.senders == nil {
		in.senders = map[string]sourceReader{}
	}
	in.senders[src.name] = sourceReader{src, reader}
}

// record is a record with the topic it is for.
type record struct {
	stream.Record
	meta   event.Meta
	reason string // "" for events.collected, else for events.rejected
	why    string // the reason in words
	left   string // why it is for neither: one of those above; "" for what is kept
}

// take checks, completes and stamps one item. origin says where it came from, in words for events.rejected;
// at is put before its error. The record's key and headers are parts of its body.
func (in *intake) take(it item, fill event.Filling, origin string, at place) record {
	if it.desk == nil {
		it.desk = in.desk()
		defer in.release(it.desk)
	}
	came := it.body
	it.desk.item = it
	suppressed := func() record { return record{meta: it.desk.item.meta, left: leftSuppressed} }
	if it.source.suppress && in.suppresses(it.source.brand, came, fill) { // before all that may refuse it: a refused event is kept, too
		return suppressed()
	}
	reject := func(e *event.Event, why error) record {
		if c := it.source.consent; c != nil && c.forbids(in.glimpse(it.desk.item.body, fill)) {
			return suppressed()
		}
		if e != nil {
			return in.reject(came, e.Meta, e.Key(), why, origin, at)
		}
		meta := it.meta
		if meta.MessageID == "" && fill.MessageID != nil {
			meta.MessageID = fill.MessageID() // its own could not be read
		}
		return in.reject(came, meta, nil, why, origin, at)
	}
	limit := cmp.Or(it.source.maxEvent, in.cfg.MaxEventBytes)
	if len(came) > limit {
		return reject(nil, tooLarge(came, limit))
	}
	e, err := complete(&it.desk.item, fill)
	switch {
	case errors.Is(err, errDropped):
		return record{meta: it.desk.item.meta, left: leftDropped}
	case errors.Is(err, errSuppressed):
		return suppressed()
	case err != nil:
		return reject(e, err)
	case len(e.Body) > limit:
		return reject(nil, tooLarge(e.Body, limit))
	}
	if err := e.Validate(); err != nil {
		return reject(e, err)
	}
	in.correct(e, it.source)
	m := e.Meta
	if e.TimeClamped {
		m.AddFlag(event.FlagLateClamped)
	}
	m.Historical = m.Historical || e.SaysHistorical() || m.ReceivedAt.Sub(e.Time) > in.cfg.HistoricalAfter
	return record{Record: stream.Record{Key: e.Key(), Value: e.Body, Headers: it.desk.headers.Headers(m)}, meta: m}
}

// complete fills in what the sender left out, has the source's steps done, and reads the event. There may be an event
// beside an error: of a step that refuses it.
func complete(it *item, fill event.Filling) (*event.Event, error) {
	body, err := it.desk.reader.ComposeItem(it.number-1, it.body, fill)
	if err != nil {
		return nil, err
	}
	it.body = body
	steps := it.source.steps
	if it.passed {
		steps = steps[it.source.transforming:]
	}
	for _, do := range steps {
		if why := do(it); why != nil {
			e, err := it.desk.reader.Decode(it.body, it.meta)
			if err != nil {
				return nil, why
			}
			return e, why
		}
	}
	return it.desk.reader.DecodeComposed(it.body, it.meta)
}

func tooLarge(item []byte, limit int) error {
	return &event.Error{Reason: event.TooLarge, Detail: fmt.Sprintf("the event has %d bytes, at most %d", len(item), limit)}
}

// place is where in its request an item stood; the zero value if it came alone.
type place struct {
	list string
	at   int
}

// reject makes a record of events.rejected: the bytes as they came (at most max_event_bytes of them, and no write key),
// and why.
func (in *intake) reject(item []byte, meta event.Meta, key []byte, why error, origin string, at place) record {
	reason := event.Reason(why, event.InvalidJSON)
	text := why.Error()
	words := text
	if at.list != "" {
		text = fmt.Sprintf("%s[%d]: %s", at.list, at.at, text)
	}
	headers := append(topic.MetaHeaders(meta),
		topic.Header{Key: topic.HeaderReason, Value: []byte(reason)},
		topic.Header{Key: topic.HeaderError, Value: []byte(text[:min(len(text), maxErrorText)])},
		topic.Header{Key: topic.HeaderService, Value: []byte(topic.StageCollector)},
		topic.Header{Key: topic.HeaderOrigin, Value: []byte(origin)},
	)
	item = event.BlankWriteKeys(item[:min(len(item), in.cfg.MaxEventBytes)])
	return record{Record: stream.Record{Key: key, Value: item, Headers: headers}, meta: meta, reason: reason, why: words}
}

// aside is reject of what never became an item: where it can be seen that it names one who is on the suppression list,
// nothing is kept.
func (in *intake) aside(came []byte, meta event.Meta, key []byte, why error, origin string) record {
	kept, forbidden := in.remains(nil, meta.Brand, came, event.Filling{})
	if forbidden {
		return record{meta: meta, left: leftSuppressed}
	}
	return in.reject(kept, meta, key, why, origin, place{})
}

// allAcknowledged counts what Kafka has of one request, or what is not to be kept.
func (in *intake) allAcknowledged(recs []record) {
	stored, source := 0, ""
	for i := range recs {
		if r := &recs[i]; r.reason == "" && r.left == "" {
			stored, source = stored+1, r.meta.Source // that of all of them
			continue
		}
		in.acknowledged(&recs[i])
	}
	if stored > 0 {
		in.metrics.events.WithLabelValues(source, "stored").Add(float64(stored))
	}
}

// acknowledged counts a record that Kafka has, or that is not to be kept.
func (in *intake) acknowledged(r *record) {
	switch {
	case r.left != "":
		in.metrics.events.WithLabelValues(r.meta.Source, r.left).Inc()
		if r.left == leftDiscarded {
			in.metrics.discarded.WithLabelValues(r.meta.Source, r.reason).Inc()
		}
		return
	case r.reason == "":
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
