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

// head is where a partition of history stands.
type head struct {
	partition int
	history   History
	recs      []stream.Record // read and not yet folded
	times     []time.Time     // of receipt; they only grow
	merges    []bool
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
		h, err := b.first(ctx)
		if err != nil {
			return err
		}
		if h == nil {
			return nil
		}
		n := min(len(h.recs), b.s.opt.BatchRecords)
		if b.s.dec.inOrder() {
			n = b.together(h, n)
		}
		b.now = h.times[n-1]
		if err := b.take(ctx, h, h.recs[:n]); err != nil {
			return fmt.Errorf("%s partition %d from offset %d: %w", b.input(), h.partition, h.recs[0].Offset, err)
		}
		h.recs, h.times, h.merges = h.recs[n:], h.times[n:], h.merges[n:]
		b.progress(n, total)
	}
}

// first is the partition whose next record was received first, nil if all have ended. A merge goes before the
// event that caused it, which was received at the same time.
func (b *rebuild) first(ctx context.Context) (*head, error) {
	var first *head
	for _, h := range b.heads {
		if err := h.fill(ctx); err != nil {
			return nil, fmt.Errorf("read %s partition %d: %w", b.input(), h.partition, err)
		}
		switch {
		case h.ended:
		case first == nil, h.times[0].Before(first.times[0]), h.merges[0] && h.times[0].Equal(first.times[0]):
			first = h
		}
	}
	return first, nil
}

// together is how many of the first n records of a partition may be folded before the others go on: none that
// was received after a merge which another partition still holds, and its own next merge waits for the others,
// so that what a merge moves arrives where it did in life. It is one at least.
func (b *rebuild) together(h *head, n int) int {
	var limit time.Time
	for _, o := range b.heads {
		if o == h || o.ended {
			continue
		}
		t := o.times[len(o.times)-1] // what comes behind is not read yet
		if i := slices.Index(o.merges, true); i >= 0 {
			t = o.times[i]
		}
		if limit.IsZero() || t.Before(limit) {
			limit = t
		}
	}
	k := 1
	for k < n && !h.merges[k] && (limit.IsZero() || h.times[k].Before(limit)) {
		k++
	}
	return k
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
	h.times, h.merges = h.times[:0], h.merges[:0]
	for i := range recs {
		if t := receivedAt(&recs[i]); t.After(h.last) {
			h.last = t
		}
		h.times = append(h.times, h.last)
		kind, _ := topic.Get(recs[i].Headers, topic.HeaderKind)
		h.merges = append(h.merges, topic.Kind(kind) == topic.KindMerge)
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
