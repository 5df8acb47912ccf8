package keyed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// idlePoll is how long an owner waits for input before it looks at its slot, where moves of others
	// leave timers and outputs.
	idlePoll = 100 * time.Millisecond
	// commitEvery spaces commits to Kafka under load: they serve the fence only.
	commitEvery = 100 * time.Millisecond
	// recommitEvery repeats the commit while idle, in case an old one landed late and took it back.
	recommitEvery = time.Second
)

// worker owns one partition for one generation. All of it but the atomics belongs to its goroutine.
type worker struct {
	s     *Stage
	slot  Slot
	claim *stream.Claim
	log   *zap.Logger

	fetcher *stream.Fetcher
	buf     []stream.Record // fetched and not yet applied
	bufNext int64           // fetch position behind buf

	loaded  bool
	m       meta
	highest int64 // highest applied offset ever seen here: going back is a loss
	pos     map[string]int64
	pub     int64 // trim the outbox below this with the next script
	mov     int64

	committed   int64 // last offset committed to Kafka, -1 unknown
	committedAt time.Time
	tickets     map[string]ticket

	recovered atomic.Bool
	lag       atomic.Int64
}

func newWorker(s *Stage, cl *stream.Claim) *worker {
	return &worker{
		s: s, claim: cl, committed: -1, tickets: map[string]ticket{},
		slot: newSlot(s.deps.Store, s.opt.Topics, s.opt.Stage, cl.Partition, s.script),
		log:  s.deps.Log.With(zap.String("stage", s.opt.Stage), zap.Int("partition", cl.Partition)),
	}
}

func (w *worker) close() {
	if w.fetcher != nil {
		w.fetcher.Close()
	}
}

func (w *worker) run(ctx context.Context) error {
	var b backoff
	for ctx.Err() == nil {
		err := w.turn(ctx)
		switch {
		case err == nil:
			b.reset()
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, stream.ErrFenced):
			return nil // the group has gone on without this owner
		case stops(err):
			return fmt.Errorf("partition %d: %w: %w", w.claim.Partition, stream.ErrStop, err)
		default:
			w.loaded = false
			w.s.metrics.held.WithLabelValues(strconv.Itoa(w.claim.Partition)).Inc()
			w.log.Warn("partition is held", zap.Error(err))
			b.wait(ctx)
		}
	}
	return nil
}

// turn is one round: recover if need be, commit, fetch, decide, write, publish.
func (w *worker) turn(ctx context.Context) error {
	if !w.loaded {
		if err := w.recover(ctx); err != nil {
			return err
		}
	}
	if err := w.commit(ctx); err != nil {
		return err
	}
	if len(w.buf) == 0 {
		b, err := w.fetcher.Fetch(ctx, idlePoll)
		if err != nil {
			return fmt.Errorf("fetch from %d: %w", w.bufNext, err)
		}
		w.buf, w.bufNext = b.Records, b.Next
		w.setLag(b.HighWatermark)
	}
	return w.step(ctx)
}

func (w *worker) setLag(high int64) {
	lag := max(0, high-w.m.applied)
	w.lag.Store(lag)
	w.s.metrics.lag.WithLabelValues(strconv.Itoa(w.claim.Partition)).Set(float64(lag))
}

