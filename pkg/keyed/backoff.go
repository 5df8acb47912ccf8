package keyed

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// holdMin and holdMax bound the pause before a held partition is tried again: short enough that a
	// blip costs little, long enough that an outage is not made worse.
	holdMin = 50 * time.Millisecond
	holdMax = 5 * time.Second
)

// backoff is a capped, jittered, doubling pause. The zero value is ready.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

// wait pauses; false means that ctx ended first.
func (b *backoff) wait(ctx context.Context) bool {
	b.last = min(max(2*b.last, holdMin), holdMax)
	half := b.last / 2
	t := time.NewTimer(half + rand.N(half)) //nolint:gosec // jitter needs no secrecy
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
