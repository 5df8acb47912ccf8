package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// defaultQueuedBytes bounds what waits in a batcher: some 70 full requests.
	defaultQueuedBytes = 64 << 20
	// defaultDrain is how long a batcher that ends goes on with what was handed to it.
	defaultDrain = 5 * time.Second
)

// BatcherOptions tune a Batcher; the zero value is right for most.
type BatcherOptions struct {
	MaxQueuedBytes int           // keys, values and headers that wait or are in flight; 0: 64 MiB. Send waits for room.
	Drain          time.Duration // how long Run goes on after its context ended, for what waits; 0: 5 s
}

// Batcher gathers the records of many goroutines into produce requests, one in flight per partition: while
// one is on its way, what comes gathers for the next. So a lone record goes at once, and under load requests
// grow by themselves; there is no linger time to choose.
type Batcher struct {
	c     *Client
	topic string
	drain time.Duration
	room  *budget
	lanes []*batchLane
}

// batchLane is the queue of one partition.
type batchLane struct {
	mu     sync.Mutex
	queue  []*pending
	closed bool
	wake   chan struct{} // holds a token when there is something to look at
}

// pending is one record on its way. Its fields are guarded by the lane's mutex.
type pending struct {
	rec    Record
	size   int
	call   *call
	flight *flight // nil while it is queued
	done   bool    // answered, or given up before it was sent
	stored bool    // Kafka has acknowledged it
	gone   bool    // given up in flight
}

// flight is one produce call; when nobody waits for any of its records, it is cancelled.
type flight struct {
	waiting int
	cancel  context.CancelFunc
}

// call is one Send or SendAll: it waits for all of its records.
type call struct {
	mu   sync.Mutex
	left int
	err  error
	done chan struct{}
}

func (k *call) settle(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
	if k.left--; k.left == 0 {
		close(k.done)
	}
}

// NewBatcher makes a batcher for a topic with that many partitions; Run starts it.
func (c *Client) NewBatcher(topicName string, partitions int, opt BatcherOptions) *Batcher {
	if opt.MaxQueuedBytes <= 0 {
		opt.MaxQueuedBytes = defaultQueuedBytes
	}
	if opt.Drain <= 0 {
		opt.Drain = defaultDrain
	}
	b := &Batcher{c: c, topic: topicName, drain: opt.Drain, room: newBudget(opt.MaxQueuedBytes), lanes: make([]*batchLane, partitions)}
	for p := range b.lanes {
		b.lanes[p] = &batchLane{wake: make(chan struct{}, 1)}
	}
	return b
}

// Run sends until ctx ends; then new calls are refused with ErrClosed, and what was handed over before is
// still sent, for at most the drain time. It returns nil.
func (b *Batcher) Run(ctx context.Context) error {
	sending, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var lanes sync.WaitGroup
	for p, l := range b.lanes {
		lanes.Add(1)
		go func() {
			defer lanes.Done()
			b.run(ctx, sending, p, l)
		}()
	}
	<-ctx.Done()
	timer := time.AfterFunc(b.drain, func() { cancel(fmt.Errorf("batcher of %s: %w before this was sent", b.topic, ErrClosed)) })
	defer timer.Stop()
	lanes.Wait()
	return nil
}

// Send is SendAll of one record.
func (b *Batcher) Send(ctx context.Context, key, value []byte, hs []topic.Header) error {
	return b.SendAll(ctx, []Record{{Key: key, Value: value, Headers: hs}})
}

