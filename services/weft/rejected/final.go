package rejected

import (
	"errors"
	"fmt"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Reasons of other packages' that say what is left of an item. The codes are stable: docs/http.md has them all.
const (
	reasonOutputTooLarge = "output_too_large" // of a stage: a part of what it made, not what came
	reasonRefused        = "refused_by_kafka" // of the collector: the first bytes of what the broker does not take
)

// final is why an item can not go back in, whatever the repair; nil: it may.
func (i *Item) final() error {
	switch {
	case i.Reason == reasonDuplicate:
		return errors.New("it is the trace of a duplicate: the first one of this message id was taken")
	case i.Reason == reasonOutputTooLarge && i.Service == topic.StageStitcher:
		return errors.New("it is the beginning of what the topic behind identity-stitcher does not take for its size, and its message id is known: " +
			"raise max.message.bytes of the topic that the error names, and have the sender send it again, under another message id")
	case i.Reason == reasonOutputTooLarge:
		return fmt.Errorf("it is the beginning of what %s made, and what it was made of counts already: raise max.message.bytes of the topic that the error names, for what comes", i.Service)
	}
	switch i.Service {
	case topic.StageCollector, topic.StageStitcher:
	case topic.StageBuilder, topic.StageDecide:
		return fmt.Errorf("the event was taken, and is in ClickHouse; only %s failed on it, and a copy would be dropped as a duplicate. With the cause repaired, "+
			"'weft rebuild %[1]s' folds it with the rest of history", i.Service)
	case topic.StageDeliver:
		return fmt.Errorf("it is a message that was decided on, and no event. With the cause repaired, 'weft rebuild %s' takes it up", i.Service)
	default:
		return fmt.Errorf("nobody knows what %q is, which rejected it", i.Service)
	}
	if len(i.Body) == 0 {
		return errors.New("it has no body")
	}
	return nil
}

// shortened says of what is not there as a whole that it is not, where it can not be read.
func (i *Item) shortened(err error) error {
	if err == nil || i.Reason != event.TooLarge && i.Reason != reasonRefused {
		return err
	}
	return fmt.Errorf("%w (of what was too large, the first %d bytes are kept: its sender must send it again, smaller)", err, len(i.Body))
}

// read makes the copies of a webhook's item: the events that its provider's reader makes of it now, else the event that
// the repair has made of it.
func (r *Replay) read(i *Item, body []byte) ([]stream.Record, error) {
	if r.Reader == nil {
		return nil, errors.New("nobody can read webhooks here")
	}
	reader, err := r.Reader(i.Meta.Source)
	if err != nil {
		return nil, err
	}
	events, err := reader.Events(i.delivery, body, i.At)
	recs := make([]stream.Record, 0, len(events))
	for n, body := range events {
		rec, wrong := r.event(i, i.Meta, body, event.Filling{}, "")
		if wrong != nil {
			err = fmt.Errorf("event[%d]: %w", n, wrong)
			break
		}
		recs = append(recs, rec)
	}
	if err == nil {
		return recs, nil
	}
	if recs, wrong := r.split(i, body); wrong == nil {
		return recs, nil
	}
	return nil, err
}
