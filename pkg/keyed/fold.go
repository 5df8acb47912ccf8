package keyed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

// timersPerBatch bounds the timers that fire in one script, for the same reason as defaultBatchRecords.
const timersPerBatch = 500

// ticket is a due timer's place in line: it fires behind the walk, for what was due at seen.
type ticket struct {
	seen time.Time
	walk int64
}

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

// held is a state in memory during a batch.
type held[S any] struct {
	*cell
	key     string
	s       *S
	changed bool
}

func (d *foldDecider[S]) hold(key string, b []byte) (*held[S], error) {
	c, err := decodeCell(b)
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", key, err)
	}
	s, err := decodeBody[S](c.body, c.bodyVer, d.s.opt.StateVersion)
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", key, err)
	}
	return &held[S]{cell: c, key: key, s: s}, nil
}

// write encodes a held state and its next timer.
func (d *foldDecider[S]) write(h *held[S]) (stateWrite, error) {
	w := stateWrite{key: h.key, old: h.rev}
	if !h.frozen || !h.delivered {
		b, err := encodeBody(h.s)
		if err != nil {
			return w, fmt.Errorf("state of %s: %w", h.key, err)
		}
		h.body, h.bodyVer = b, d.s.opt.StateVersion
	}
	if !h.frozen {
		if at, ok := d.fold.Due(h.s); ok {
			w.due = at
		}
	}
	w.val = h.encode()
	return w, nil
}

func (d *foldDecider[S]) settle(h *held[S], now time.Time) []Output {
	if d.settler == nil || h.frozen {
		return nil
	}
	return d.settler.Settle(h.key, h.s, now)
}

// batch is the work on one script.
type batch[S any] struct {
	d      *foldDecider[S]
	w      *worker
	now    time.Time
	states map[string]*held[S]
	order  []string
	dec    decision
}

func (d *foldDecider[S]) decide(ctx context.Context, w *worker, recs []Record, now time.Time) (*decision, error) {
	b := &batch[S]{d: d, w: w, now: now, states: map[string]*held[S]{}}
	var keys []string
	for i := range recs {
		keys = append(keys, string(recs[i].Key))
	}
	due, err := b.load(ctx, keys, d.s.opt.Fence != nil)
	if err != nil {
		return nil, err
	}
	fire := b.ripe(due)
	if len(fire) > 0 {
		var more []string
		for _, k := range fire {
			more = append(more, k.key)
		}
		if _, err := b.load(ctx, more, false); err != nil {
			return nil, err
		}
	}
	for i := range recs {
		b.apply(&recs[i])
	}
	for _, f := range fire {
		b.timer(f)
	}
	return b.finish(fire)
}

// load reads the states of keys not yet held and, if asked, the timers that are due, in one round trip.
func (b *batch[S]) load(ctx context.Context, keys []string, timers bool) ([]string, error) {
	p := b.w.slot.st.Pipe()
	replies := map[string]*store.Reply{}
	for _, k := range keys {
		if b.states[k] == nil && replies[k] == nil {
			replies[k] = p.Do(ctx, "GET", b.w.slot.stateKey(k))
			b.order = append(b.order, k)
		}
	}
	var dueReply *store.Reply
	if timers {
		dueReply = p.Do(ctx, "ZRANGEBYSCORE", b.w.slot.timersKey(), "-inf", b.now.UnixMilli(), "LIMIT", 0, timersPerBatch)
	}
	if len(replies) == 0 && dueReply == nil {
		return nil, nil
	}
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read %d states of %s: %w", len(replies), b.w.slot.tag, err)
	}
	for k, r := range replies {
		h, err := b.d.hold(k, r.Bytes())
		if err != nil {
			return nil, err
		}
		b.states[k] = h
	}
	if dueReply == nil {
		return nil, nil
	}
	var due []string
	for _, v := range dueReply.Slice() {
		if k, ok := v.Text(); ok {
			due = append(due, k)
		}
	}
	return due, nil
}

// firing is a timer whose ticket's walk has ended.
type firing struct {
	key  string
	seen time.Time
}

// ripe takes tickets for timers seen due for the first time, forgets those that are due no more, and
// returns those whose walk has ended.
func (b *batch[S]) ripe(due []string) []firing {
	tickets := b.w.tickets
	if len(due) < timersPerBatch {
		for k := range tickets {
			if !slices.Contains(due, k) {
				delete(tickets, k)
			}
		}
	}
	fence := b.d.s.opt.Fence
	var fire []firing
	for _, k := range due {
		t, ok := tickets[k]
		if !ok {
			// The clock was read (b.now) before the ticket is taken, so the walk begins after it.
			tickets[k] = ticket{seen: b.now, walk: fence.Ticket()}
			continue
		}
		if fence.Done() >= t.walk {
			fire = append(fire, firing{key: k, seen: t.seen})
		}
	}
	return fire
}

// apply folds one record.
func (b *batch[S]) apply(r *Record) {
	h := b.states[string(r.Key)]
	switch {
	case r.Kind == topic.KindMerge:
		b.merge(h, r)
	case h.frozen:
		b.dec.moves = append(b.dec.moves, &move{origin: h.key, late: r})
	default:
		b.dec.outputs = append(b.dec.outputs, b.d.apply(h, r, b.now)...)
		h.changed = true
	}
}

// merge freezes the loser. A merge of a key already frozen was published by more than one: nothing to do.
func (b *batch[S]) merge(h *held[S], r *Record) {
	if h.frozen {
		return
	}
	into, err := mergeTarget(r.Value)
	if err == nil && into == h.key {
		err = errors.New("a key can not be merged into itself")
	}
	if err != nil {
		b.dec.outputs = append(b.dec.outputs, Reject(*r, b.d.s.opt.Stage, "invalid_merge", err, b.d.s.opt.Topics))
		return
	}
	fresh := h.rev == "" && !h.changed
	if !fresh {
		b.d.depart(h)
	}
	h.frozen, h.forward, h.changed = true, into, true
	if b.d.freezer != nil && !fresh {
		b.dec.outputs = append(b.dec.outputs, b.d.freezer.Freeze(h.key, into, h.s, b.now)...)
	}
	if fresh {
		h.delivered = true // no payload to bring home; notes are none
		return
	}
	h.moveSeq = b.w.m.nextMov + int64(len(b.dec.moves))
	b.dec.moves = append(b.dec.moves, &move{origin: h.key})
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

func (b *batch[S]) timer(f firing) {
	h := b.states[f.key]
	if h.frozen {
		return
	}
	if at, ok := b.d.fold.Due(h.s); !ok || at.After(f.seen) {
		delete(b.w.tickets, f.key) // moved since it was seen: seen anew when it is due again
		return
	}
	b.dec.outputs = append(b.dec.outputs, b.d.fold.Timer(f.key, h.s, f.seen)...)
	h.changed = true
}

// finish settles what changed and encodes it.
func (b *batch[S]) finish(fire []firing) (*decision, error) {
	for _, k := range b.order {
		h := b.states[k]
		if !h.changed {
			continue
		}
		b.dec.outputs = append(b.dec.outputs, b.d.settle(h, b.now)...)
		w, err := b.d.write(h)
		if err != nil {
			return nil, err
		}
		b.dec.states = append(b.dec.states, w)
	}
	b.dec.accepted = func() {
		for _, f := range fire {
			delete(b.w.tickets, f.key)
		}
		b.d.s.metrics.timers.Add(float64(len(fire)))
	}
	return &b.dec, nil
}
