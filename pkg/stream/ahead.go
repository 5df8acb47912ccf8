package stream

import (
	"context"
	"fmt"
	"time"
)

// The part of a Fetcher that its puller calls. The lock of the client's pulls is held throughout.

// want has the next answer asked for, in the next request to the leader.
func (f *Fetcher) want(now time.Time) {
	f.state = wanted
	p := f.c.puller(f.leader)
	p.waiting = append(p.waiting, f)
	p.kick(now)
}

// patience is how long a broker may wait for data.
func (f *Fetcher) patience(now time.Time) time.Duration {
	if f.listening {
		return max(f.deadline.Sub(now), 0)
	}
	return max(f.maxWait, 0)
}

// settle takes an answer, to hand it over or to keep it. What brings neither records nor an error is asked for
// again while somebody waits for it.
func (f *Fetcher) settle(item pulled, now time.Time) {
	f.state = resting
	switch {
	case f.closed:
		return
	case item.from != f.at: // the fetcher was set back meanwhile
		item.err, item.data, item.answered = nil, item.data[:0], false
	case item.err != nil:
		f.leader = noLeader
	case item.answered && len(item.data) == 0 && item.from < item.stable:
		// There are records, and not one batch came: the next one is larger than asked for, and another
		// partition's came in the same answer.
		item.err = f.grow()
	}
	over := item.answered && f.deadline.Sub(now) < emptyPause
	switch {
	case f.listening && (item.err != nil || len(item.data) > 0 || over):
		f.deliver(item, now)
	case item.err != nil || len(item.data) > 0:
		f.ahead, f.state = item, ready
	default:
		f.recycle(item)
		if f.listening {
			f.want(now)
		}
	}
}

// deliver makes an answer the one that is read, and has the one behind it asked for. So the fetchers that got
// their answers together ask together again, however long their users take.
func (f *Fetcher) deliver(item pulled, now time.Time) {
	f.recycle(f.cur)
	item.f = f
	f.cur, f.listening = item, false
	if item.err == nil {
		f.at = item.behind
		f.want(now)
	}
	f.arrived <- struct{}{}
}

// recycle keeps the memory of an answer for the next request.
func (f *Fetcher) recycle(item pulled) {
	if n := cap(item.data); n > cap(f.spare.data) && n <= keptBytes {
		f.spare = pulled{data: item.data[:0], aborted: item.aborted[:0]}
	}
}

// grow asks for more from now on.
func (f *Fetcher) grow() error {
	if f.maxBytes >= maxFetchBytes {
		return fmt.Errorf("%w: a batch is larger than %d bytes", ErrPermanent, maxFetchBytes)
	}
	f.maxBytes = min(2*f.maxBytes, maxFetchBytes)
	return nil
}

// restart sets the fetcher back to behind what it returned. more: it has to ask for more bytes.
func (f *Fetcher) restart(more bool) {
	f.c.pulls.Lock()
	defer f.c.pulls.Unlock()
	f.cur.f = nil
	f.at = f.next
	if f.state == ready {
		f.recycle(f.ahead)
		f.ahead, f.state = pulled{}, resting
	}
	if more {
		if err := f.grow(); err != nil {
			f.ahead, f.state = pulled{from: f.at, err: err}, ready
		}
	}
}

// sleep pauses; false means that ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
