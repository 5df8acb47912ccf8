package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// reasonUnknownSource is the reason of repaired copies of a source that is configured no more.
const reasonUnknownSource = "unknown_source"

// replayed makes the event of a repaired copy of a rejected one: it is its source's, goes through that source's steps,
// and keeps the receipt and the message id of the first time. On events.collected it carries no source position, so
// that the stage behind judges it by its message id: a second copy, and an event that the sender has repeated
// itself, are duplicates. So is what is read here twice. The error is that it cannot be read now.
func (in *inlet) replayed(ctx context.Context, rec *stream.Record) (record, error) {
	origin := in.origin(rec)
	r, err := in.copied(ctx, rec, origin)
	if err != nil {
		return record{}, err
	}
	if r.reason != "" {
		r.Value = event.BlankWriteKeys(rec.Value[:min(len(rec.Value), in.intake.cfg.MaxEventBytes)]) // the bytes as they came
		r.Headers = append(r.Headers, in.position(rec))
	}
	if r.Key == nil {
		r.Key = []byte(origin)
	}
	return r, nil
}

func (in *inlet) copied(ctx context.Context, rec *stream.Record, origin string) (record, error) {
	now := in.intake.now().UTC().Truncate(time.Millisecond)
	said, err := topic.ParseMeta(rec.Headers)
	if err != nil {
		meta := in.source.meta(now)
		meta.MessageID = origin
		return in.intake.aside(rec.Value, meta, nil, &event.Error{Reason: reasonInvalidHeader, Detail: err.Error()}, origin), nil
	}
	named := said.MessageID // empty: if the body names none either, its place of the first time
	if said.MessageID == "" {
		place, _ := topic.Get(rec.Headers, topic.HeaderOrigin)
		said.MessageID = cmp.Or(place, origin)
	}
	from, known := in.intake.senders[said.Source]
	if !known {
		if said.Source == "" {
			said.Source = in.source.name
		}
		why := &event.Error{Reason: reasonUnknownSource, Detail: fmt.Sprintf("there is no source %.100q any more", said.Source)}
		return in.intake.aside(rec.Value, said, nil, why, origin), nil
	}
	meta := from.source.meta(now)
	if !said.ReceivedAt.IsZero() && said.ReceivedAt.Before(now) {
		meta.ReceivedAt = said.ReceivedAt
	}
	if said.Brand != "" {
		meta.Brand = said.Brand
	}
	meta.MessageID, meta.SentAt, meta.Skew = said.MessageID, said.SentAt, said.Skew
	meta.Trusted = meta.Trusted && said.Trusted
	// Nobody may be written to about a cart of last week because somebody repaired its events today.
	meta.Historical = meta.Historical || said.Historical || now.Sub(meta.ReceivedAt) > in.intake.cfg.HistoricalAfter
	// What a stage behind the door has rejected is an event as the door had made it.
	by, ok := topic.Get(rec.Headers, topic.HeaderService)
	passed := ok && by != topic.StageCollector
	e := inlets.Event{Body: rec.Value}
	if from.reader != nil && !passed {
		e, err = from.reader.Read(ctx, inlets.Record{Key: rec.Key, Value: rec.Value, Headers: rec.Headers})
	}
	switch {
	case errors.Is(err, inlets.ErrHeld):
		return record{}, err
	case err != nil:
		return in.intake.aside(rec.Value, meta, nil, err, origin), nil
	case e.Body == nil:
		return record{meta: meta, left: leftSkipped}, nil
	}
	meta.Historical = meta.Historical || e.Historical
	meta.MessageID = named
	it := item{body: e.Body, meta: meta, source: from.source, passed: passed}
	r := in.intake.take(it, event.Filling{MessageID: func() string { return cmp.Or(named, e.MessageID, said.MessageID) }}, origin, place{})
	if r.reason == "" && r.left == "" && e.Key != nil {
		r.Key = e.Key
	}
	return r, nil
}
