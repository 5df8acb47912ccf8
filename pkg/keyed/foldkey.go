package keyed

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/topic"
)

// keyRun folds one key of a batch after the other. A key at a time, because then one state is in memory, and
// what fails on a record can be taken back for its key alone.
type keyRun[S any] struct {
	d    *foldDecider[S]
	w    *worker
	now  time.Time
	rev  [revLen]byte
	h    held[S]
	item int32           // what the fold is called for: a record of the batch, or one of those below
	bad  map[int32]error // records that are poison, and why
}

const (
	itemWhole = int32(-2) // the key as a whole: its last word, its due time, its encoding
	itemTimer = int32(-3)
)

// fault is where folding a key went wrong.
type fault struct {
	item int32
	err  error
}

func newKeyRun[S any](d *foldDecider[S], w *worker) *keyRun[S] {
	return &keyRun[S]{d: d, w: w, h: held[S]{cell: new(cell), s: new(S)}, bad: map[int32]error{}}
}

func (r *keyRun[S]) begin(now time.Time) {
	r.now, r.rev = now, newRevision()
	clear(r.bad)
}

// key folds one key. What fails is taken out and the key folded anew without it, until the rest goes through:
// a record is rejected, a timer is put off. An error holds the partition.
func (r *keyRun[S]) key(k *work) error {
	dec := &r.w.dec
	outs, moves, states, arena := len(dec.outputs), len(dec.moves), len(dec.states), len(dec.arena)
	attempt := func(most int) (*fault, error) {
		dec.outputs, dec.moves, dec.states, dec.arena = dec.outputs[:outs], dec.moves[:moves], dec.states[:states], dec.arena[:arena]
		if err := r.d.holdInto(&r.h, k.key, k.raw); err != nil {
			return nil, err
		}
		return r.attempt(k, most), nil
	}
	all := k.records + 1
	for {
		f, err := attempt(all)
		if f != nil && f.item == itemWhole {
			f, err = r.culprit(k, f, attempt)
		}
		if f == nil || err != nil {
			return err
		}
		if f.item == itemTimer {
			k.timer.aside = true
			r.d.s.poison.report(reasonTimerPanic, f.err, zap.String("key", k.key))
			continue
		}
		r.bad[f.item] = f.err
		rec := &r.w.in.recs[f.item]
		r.d.s.poison.report(poisonReason(f.err), f.err, zap.Int("partition", rec.Partition), zap.Int64("offset", rec.Offset), zap.String("key", k.key))
	}
}

// culprit finds the item behind which the key as a whole goes wrong: with those before it, all was well.
func (r *keyRun[S]) culprit(k *work, last *fault, attempt func(int) (*fault, error)) (*fault, error) {
	good, wrong := 0, k.records+1
	for wrong-good > 1 {
		mid := (good + wrong) / 2
		f, err := attempt(mid)
		switch {
		case err != nil:
			return nil, err
		case f == nil:
			good = mid
		case f.item != itemWhole:
			return f, nil
		default:
			wrong, last = mid, f
		}
	}
	item := k.first
	for range wrong - 1 {
		if item == none {
			break
		}
		item = r.w.in.next[item]
	}
	if item == none {
		item = itemTimer
	}
	return &fault{item, last.err}, nil
}

// attempt folds the first items of a key, its timer being the last, and writes down what came of it.
func (r *keyRun[S]) attempt(k *work, most int) (f *fault) {
	defer func() {
		if v := recover(); v != nil {
			f = &fault{r.item, caught(v)}
		}
	}()
	h, before := &r.h, time.Time{}
	r.item = itemWhole
	if !h.frozen && h.bad == nil && h.rev != "" {
		before = r.due()
	}
	i := k.first
	for ; i != none && most > 0; i, most = r.w.in.next[i], most-1 {
		r.item = i
		r.record(&r.w.in.recs[i], r.bad[i])
	}
	if k.timer != nil && most > 0 {
		r.item = itemTimer
		r.timer(k.timer)
	}
	r.item = itemWhole
	if err := r.finish(k, before); err != nil {
		return &fault{itemWhole, err}
	}
	return nil
}

// due is the state's due time as it was read. A fold that panics over it says so again when the state is
// written, where a culprit can be found.
func (r *keyRun[S]) due() (due time.Time) {
	defer func() {
		if recover() != nil {
			due = time.Time{}
		}
	}()
	return r.d.due(&r.h)
}

