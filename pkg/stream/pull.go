package stream

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

const (
	// gather is how long fetchers that begin to want data wait for others, if the newest request to their
	// broker has brought nothing yet. It bounds both the delay that this costs and the number of requests.
	gather = time.Millisecond
	// emptyPause keeps a broker that answers early with nothing from being asked in a tight loop.
	emptyPause = 5 * time.Millisecond
	// longPoll is the longest that a broker is asked to hold a request: what a cancelled Fetch has left behind
	// delays the next one by no more.
	longPoll = 500 * time.Millisecond
	// fetchSlack is what an answer may take beyond the wait that was asked for.
	fetchSlack = 10 * time.Second
	// readCommitted is the isolation level that gives the list of aborted transactions.
	readCommitted = 1
)

// pulls are the Fetch requests of a client. Its mutex guards the pullers and the part of each Fetcher that
// they share.
type pulls struct {
	sync.Mutex
	brokers map[int32]*puller
}

// puller asks one broker for what fetchers want from it: all that want something at a moment go out in one
// request. Those that begin to while it is on its way go out together in the next one, on another connection,
// as soon as the first has brought something, or after gather: a request that waits for an idle partition
// does not hold up a busy one. No fetcher is in two requests at once.
type puller struct {
	c         *Client
	broker    int32
	waiting   []*Fetcher
	notBefore time.Time // when the next request may go
	armed     bool      // a timer will look at waiting
	handing   bool      // an answer is being handed out, and its fetchers ask together
	idle      []*pull
}

// pull is one request on its way.
type pull struct {
	exchange
	sent     time.Time
	items    []pulled
	throttle time.Duration
	code     int16 // of the answer as a whole
	until    until
}

// until is a context with a deadline for the connection, which keeps it; there is no timer to be made.
type until struct {
	context.Context
	at time.Time
}

func (u *until) Deadline() (time.Time, bool) { return u.at, true }

// pulled is what one request asks for one fetcher, and then its answer. Its memory goes around: a fetcher has
// two, one that is read and one that is filled.
type pulled struct {
	f        *Fetcher
	from     int64 // offset asked for
	behind   int64 // offset behind the last whole batch, as the batch headers say
	high     int64 // high watermark
	stable   int64 // last stable offset: what is before it can be read
	answered bool
	err      error
	data     []byte
	aborted  []abortedTxn
}

// abortedTxn says that what a producer wrote from an offset on, up to its abort marker, does not count.
type abortedTxn struct{ producer, first int64 }

// puller returns the one of a broker. The lock is held.
func (c *Client) puller(broker int32) *puller {
	p, ok := c.pulls.brokers[broker]
	if !ok {
		p = &puller{c: c, broker: broker}
		c.pulls.brokers[broker] = p
	}
	return p
}

// kick sends what waits, or has it looked at when that may be sent. The lock is held.
func (p *puller) kick(now time.Time) {
	p.waiting = slices.DeleteFunc(p.waiting, func(f *Fetcher) bool { return f.closed })
	if len(p.waiting) == 0 || p.armed || p.handing {
		return
	}
	if wait := p.notBefore.Sub(now); wait > 0 {
		p.armed = true
		time.AfterFunc(wait, func() {
			p.c.pulls.Lock()
			defer p.c.pulls.Unlock()
			p.armed = false
			p.kick(time.Now())
		})
		return
	}
	q := p.pull()
	later := p.waiting[:0]
	for _, f := range p.waiting {
		if slices.ContainsFunc(q.items, func(i pulled) bool { return i.f.partition == f.partition && i.f.topic == f.topic }) {
			later = append(later, f) // brokers answer a partition once per request
			continue
		}
		item := f.spare
		f.spare = pulled{}
		f.state = flying
		item.f, item.from = f, f.at
		q.items = append(q.items, item)
	}
	clear(p.waiting[len(later):])
	p.waiting = later
	q.sent, p.notBefore = now, now.Add(gather)
	wait := q.encode(p, now)
	go p.run(q, wait+fetchSlack)
	p.kick(now)
}

func (p *puller) pull() *pull {
	if n := len(p.idle); n > 0 {
		q := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return q
	}
	q := &pull{exchange: exchange{key: protocol.Fetch, version: 11, route: toBroker(p.broker), metrics: p.c.wire.of(protocol.Fetch)}}
	q.read = q.parse
	return q
}

