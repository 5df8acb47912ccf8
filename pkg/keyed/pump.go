package keyed

import (
	"context"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

// fetchWait is how long one fetch waits for input. It may be long: the worker does not wait inside of it.
const fetchWait = time.Second

// fetched is what one fetch came to.
type fetched struct {
	stream.Batch
	err error
}

// pump fetches beside the worker, a batch at a time and only when asked: what it returned last is valid until
// it is asked again.
type pump struct {
	want   chan struct{}
	got    chan fetched
	asked  time.Time // zero: nothing is under way
	cancel context.CancelFunc
	done   chan struct{}
}

func newPump(ctx context.Context, f *stream.Fetcher) *pump {
	ctx, cancel := context.WithCancel(ctx)
	p := &pump{want: make(chan struct{}, 1), got: make(chan fetched, 1), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer f.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case <-p.want:
			}
			b, err := f.Fetch(ctx, fetchWait)
			p.got <- fetched{b, err} // there is room: one is asked for at a time
		}
	}()
	return p
}

// ask has a batch fetched, unless one is under way, and says since when it is.
func (p *pump) ask() time.Time {
	if p.asked.IsZero() {
		p.asked = time.Now()
		p.want <- struct{}{}
	}
	return p.asked
}

// close ends the fetch under way and waits for it. It may be called more than once.
func (p *pump) close() {
	p.cancel()
	<-p.done
}
