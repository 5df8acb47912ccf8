package keyed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
)

const (
	// lookMin and lookMax bound the doubling pause between two looks of an idle owner at its slot, where moves
	// of others leave timers and outputs. Its own process tells it of those that it brings; of another process
	// it learns within lookMax, or lookMin while there is work.
	lookMin = 100 * time.Millisecond
	lookMax = time.Second
	// linger is how long an owner waits for more before it tidies up behind a batch: it trims the slot and
	// commits to Kafka, for which the fence waits. Another batch within it carries both.
	linger = 25 * time.Millisecond
	// leaveTime is how long an owner that is told to go may take to trim its slot: a round trip or two.
	leaveTime = 500 * time.Millisecond
	// commitEvery spaces commits to Kafka under load: they serve the fence only.
	commitEvery = 50 * time.Millisecond
	// tellEvery spaces those that tell only of writes which leave the offset where it is, such as moves of others.
	tellEvery = 200 * time.Millisecond
	// recommitMin and recommitMax bound the doubling pause before the commit is repeated while idle, in case
	// an old one landed late and took it back.
	recommitMin = time.Second
	recommitMax = 5 * time.Second
)

// worker owns one partition for one claim. All of it but the atomics, the hold and the bell belongs to its
// goroutine.
type worker struct {
	s     *Stage
	slot  Slot
	claim *stream.Claim
	log   *zap.Logger
	label string // the partition, as a label of metrics

	pump    *pump
	buf     []stream.Record // fetched and not yet applied
	bufNext int64           // fetch position behind buf
	limit   int             // most records of the next batch, after a planner panicked; 0: BatchRecords

	loaded  bool
	m       meta
	highest int64  // highest applied offset ever seen here: going back is a loss,
	writes  int64  // and so it is for the count of writes
	vouched []byte // what the slot vouches for by this worker's doing
	sources sources
	pub     int64 // trim the outbox below this with the next script
	mov     int64
	stuck   stuck

	committed   int64 // last offset committed to Kafka, -1 unknown,
	told        int64 // and the count of writes with it
	committedAt time.Time
	recommit    time.Duration
	activeAt    time.Time // the last batch
	lookAt      time.Time // the next look at the slot
	lookPause   time.Duration
	went        bool // this turn has shown that nothing holds the partition

	timers  *timers // nil: the stage has none
	in      intake
	dec     decision
	args    commitArgs // of the batch, its memory used again
	pubs    publisher
	scratch any // of the decider
	hot     hotWatch

	lagGauge, hotShare, aside prometheus.Gauge

	hold      hold
	bell      chan struct{} // rung when a move of this process has come to the slot
	recovered atomic.Bool
	lag       atomic.Int64
}

func newWorker(s *Stage, cl *stream.Claim) *worker {
	label := strconv.Itoa(cl.Partition)
	return &worker{
		s: s, claim: cl, label: label, committed: -1, timers: newTimers(s.opt.Fence), bell: make(chan struct{}, 1),
		sources: sources{batch: map[string]int64{}},
		slot:    newSlot(s.deps.Store, s.opt.Topics, s.opt.Stage, cl.Partition, s.script),
		log:     s.deps.Log.With(zap.String("stage", s.opt.Stage), zap.Int("partition", cl.Partition)),

		lagGauge: s.metrics.lag.WithLabelValues(label), hotShare: s.metrics.hotShare.WithLabelValues(label),
		aside: s.metrics.aside.WithLabelValues(label),
	}
}

func (w *worker) close() {
	if w.pump != nil {
		w.pump.close()
	}
}

// leave tells the slot what is done, so that the next owner need not publish it again.
func (w *worker) leave(ctx context.Context) {
	if !w.loaded || w.pub == 0 && w.mov == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	if err := w.trim(ctx); err != nil {
		w.log.Debug("slot is left untrimmed", zap.Error(err)) // the next owner publishes again what readers drop
	}
}

func (w *worker) run(ctx context.Context) error {
	defer w.leave(ctx)
	var b backoff
	for ctx.Err() == nil {
		w.went = false
		err := w.turn(ctx)
		switch {
		case err == nil && w.went:
			b.reset()
			if d := w.hold.clear(); d > 0 {
				w.log.Info("partition goes on", zap.Duration("held", d))
			}
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, stream.ErrFenced):
			return nil // the group has gone on without this owner
		case stops(err):
			w.hold.set(holdReason(err), err)
			return fmt.Errorf("partition %d: %w: %w", w.claim.Partition, stream.ErrStop, err)
		default:
			w.loaded = false
			reason := holdReason(err)
			w.hold.set(reason, err)
			w.s.metrics.held.WithLabelValues(w.label).Inc()
			w.log.Warn("partition is held", zap.String("reason", reason), zap.Error(err))
			b.wait(ctx)
		}
	}
	return nil
}

