package keyed

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Voucher is a Planner whose decisions stand on data that all partitions share, in hash slots of its own. A node of a
// Redis Cluster may go back that holds some of it and no slot of the stage, so that nothing which a slot counts shows it.
//
// What a process had seen of that data goes into the slot with each decision, in its script: the slot vouches for it,
// from another node or, if it went back as well, as Kafka's commit shows. All that the slots vouch for is compared with
// the data whenever a slot is taken over or read again, and every verifyEvery.
type Voucher interface {
	Planner
	// Vouch is what this process has seen of the data. It is asked behind Plan; the caller must not change it.
	Vouch() []byte
	// Verify compares the data with what slots vouch for, each as Vouch gave it in any process, nil where a slot vouches
	// for nothing. An error that wraps ErrStateLost stops the stage.
	Verify(ctx context.Context, vouched [][]byte) error
}

// verifyEvery spaces comparisons: for so long a process may go on that knows nothing of what was lost, because
// others had written it.
const verifyEvery = time.Second

// vouching is the comparing of one process.
type vouching struct {
	voucher Voucher // nil: the stage's slots hold all that it stands on
	begun   atomic.Int64
	turn    chan struct{} // holds the right to compare: one at a time
	passed  int64         // the latest comparison that found nothing wrong; with the turn
}

// verify compares what the slots vouch for with what is there. One that began since the call was made serves it too.
func (s *Stage) verify(ctx context.Context) error {
	v := &s.vouching
	if v.voucher == nil || s.quiet {
		return nil
	}
	asked := v.begun.Load()
	select {
	case v.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-v.turn }()
	if v.passed > asked {
		return nil
	}
	n := v.begun.Add(1)
	vouched, err := s.vouched(ctx)
	if err != nil {
		return err
	}
	if err := v.voucher.Verify(ctx, vouched); err != nil {
		return fmt.Errorf("what the slots of %s vouch for: %w", s.opt.Stage, err)
	}
	v.passed = n
	return nil
}

// vouched reads what each slot of the stage vouches for.
func (s *Stage) vouched(ctx context.Context) ([][]byte, error) {
	p := s.deps.Store.Pipe()
	all := make([][]byte, s.opt.Topics.Partitions)
	read := make([]func() []byte, len(all))
	for i := range all {
		read[i] = p.Do(ctx, "HGET", newSlot(s.deps.Store, s.opt.Topics, s.opt.Stage, i, s.script).metaKey(), "vouch").Bytes
	}
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read what the slots of %s vouch for: %w", s.opt.Stage, err)
	}
	for i := range all {
		all[i] = read[i]()
	}
	return all, nil
}

// watched runs the stage, and ends it when something that its slots vouch for is lost: also while it is idle, and while
// batches come that do not touch what was lost.
func (s *Stage) watched(ctx context.Context, run func(context.Context) error) error {
	if s.vouching.voucher == nil {
		return run(ctx)
	}
	ctx, end := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		t := time.NewTicker(verifyEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			err := s.verify(ctx)
			switch {
			case err == nil || ctx.Err() != nil:
			case stops(err):
				end(err)
			default: // the workers hold for the same reason, and say so
				s.deps.Log.Debug("what slots vouch for is not compared", zap.Error(err))
			}
		}
	})
	err := run(ctx)
	lost := context.Cause(ctx)
	end(nil)
	watch.Wait()
	if err == nil && lost != nil && stops(lost) {
		return lost
	}
	return err
}
