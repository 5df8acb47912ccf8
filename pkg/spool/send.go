package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

// Direct is the way to Kafka. *stream.Batcher is one.
type Direct interface {
	SendAll(ctx context.Context, recs []stream.Record) error
}

// Sender is Direct, with a spool for when Kafka does not answer. It is safe for concurrent use.
type Sender struct {
	s      *Spool
	topic  int
	direct Direct
	after  time.Duration
}

// errSlow ends the wait for Kafka.
var errSlow = errors.New("kafka has not acknowledged in time")

// Sender sends records of the topic with that index in Options.Topics. What Kafka has not acknowledged after that
// long is spooled; what it may have written nevertheless comes a second time, with the same message id.
func (s *Spool) Sender(topicIndex int, direct Direct, after time.Duration) *Sender {
	return &Sender{s: s, topic: topicIndex, direct: direct, after: after}
}

// SendAll returns nil when every record is in Kafka, or synced to the disk and known to the fence. The partitions
// of a call go their ways apart, so that one without a leader makes no other one spool. Keys, values and headers
// must not be changed until it returns; if it returned an error, not at all.
func (d *Sender) SendAll(ctx context.Context, recs []stream.Record) error {
	direct, items, err := d.part(ctx, recs)
	if err != nil || len(direct) == 0 && len(items) == 0 {
		return err
	}
	if err := d.s.put(items); err != nil {
		return err
	}
	if len(direct) > 0 {
		late, err := d.try(ctx, direct)
		if err != nil {
			return err
		}
		items = append(items, late...)
	}
	return d.s.await(ctx, items)
}

// part tells the records that go to Kafka from those that go to the disk, behind others of their lane.
func (d *Sender) part(ctx context.Context, recs []stream.Record) (direct []stream.Record, items []*item, err error) {
	lanes := d.lanesOf(recs)
	for {
		disk, turning := d.s.behindOthers(lanes)
		if turning == nil {
			if len(disk) == 0 {
				return recs, nil, nil
			}
			return without(recs, lanes, disk), pack(recs, lanes, disk), nil
		}
		select {
		case <-turning:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("wait for the spool: %w", context.Cause(ctx))
		}
	}
}

// lanesOf is the lane of each record.
func (d *Sender) lanesOf(recs []stream.Record) []int {
	lanes := make([]int, len(recs))
	for i := range recs {
		lanes[i] = d.s.lane(d.topic, stream.PartitionFor(recs[i].Key, d.s.opt.Partitions))
	}
	return lanes
}

// behindOthers returns those of lanes that have something on the disk. A channel, if one of them turns: they must be
// looked at again when it is closed.
func (s *Spool) behindOthers(lanes []int) (disk map[int]bool, turning <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind == 0 {
		return nil, nil
	}
	for _, lane := range lanes {
		if s.lanes[lane].turning {
			return nil, s.turning
		}
		if s.lanes[lane].behind > 0 {
			if disk == nil {
				disk = map[int]bool{}
			}
			disk[lane] = true
		}
	}
	return disk, nil
}

func without(recs []stream.Record, lanes []int, disk map[int]bool) []stream.Record {
	var rest []stream.Record
	for i := range recs {
		if !disk[lanes[i]] {
			rest = append(rest, recs[i])
		}
	}
	return rest
}

// try sends records to Kafka. Those that it has not acknowledged in time are queued for the disk.
func (d *Sender) try(ctx context.Context, recs []stream.Record) ([]*item, error) {
	short, cancel := context.WithTimeoutCause(ctx, d.after, errSlow)
	defer cancel()
	err := d.direct.SendAll(short, recs)
	if err == nil || ctx.Err() != nil || !errors.Is(err, errSlow) && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	var some *stream.UnacknowledgedError
	if errors.As(err, &some) {
		var rest []stream.Record
		for i := range recs {
			if !some.Acknowledged[i] {
				rest = append(rest, recs[i])
			}
		}
		recs = rest
	}
	lanes := d.lanesOf(recs)
	disk := map[int]bool{}
	for _, lane := range lanes {
		disk[lane] = true
	}
	items := pack(recs, lanes, disk)
	return items, d.s.put(items)
}

// await returns nil when all items are acknowledged.
func (s *Spool) await(ctx context.Context, items []*item) error {
	for _, it := range items {
		select {
		case err := <-it.done:
			if err != nil {
				s.metrics.refuse(err)
				return fmt.Errorf("spool records: %w", err)
			}
		case <-ctx.Done():
			return fmt.Errorf("spool records: %w", context.Cause(ctx))
		}
	}
	return nil
}
