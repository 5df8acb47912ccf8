package keyed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// stride is how far a partition may run ahead of the others while it is folded again, in time of receipt, so
// that merges arrive about when they did in life. Shorter, and old, sparse history would be folded in tiny
// batches.
const stride = time.Minute

// head is where a partition of history stands.
type head struct {
	partition int
	history   History
	recs      []stream.Record // read and not yet folded
	times     []time.Time     // of receipt; they only grow
	last      time.Time
	seen      map[string]int64 // highest source positions, where the slot does not keep them
	until     int64            // records from here on are left to the stage
	ended     bool
}

// fold reads all of the input again.
func (b *rebuild) fold(ctx context.Context) error {
	defer func() {
		for _, h := range b.heads {
			h.history.Close()
		}
	}()
	var total int64
	for p := range b.opt.From.Partitions {
		h, err := b.opt.Past.Open(ctx, b.input(), p)
		if err != nil {
			return fmt.Errorf("read %s partition %d: %w", b.input(), p, err)
		}
		b.heads = append(b.heads, &head{partition: p, history: h, until: b.opt.Ends[p], seen: map[string]int64{}})
		total += b.opt.Ends[p]
	}
	for {
		h, limit, err := b.first(ctx)
		if err != nil {
			return err
		}
		if h == nil {
			return nil
		}
		n := 1
		for n < len(h.recs) && n < b.s.opt.BatchRecords && (limit.IsZero() || !h.times[n].After(limit)) {
			n++
		}
		b.now = h.times[n-1]
		if err := b.take(ctx, h, h.recs[:n]); err != nil {
			return fmt.Errorf("%s partition %d from offset %d: %w", b.input(), h.partition, h.recs[0].Offset, err)
		}
		h.recs, h.times = h.recs[n:], h.times[n:]
		b.progress(n, total)
	}
}

// first is the partition whose next record was received first, nil if all have ended, and up to when its
// records may be folded before the others; zero: it is the only one.
func (b *rebuild) first(ctx context.Context) (*head, time.Time, error) {
	var first *head
	var other time.Time
	for _, h := range b.heads {
		if err := h.fill(ctx); err != nil {
			return nil, other, fmt.Errorf("read %s partition %d: %w", b.input(), h.partition, err)
		}
		if h.ended {
			continue
		}
		switch {
		case first == nil:
			first = h
		case h.times[0].Before(first.times[0]):
			other, first = first.times[0], h
		case other.IsZero() || h.times[0].Before(other):
			other = h.times[0]
		}
	}
	if !other.IsZero() {
		other = other.Add(stride)
	}
	return first, other, nil
}

// fill reads on where nothing is left.
func (h *head) fill(ctx context.Context) error {
	if h.ended || len(h.recs) > 0 {
		return nil
	}
	recs, err := h.history.Next(ctx)
	if err != nil {
		return err
	}
	for len(recs) > 0 && recs[len(recs)-1].Offset >= h.until {
		recs = recs[:len(recs)-1]
	}
	h.recs, h.ended = recs, len(recs) == 0
	h.times = h.times[:0]
	for i := range recs {
		if t := receivedAt(&recs[i]); t.After(h.last) {
			h.last = t
		}
		h.times = append(h.times, h.last)
	}
	return nil
}

// take brings records through the slots they belong to: those of their partition, or, where the keys are
// spread anew, those of their keys.
func (b *rebuild) take(ctx context.Context, h *head, recs []stream.Record) error {
	if !b.foreign {
		return b.step(ctx, b.workers[h.partition], recs, recs[len(recs)-1].Offset+1)
	}
	byPartition := make(map[int][]stream.Record, len(b.workers))
	for i := range recs {
		r := recs[i]
		pos, _ := topic.Get(r.Headers, topic.HeaderPosition)
		if p, err := topic.ParsePosition(pos); err == nil && repeated(h.seen, p) {
			continue
		}
		// The new slots read new topics, where sequences begin anew.
		r.Headers = slices.DeleteFunc(slices.Clone(r.Headers), func(h topic.Header) bool { return h.Key == topic.HeaderPosition })
		p := topic.Partition(r.Key, len(b.workers))
		byPartition[p] = append(byPartition[p], r)
	}
	for p, w := range b.workers {
		if recs := byPartition[p]; len(recs) > 0 {
			if err := b.step(ctx, w, recs, w.m.applied+int64(len(recs))); err != nil {
				return err
			}
		}
	}
	return nil
}

// step has a worker fold a batch as in life, until its script is accepted and its moves are home. A batch on
// which a planner panics is halved, down to the record that is rejected.
func (b *rebuild) step(ctx context.Context, w *worker, recs []stream.Record, next int64) error {
	halve := false
	err := retry(ctx, b.s.deps.Log, "rebuild is held", func() error {
		if !w.loaded {
			if err := b.reload(ctx, w); err != nil {
				return err
			}
		}
		for w.m.applied < next {
			w.buf, w.bufNext = recs, next
			if err := w.step(ctx); err != nil {
				w.loaded = false // perhaps it was accepted
				var panicked *PanicError
				if errors.As(err, &panicked) && len(recs) > 1 {
					halve = true
					return nil
				}
				return err
			}
			if !w.loaded {
				return errRefused
			}
		}
		return b.home(ctx, w)
	})
	if err != nil || !halve {
		return err
	}
	half := len(recs) / 2
	mid := recs[half].Offset
	if b.foreign {
		mid = next - int64(len(recs)-half)
	}
	if err := b.step(ctx, w, recs[:half], mid); err != nil {
		return err
	}
	return b.step(ctx, w, recs[half:], next)
}

// home brings the moves home that stand in a slot. One that can not come home stays for the stage.
func (b *rebuild) home(ctx context.Context, w *worker) error {
	w.stuck.again()
	for skip := int64(0); w.m.nextMov > w.m.movDone+skip; {
		m, _, moves, err := w.slot.lists(ctx, int(skip), drainChunk)
		if err != nil {
			return err
		}
		for _, mv := range moves {
			if err := w.bringHome(ctx, mv); err != nil {
				return err
			}
		}
		met := m.movDone + skip + int64(len(moves))
		w.m.movDone = w.stuck.below(met)
		if _, err := w.slot.commit(ctx, commitArgs{mov: w.m.movDone, expect: trimOnly}); err != nil {
			return err
		}
		skip = met - w.m.movDone
	}
	return nil
}