// encode writes the request. It returns how long the broker may wait for data: as long as the fetcher wants
// that has the least patience.
func (q *pull) encode(p *puller, now time.Time) time.Duration {
	slices.SortStableFunc(q.items, func(a, b pulled) int { return cmp.Compare(a.f.topic, b.f.topic) })
	wait := longPoll
	for i := range q.items {
		wait = min(wait, q.items[i].f.patience(now))
	}
	w := writer{b: q.frame[:0]}
	w.head(q.key, q.version, p.c.cfg.ClientID)
	w.int32(-1)                         // replica: a client
	w.int32(int32(wait.Milliseconds())) //nolint:gosec // at most longPoll
	w.int32(1)                          // answer as soon as there is anything
	w.int32(maxFetchBytes)              // of all partitions: each has its own limit
	w.int8(readCommitted)
	w.int32(0)  // no session
	w.int32(-1) // and none to be made
	topics := len(w.b)
	w.array(0)
	n := 0
	for i := 0; i < len(q.items); n++ {
		name, first := q.items[i].f.topic, i
		for i < len(q.items) && q.items[i].f.topic == name {
			i++
		}
		w.str(name)
		w.array(i - first)
		for j := first; j < i; j++ {
			f := q.items[j].f
			w.int32(f.partition)
			w.int32(noEpoch)
			w.int64(q.items[j].from)
			w.int64(-1) // log start: only replicas know one
			w.int32(f.maxBytes)
		}
	}
	putArray(w.b[topics:], n)
	w.array(0) // forgotten topics
	w.str("")  // rack
	seal(w.b)
	q.frame = w.b
	return wait
}

// run sends a request and hands its answer out.
func (p *puller) run(q *pull, timeout time.Duration) {
	q.until = until{p.c.base, q.sent.Add(timeout)}
	_, err := p.c.transport.RoundTrip(&q.until, p.c.addr, q)
	q.metrics.done(err)
	if err == nil {
		err = codeError(q.code)
	}
	if p.c.base.Err() != nil {
		err = ErrClosed
	}
	p.c.pulls.Lock()
	defer p.c.pulls.Unlock()
	now := time.Now()
	p.handing = true
	if err != nil {
		// What was given up on may still be written to by the connection: none of its memory is used again.
		for i := range q.items {
			q.items[i].f.settle(pulled{err: err, from: q.items[i].from}, now)
		}
		p.notBefore = now
	} else {
		p.handOut(q, now)
	}
	p.handing = false
	p.kick(now)
}

// handOut gives each fetcher its part of an answer, and says when the next request may go.
func (p *puller) handOut(q *pull, now time.Time) {
	nothing := true
	for _, item := range q.items {
		switch {
		case item.answered:
			nothing = nothing && item.err == nil && len(item.data) == 0
		case q.throttle == 0: // a broker that throttles leaves all out
			item.err = errMalformed
		}
		item.f.settle(item, now)
	}
	p.c.wire.throttle(q.throttle)
	switch {
	case q.throttle > 0:
		p.notBefore = now.Add(q.throttle)
	case !nothing:
		p.notBefore = now
	case q.sent.Add(emptyPause).After(p.notBefore):
		p.notBefore = q.sent.Add(emptyPause)
	}
	clear(q.items)
	q.items, q.throttle, q.code = q.items[:0], 0, 0
	p.idle = append(p.idle, q)
}

// parse reads a Fetch v11 answer, the records of each partition into the memory of its fetcher.
func (q *pull) parse(b *body) {
	q.throttle = time.Duration(b.int32()) * time.Millisecond
	q.code = b.int16()
	b.int32() // session
	at := 0
	for range b.array(6) {
		name := b.take(int(b.int16()))
		at = q.find(at, func(i *pulled) bool { return i.f.topic == string(name) })
		if at < 0 {
			b.fail()
			return
		}
		topicName := q.items[at].f.topic
		for range b.array(38) {
			partition := b.int32()
			at = q.find(at, func(i *pulled) bool { return i.f.partition == partition && i.f.topic == topicName })
			if at < 0 {
				b.fail()
				return
			}
			q.items[at].parse(b)
		}
	}
}

// find looks for an item from one on, around to it: brokers mostly answer in the order they were asked. -1: none.
func (q *pull) find(from int, is func(*pulled) bool) int {
	for k := range q.items {
		if i := (from + k) % len(q.items); is(&q.items[i]) {
			return i
		}
	}
	return -1
}

// parse reads the answer for one partition, behind its number.
func (i *pulled) parse(b *body) {
	i.answered, i.err = true, codeError(b.int16())
	i.high = b.int64()
	i.stable = b.int64()
	b.int64() // log start
	i.aborted = i.aborted[:0]
	for range b.array(16) {
		i.aborted = append(i.aborted, abortedTxn{producer: b.int64(), first: b.int64()})
	}
	b.int32() // preferred replica
	i.data = b.into(i.data)
	i.behind = behind(i.data, i.from)
}
