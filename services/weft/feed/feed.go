// Package feed reads a topic for tools that look at it: from a time or a position on, to the end as it is now or
// on and on.
//
// It guarantees that every committed record of the range is given once, in order within its partition, and that
// nothing is left behind in Kafka: it is in no consumer group and commits nothing. It must not know what the
// records mean.
package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

// fetchWait is how long a fetch waits for records.
const fetchWait = 500 * time.Millisecond

// ErrEnough ends a reading early, as asked for by the one who reads.
var ErrEnough = errors.New("enough was read")

// Options say what is read.
type Options struct {
	// Since leaves out what was written before, by the records' timestamps; zero: all that Kafka holds.
	Since time.Time
	// Newest begins at the end as it is now; Since counts for nothing then.
	Newest bool
	// Follow goes on at the end and waits for what comes.
	Follow bool
	// Started is called once when it is known where reading begins; nil: nobody wants to know.
	Started func()
}

// Read calls each for every record of a topic, one at a time; records of different partitions come in any order, and
// a record is valid during the call only. It returns nil at the end, or when each has returned ErrEnough, and with
// Follow when ctx ends; else the first error.
func Read(ctx context.Context, c *stream.Client, topicName string, o Options, each func(*stream.Record) error) error {
	from, to, err := bounds(ctx, c, topicName, o)
	if err != nil {
		return err
	}
	if o.Started != nil {
		o.Started()
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var partitions sync.WaitGroup
	for p := range from {
		if !o.Follow && from[p] >= to[p] {
			continue
		}
		partitions.Go(func() {
			err := read(inner, c, topicName, p, from[p], to[p], o.Follow, func(r *stream.Record) error {
				mu.Lock()
				defer mu.Unlock()
				if inner.Err() != nil {
					return ErrEnough // another partition has ended it: each is not called any more
				}
				err := each(r)
				if err != nil {
					cancel(err)
				}
				return err
			})
			if err != nil {
				cancel(err)
			}
		})
	}
	partitions.Wait()
	switch cause := context.Cause(inner); {
	case ctx.Err() != nil && o.Follow, cause == nil, errors.Is(cause, ErrEnough):
		return nil
	default:
		return cause
	}
}

// bounds is where reading begins and, without Follow, where it ends.
func bounds(ctx context.Context, c *stream.Client, topicName string, o Options) (from, to []int64, err error) {
	if to, err = c.EndOffsets(ctx, topicName); err != nil {
		return nil, nil, err
	}
	switch {
	case o.Newest:
		from = to
	case o.Since.IsZero():
		from, err = c.StartOffsets(ctx, topicName)
	default:
		from, err = c.OffsetsSince(ctx, topicName, o.Since)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(from) != len(to) {
		return nil, nil, fmt.Errorf("topic %s has changed its partition count meanwhile", topicName)
	}
	return from, to, nil
}

func read(ctx context.Context, c *stream.Client, topicName string, partition int, from, to int64, follow bool, each func(*stream.Record) error) error {
	f := c.NewFetcher(topicName, partition, from, stream.FetchOptions{})
	defer f.Close()
	for next := from; follow || next < to; {
		batch, err := f.Fetch(ctx, fetchWait)
		if ctx.Err() != nil {
			return nil // somebody else has said why
		}
		if errors.Is(err, stream.ErrOffsetOutOfRange) && next == from { // retention was faster than we: begin at what is left
			starts, startErr := c.StartOffsets(ctx, topicName)
			if startErr != nil || partition >= len(starts) || starts[partition] <= next {
				return err
			}
			return read(ctx, c, topicName, partition, starts[partition], to, follow, each)
		}
		if err != nil {
			return err
		}
		for i := range batch.Records {
			if !follow && batch.Records[i].Offset >= to {
				return nil
			}
			if err := each(&batch.Records[i]); err != nil {
				return err
			}
		}
		next = batch.Next
	}
	return nil
}

// One returns the record at a position, which it copies. The error says if there is none.
func One(ctx context.Context, c *stream.Client, topicName string, partition int, offset int64) (stream.Record, error) {
	from, to, err := bounds(ctx, c, topicName, Options{})
	if err != nil {
		return stream.Record{}, err
	}
	if partition < 0 || partition >= len(to) {
		return stream.Record{}, fmt.Errorf("%s has the partitions 0 to %d", topicName, len(to)-1)
	}
	if offset < from[partition] || offset >= to[partition] {
		return stream.Record{}, fmt.Errorf("partition %d of %s has the offsets %d to %d: what is older was deleted (topics.retention)",
			partition, topicName, from[partition], to[partition]-1)
	}
	var found []stream.Record
	err = read(ctx, c, topicName, partition, offset, offset+1, false, func(r *stream.Record) error {
		if r.Offset == offset {
			found = stream.Clone([]stream.Record{*r})
		}
		return nil
	})
	switch {
	case err != nil:
		return stream.Record{}, err
	case ctx.Err() != nil:
		return stream.Record{}, context.Cause(ctx)
	case len(found) == 0:
		return stream.Record{}, fmt.Errorf("there is no record at offset %d of partition %d of %s", offset, partition, topicName)
	}
	return found[0], nil
}
