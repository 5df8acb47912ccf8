package keyed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
)

// Restorer is a fold made for a rebuild. It folds as in life, and publishes nothing that was published before:
// what its methods return goes into the outbox. Besides, it brings back what its input alone does not tell:
// what timers decided at a clock's time, and what the world was told last. All calls come from one goroutine.
type Restorer[S any] interface {
	Fold[S]
	// InOrder says whether partitions must be folded side by side by time of receipt, so that merges arrive when
	// they did in life: where more than the set of records counts. It makes batches small.
	InOrder() bool
	// Recall is called before anything is folded.
	Recall(ctx context.Context, read Reader) error
	// Restore brings s to where it was at a time: before a record that was received then is applied, and, with
	// the zero time, to its end: when the key is about to be merged into another.
	Restore(key string, s *S, until time.Time)
	// Concluding is called when everything is folded, before the states of a partition are concluded.
	Concluding(ctx context.Context, partition int, read Reader) error
	// Conclude is called for each state of the partition, perhaps more than once, but for those that still wait for what
	// is told again. end says whether it lives: changed says that s is to be stored.
	Conclude(key string, end End, s *S, now time.Time) (outs []Output, changed bool)
	// Concluded is called behind the last Conclude of the partition.
	Concluded(partition int) error
}

// End is how a key has ended. The zero value is one that lives.
type End struct {
	Into string // the key it was merged into
	Gone bool   // it was split or erased
}

// Lives says whether it has not ended.
func (e End) Lives() bool { return e == End{} }

// apply folds one record of a live key.
func (d *foldDecider[S]) apply(h *held[S], r *Record, now time.Time) []Output {
	if d.restorer != nil && !r.Meta.ReceivedAt.IsZero() {
		d.restorer.Restore(h.key, h.s, r.Meta.ReceivedAt)
	}
	outs := d.fold.Apply(h.key, h.s, *r, now)
	switch {
	case r.Kind == topic.KindRefolded:
		h.waiting = h.waiting && string(r.Key) != h.key
	case r.Refold:
		return nil // it was told when it came first
	}
	return outs
}

// depart is called before a key that was seen is frozen.
func (d *foldDecider[S]) depart(h *held[S]) {
	if d.restorer != nil {
		d.restorer.Restore(h.key, h.s, time.Time{})
	}
}

// recall implements decider.
func (d *foldDecider[S]) recall(ctx context.Context, read Reader) error {
	if d.restorer == nil {
		return fmt.Errorf("stage %s has no fold for a rebuild", d.s.opt.Stage)
	}
	return d.restorer.Recall(ctx, read)
}

// conclude implements decider: the last word on every state of a slot.
func (d *foldDecider[S]) conclude(ctx context.Context, b *rebuild, w *worker) error {
	if err := d.restorer.Concluding(ctx, w.slot.partition, b.read); err != nil {
		return err
	}
	prefix := w.slot.stateKey("")
	err := b.scan(ctx, prefix, func(keys []string) error {
		for len(keys) > 0 {
			n := min(len(keys), defaultBatchRecords)
			if err := d.concludeSome(ctx, b, w, keys[:n], len(prefix)); err != nil {
				return err
			}
			keys = keys[n:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.restorer.Concluded(w.slot.partition)
}

func (d *foldDecider[S]) concludeSome(ctx context.Context, b *rebuild, w *worker, keys []string, cut int) error {
	raw, err := d.s.deps.Store.MGet(ctx, keys...)
	if err != nil {
		return err
	}
	var args commitArgs
	seen := make(map[string]bool, len(keys))
	for i, full := range keys {
		if seen[full] || raw[i] == nil {
			continue
		}
		seen[full] = true
		h, err := d.hold(full[cut:], raw[i])
		if err = errors.Join(err, h.bad); err != nil {
			return err
		}
		if h.waiting {
			continue
		}
		end := End{Into: h.forward, Gone: h.gone}
		if h.gone {
			end.Into = ""
		}
		outs, changed := d.restorer.Conclude(h.key, end, h.s, b.now)
		outs = d.s.muted(outs)
		if !changed && len(outs) == 0 {
			continue
		}
		// The state is written along with outputs of it, too: its revision makes a repeated script one.
		sw, err := d.write(h, d.s.opt.MaxState*mergeRoom)
		if err != nil {
			return err
		}
		args.states = append(args.states, sw)
		for j := range outs {
			args.outputs = append(args.outputs, encodeOutput(&outs[j], nil))
		}
	}
	if len(args.states) == 0 {
		return nil
	}
	return b.settled(ctx, w, args)
}

// inOrder implements decider.
func (d *foldDecider[S]) inOrder() bool { return d.restorer != nil && d.restorer.InOrder() }

// owns implements decider: all of a slot is a fold's.
func (d *foldDecider[S]) owns(string) bool { return true }

// until implements decider.
func (d *foldDecider[S]) until(_ int, end int64) int64 { return end }
