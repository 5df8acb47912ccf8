package keyed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// maxErrorText bounds the header weft-error: an error may quote what it is about.
	maxErrorText = 500
	// maxReject bounds a rejected record, below Kafka's default max.message.bytes of 1,048,588: the headers that
	// say why come on top of a record that may have had no room left.
	maxReject = 1_000_000
	// refusedValue bounds what is kept of the value of an output that Kafka refuses for its size: enough to see
	// what it was.
	refusedValue = 64 << 10
	// refusedHeaders bounds the headers that are kept of one beside those that say why.
	refusedHeaders = 16 << 10
	// refusedKey bounds its key; all keys of Weft's own making are far shorter.
	refusedKey = 1 << 10
)

// errorText is an error as a header says it.
func errorText(err error) []byte {
	text := err.Error()
	n := min(len(text), maxErrorText)
	for n > 0 && n < len(text) && !utf8.RuneStart(text[n]) {
		n--
	}
	return []byte(text[:n])
}

// fitted is a value cut to what a rejected record's key and headers leave of maxReject.
func fitted(key, value []byte, hs []topic.Header) []byte {
	room := maxReject - len(key)
	for i := range hs {
		room -= len(hs[i].Key) + len(hs[i].Value)
	}
	return cut(value, max(0, room))
}

func cut(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	return b[:n:n]
}

// refusal is an output that Kafka does not take for its size.
type refusal struct {
	out   int // which of those that are published
	topic string
	rec   stream.Record
	err   *stream.RecordError
}

// produce sends a partition's records in order, past those that are refused for their size.
func (w *worker) produce(ctx context.Context, t *publishTopic, p int) ([]refusal, error) {
	var list []refusal
	for recs, outs := t.recs[p], t.outs[p]; len(recs) > 0; {
		err := w.s.deps.Stream.Produce(ctx, t.name, p, recs)
		var large *stream.RecordError
		switch {
		case err == nil:
			return list, nil
		case !errors.As(err, &large):
			return nil, publishError(t, p, err)
		}
		list = append(list, refusal{outs[large.Index], t.name, recs[large.Index], large})
		recs, outs = recs[large.Index+1:], outs[large.Index+1:]
	}
	return list, nil
}

// produceRejected sends a partition's records of events.rejected. One that is refused there too is shortened, and
// for a broker with a very low limit sent without its value; after that nothing is left to take from it.
func (w *worker) produceRejected(ctx context.Context, t *publishTopic, p int) error {
	for recs, tries := t.recs[p], 0; ; tries++ {
		err := w.s.deps.Stream.Produce(ctx, t.name, p, recs)
		var large *stream.RecordError
		if err == nil {
			return nil
		}
		if !errors.As(err, &large) {
			return publishError(t, p, err)
		}
		if large.Index > 0 {
			tries = 0
		}
		recs = recs[large.Index:]
		switch tries {
		case 0:
			recs[0] = shortened(recs[0], refusedValue, refusedHeaders)
		case 1:
			recs[0] = shortened(recs[0], 0, 0)
		default:
			return publishError(t, p, err)
		}
		w.s.poison.report(ReasonOutputTooLarge, err, zap.String("topic", t.name), zap.ByteString("key", recs[0].Key))
	}
}

func publishError(t *publishTopic, p int, err error) error {
	return fmt.Errorf("publish %d records to %s/%d: %w", len(t.recs[p]), t.name, p, err)
}

// reject makes records of events.rejected of what was refused, each at the place that its sequence has among the
// others there: a reader drops what comes behind a higher one. In a replay of the outbox the same outputs are
// refused again, and the same is made of them.
func (w *worker) reject(list []refusal, outs []Output, source string, first int64) {
	n := w.s.opt.Topics.Partitions
	for i := range list {
		r := &list[i]
		w.s.poison.report(ReasonOutputTooLarge, r.err, zap.String("topic", r.topic), zap.ByteString("key", cut(r.rec.Key, refusedKey)))
		origin := source + ":" + strconv.FormatInt(first+int64(r.out), 10) // its input record is not known any more
		if o := &outs[r.out]; o.PassThrough {
			origin = w.s.opt.Input + ":" + strconv.Itoa(w.claim.Partition) + ":" + strconv.FormatInt(o.Offset, 10)
		}
		rec := shortened(r.rec, refusedValue, refusedHeaders)
		text := fmt.Errorf("output to %s of %d bytes, its value %d: %w", r.topic, r.err.Bytes, len(r.rec.Value), r.err.Err)
		rec.Headers = append(rec.Headers, reasons(ReasonOutputTooLarge, w.s.opt.Stage, origin, text)...)
		w.pubs.to(w.s.opt.Topics.EventsRejected(), n).insert(topic.Partition(r.rec.Key, n), r.out, rec)
	}
}

// reasons are the headers that say why.
func reasons(reason, stage, origin string, err error) []topic.Header {
	return []topic.Header{
		{Key: topic.HeaderReason, Value: []byte(reason)},
		{Key: topic.HeaderError, Value: errorText(err)},
		{Key: topic.HeaderService, Value: []byte(stage)},
		{Key: topic.HeaderOrigin, Value: []byte(origin)},
	}
}

// shortened is a record with so many bytes of its value, and of the headers that need not be there.
func shortened(rec stream.Record, value, headers int) stream.Record {
	hs := make([]topic.Header, 0, len(rec.Headers)+4)
	for _, h := range rec.Headers {
		switch h.Key {
		case topic.HeaderPosition, topic.HeaderReason, topic.HeaderError, topic.HeaderService, topic.HeaderOrigin:
			hs = append(hs, h)
			continue
		}
		if size := len(h.Key) + len(h.Value); size <= headers {
			hs, headers = append(hs, h), headers-size
		}
	}
	return stream.Record{Key: cut(rec.Key, refusedKey), Value: cut(rec.Value, value), Headers: hs}
}
