package keyed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
)

var errRefused = errors.New("somebody else is writing this slot")

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
		if err := w.found(ctx); err != nil {
			return err
		}
		return w.recover(ctx)
	}
	if m.applied < w.claim.Offset || m.applied < w.highest {
		return fmt.Errorf("%w: slot %s is at %d, kafka's commit at %d, seen here %d", ErrStateLost, w.slot.tag, m.applied, w.claim.Offset, w.highest)
	}
	if told := toldWrites(w.claim.Metadata); m.writes < told || m.writes < w.writes {
		return fmt.Errorf("%w: slot %s has %d writes, kafka's commit knows of %d, seen here %d", ErrStateLost, w.slot.tag, m.writes, told, w.writes)
	}
	if err := w.s.verify(ctx); err != nil {
		return err
	}
	w.m, w.sources.last, w.highest, w.writes, w.vouched = m, pos, m.applied, m.writes, nil
	w.pub, w.mov = 0, 0
	w.close()
	w.pump = newPump(ctx, w.s.deps.Stream.NewFetcher(w.s.opt.Input, w.claim.Partition, m.applied, stream.FetchOptions{}))
	w.buf, w.bufNext = nil, m.applied
	if err := w.drain(ctx); err != nil {
		return err
	}
	if w.timers != nil {
		w.timers.next = time.Time{}
	}
	w.loaded, w.committed, w.recommit = true, -1, recommitMin
	w.lookAt, w.lookPause = time.Now().Add(lookMin), lookMin
	w.recovered.Store(true)
	return nil
}

// found makes a slot that was never there.
func (w *worker) found(ctx context.Context) error {
	if w.claim.Offset >= 0 || w.highest > 0 || w.writes > 0 { // a commit is only made once the slot exists
		return fmt.Errorf("%w: slot %s is missing, kafka's commit is %d", ErrStateLost, w.slot.tag, w.claim.Offset)
	}
	starts, err := w.s.deps.Stream.StartOffsets(ctx, w.s.opt.Input)
	if err != nil {
		return fmt.Errorf("%w: %w", errKafka, err)
	}
	if starts[w.claim.Partition] > 0 {
		w.log.Warn("log begins later than its first record", zap.Int64("offset", starts[w.claim.Partition]))
	}
	r, err := w.slot.commit(ctx, commitArgs{expect: "none", applied: strconv.FormatInt(starts[w.claim.Partition], 10)})
	if err != nil {
		return err
	}
	if !r.ok {
		return errRefused
	}
	return nil
}

// tidy commits and trims when nothing follows that would carry it, and the commit under load now and then.
func (w *worker) tidy(ctx context.Context) error {
	now := time.Now()
	quiet := len(w.buf) == 0 && now.Sub(w.activeAt) >= linger
	if quiet && (w.pub > 0 || w.mov > 0) {
		if err := w.trim(ctx); err != nil {
			return err
		}
	}
	since := now.Sub(w.committedAt)
	switch {
	case w.committed == w.m.applied:
		if since < w.recommit && (w.told == w.writes || since < tellEvery) {
			return nil
		}
		w.recommit = min(2*w.recommit, recommitMax)
	case !quiet && since < commitEvery:
		return nil
	default:
		w.recommit = recommitMin
	}
	return w.commit(ctx)
}

// toldPrefix begins the metadata of a commit, which is the slot's count of writes. Moves of others and timers are
// writes that the offset does not tell of.
const toldPrefix = "w="

// toldWrites reads the metadata of a commit. A binary of before the count left it empty: then nothing is known.
func toldWrites(metadata string) int64 {
	text, ok := strings.CutPrefix(metadata, toldPrefix)
	n, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil {
		return 0
	}
	return n
}

// commit tells Kafka how far the slot is, for the fence, and how much it has seen, for the next owner.
func (w *worker) commit(ctx context.Context) error {
	w.hold.wait(waitSend, time.Now())
	defer w.hold.wait(waitSend, time.Time{})
	if err := w.claim.Commit(ctx, w.m.applied, toldPrefix+strconv.FormatInt(w.writes, 10)); err != nil {
		return fmt.Errorf("commit %d: %w: %w", w.m.applied, errKafka, err)
	}
	w.committed, w.told, w.committedAt = w.m.applied, w.writes, time.Now()
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

// look sees what moves of others left in the slot, at growing intervals while nothing happens.
func (w *worker) look(ctx context.Context) error {
	now := time.Now()
	if w.stuck.any() && !now.Before(w.stuck.until) {
		return w.drain(ctx)
	}
	if now.Before(w.lookAt) || w.pub > 0 || w.mov > 0 {
		return nil
	}
	w.lookPause = min(2*w.lookPause, lookMax)
	w.lookAt = now.Add(w.lookPause)
	m, err := w.slot.meta(ctx)
	if err != nil {
		return err
	}
	switch {
	case m.inc != w.slot.inc || m.marked:
		w.loaded = false // it was rebuilt, or is being rebuilt
		return nil
	case m.fresh || m.applied < w.m.applied:
		return fmt.Errorf("%w: slot %s went back from %d to %d", ErrStateLost, w.slot.tag, w.m.applied, m.applied)
	case m.writes < w.writes:
		return fmt.Errorf("%w: slot %s went back from %d writes to %d", ErrStateLost, w.slot.tag, w.writes, m.writes)
	}
	w.writes = m.writes
	switch {
	case m.applied > w.m.applied:
		w.loaded = false // another owner has gone on
	case m.nextSeq > m.pubSeq:
		w.lookPause = lookMin
		return w.drain(ctx)
	}
	return nil
}