// SendAll hands over records and waits until Kafka has acknowledged all of them; only then it returns nil.
// The key picks the partition; records with a nil key are spread. Records of one call and partition keep
// their order. When ctx ends first, what has not been sent will not be; what was on its way may have been
// written. Keys, values and headers must not be changed until it returns; if it returned because ctx ended,
// not at all.
func (b *Batcher) SendAll(ctx context.Context, recs []Record) error {
	if len(recs) == 0 {
		return nil
	}
	k := &call{left: len(recs), done: make(chan struct{})}
	sent := make([]*pending, 0, len(recs))
	parts := make([]int, 0, len(recs))
	giveUp := func(err error) error {
		some := &UnacknowledgedError{Acknowledged: make([]bool, len(recs)), Err: err}
		for i, p := range sent {
			some.Acknowledged[i] = b.abandon(b.lanes[parts[i]], p)
		}
		return fmt.Errorf("send %d records to %s: %w", len(recs), b.topic, some)
	}
	for i := range recs {
		p := &pending{rec: recs[i], size: recordSize(&recs[i], 0), call: k}
		if err := b.room.take(ctx, p.size); err != nil {
			return giveUp(err)
		}
		part := PartitionFor(p.rec.Key, len(b.lanes))
		if !b.lanes[part].push(p) {
			b.room.give(p.size)
			return giveUp(ErrClosed)
		}
		sent, parts = append(sent, p), append(parts, part)
	}
	select {
	case <-k.done:
		if k.err != nil {
			return fmt.Errorf("send %d records to %s: %w", len(recs), b.topic, k.err)
		}
		return nil
	case <-ctx.Done():
		return giveUp(context.Cause(ctx))
	}
}

func (l *batchLane) push(p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.queue = append(l.queue, p)
	l.signal()
	return true
}

func (l *batchLane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// UnacknowledgedError is why a call to SendAll was given up, and what Kafka had acknowledged of it.
type UnacknowledgedError struct {
	Acknowledged []bool // of each record of the call
	Err          error
}

func (e *UnacknowledgedError) Error() string { return e.Err.Error() }

// Unwrap gives why.
func (e *UnacknowledgedError) Unwrap() error { return e.Err }

// abandon gives up on a record that nobody waits for any more. One in flight goes on, for the sake of the
// others in its request; when there are none, the request is cancelled. It says whether Kafka has it.
func (b *Batcher) abandon(l *batchLane, p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.done {
		return p.stored
	}
	if p.flight == nil {
		p.done = true // take leaves it out
		b.room.give(p.size)
		return false
	}
	p.gone = true
	if p.flight.waiting--; p.flight.waiting == 0 && p.flight.cancel != nil {
		p.flight.cancel()
	}
	return false
}

// run is the goroutine of one partition.
func (b *Batcher) run(ctx, sending context.Context, partition int, l *batchLane) {
	ended := ctx.Done()
	for {
		batch, f, last := b.take(l)
		switch {
		case len(batch) > 0:
			b.send(sending, partition, l, batch, f)
		case last:
			return
		default:
			select {
			case <-l.wake:
			case <-ended:
			}
		}
		if ended != nil && ctx.Err() != nil {
			ended = nil
			l.close()
		}
	}
}

// close refuses new records; those in the queue are still sent.
func (l *batchLane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.signal()
}

// maxDeltaSize is what the offset within the batch may add to a record's size.
const maxDeltaSize = 4

// send produces one batch and tells each caller its outcome.
func (b *Batcher) send(sending context.Context, partition int, l *batchLane, batch []*pending, f *flight) {
	recs := make([]Record, len(batch))
	for i, p := range batch {
		recs[i] = p.rec
	}
	ctx, cancel := context.WithCancel(sending)
	defer cancel()
	l.mu.Lock()
	f.cancel = cancel
	if f.waiting == 0 {
		cancel()
	}
	l.mu.Unlock()
	err := b.c.Produce(ctx, b.topic, partition, recs)
	var at *RecordError
	if errors.As(err, &at) {
		// Those before are written, the one is refused, and those behind it go into the next request.
		b.settle(l, batch[:at.Index], nil)
		b.settle(l, batch[at.Index:at.Index+1], err)
		b.putBack(l, batch[at.Index+1:])
		return
	}
	b.settle(l, batch, err)
}

func (b *Batcher) settle(l *batchLane, batch []*pending, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range batch {
		p.done, p.stored = true, err == nil
		b.room.give(p.size)
		p.call.settle(err)
	}
}

func (b *Batcher) putBack(l *batchLane, batch []*pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	back := make([]*pending, 0, len(batch)+len(l.queue))
	for _, p := range batch {
		if p.flight = nil; p.gone {
			p.done = true
			b.room.give(p.size)
			continue
		}
		back = append(back, p)
	}
	l.queue = append(back, l.queue...)
}
