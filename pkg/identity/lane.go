package identity

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// lane is one strand of a batch: records that touch each other's components, worked on one after the other.
// Different lanes advance in step: each runs until it needs the store, and then what all of them need
// travels in one Load and one CompareAndSet. So linking a thousand new pairs costs a few round trips, not
// thousands. A lane knows nothing of the others: to the protocol they are just other resolvers.
type lane struct {
	yield func(*storeCall) bool
}

// storeCall is what a lane waits for: nodes to load, or a swap.
type storeCall struct {
	nodes  []Node
	values [][]byte
	swaps  []Swap
	done   []bool
}

// errStopped ends a lane because another one, or the store, has failed.
var errStopped = errors.New("batch stopped")

// Load implements Loader.
func (l *lane) Load(_ context.Context, nodes []Node) ([][]byte, error) {
	c := &storeCall{nodes: nodes}
	if !l.yield(c) {
		return nil, errStopped
	}
	return c.values, nil
}

// swaps does some compare-and-sets, in any order.
func (l *lane) swaps(_ context.Context, swaps []Swap) ([]bool, error) {
	c := &storeCall{swaps: swaps}
	if !l.yield(c) {
		return nil, errStopped
	}
	return c.done, nil
}

// runLanes runs works in step on store, until all have returned or something fails; then the others are
// ended where they stand, as by a crash.
func runLanes(ctx context.Context, store Store, works []func(*lane) error) error {
	type strand struct {
		next func() (*storeCall, bool)
		stop func()
	}
	var failed error
	strands := make([]strand, 0, len(works))
	for _, work := range works {
		next, stop := iter.Pull(func(yield func(*storeCall) bool) {
			if err := work(&lane{yield: yield}); err != nil && failed == nil {
				failed = err
			}
		})
		strands = append(strands, strand{next, stop})
	}
	defer func() {
		for _, s := range strands {
			s.stop()
		}
	}()
	calls := make([]*storeCall, 0, len(works))
	for {
		calls = calls[:0]
		running := strands[:0]
		for _, s := range strands {
			if c, ok := s.next(); ok {
				calls = append(calls, c)
				running = append(running, s)
			}
		}
		strands = running
		if failed != nil || len(calls) == 0 {
			return failed
		}
		if err := serve(ctx, store, calls); err != nil {
			failed = err
			return err
		}
	}
}

// serve answers calls with at most one Load and one CompareAndSet.
func serve(ctx context.Context, store Store, calls []*storeCall) error {
	var nodes []Node
	var swaps []Swap
	for _, c := range calls {
		swaps = append(swaps, c.swaps...)
		nodes = append(nodes, c.nodes...)
	}
	if len(nodes) > 0 {
		values, err := store.Load(ctx, nodes)
		if err != nil {
			return err
		}
		if len(values) != len(nodes) {
			return fmt.Errorf("asked for %d values, got %d", len(nodes), len(values))
		}
		for _, c := range calls {
			c.values, values = values[:len(c.nodes)], values[len(c.nodes):]
		}
	}
	if len(swaps) > 0 {
		done, err := store.CompareAndSet(ctx, swaps)
		if err != nil {
			return err
		}
		if len(done) != len(swaps) {
			return fmt.Errorf("asked for %d swaps, got %d answers", len(swaps), len(done))
		}
		for _, c := range calls {
			c.done, done = done[:len(c.swaps)], done[len(c.swaps):]
		}
	}
	return nil
}
