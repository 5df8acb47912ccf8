package keyed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// drainChunk is how many entries of the outbox are read at once: a few megabytes at the most.
const drainChunk = 500

// drain finishes what stands in the slot: it publishes the outbox, brings the moves home and trims both.
func (w *worker) drain(ctx context.Context) error {
	for {
		m, outs, moves, err := w.slot.lists(ctx, drainChunk)
		if err != nil {
			return err
		}
		if m.inc != w.slot.inc || m.marked {
			return errRefused // it was rebuilt, or is being rebuilt
		}
		if len(outs) == 0 && len(moves) == 0 {
			w.pub, w.mov = 0, 0
			return nil
		}
		bodies, err := w.bodies(ctx, outs)
		if err != nil {
			return err
		}
		if err := w.publish(ctx, outs, m.pubSeq, bodies); err != nil {
			return err
		}
		for _, mv := range moves {
			if err := w.s.dec.home(ctx, w.slot, mv); err != nil {
				return fmt.Errorf("bring move %d of %s home: %w", mv.seq, mv.origin, err)
			}
			w.s.metrics.moves.Inc()
		}
		w.pub, w.mov = m.pubSeq+int64(len(outs)), m.movDone+int64(len(moves))
		if _, err := w.slot.commit(ctx, commitArgs{pub: w.pub, mov: w.mov, expect: trimOnly}); err != nil {
			return err
		}
	}
}

// publish sends outs, numbered from first, in order per target partition and side by side across them.
// It returns nil only when Kafka has all of them.
func (w *worker) publish(ctx context.Context, outs []Output, first int64, byOffset map[int64]*Record) error {
	if len(outs) == 0 {
		return nil
	}
	type target struct {
		topic     string
		partition int
	}
	groups := map[target][]stream.Record{}
	for i := range outs {
		o := &outs[i]
		pos := topic.Position{Stage: w.s.opt.Stage, Partition: w.claim.Partition, Seq: first + int64(i)}
		hs := make([]topic.Header, 0, len(o.Headers)+10)
		val := o.Value
		if o.PassThrough {
			in := byOffset[o.Offset]
			if in == nil {
				return fmt.Errorf("output %d passes offset %d through, which is not at hand", first+int64(i), o.Offset)
			}
			val = in.Value
			for _, h := range in.Headers {
				if _, ok := topic.Get(o.Headers, h.Key); !ok && h.Key != topic.HeaderPosition && h.Key != topic.HeaderAt {
					hs = append(hs, h)
				}
			}
			hs = append(hs, topic.Header{Key: topic.HeaderAt, Value: strconv.AppendInt(nil, o.Offset, 10)})
		}
		hs = append(append(hs, o.Headers...), topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})
		t := target{o.Topic, topic.Partition([]byte(o.Key), w.s.opt.Topics.Partitions)}
		groups[t] = append(groups[t], stream.Record{Key: []byte(o.Key), Value: val, Headers: hs})
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(groups))
	for t, recs := range groups {
		wg.Go(func() {
			if err := w.s.deps.Stream.Produce(ctx, t.topic, t.partition, recs); err != nil {
				errs <- fmt.Errorf("publish %d records to %s/%d: %w", len(recs), t.topic, t.partition, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	w.s.metrics.outputs.Add(float64(len(outs)))
	return w.s.dec.published(ctx, w.slot, outs)
}

// bodies reads the input records again that outputs found in the slot pass through.
func (w *worker) bodies(ctx context.Context, outs []Output) (map[int64]*Record, error) {
	want := map[int64]*Record{}
	var lo, hi int64 = -1, -1
	for i := range outs {
		if o := &outs[i]; o.PassThrough {
			want[o.Offset] = nil
			if lo < 0 || o.Offset < lo {
				lo = o.Offset
			}
			hi = max(hi, o.Offset)
		}
	}
	if lo < 0 {
		return want, nil
	}
	f := w.s.deps.Stream.NewFetcher(w.s.opt.Input, w.claim.Partition, lo, stream.FetchOptions{})
	defer f.Close()
	for next := lo; next <= hi; {
		b, err := f.Fetch(ctx, idlePoll)
		if err != nil {
			return nil, fmt.Errorf("fetch bodies from %d: %w", next, err)
		}
		for i := range b.Records {
			if _, ok := want[b.Records[i].Offset]; ok {
				sr := stream.Clone(b.Records[i : i+1])[0] // kept beyond the next Fetch
				r, err := parseRecord(sr)
				if err != nil {
					return nil, fmt.Errorf("offset %d: %w", sr.Offset, err)
				}
				want[sr.Offset] = &r
			}
		}
		if b.Next == next && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		next = b.Next
	}
	return want, nil
}
