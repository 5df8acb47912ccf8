package keyed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/store"
)

// foldDecider runs a Fold.
type foldDecider[S any] struct {
	s       *Stage
	fold    Fold[S]
	settler Settler[S]
	freezer Freezer[S]

	restorer Restorer[S] // nil but in a rebuild
}

func newFoldDecider[S any](s *Stage, fold Fold[S]) *foldDecider[S] {
	d := &foldDecider[S]{s: s, fold: fold}
	d.settler, _ = fold.(Settler[S])
	d.freezer, _ = fold.(Freezer[S])
	d.restorer, _ = fold.(Restorer[S])
	return d
}

func (d *foldDecider[S]) published(context.Context, Slot, []Output) error { return nil }

// held is a state in memory.
type held[S any] struct {
	*cell
	key     string
	s       *S
	bad     error // the body can not be read; s is not to be used
	changed bool
	keep    bool // changed is the cell only: the body stays as it was read
}

// hold reads a state. A body that can not be read is no error but held.bad, unless a newer binary wrote it.
func (d *foldDecider[S]) hold(key string, b []byte) (*held[S], error) {
	h := &held[S]{cell: new(cell), s: new(S)}
	return h, d.holdInto(h, key, b)
}

// holdInto is hold with the memory of a former one.
func (d *foldDecider[S]) holdInto(h *held[S], key string, b []byte) error {
	h.key, h.bad, h.changed, h.keep = key, nil, false, false
	if err := h.decode(b); err != nil {
		return fmt.Errorf("state of %s: %w", key, err)
	}
	if h.rev == "" && d.s.opt.Waits != nil {
		h.waiting = d.s.opt.Waits(key)
	}
	var zero S
	*h.s = zero
	err := guarded(func() error { return decodeBodyInto(h.s, h.body, h.bodyVer, d.s.opt.StateVersion) })
	if errors.Is(err, ErrNewerState) {
		return fmt.Errorf("state of %s: %w", key, err)
	}
	h.bad = err
	return nil
}

// write encodes a held state and its next timer.
func (d *foldDecider[S]) write(h *held[S], bound int) (stateWrite, error) {
	w := stateWrite{key: h.key, old: h.rev}
	var err error
	if w.val, err = d.append(nil, h, newRevision(), bound); err == nil {
		w.due = d.due(h)
	}
	return w, err
}

// append encodes a held state at the end of b.
func (d *foldDecider[S]) append(b []byte, h *held[S], rev [revLen]byte, bound int) ([]byte, error) {
	if h.keep || h.bad != nil || h.frozen && h.delivered {
		return append(h.appendHead(b, rev), h.body...), nil
	}
	h.bodyVer = d.s.opt.StateVersion
	head := h.appendHead(b, rev)
	whole, err := appendBody(head, h.s)
	if err != nil {
		return b, fmt.Errorf("state of %s: %w", h.key, err)
	}
	if size := len(whole) - len(head); size > bound {
		return b, fmt.Errorf("state of %s: %w", h.key, &tooLargeError{size, bound})
	}
	return whole, nil
}

// due is when a held state next wants to be woken, zero if it does not.
func (d *foldDecider[S]) due(h *held[S]) time.Time {
	if h.frozen || h.waiting || h.bad != nil {
		return time.Time{}
	}
	at, ok := d.fold.Due(h.s)
	if !ok {
		return time.Time{}
	}
	return at
}

func (d *foldDecider[S]) settle(h *held[S], now time.Time) []Output {
	if d.settler == nil || h.frozen || h.waiting {
		return nil
	}
	return d.settler.Settle(h.key, h.s, now)
}

// decide folds a batch, key by key, and fires timers whose walk has ended.
func (d *foldDecider[S]) decide(ctx context.Context, w *worker, now time.Time) error {
	fire := w.timers.ripe()
	for i := range fire {
		w.in.fire(&fire[i], &w.slot)
	}
	if err := d.load(ctx, w, now); err != nil {
		return err
	}
	r, ok := w.scratch.(*keyRun[S])
	if !ok {
		r = newKeyRun(d, w)
		w.scratch = r
	}
	r.begin(now)
	for i := range w.in.works {
		if err := r.key(&w.in.works[i]); err != nil {
			return err
		}
	}
	return nil
}

// load reads the states of a batch and, when it is time, what timers are due, in one round trip.
func (d *foldDecider[S]) load(ctx context.Context, w *worker, now time.Time) error {
	in := &w.in
	look := w.timers.wants(now, len(in.works) > 0 || !time.Now().Before(w.lookAt))
	if len(in.works) == 0 && !look {
		return nil
	}
	p := w.slot.st.Pipe()
	var states *store.Reply
	if len(in.works) > 0 {
		args := append(make([]any, 0, len(in.works)+1), "MGET", in.works[0].full)
		for i := 1; i < len(in.works); i++ {
			args = append(args, &in.works[i].full) // a pointer is passed on without a copy
		}
		states = p.Do(ctx, args...)
	}
	var due dueQuery
	if look {
		due = w.timers.ask(ctx, p, &w.slot, now)
	}
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("read %d states of %s: %w", len(in.works), w.slot.tag, err)
	}
	if look {
		w.timers.learn(due, now)
	}
	if states == nil {
		return nil
	}
	vs := states.Slice()
	if len(vs) != len(in.works) {
		return fmt.Errorf("read %d states of %s: answer of %d: %w", len(in.works), w.slot.tag, len(vs), errCorrupt)
	}
	for i := range vs {
		in.works[i].raw = vs[i].Bytes()
	}
	return nil
}

// accepted forgets the timers that have fired.
func (d *foldDecider[S]) accepted(w *worker, now time.Time) {
	t := w.timers
	if t == nil {
		return
	}
	for i := range t.firing {
		f := &t.firing[i]
		if f.aside {
			continue
		}
		t.healed(f.key)
		if !f.due.IsZero() {
			d.s.metrics.timers.Inc()
			d.s.metrics.lateness.Observe(now.Sub(f.due).Seconds())
		}
	}
	t.fired()
	for i := range w.dec.states {
		if s := &w.dec.states[i]; !s.sameDue {
			t.written(s.due)
		}
	}
	w.aside.Set(float64(len(t.aside)))
}
