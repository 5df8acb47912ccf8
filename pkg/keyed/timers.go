package keyed

import (
	"context"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/store"
)

const (
	// timersPerBatch bounds the timers that fire in one script, for the same reason as defaultBatchRecords.
	timersPerBatch = 500
	// ticketsPerLook bounds the due timers that one look takes tickets for, and so what a partition remembers of
	// them, however many are due: about a megabyte. They share a walk of the fence, so more is also faster.
	ticketsPerLook = 8192
	// ticketsLow is where the next look is taken: before the last timers of the former have fired, so that
	// those that came due meanwhile wait for one walk only.
	ticketsLow = 2 * timersPerBatch
	// lookUnderLoad is how often the index is looked at while records keep coming, for timers that moves of
	// other partitions have brought. Its owner knows of its own.
	lookUnderLoad = 200 * time.Millisecond
	// asideFirst and asideMax bound the doubling pause before a timer that panicked is tried again.
	asideFirst = time.Second
	asideMax   = 5 * time.Minute
	// asideKeys bounds the keys whose pauses are remembered; a further one starts with asideFirst each time.
	asideKeys = 10_000
)

// cohort is the timers that one look found due. One ticket serves all: they fire behind the walk, for what
// was due at seen.
type cohort struct {
	seen  time.Time // by Deps.Now, read before the ticket was taken
	began time.Time // by the real clock
	walk  int64
	keys  []string
}

// firing is a timer whose ticket's walk has ended.
type firing struct {
	key   string
	seen  time.Time
	due   time.Time // what it was due for; zero: it did not fire
	aside bool      // it panicked, or waits for a merge: its index entry is put off
}

// timers are what the owner of a partition knows of its timers' index.
type timers struct {
	fence   *Fence
	next    time.Time // nothing that is not ticketed is due before; zero: not known
	looked  time.Time // by the real clock
	cohorts []cohort
	held    map[string]struct{} // keys of all cohorts
	aside   map[string]time.Duration
	firing  []firing // of this batch
}

func newTimers(f *Fence) *timers {
	if f == nil {
		return nil
	}
	return &timers{fence: f, held: map[string]struct{}{}, aside: map[string]time.Duration{}}
}

// wants says whether the index should be looked at now: because something is due, or because moves of other
// partitions may have brought something, for which it looks along with a batch or with the look at the slot.
func (t *timers) wants(now time.Time, along bool) bool {
	if t == nil || len(t.held) > ticketsLow {
		return false
	}
	return !t.next.After(now) || along && time.Since(t.looked) > lookUnderLoad
}

// dueQuery asks what is due, and when the first after that will be.
type dueQuery struct{ due, later *store.Reply }

func (t *timers) ask(ctx context.Context, p *store.Pipe, slot *Slot, now time.Time) dueQuery {
	key, at := slot.timersKey(), now.UnixMilli()
	return dueQuery{
		due:   p.Do(ctx, "ZRANGEBYSCORE", key, "-inf", at, "LIMIT", 0, ticketsPerLook),
		later: p.Do(ctx, "ZRANGEBYSCORE", key, fmt.Sprintf("(%d", at), "+inf", "WITHSCORES", "LIMIT", 0, 1),
	}
}

// farAway stands for no timer at all.
var farAway = time.UnixMilli(1 << 52)

// learn takes tickets for what a look found due and has none yet.
func (t *timers) learn(q dueQuery, now time.Time) {
	t.looked = time.Now()
	t.next = farAway
	if vs := q.later.Slice(); len(vs) == 2 {
		t.next = time.UnixMilli(vs[1].Int())
	}
	due := q.due.Slice()
	if len(due) == ticketsPerLook {
		t.next = now // there are more
	}
	var keys []string
	for _, v := range due {
		k, ok := v.Text()
		if !ok {
			continue
		}
		if _, has := t.held[k]; !has {
			t.held[k] = struct{}{}
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		// The clock was read (now) before the ticket is taken, so the walk begins after it.
		t.cohorts = append(t.cohorts, cohort{seen: now, began: t.looked, walk: t.fence.Ticket(), keys: keys})
	}
}

// ripe returns timers whose walk has ended, at most timersPerBatch. They stay in their cohorts until fired.
func (t *timers) ripe() []firing {
	if t == nil {
		return nil
	}
	t.firing = t.firing[:0]
	done := t.fence.Done()
	for i := range t.cohorts {
		c := &t.cohorts[i]
		if c.walk > done {
			break
		}
		for _, k := range c.keys {
			if len(t.firing) == timersPerBatch {
				return t.firing
			}
			t.firing = append(t.firing, firing{key: k, seen: c.seen})
		}
	}
	return t.firing
}

// fired forgets what ripe returned last: it has fired, or is due no more, or was put off.
func (t *timers) fired() {
	n := len(t.firing)
	for i := range t.firing {
		delete(t.held, t.firing[i].key)
	}
	for n > 0 {
		c := &t.cohorts[0]
		k := min(n, len(c.keys))
		c.keys, n = c.keys[k:], n-k
		if len(c.keys) == 0 {
			t.cohorts = t.cohorts[1:]
		}
	}
	t.firing = t.firing[:0]
}

// written notes that the index has a timer from now on.
func (t *timers) written(due time.Time) {
	if t != nil && !due.IsZero() && due.Before(t.next) {
		t.next = due
	}
}

// putOff is how long a timer that can not fire now is put off, longer each time.
func (t *timers) putOff(key string) time.Duration {
	d := min(max(2*t.aside[key], asideFirst), asideMax)
	if _, ok := t.aside[key]; ok || len(t.aside) < asideKeys {
		t.aside[key] = d
	}
	return d
}

// healed notes that a key's timer has fired or is gone.
func (t *timers) healed(key string) {
	if t != nil && len(t.aside) > 0 {
		delete(t.aside, key)
	}
}

// waiting is since when the oldest timer waits for its walk; zero: none does.
func (t *timers) waiting() time.Time {
	if t == nil || len(t.cohorts) == 0 || t.cohorts[0].walk <= t.fence.Done() {
		return time.Time{}
	}
	return t.cohorts[0].began
}

// ready says whether a timer may fire now.
func (t *timers) ready() bool {
	return t != nil && len(t.cohorts) > 0 && t.cohorts[0].walk <= t.fence.Done()
}

// ended is closed when the next walk ends; nil, which blocks, if no timer waits for one.
func (t *timers) ended() <-chan struct{} {
	if t == nil || len(t.cohorts) == 0 {
		return nil
	}
	return t.fence.ended()
}
