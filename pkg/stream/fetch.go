package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	// DefaultFetchBytes is how many bytes one Fetch asks for: about 1,500 events of 700 bytes, or more if
	// the producer compresses. A single batch may be larger and still comes whole.
	DefaultFetchBytes = 1 << 20
	// maxFetchBytes is how far a fetcher goes when a broker cuts a batch that is larger than asked for.
	maxFetchBytes = 64 << 20
	// fetchSlack is what an answer may take beyond the wait that was asked for.
	fetchSlack = 10 * time.Second
	// corruptAttempts is how often a corrupt batch is fetched again before that is an error: it may have
	// been damaged on the way, or one replica's disk may be.
	corruptAttempts = 3
	// readCommitted is the isolation level that gives the list of aborted transactions.
	readCommitted = 1
	// emptyPause keeps a broker that answers early with nothing from being asked in a tight loop.
	emptyPause = 5 * time.Millisecond
)

// FetchOptions tune a Fetcher; the zero value is right for most.
type FetchOptions struct {
	MaxBytes int // per Fetch; 0: DefaultFetchBytes
}

// Fetcher reads one partition. It is for one goroutine.
type Fetcher struct {
	c         *Client
	topic     string
	partition int32
	next      int64
	maxBytes  int32
	parser    parser
	closed    atomic.Bool
}

// NewFetcher reads a partition from an offset on; it sends nothing yet.
func (c *Client) NewFetcher(topicName string, partition int, from int64, opt FetchOptions) *Fetcher {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultFetchBytes
	}
	return &Fetcher{
		c: c, topic: topicName, partition: i32(partition), next: from, maxBytes: i32(min(opt.MaxBytes, maxFetchBytes)),
		parser: newParser(topicName, partition),
	}
}

// Close ends the fetcher: a later Fetch answers ErrClosed. It may be called more than once and from any
// goroutine.
func (f *Fetcher) Close() { f.closed.Store(true) }

// Fetch returns the next committed records. It waits up to maxWait for some; none is not an error. While
// the brokers do not answer, or the partition has no leader, it keeps trying until ctx ends, with a warning
// in the log, so that a batch always tells the truth about the high watermark.
//
// Errors: ErrOffsetOutOfRange, ErrPermanent (not allowed, topic gone, batch corrupt on every attempt,
// message format of before Kafka 0.11), ErrClosed, and ctx's.
func (f *Fetcher) Fetch(ctx context.Context, maxWait time.Duration) (Batch, error) {
	var batch Batch
	deadline := time.Now().Add(maxWait)
	corrupt := 0
	what := fmt.Sprintf("fetch %s partition %d from offset %d", f.topic, f.partition, f.next)
	for {
		err := f.c.retry(ctx, what, func(ctx context.Context) (err error) {
			if f.closed.Load() {
				return ErrClosed
			}
			batch, err = f.once(ctx, max(time.Until(deadline), 0))
			if errors.Is(err, errCorrupt) {
				if corrupt++; corrupt >= corruptAttempts {
					return fmt.Errorf("%w: %w", ErrPermanent, err)
				}
			}
			return err
		})
		if err != nil {
			return Batch{}, err
		}
		if moved := batch.Next != f.next; moved || time.Until(deadline) < emptyPause {
			f.next = batch.Next
			return batch, nil
		}
		if !sleep(ctx, emptyPause) {
			return Batch{}, fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// once is one request. It does not move the fetcher.
func (f *Fetcher) once(ctx context.Context, wait time.Duration) (Batch, error) {
	var w writer
	w.int32(-1)                                     // replica: a client
	w.int32(int32(min(wait.Milliseconds(), 1<<30))) //nolint:gosec // bounded
	w.int32(1)                                      // answer as soon as there is anything
	w.int32(f.maxBytes)
	w.int8(readCommitted)
	w.int32(0)  // no session
	w.int32(-1) // and none to be made
	w.array(1)
	w.str(f.topic)
	w.array(1)
	w.int32(f.partition)
	w.int32(noEpoch)
	w.int64(f.next)
	w.int64(-1) // log start: only replicas know one
	w.int32(f.maxBytes)
	w.array(0) // forgotten topics
	w.str("")  // rack
	r, err := f.c.do(ctx, wait+fetchSlack, protocol.Fetch, 11, w.b, toLeader(f.topic, f.partition))
	if err != nil {
		return Batch{}, err
	}
	res := parseFetch(r)
	if r.err != nil {
		return Batch{}, r.err
	}
	switch code := kafka.Error(res.code); code {
	case 0:
	case kafka.OffsetOutOfRange:
		return Batch{}, f.outOfRange(ctx)
	default:
		return Batch{}, code
	}
	batch := Batch{Next: f.next, HighWatermark: res.highWatermark}
	batch.Records, batch.Next, err = f.parser.parse(res.records, res.aborted, f.next)
	if errors.Is(err, errCutShort) {
		return Batch{}, f.grow()
	}
	return batch, err
}

// outOfRange asks the leader for the log's bounds: right after a change of leaders the answer may be wrong.
func (f *Fetcher) outOfRange(ctx context.Context) error {
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

// grow asks for more: brokers of before KIP-74 cut even the first batch.
func (f *Fetcher) grow() error {
	if f.maxBytes >= maxFetchBytes {
		return fmt.Errorf("%w: a batch is larger than %d bytes", ErrPermanent, maxFetchBytes)
	}
	f.maxBytes = min(2*f.maxBytes, maxFetchBytes)
	return errCutShort
}

// fetchAnswer is the one partition of a Fetch answer.
type fetchAnswer struct {
	code          int16
	highWatermark int64
	aborted       []abortedTxn
	records       []byte
}

// abortedTxn says that what a producer wrote from an offset on, up to its abort marker, does not count.
type abortedTxn struct{ producer, first int64 }

// parseFetch reads a Fetch v11 answer to a request for one partition.
func parseFetch(r *reader) fetchAnswer {
	var res fetchAnswer
	r.int32() // throttle
	res.code = r.int16()
	r.int32() // session
	partitions := 0
	for range r.array(6) {
		r.str()
		for range r.array(38) {
			partitions++
			r.int32() // partition: the only one asked for
			if code := r.int16(); code != 0 {
				res.code = code
			}
			res.highWatermark = r.int64()
			r.int64() // last stable offset
			r.int64() // log start
			for range r.array(16) {
				res.aborted = append(res.aborted, abortedTxn{producer: r.int64(), first: r.int64()})
			}
			r.int32() // preferred replica
			res.records = r.bytes()
		}
	}
	if r.err == nil && res.code == 0 && partitions != 1 {
		r.err = errMalformed
	}
	return res
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
