package keyed

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"go.uber.org/zap"

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
	if origin.gone {
		d.s.metrics.gone.Inc() // all that it held, and all that came late for it, is told again
		return nil
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
	origin.delivered, origin.body, origin.blocked = true, nil, nil
	w, err := d.write(origin, d.s.opt.MaxState)
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
		if h.gone {
			d.s.metrics.gone.Inc()
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
	raw := *h.cell
	w, outs, err := d.unite(h, origin, seq, late)
	switch {
	case err == nil:
	case late == nil:
		return false, &stuckError{origin.key, err}
	default:
		// The record is poison. The state stands as it was read, with a note that the record was dealt with.
		*h.cell = raw
		h.notes = with(h.notes, origin.key, seq)
		h.unblock()
		reason := poisonReason(err)
		if h.bad != nil {
			reason = ReasonStateUnreadable
		}
		d.s.poison.report(reason, err, zap.String("topic", late.Topic), zap.Int64("offset", late.Offset), zap.String("key", h.key))
		w, outs = d.mark(h), []Output{Reject(*late, d.s.opt.Stage, reason, err, d.s.opt.Topics)}
	}
	return d.put(ctx, own, w, outs)
}

// block marks the live key that a stuck move leads to: nothing is decided for it before the move is in.
func (d *foldDecider[S]) block(ctx context.Context, own Slot, m *move) error {
	origin, err := d.read(ctx, own, m.origin)
	if err != nil {
		return err
	}
	if origin.gone {
		return nil
	}
	key := origin.forward
	for range maxHops {
		h, err := d.read(ctx, own, key)
		if err != nil {
			return err
		}
		if h.gone {
			return nil // nothing is decided for it ever again
		}
		if h.frozen {
			key = h.forward
			continue
		}
		noted, ok := h.notes[m.origin]
		barred, has := h.blocked[m.origin]
		if ok && noted >= m.seq || has && barred >= m.seq {
			return nil
		}
		h.blocked = with(h.blocked, m.origin, m.seq)
		if ok, err := d.put(ctx, own, d.mark(h), nil); err != nil || ok {
			return err
		}
	}
	return fmt.Errorf("more than %d forward pointers from %s: %w", maxHops, m.origin, errCorrupt)
}

// mark writes a state whose body stays as it was read.
func (d *foldDecider[S]) mark(h *held[S]) stateWrite {
	return stateWrite{key: h.key, old: h.rev, val: h.encode(), sameDue: true}
}

// put writes a state of another slot, or of this one outside of its batch.
func (d *foldDecider[S]) put(ctx context.Context, own Slot, w stateWrite, outs []Output) (bool, error) {
	args := commitArgs{states: []stateWrite{w}}
	for i := range outs {
		args.outputs = append(args.outputs, encodeOutput(&outs[i], nil))
	}
	slot := d.slotOf(own, w.key)
	r, err := slot.commit(ctx, args)
	if r.reason == refusedIncarnation {
		return false, fmt.Errorf("change %s: %w", w.key, errRefused)
	}
	if r.ok && (len(outs) > 0 || !w.due.IsZero()) {
		d.s.ring(slot.partition)
	}
	return r.ok, err
}

// unite folds a move into a live state and encodes it. A panic is an error.
func (d *foldDecider[S]) unite(h, origin *held[S], seq int64, late *Record) (w stateWrite, outs []Output, err error) {
	if err := errors.Join(h.bad, origin.bad); err != nil && (late == nil || h.bad != nil) {
		return w, nil, err
	}
	now, bound := d.s.deps.Now(), d.s.opt.MaxState
	err = guarded(func() error {
		if late != nil {
			outs = d.apply(h, late, now)
		} else {
			bound *= mergeRoom
			h.notes, h.blocked = united(h.notes, origin.notes), united(h.blocked, origin.blocked)
			outs = d.fold.Merge(h.key, h.s, *origin.s, now)
		}
		h.notes = with(h.notes, origin.key, seq)
		h.unblock()
		outs = d.s.muted(append(outs, d.settle(h, now)...))
		w, err = d.write(h, bound)
		return err
	})
	return w, outs, err
}

// unblock forgets the origins whose payload the notes say is in.
func (c *cell) unblock() {
	for k, n := range c.blocked {
		if m, ok := c.notes[k]; ok && m >= n {
			c.blocked = maps.Clone(c.blocked)
			delete(c.blocked, k)
		}
	}
}

// united is the higher of each; neither map is changed.
func united(m, o map[string]int64) map[string]int64 {
	if len(o) == 0 {
		return m
	}
	c := maps.Clone(o)
	for k, n := range m {
		c[k] = max(c[k], n)
	}
	return c
}

// with is m with k at n; m itself stays as it is.
func with(m map[string]int64, k string, n int64) map[string]int64 {
	c := make(map[string]int64, len(m)+1)
	maps.Copy(c, m)
	c[k] = n
	return c
}
