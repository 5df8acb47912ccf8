package collector

import (
	"math"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
)

// bucket bounds the events of one source in the long run: a token bucket that may go into debt. A request is let in while
// there is a token at all and takes one for each of its events, so a batch larger than the bucket passes too, and is
// paid for by waiting afterwards. Safe for concurrent use; nil: no limit.
type bucket struct {
	perSecond, burst float64

	mu     sync.Mutex
	tokens float64
	at     time.Time
}

func newBucket(r config.SourceRate) *bucket {
	if r.EventsPerSecond == 0 {
		return nil
	}
	b := &bucket{perSecond: float64(r.EventsPerSecond), burst: float64(r.Burst)}
	if b.burst == 0 {
		b.burst = b.perSecond
	}
	b.tokens = b.burst
	return b
}

// take spends n tokens and returns 0, or how long it takes until there is one; then nothing is spent.
func (b *bucket) take(n int, now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.tokens = math.Min(b.burst, b.tokens+passed*b.perSecond)
		b.at = now
	}
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) / b.perSecond * float64(time.Second))
	}
	b.tokens -= float64(n)
	return 0
}

// give gives back n tokens that were spent on events which could not be stored: they will come again.
func (b *bucket) give(n int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = math.Min(b.burst, b.tokens+float64(n))
}
