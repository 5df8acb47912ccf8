package keyed

import (
	"context"
	"fmt"
	"time"
)

// planDecider runs a Planner.
type planDecider struct{ p Planner }

func (d *planDecider) decide(ctx context.Context, w *worker, batch []Record, _ time.Time) (*decision, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	c, err := d.p.Plan(ctx, w.slot, batch)
	if err != nil {
		return nil, fmt.Errorf("plan %d records from offset %d: %w", len(batch), batch[0].Offset, err)
	}
	return &decision{outputs: c.Outputs, seenIDs: c.SeenIDs, seenAt: c.SeenAt, seenWindow: c.SeenWindow}, nil
}

func (d *planDecider) published(ctx context.Context, slot Slot, outs []Output) error {
	return d.p.Published(ctx, slot, outs)
}

func (d *planDecider) home(_ context.Context, slot Slot, m *move) error {
	return fmt.Errorf("slot %s holds a move of %s, which this stage never makes: %w", slot.tag, m.origin, errCorrupt)
}
