package collector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// holdFirst and holdMost are the pauses between tries to read a record that cannot be read now: a registry that
	// restarts is back within seconds, and one that is away must not be flooded when it comes back.
	holdFirst = 200 * time.Millisecond
	holdMost  = 10 * time.Second
)

// hold is a partition that waits for what its next record needs.
type hold struct {
	since time.Time
	why   error
}

// make makes a record of a foreign one, and waits for as long as it cannot be read. The error is the end of ctx, or
// that the source is to stop at it.
func (in *inlet) make(ctx context.Context, rec *stream.Record) (record, error) {
	defer in.release(rec.Partition)
	for pause := holdFirst; ; pause = min(2*pause, holdMost) {
		r, err := in.guarded(ctx, rec)
		if err == nil {
			return in.lettered(rec, r)
		}
		if ctx.Err() != nil {
			return record{}, ctx.Err()
		}
		in.hold(rec.Partition, err)
		in.rarely.Warn("a record cannot be read now, its partition is held", zap.Int("partition", rec.Partition), zap.Int64("offset", rec.Offset), zap.Error(err))
		select {
		case <-ctx.Done():
			return record{}, ctx.Err()
		case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // spreads retries, no secret
		}
	}
}

func (in *inlet) hold(partition int, why error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	since := in.intake.now()
	if h, ok := in.held[partition]; ok {
		since = h.since
	}
	in.held[partition] = hold{since, why}
	in.metrics.held.WithLabelValues(in.source.name).Set(float64(len(in.held)))
}

func (in *inlet) release(partition int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, ok := in.held[partition]; ok {
		delete(in.held, partition)
		in.metrics.held.WithLabelValues(in.source.name).Set(float64(len(in.held)))
	}
}

// lettered does what the source says is to be done with a record that cannot be an event. One on which the code panics
// may well be one, so it is not dropped.
func (in *inlet) lettered(rec *stream.Record, r record) (record, error) {
	if r.reason == "" || r.left != "" {
		return r, nil
	}
	switch in.letter {
	case config.DeadLetterDrop:
		if r.reason != reasonPanic {
			r.left = leftDiscarded
		}
	case config.DeadLetterStop:
		var why string
		if text, ok := topic.Get(r.Headers, topic.HeaderError); ok {
			why = text
		}
		err := fmt.Errorf("%s cannot be an event, and the source is to stop then (dead_letter): %s: %w", in.origin(rec), why, stream.ErrStop)
		in.stopped(err) // before the group is left, so that it does not look ready meanwhile
		return record{}, err
	}
	return r, nil
}

// guarded is record; one on which it panics becomes a rejected record, since it will panic again each time and
// others wait behind it. The error is that it cannot be read now.
func (in *inlet) guarded(ctx context.Context, rec *stream.Record) (r record, err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		err = nil
		if line := in.rarely.Check(zap.ErrorLevel, "record panicked, it is set aside on events.rejected"); line != nil {
			line.Write(zap.Int("partition", rec.Partition), zap.Int64("offset", rec.Offset), zap.String("panic", fmt.Sprint(v)), zap.ByteString("stack", debug.Stack()))
		}
		meta := in.source.meta(in.intake.now().UTC().Truncate(time.Millisecond))
		origin := in.origin(rec)
		meta.MessageID = origin
		r = in.intake.aside(rec.Value, meta, []byte(origin), &event.Error{Reason: reasonPanic, Detail: fmt.Sprint(v)}, origin)
		r.Headers = append(r.Headers, in.position(rec))
	}()
	return in.record(ctx, rec)
}

// record makes the event of one foreign record; what cannot be one becomes a rejected record, and what its source
// skips is for neither topic. The same record gives the same key, body and position, whoever reads it and when. The
// error is that it cannot be read now.
func (in *inlet) record(ctx context.Context, rec *stream.Record) (record, error) {
	if _, copied := topic.View(rec.Headers, topic.HeaderReplayOf); copied && in.source.name == config.InboxSource {
		return in.replayed(ctx, rec)
	}
	origin := in.origin(rec)
	id := origin
	meta, e, err := in.event(ctx, rec)
	if errors.Is(err, inlets.ErrHeld) {
		return record{}, err
	}
	switch {
	case meta.MessageID != "":
		id = meta.MessageID
	case e.MessageID != "":
		id = e.MessageID
	}
	var r record
	switch {
	case err != nil:
		meta.MessageID = id
		r = in.intake.aside(rec.Value, meta, nil, err, origin)
	case e.Body == nil:
		return record{meta: meta, left: leftSkipped}, nil
	default:
		it := item{body: e.Body, meta: meta, source: in.source}
		r = in.intake.take(it, event.Filling{MessageID: func() string { return id }}, origin, place{})
		if r.reason != "" {
			r.Value = event.BlankWriteKeys(rec.Value[:min(len(rec.Value), in.intake.cfg.MaxEventBytes)]) // the bytes as they came
		} else if e.Key != nil {
			r.Key = e.Key
		}
	}
	if r.Key == nil {
		r.Key = []byte(origin) // the same partition each time
	}
	r.Headers = append(r.Headers, in.position(rec))
	return r, nil
}

// event reads the headers that the record's producer may have set, and then the record. A foreign producer may say
// less trust, not more.
func (in *inlet) event(ctx context.Context, rec *stream.Record) (event.Meta, inlets.Event, error) {
	meta := in.source.meta(in.intake.now().UTC().Truncate(time.Millisecond))
	said, err := topic.ParseMeta(rec.Headers)
	if err != nil {
		return meta, inlets.Event{}, &event.Error{Reason: reasonInvalidHeader, Detail: err.Error()}
	}
	if said.Brand != "" {
		meta.Brand = said.Brand
	}
	if trust, ok := topic.Get(rec.Headers, topic.HeaderTrust); ok && trust != "trusted" {
		meta.Trusted = false
	}
	meta.MessageID, meta.SentAt = said.MessageID, said.SentAt
	e, err := in.reader.Read(ctx, inlets.Record{Key: rec.Key, Value: rec.Value, Headers: rec.Headers})
	meta.Historical = meta.Historical || said.Historical || e.Historical
	return meta, e, err
}