// recover reads the slot, finishes what a former owner left, and points the fetcher at the applied offset.
func (w *worker) recover(ctx context.Context) error {
	m, pos, err := w.slot.load(ctx)
	if err != nil {
		return err
	}
	if m.marked {
		return fmt.Errorf("%w (slot %s)", ErrRebuilding, w.slot.tag)
	}
	w.slot.inc = m.inc
	if m.fresh {
		if w.claim.Offset >= 0 || w.highest > 0 { // a commit is only made once the slot exists
			return fmt.Errorf("%w: slot %s is missing, kafka's commit is %d", ErrStateLost, w.slot.tag, w.claim.Offset)
		}
		starts, err := w.s.deps.Stream.StartOffsets(ctx, w.s.opt.Input)
		if err != nil {
			return err
		}
		if starts[w.claim.Partition] > 0 {
			w.log.Warn("log begins later than its first record", zap.Int64("offset", starts[w.claim.Partition]))
		}
		r, err := w.slot.commit(ctx, commitArgs{expect: "none", applied: strconv.FormatInt(starts[w.claim.Partition], 10)})
		if err != nil || !r.ok {
			return errors.Join(err, errRefused)
		}
		return w.recover(ctx)
	}
	if m.applied < w.claim.Offset || m.applied < w.highest {
		return fmt.Errorf("%w: slot %s is at %d, kafka's commit at %d, seen here %d", ErrStateLost, w.slot.tag, m.applied, w.claim.Offset, w.highest)
	}
	w.m, w.pos, w.highest = m, pos, m.applied
	w.pub, w.mov = 0, 0
	if w.fetcher != nil {
		w.fetcher.Close()
	}
	w.fetcher = w.s.deps.Stream.NewFetcher(w.s.opt.Input, w.claim.Partition, m.applied, stream.FetchOptions{})
	w.buf, w.bufNext = nil, m.applied
	if err := w.drain(ctx); err != nil {
		return err
	}
	w.loaded, w.committed = true, -1
	w.recovered.Store(true)
	return nil
}

var errRefused = errors.New("somebody else is writing this slot")

// commit tells Kafka how far the slot is, for the fence: at once when idle, spaced under load.
func (w *worker) commit(ctx context.Context) error {
	since := time.Since(w.committedAt)
	if w.committed == w.m.applied && since < recommitEvery || w.committed >= 0 && len(w.buf) > 0 && since < commitEvery {
		return nil
	}
	if err := w.claim.Commit(ctx, w.m.applied, ""); err != nil {
		return fmt.Errorf("commit %d: %w", w.m.applied, err)
	}
	w.committed, w.committedAt = w.m.applied, time.Now()
	return nil
}

// step takes a batch from the buffer and brings it through.
func (w *worker) step(ctx context.Context) error {
	n := min(len(w.buf), w.s.opt.BatchRecords)
	next := w.bufNext
	if n < len(w.buf) {
		next = w.buf[n].Offset
	}
	now := w.s.deps.Now()
	batch, rejects, pos, err := w.filter(w.buf[:n])
	if err != nil {
		return err
	}
	d, err := w.s.dec.decide(ctx, w, batch, now)
	if err != nil {
		return err
	}
	if d == nil {
		d = &decision{}
	}
	d.outputs = w.s.muted(append(rejects, d.outputs...))
	if next == w.m.applied && len(d.states) == 0 && len(d.outputs) == 0 {
		return w.idle(ctx)
	}
	args := commitArgs{
		expect: strconv.FormatInt(w.m.applied, 10), applied: strconv.FormatInt(next, 10),
		pub: w.pub, mov: w.mov, states: d.states, pos: pos,
		seenIDs: d.seenIDs, seenAt: d.seenAt, seenFor: d.seenWindow,
	}
	byOffset := make(map[int64]*Record, len(batch))
	for i := range batch {
		byOffset[batch[i].Offset] = &batch[i]
	}
	for i := range d.outputs {
		args.outputs = append(args.outputs, encodeOutput(&d.outputs[i], byOffset[d.outputs[i].Offset]))
	}
	for _, m := range d.moves {
		args.moves = append(args.moves, encodeMove(m))
	}
	r, err := w.slot.commit(ctx, args)
	if err != nil {
		return err // outcome unknown: the slot is read again
	}
	if !r.ok {
		w.s.metrics.refused.WithLabelValues(r.reason).Inc()
		if r.reason != refusedRevision {
			w.loaded = false
		}
		return nil // the same batch is decided anew on what stands there now
	}
	w.accepted(n, next, pos, d)
	return w.effects(ctx, d, r, byOffset)
}

// accepted moves the worker's own view behind an accepted script.
func (w *worker) accepted(n int, next int64, pos map[string]int64, d *decision) {
	w.buf = w.buf[n:]
	high := w.m.applied + w.lag.Load()
	w.m.applied, w.highest = next, next
	w.setLag(high)
	maps.Copy(w.pos, pos)
	w.s.metrics.records.Add(float64(n))
	w.s.metrics.batches.Inc()
	if d.accepted != nil {
		d.accepted()
	}
}

