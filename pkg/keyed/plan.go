package keyed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// planDecider runs a Planner.
type planDecider struct {
	p Planner

	restorer PlanRestorer // nil but in a rebuild
}

func newPlanDecider(p Planner) *planDecider {
	d := &planDecider{p: p}
	d.restorer, _ = p.(PlanRestorer)
	return d
}

func (d *planDecider) decide(ctx context.Context, w *worker, _ time.Time) error {
	batch := w.in.recs
	if len(batch) == 0 {
		return nil
	}
	var c Change
	err := guarded(func() (err error) {
		c, err = d.p.Plan(ctx, w.slot, batch)
		return err
	})
	var panicked *PanicError
	switch {
	case err == nil:
		if v := w.s.vouching.voucher; v != nil {
			w.dec.vouch = v.Vouch()
		}
		w.dec.outputs = append(w.dec.outputs, c.Outputs...)
		w.dec.seenIDs, w.dec.seenAt, w.dec.seenWindow = c.SeenIDs, c.SeenAt, c.SeenWindow
		return nil
	case errors.As(err, &panicked) && len(batch) == 1:
		r := &batch[0]
		w.s.poison.report(ReasonPlanPanic, err, zap.Int("partition", r.Partition), zap.Int64("offset", r.Offset))
		w.dec.outputs = append(w.dec.outputs, Reject(*r, w.s.opt.Stage, ReasonPlanPanic, err, w.s.opt.Topics))
		return nil
	default:
		return fmt.Errorf("plan %d records from offset %d: %w: %w", len(batch), batch[0].Offset, errDecision, err)
	}
}

func (d *planDecider) accepted(*worker, time.Time) {}

func (d *planDecider) published(ctx context.Context, slot Slot, outs []Output) error {
	err := guarded(func() error { return d.p.Published(ctx, slot, outs) })
	if err != nil {
		return fmt.Errorf("%w: %w", errDecision, err)
	}
	return nil
}

func (d *planDecider) home(_ context.Context, slot Slot, m *move) error {
	return fmt.Errorf("slot %s holds a move of %s, which this stage never makes: %w", slot.tag, m.origin, errCorrupt)
}

func (d *planDecider) block(_ context.Context, _ Slot, m *move) error {
	return fmt.Errorf("a move of %s, which this stage never makes: %w", m.origin, errCorrupt)
}

// PlanRestorer is a planner made for a rebuild: it remembers what was published before, and does not hand it
// out again.
type PlanRestorer interface {
	Planner
	// Recall is called before anything is planned.
	Recall(ctx context.Context, read Reader) error
	// Owns says whether a key of the planner's own, as it stands behind Slot.Tag, goes when the slot is emptied.
	Owns(key string) bool
	// Until says where the slot of a partition goes on, once it is rebuilt: at end, where its input ends, or before
	// it. It is asked before anything is planned, and not where another deployment's history is.
	Until(partition int, end int64) int64
}

func (d *planDecider) recall(ctx context.Context, read Reader) error {
	if d.restorer == nil {
		return errors.New("this planner was not made for a rebuild")
	}
	return d.restorer.Recall(ctx, read)
}

func (d *planDecider) owns(key string) bool { return d.restorer != nil && d.restorer.Owns(key) }

func (d *planDecider) conclude(context.Context, *rebuild, *worker) error { return nil }

func (d *planDecider) inOrder() bool { return false }

func (d *planDecider) until(partition int, end int64) int64 { return d.restorer.Until(partition, end) }
