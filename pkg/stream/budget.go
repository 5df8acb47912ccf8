package stream

import (
	"context"
	"sync"
)

// budget is a bounded number of bytes, given out in the order of asking.
type budget struct {
	mu    sync.Mutex
	free  int
	total int
	queue []*ticket
}

type ticket struct {
	n     int
	ready chan struct{}
}

func newBudget(n int) *budget { return &budget{free: n, total: n} }

// take waits until n bytes are free; a request for more than there are waits for all of them.
func (b *budget) take(ctx context.Context, n int) error {
	b.mu.Lock()
	n = min(n, b.total)
	if len(b.queue) == 0 && b.free >= n {
		b.free -= n
		b.mu.Unlock()
		return nil
	}
	t := &ticket{n: n, ready: make(chan struct{})}
	b.queue = append(b.queue, t)
	b.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-t.ready: // it came at the same time
		b.free += n
	default:
		for i, q := range b.queue {
			if q == t {
				b.queue = append(b.queue[:i], b.queue[i+1:]...)
				break
			}
		}
	}
	b.serve()
	return context.Cause(ctx)
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += min(n, b.total)
	b.serve()
}

func (b *budget) serve() {
	for len(b.queue) > 0 && b.free >= b.queue[0].n {
		b.free -= b.queue[0].n
		close(b.queue[0].ready)
		b.queue = b.queue[1:]
	}
}
