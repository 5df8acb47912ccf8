package keyed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

const (
	// stuckFirst and stuckMax bound the doubling pause before a merge that panicked is tried again: it heals with
	// a new binary, or with what another record makes of the state.
	stuckFirst = time.Second
	stuckMax   = 5 * time.Minute
	// stuckOrigins bounds the keys of one partition whose merge may be stuck while the rest goes on. So many are
	// no odd state any more but a defect that strikes at random: the partition is held.
	stuckOrigins = 1000
)

// stuckError says that the payload of an origin can not be merged. Its target must be marked (block).
type stuckError struct {
	origin string
	err    error
}

func (e *stuckError) Error() string {
	return fmt.Sprintf("state of %s can not be merged: %v", e.origin, e.err)
}

func (e *stuckError) Unwrap() error { return e.err }

// stuck is the origins of a slot whose moves wait. Their order is kept: the payload first, then what is late.
type stuck struct {
	origins map[string]struct{}
	first   int64 // the earliest move that waits
	until   time.Time
	delay   time.Duration
}

func (s *stuck) any() bool { return len(s.origins) > 0 }

// below is how far the moves may be trimmed when those below seq were met.
func (s *stuck) below(seq int64) int64 {
	if s.any() {
		return min(seq, s.first)
	}
	return seq
}

// again begins a pass over all moves.
func (s *stuck) again() { s.origins, s.first = nil, 0 }

// pause ends the pass: the next one is due after a while, if there is anything to try.
func (s *stuck) pause() {
	if !s.any() {
		s.delay = 0
		return
	}
	s.delay = min(max(2*s.delay, stuckFirst), stuckMax)
	s.until = time.Now().Add(s.delay)
}

// add notes that a move waits.
func (s *stuck) add(m *move) {
	if !s.any() {
		s.origins, s.first = map[string]struct{}{}, m.seq
		s.until = time.Now().Add(max(s.delay, stuckFirst))
	}
	s.origins[m.origin] = struct{}{}
	s.first = min(s.first, m.seq)
}

// bringHome brings a move home, or leaves it in the slot if its origin is stuck; then its target is marked. The
// commit that lets the fence pass comes after.
func (w *worker) bringHome(ctx context.Context, m *move) error {
	if _, waits := w.stuck.origins[m.origin]; waits {
		w.stuck.add(m)
		return w.s.dec.block(ctx, w.slot, m)
	}
	err := w.s.dec.home(ctx, w.slot, m)
	var s *stuckError
	switch {
	case errors.As(err, &s) && len(w.stuck.origins) < stuckOrigins:
		w.s.poison.report(reasonMergePanic, err, zap.String("origin", m.origin))
		w.stuck.add(m)
		w.s.metrics.stuck.WithLabelValues(w.label).Set(float64(len(w.stuck.origins)))
		return w.s.dec.block(ctx, w.slot, m)
	case err != nil:
		return fmt.Errorf("bring move %d of %s home: %w", m.seq, m.origin, err)
	}
	w.s.metrics.moves.Inc()
	return nil
}