// record folds one record.
func (r *keyRun[S]) record(rec *Record, bad error) {
	h, dec := &r.h, &r.w.dec
	switch {
	case bad != nil:
		dec.outputs = append(dec.outputs, Reject(*rec, r.d.s.opt.Stage, poisonReason(bad), bad, r.d.s.opt.Topics))
	case rec.Kind == topic.KindSplit || rec.Kind == topic.KindErase:
		r.part(rec)
	case h.gone:
		r.d.s.metrics.gone.Inc()
	case h.bad != nil && !h.frozen:
		r.d.s.poison.report(ReasonStateUnreadable, h.bad, zap.Int64("offset", rec.Offset), zap.String("key", h.key))
		dec.outputs = append(dec.outputs, Reject(*rec, r.d.s.opt.Stage, ReasonStateUnreadable, h.bad, r.d.s.opt.Topics))
	case rec.Kind == topic.KindMerge:
		r.merge(rec)
	case h.frozen:
		dec.moves = append(dec.moves, &move{origin: h.key, late: rec})
	default:
		dec.outputs = append(dec.outputs, r.d.apply(h, rec, r.now)...)
		h.changed, h.keep = true, false
	}
}

// merge freezes the loser. A merge of a key already frozen was published by more than one: nothing to do.
func (r *keyRun[S]) merge(rec *Record) {
	h, dec := &r.h, &r.w.dec
	if h.frozen {
		return
	}
	into, err := mergeTarget(rec.Value)
	if err == nil && into == h.key {
		err = errors.New("a key can not be merged into itself")
	}
	if err != nil {
		r.d.s.metrics.poison.WithLabelValues(ReasonInvalidMerge).Inc()
		dec.outputs = append(dec.outputs, Reject(*rec, r.d.s.opt.Stage, ReasonInvalidMerge, err, r.d.s.opt.Topics))
		return
	}
	fresh := h.rev == "" && !h.changed
	h.keep = (!h.changed || h.keep) && r.d.restorer == nil
	if !fresh {
		r.d.depart(h)
	}
	h.frozen, h.waiting, h.forward, h.changed = true, false, into, true
	if r.d.freezer != nil && !fresh {
		// What Freeze says is a word to others: a merge is not lost for it.
		err := guarded(func() error {
			dec.outputs = append(dec.outputs, r.d.freezer.Freeze(h.key, into, h.s, r.now)...)
			return nil
		})
		if err != nil {
			r.d.s.poison.report(reasonFreezePanic, err, zap.String("key", h.key))
		}
	}
	if fresh {
		h.delivered = true // no payload to bring home; notes are none
		return
	}
	h.moveSeq = r.w.m.nextMov + int64(len(dec.moves))
	dec.moves = append(dec.moves, &move{origin: h.key})
}

// mergeTarget reads the one field of a merge record that this package must know.
func mergeTarget(b []byte) (string, error) {
	var m struct {
		Winner string `json:"winner"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return "", fmt.Errorf("read merge: %w", err)
	}
	if m.Winner == "" {
		return "", errors.New("read merge: winner is missing")
	}
	return m.Winner, nil
}

// timer fires what was due when its ticket was taken. While an origin's payload can not be merged, nothing is
// decided for the key, since what it lacks may be what the decision needs; nor where the state can not be read.
func (r *keyRun[S]) timer(f *firing) {
	h := &r.h
	f.due = time.Time{}
	if h.frozen || h.waiting {
		return
	}
	if f.aside || h.bad != nil || len(h.blocked) > 0 {
		f.aside = true
		if !h.changed {
			h.changed, h.keep = true, true // its index entry is written anew
		}
		return
	}
	at, ok := r.d.fold.Due(h.s)
	if !ok || at.After(f.seen) {
		return // moved since it was seen: seen anew when it is due again
	}
	f.due = at
	r.w.dec.outputs = append(r.w.dec.outputs, r.d.fold.Timer(h.key, h.s, f.seen)...)
	h.changed, h.keep = true, false
}

// finish has the key's last word and encodes it.
func (r *keyRun[S]) finish(k *work, before time.Time) error {
	h, dec := &r.h, &r.w.dec
	if !h.changed {
		return nil
	}
	if !h.keep && h.bad == nil {
		dec.outputs = append(dec.outputs, r.d.settle(h, r.now)...)
	}
	at := len(dec.arena)
	b, err := r.d.append(dec.arena, h, r.rev, r.d.s.opt.MaxState)
	if err != nil {
		return err
	}
	dec.arena = b
	w := stateWrite{key: k.key, full: k.full, old: h.rev, val: b[at:len(b):len(b)]}
	switch {
	case k.timer != nil && k.timer.aside:
		w.due = r.now.Add(r.w.timers.putOff(k.key))
	default:
		w.due = r.d.due(h)
		if w.sameDue = w.due.Equal(before) && !h.gone; !w.sameDue {
			r.w.timers.healed(k.key)
		}
	}
	dec.states = append(dec.states, w)
	return nil
}