// turn is one round: recover if need be, wait for something to do, tidy up, decide, write, publish.
func (w *worker) turn(ctx context.Context) error {
	if !w.loaded {
		w.hold.wait(waitRecover, time.Now())
		if err := w.recover(ctx); err != nil {
			return err
		}
		w.hold.wait(waitRecover, time.Time{})
		if err := w.commit(ctx); err != nil {
			return err
		}
	}
	if len(w.buf) == 0 {
		if err := w.await(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	if err := w.tidy(ctx); err != nil {
		return err
	}
	return w.step(ctx)
}

// await waits for input, a timer, the fence, or for when something is to be done.
func (w *worker) await(ctx context.Context) error {
	ended := w.timers.ended()
	wait := time.Until(w.wake())
	if w.timers.ready() {
		wait = 0
	}
	w.hold.wait(waitFence, w.timers.waiting())
	asked := w.pump.ask()
	w.hold.wait(waitFetch, asked)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case b := <-w.pump.got:
		w.pump.asked = time.Time{}
		w.hold.wait(waitFetch, time.Time{})
		if b.err != nil {
			return fmt.Errorf("fetch from %d: %w: %w", w.bufNext, errKafka, b.err)
		}
		w.buf, w.bufNext = b.Records, b.Next
		w.went = len(w.buf) == 0
		w.setLag(b.HighWatermark)
	case <-w.bell:
		w.lookAt = time.Time{}
	case <-ended:
	case <-t.C:
	case <-ctx.Done():
	}
	return nil
}

// wake is when there is something to do though nothing comes.
func (w *worker) wake() time.Time {
	at := w.lookAt
	if w.pub > 0 || w.mov > 0 {
		at = w.activeAt.Add(linger) // a look tells nothing before
	}
	if w.committed != w.m.applied {
		at = earlier(at, w.activeAt.Add(linger))
	}
	at = earlier(at, w.committedAt.Add(w.recommit))
	if w.told != w.writes {
		at = earlier(at, w.committedAt.Add(tellEvery))
	}
	if w.stuck.any() {
		at = earlier(at, w.stuck.until)
	}
	if w.timers != nil && len(w.timers.held) <= ticketsLow {
		at = earlier(at, time.Now().Add(w.timers.next.Sub(w.s.deps.Now())))
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (w *worker) setLag(high int64) {
	lag := max(0, high-w.m.applied)
	w.lag.Store(lag)
	w.lagGauge.Set(float64(lag))
}

// step takes a batch from the buffer, which may be empty, and brings it through.
func (w *worker) step(ctx context.Context) error {
	n := min(len(w.buf), w.s.opt.BatchRecords)
	if w.limit > 0 {
		n = min(n, w.limit)
	}
	next := w.bufNext
	if n < len(w.buf) {
		next = w.buf[n].Offset
	}
	now := w.s.deps.Now()
	if err := w.take(w.buf[:n]); err != nil {
		return err
	}
	w.dec.reset()
	if err := w.s.dec.decide(ctx, w, now); err != nil {
		return w.undecided(err)
	}
	w.dec.outputs = w.s.muted(slices.Insert(w.dec.outputs, 0, w.in.rejects...))
	if next == w.m.applied && len(w.dec.states) == 0 && len(w.dec.outputs) == 0 {
		w.settle(0, next, now)
		return w.look(ctx)
	}
	r, err := w.slot.commit(ctx, w.prepare(next))
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
	w.writes = max(w.writes, r.writes)
	if len(w.args.vouch) > 0 {
		w.vouched = w.args.vouch
	}
	w.settle(n, next, now)
	return w.effects(ctx, r)
}

// prepare makes the script's call of what was decided.
func (w *worker) prepare(next int64) commitArgs {
	d, a := &w.dec, &w.args
	*a = commitArgs{
		expect: strconv.FormatInt(w.m.applied, 10), applied: strconv.FormatInt(next, 10),
		pub: w.pub, mov: w.mov, states: d.states, pos: w.sources.batch,
		seenIDs: d.seenIDs, seenAt: d.seenAt, seenFor: d.seenWindow,
		outputs: a.outputs[:0], moves: a.moves[:0],
	}
	if !bytes.Equal(d.vouch, w.vouched) {
		a.vouch = d.vouch
	}
	for i := range d.outputs {
		o := &d.outputs[i]
		var in *Record
		if o.PassThrough {
			in = w.in.at(o.Offset)
		}
		at := len(d.arena)
		d.arena = appendOutput(d.arena, o, in)
		a.outputs = append(a.outputs, d.arena[at:len(d.arena):len(d.arena)])
	}
	for _, m := range d.moves {
		a.moves = append(a.moves, encodeMove(m))
	}
	return *a
}

// settle moves the worker's own view behind what was decided and accepted.
func (w *worker) settle(n int, next int64, now time.Time) {
	w.s.dec.accepted(w, now)
	if n == 0 && next == w.m.applied && len(w.dec.states) == 0 && len(w.dec.outputs) == 0 {
		return
	}
	w.went = true
	w.watchHot(&w.in)
	w.buf = w.buf[n:]
	high := w.m.applied + w.lag.Load()
	w.m.applied, w.highest = next, next
	w.setLag(high)
	maps.Copy(w.sources.last, w.sources.batch)
	w.s.metrics.records.Add(float64(n))
	w.s.metrics.batches.Inc()
	w.activeAt, w.lookPause = time.Now(), lookMin
	w.lookAt = earlier(w.lookAt, w.activeAt.Add(lookMin))
	if w.limit > 0 {
		if w.limit *= 2; w.limit >= w.s.opt.BatchRecords {
			w.limit = 0
		}
	}
}

// undecided judges an error of the decider. A planner that panicked is asked again with half of the batch, down
// to the record on which it does, which is rejected by the planner's decider.
func (w *worker) undecided(err error) error {
	var panicked *PanicError
	if n := len(w.in.recs); errors.As(err, &panicked) && n > 1 && !w.s.quiet {
		w.limit = n / 2
		return nil
	}
	return err
}
