package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

const (
	// DefaultFetchBytes is how many bytes one request asks for of one partition: 1,500 events of 700 bytes as
	// Weft's own producers compress them. A single batch may be larger and still comes whole. What a
	// Fetcher holds is bounded by it: two answers, of which one is read and one is filled, and what the
	// batches of the one become (parseBytes), together some 2 MiB.
	DefaultFetchBytes = 256 << 10
	// maxFetchBytes is how far a fetcher goes for a batch that is larger than asked for.
	maxFetchBytes = 64 << 20
	// keptBytes is the largest answer whose memory is used again: room for what a single large batch took is
	// not kept for ever.
	keptBytes = maxMessageBytes
	// corruptAttempts is how often a corrupt batch is fetched again before that is an error: it may have
	// been damaged on the way, or one replica's disk may be.
	corruptAttempts = 3
	// noLeader means that a fetcher has to look for its partition's leader.
	noLeader = -1
)

// FetchOptions tune a Fetcher; the zero value is right for most.
type FetchOptions struct {
	MaxBytes int // per answer; 0: DefaultFetchBytes
}

// Fetcher reads one partition, one answer ahead of its user. It is for one goroutine.
type Fetcher struct {
	c         *Client
	topic     string
	partition int32
	parser    parser
	next      int64  // offset behind what was returned
	cur       pulled // the answer that is read; f is nil when there is none

	// The rest is shared with the puller and guarded by the lock of the client's pulls.
	state     fetcherState
	at        int64 // offset to ask for next, or asked for
	maxBytes  int32
	maxWait   time.Duration // of the last Fetch
	deadline  time.Time     // of the Fetch that listens
	listening bool          // a Fetch waits for an answer
	arrived   chan struct{} // tells it that there is one
	leader    int32
	ahead     pulled // an answer that nobody waited for, if ready
	spare     pulled // memory for the next request
	closed    bool
}

// fetcherState says where a fetcher's next answer is.
type fetcherState int8

const (
	resting fetcherState = iota // not asked for
	wanted                      // in the list of a puller
	flying                      // on its way
	ready                       // in ahead
)

// NewFetcher reads a partition from an offset on; it sends nothing yet.
func (c *Client) NewFetcher(topicName string, partition int, from int64, opt FetchOptions) *Fetcher {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultFetchBytes
	}
	return &Fetcher{
		c: c, topic: topicName, partition: i32(partition), next: from, at: from, leader: noLeader,
		maxBytes: i32(min(opt.MaxBytes, maxFetchBytes)), parser: newParser(topicName, partition), arrived: make(chan struct{}, 1),
	}
}

// Close ends the fetcher: a Fetch that waits, and any later one, answers ErrClosed. It may be called more than
// once and from any goroutine.
func (f *Fetcher) Close() {
	f.c.pulls.Lock()
	defer f.c.pulls.Unlock()
	f.closed = true
	if f.listening {
		f.deliver(pulled{f: f, err: ErrClosed}, time.Now())
	}
}

// Fetch returns the next committed records. It waits up to maxWait for some; none is not an error. While
// the brokers do not answer, or the partition has no leader, it keeps trying until ctx ends, with a warning
// in the log, so that a batch always tells the truth about the high watermark. The records are valid until
// the next Fetch or Close.
//
// Errors: ErrOffsetOutOfRange, ErrPermanent (not allowed, topic gone, batch corrupt on every attempt,
// message format of before Kafka 0.11), ErrClosed, and ctx's.
func (f *Fetcher) Fetch(ctx context.Context, maxWait time.Duration) (Batch, error) {
	deadline := time.Now().Add(maxWait)
	batch, err := f.once(ctx, maxWait, deadline)
	if err != nil {
		return f.again(ctx, maxWait, deadline, err)
	}
	return batch, nil
}

// again tries until there is an answer, after a first failure.
func (f *Fetcher) again(ctx context.Context, maxWait time.Duration, deadline time.Time, first error) (Batch, error) {
	var batch Batch
	corrupt := 0
	what := fmt.Sprintf("fetch %s partition %d from offset %d", f.topic, f.partition, f.next)
	err := f.c.retry(ctx, what, func(ctx context.Context) (err error) {
		if err, first = first, nil; err == nil {
			batch, err = f.once(ctx, maxWait, deadline)
		}
		if errors.Is(err, errCorrupt) {
			if corrupt++; corrupt >= corruptAttempts {
				return fmt.Errorf("%w: %w", ErrPermanent, err)
			}
		}
		return err
	})
	return batch, err
}

