// Package skew finds out by how much the clock of a device is off.
//
// It owns: when a difference between the time of sending and the time of receipt is a clock that is wrong, and when
// it is only a request that had to wait. It guarantees that a wait never moves an event, that events of one device
// stay in the order of its clock, and that its memory is bounded. It does no I/O, takes the clock as an argument,
// and must not know events or sources.
package skew

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// MaxDevices is how many devices with a wrong clock are remembered: 100 bytes each. One that is forgotten is found
// out about again.
const MaxDevices = 100_000

// agreement is how much two waits may differ and still be taken for one wrong clock: what networks add or save
// from one request to the next.
const agreement = 5 * time.Second

// Clocks knows the clocks of devices. Safe for concurrent use.
//
// A request's receipt less its sentAt is the clock's error and the time that it waited, which is never negative:
// SDKs send a request again, after minutes, with the old sentAt. So the smallest difference is the truest, a
// clock that is ahead proves itself at once, and one that is behind only by two requests, at least the threshold
// apart, that differ from their receipt by the same.
type Clocks struct {
	threshold time.Duration
	seed      maphash.Seed
	known     atomic.Bool // there is a device with a wrong clock

	mu         sync.Mutex
	young, old map[uint64]*clock // by device; old is forgotten when young is full
}

// clock is what is known of one device.
type clock struct {
	skew  time.Duration // to be added to its time; 0: none is proven
	maybe time.Duration // a difference that may be a wait
	since time.Time     // receipt of the request with it; zero: there is none
	// at is the latest time by the device's clock, and what became of it.
	at, corrected time.Time
}

// New makes Clocks that leave differences of up to threshold alone; 0: all.
func New(threshold time.Duration) *Clocks {
	return &Clocks{threshold: threshold, seed: maphash.MakeSeed(), young: map[uint64]*clock{}}
}

// Skew is what is to be added to a device's time at, for an event of a request that the device sent at sent by its
// clock. Devices are told apart within their source. Whole milliseconds.
func (c *Clocks) Skew(source, device string, at, sent, received time.Time) time.Duration {
	if c.threshold <= 0 || device == "" || sent.IsZero() || at.IsZero() {
		return 0
	}
	diff := received.Sub(sent)
	wrong := diff.Abs() > c.threshold
	if !wrong && !c.known.Load() { // nearly always
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.find(maphash.Comparable(c.seed, [2]string{source, device}), wrong)
	if k == nil {
		return 0
	}
	k.learn(diff, received, c.threshold)
	skew := k.skew
	if !wrong { // its clock is right now, or set right
		skew = 0
	}
	return k.inOrder(at, skew.Truncate(time.Millisecond))
}

// learn takes one difference in.
func (k *clock) learn(diff time.Duration, received time.Time, threshold time.Duration) {
	switch {
	case (diff - k.skew).Abs() <= threshold: // as known
		k.since = time.Time{}
	case diff < k.skew: // no wait makes it smaller
		k.skew, k.since = settled(diff, threshold), time.Time{}
	case k.since.IsZero() || (diff-k.maybe).Abs() > agreement:
		k.maybe, k.since = diff, received
	case received.Sub(k.since) >= threshold:
		k.skew, k.since = settled(min(diff, k.maybe), threshold), time.Time{}
	}
}

// settled is no skew at all where it is within the threshold.
func settled(skew, threshold time.Duration) time.Duration {
	if skew.Abs() <= threshold {
		return 0
	}
	return skew
}

// inOrder is skew, or what leaves the order of the device's clock: when the skew is found to be another than before,
// a later event must not come before an earlier one.
func (k *clock) inOrder(at time.Time, skew time.Duration) time.Duration {
	to := at.Add(skew)
	switch {
	case k.at.IsZero() || !at.Before(k.at) && !to.Before(k.corrected):
		k.at, k.corrected = at, to
	case !at.Before(k.at):
		k.at = at
		return k.corrected.Sub(at)
	case to.After(k.corrected):
		return k.corrected.Sub(at)
	}
	return skew
}

// find returns a device's clock, and makes one if add says so.
func (c *Clocks) find(id uint64, add bool) *clock {
	if k := c.young[id]; k != nil {
		return k
	}
	k := c.old[id]
	if k == nil && !add {
		return nil
	}
	if k == nil {
		k = &clock{}
	}
	if len(c.young) >= MaxDevices/2 {
		c.young, c.old = map[uint64]*clock{}, c.young
	}
	c.young[id] = k
	c.known.Store(true)
	return k
}
