package keyed

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
)

// maxHops bounds a walk along forward pointers. Pointers always lead to an earlier node of the fixed
// order and are written once, so a longer one means corrupt state, not patience.
const maxHops = 100_000

// slotOf is the slot that a key of this stage lives in, in the incarnation of the slot that its owner holds:
// all slots of a stage are rebuilt together.
func (d *foldDecider[S]) slotOf(own Slot, key string) Slot {
	p := topic.Partition([]byte(key), d.s.opt.Topics.Partitions)
	slot := newSlot(d.s.deps.Store, d.s.opt.Topics, d.s.opt.Stage, p, d.s.script)
	slot.inc = own.inc
	return slot
}

func (d *foldDecider[S]) read(ctx context.Context, own Slot, key string) (*held[S], error) {
	b, err := d.s.deps.Store.Get(ctx, d.slotOf(own, key).stateKey(key))
	if err != nil {
		return nil, err
	}
	return d.hold(key, b)
}

// home brings a move to its target, hop by hop from its origin's own pointer. Coming home twice is once.
func (d *foldDecider[S]) home(ctx context.Context, own Slot, m *move) error {
	origin, err := d.read(ctx, own, m.origin)
	if err != nil {
		return err
	}
	if !origin.frozen {
		return fmt.Errorf("origin %s of a move is not frozen: %w", m.origin, ErrStateLost)
	}
	if m.late != nil {
		return d.deliver(ctx, own, origin, m.seq, m.late)
	}
	if origin.moveSeq != m.seq {
		return fmt.Errorf("origin %s was frozen by move %d, not %d: %w", m.origin, origin.moveSeq, m.seq, errCorrupt)
	}
	return d.payload(ctx, own, origin)
}

// payload brings the payload of a frozen key home and marks it delivered.
func (d *foldDecider[S]) payload(ctx context.Context, own Slot, origin *held[S]) error {
	if origin.delivered {
		return nil
	}
	if err := d.deliver(ctx, own, origin, origin.moveSeq, nil); err != nil {
		return err
	}
	origin.delivered, origin.body = true, nil
	w, err := d.write(origin)
	if err != nil {
		return err
	}
	// Refused means that another owner has marked it.
	if _, err := d.slotOf(own, origin.key).commit(ctx, commitArgs{states: []stateWrite{w}}); err != nil {
		return err
	}
	return nil
}

// deliver applies one move of origin (late nil: its payload) to whatever live key its pointer leads to.
func (d *foldDecider[S]) deliver(ctx context.Context, own Slot, origin *held[S], seq int64, late *Record) error {
	key := origin.forward
	for hop := 0; ; hop++ {
		if hop > maxHops {
			return fmt.Errorf("more than %d forward pointers from %s: %w", maxHops, origin.key, errCorrupt)
		}
		h, err := d.read(ctx, own, key)
		if err != nil {
			return err
		}
		if n, ok := h.notes[origin.key]; ok && n >= seq {
			return nil
		}
		if h.frozen {
			// Its own payload, with the notes, goes before anything that passes through.
			if err := d.payload(ctx, own, h); err != nil {
				return err
			}
			key = h.forward
			continue
		}
		ok, err := d.take(ctx, own, h, origin, seq, late)
		if err != nil || ok {
			return err
		}
		d.s.metrics.refused.WithLabelValues(refusedRevision).Inc() // somebody else changed it: look again
	}
}

// take applies the move to a live state by compare-and-set on its revision.
func (d *foldDecider[S]) take(ctx context.Context, own Slot, h, origin *held[S], seq int64, late *Record) (bool, error) {
	now := d.s.deps.Now()
	var outs []Output
	if late != nil {
		outs = d.apply(h, late, now)
	} else {
		outs = d.mergeInto(h, origin, now)
	}
	if h.notes == nil {
		h.notes = map[string]int64{}
	}
	h.notes[origin.key] = seq
	outs = d.s.muted(append(outs, d.settle(h, now)...))
	w, err := d.write(h)
	if err != nil {
		return false, err
	}
	args := commitArgs{states: []stateWrite{w}}
	for i := range outs {
		args.outputs = append(args.outputs, encodeOutput(&outs[i], nil))
	}
	r, err := d.slotOf(own, h.key).commit(ctx, args)
	if r.reason == refusedIncarnation {
		return false, fmt.Errorf("change %s: %w", h.key, errRefused)
	}
	return r.ok, err
}

func (d *foldDecider[S]) mergeInto(h, origin *held[S], now time.Time) []Output {
	if h.notes == nil {
		h.notes = map[string]int64{}
	}
	merged := maps.Clone(h.notes)
	for k, n := range origin.notes {
		merged[k] = max(merged[k], n)
	}
	h.notes = merged
	return d.fold.Merge(h.key, h.s, *origin.s, now)
}