// once returns the next records of the answer at hand, or of the next one. After an error the fetcher stands
// where it was.
func (f *Fetcher) once(ctx context.Context, maxWait time.Duration, deadline time.Time) (Batch, error) {
	if err := f.await(ctx, maxWait, deadline); err != nil {
		return Batch{}, err
	}
	recs, next, err := f.parser.more(parseBytes)
	if err != nil {
		f.restart(errors.Is(err, errCutShort))
		return Batch{}, err
	}
	f.next = next
	f.c.wire.fetched.Add(float64(len(recs)))
	if !f.parser.some() {
		if f.next != f.cur.behind { // only if the headers of batches contradict each other
			f.restart(false)
		}
		f.cur.f = nil
	}
	return Batch{Records: recs, Next: next, HighWatermark: f.cur.high}, nil
}

// await returns when there is an answer to read in cur.
func (f *Fetcher) await(ctx context.Context, maxWait time.Duration, deadline time.Time) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ps := &f.c.pulls
	ps.Lock()
	defer ps.Unlock()
	switch {
	case f.closed:
		return ErrClosed
	case f.cur.f != nil:
		return nil
	}
	if f.leader == noLeader && f.state == resting {
		ps.Unlock()
		leader, err := f.c.leader(ctx, f.topic, f.partition)
		ps.Lock()
		if err != nil {
			return err
		}
		if f.leader = leader; f.closed {
			return ErrClosed
		}
	}
	now := time.Now()
	f.maxWait, f.deadline = maxWait, deadline
	if f.state == ready {
		item := f.ahead
		f.ahead, f.state = pulled{}, resting
		f.deliver(item, now)
	} else {
		f.listening = true
		if f.state == resting {
			f.want(now)
		}
		ps.Unlock()
		select {
		case <-f.arrived:
		case <-ctx.Done():
		}
		ps.Lock()
		if f.listening {
			f.listening = false
			return context.Cause(ctx)
		}
	}
	select { // there is a token if the answer came together with the end of ctx, or was there already
	case <-f.arrived:
	default:
	}
	if f.cur.err != nil {
		err := f.cur.err
		f.cur = pulled{}
		ps.Unlock()
		defer ps.Lock()
		return f.judge(ctx, err)
	}
	f.parser.start(f.cur.data, f.cur.aborted, f.next)
	return nil
}

// judge says what an error of the broker means.
func (f *Fetcher) judge(ctx context.Context, err error) error {
	if !errors.Is(err, kafka.OffsetOutOfRange) {
		return err
	}
	// Right after a change of leaders the answer may be wrong: the log's bounds tell.
	start, err := f.c.listOffsetsOnce(ctx, f.topic, earliestOffset)
	if err != nil {
		return err
	}
	end, err := f.c.listOffsetsOnce(ctx, f.topic, latestOffset)
	if err != nil {
		return err
	}
	p := int(f.partition)
	if p < len(start) && p < len(end) && f.next >= start[p] && f.next <= end[p] {
		return kafka.OffsetNotAvailable
	}
	if p >= len(start) || p >= len(end) {
		return kafka.UnknownTopicOrPartition
	}
	return fmt.Errorf("log holds offsets %d to %d: %w: %w", start[p], end[p], ErrOffsetOutOfRange, ErrPermanent)
}

// leader is the broker that kafka-go's view of the cluster has as the leader of a partition.
func (c *Client) leader(ctx context.Context, topicName string, partition int32) (int32, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := c.transport.RoundTrip(ctx, c.addr, &metadata.Request{TopicNames: []string{topicName}}) // never goes over the wire
	if err != nil {
		return noLeader, err
	}
	res, ok := m.(*metadata.Response)
	if !ok || len(res.Topics) != 1 {
		return noLeader, fmt.Errorf("leader of %s: %w", topicName, errMalformed)
	}
	t := res.Topics[0]
	if t.ErrorCode == int16(kafka.UnknownTopicOrPartition) {
		return noLeader, protocol.NewErrNoTopic(topicName)
	}
	for i := range t.Partitions {
		if p := &t.Partitions[i]; p.PartitionIndex == partition {
			if p.LeaderID < 0 {
				return noLeader, protocol.NewErrNoLeader(topicName, partition)
			}
			return p.LeaderID, nil
		}
	}
	return noLeader, protocol.NewErrNoPartition(topicName, partition)
}