// effects publishes the outputs and brings the moves home, in memory where the slot held nothing else.
func (w *worker) effects(ctx context.Context, d *decision, r commitResult, byOffset map[int64]*Record) error {
	w.m.nextMov = r.firstMov + int64(len(d.moves))
	if w.s.quiet {
		return nil
	}
	if r.firstSeq != r.pubSeq {
		return w.drain(ctx) // outputs of foreign moves stand in front
	}
	if err := w.publish(ctx, d.outputs, r.firstSeq, byOffset); err != nil {
		return err
	}
	if len(d.outputs) > 0 {
		w.pub = r.firstSeq + int64(len(d.outputs))
	}
	for i, m := range d.moves {
		m.seq = r.firstMov + int64(i)
		if err := w.s.dec.home(ctx, w.slot, m); err != nil {
			return fmt.Errorf("bring move %d of %s home: %w", m.seq, m.origin, err)
		}
		w.s.metrics.moves.Inc()
		w.mov = m.seq + 1
	}
	if len(w.buf) == 0 && (w.pub > 0 || w.mov > 0) {
		return w.trim(ctx) // nothing follows that would carry it, and the fence waits for it
	}
	return nil
}

// trim tells the slot what is done.
func (w *worker) trim(ctx context.Context) error {
	if _, err := w.slot.commit(ctx, commitArgs{pub: w.pub, mov: w.mov, expect: trimOnly}); err != nil {
		return err
	}
	w.pub, w.mov = 0, 0
	return nil
}

// idle looks for what foreign moves left in the outbox.
func (w *worker) idle(ctx context.Context) error {
	if w.pub > 0 || w.mov > 0 {
		return w.trim(ctx)
	}
	m, _, err := w.slot.load(ctx)
	if err != nil {
		return err
	}
	switch {
	case m.inc != w.slot.inc || m.marked:
		w.loaded = false // it was rebuilt, or is being rebuilt
	case m.fresh || m.applied < w.m.applied:
		return fmt.Errorf("%w: slot %s went back from %d to %d", ErrStateLost, w.slot.tag, w.m.applied, m.applied)
	case m.applied > w.m.applied:
		w.loaded = false // another owner has gone on
	case m.nextSeq > m.pubSeq:
		return w.drain(ctx)
	}
	return nil
}

// filter reads headers and drops what rule 1 drops. Records whose headers can not be read are poison.
func (w *worker) filter(recs []stream.Record) (batch []Record, rejects []Output, pos map[string]int64, err error) {
	pos = map[string]int64{}
	for _, sr := range recs {
		r, err := parseRecord(sr)
		if errors.Is(err, topic.ErrNewerSchema) {
			return nil, nil, nil, fmt.Errorf("offset %d: %w", sr.Offset, err)
		}
		if err != nil {
			rejects = append(rejects, Reject(Record{Record: sr}, w.s.opt.Stage, "invalid_header", err, w.s.opt.Topics))
			continue
		}
		if r.Position.Stage != "" {
			src := r.Position.Source()
			last, ok := pos[src]
			if !ok {
				last, ok = w.pos[src]
			}
			if ok && r.Position.Seq <= last {
				w.s.metrics.repeated.Inc()
				continue
			}
			pos[src] = r.Position.Seq
		}
		batch = append(batch, r)
	}
	return batch, rejects, pos, nil
}

func parseRecord(sr stream.Record) (Record, error) {
	r := Record{Record: sr, Kind: topic.KindEvent}
	if k, ok := topic.Get(sr.Headers, topic.HeaderKind); ok {
		r.Kind = topic.Kind(k)
	}
	if p, ok := topic.Get(sr.Headers, topic.HeaderPosition); ok {
		pos, err := topic.ParsePosition(p)
		if err != nil {
			return r, err
		}
		r.Position = pos
	}
	m, err := topic.ParseMeta(sr.Headers)
	r.Meta = m
	return r, err
}
