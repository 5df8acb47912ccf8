package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
)

// Special timestamps of ListOffsets (Kafka protocol, ListOffsets).
const (
	latestOffset   = -1
	earliestOffset = -2
)

// Offsets of ListOffsets that are none.
const (
	noSuchTime = -1 // the broker's: no record is that young
	unanswered = -2 // ours
)

// noEpoch tells the broker not to compare leader epochs.
const noEpoch = -1

// offsetAttempts is how often an offset request is tried before its caller hears of the failure: callers
// such as the fence ask again by themselves, and a delay there is harmless.
const offsetAttempts = 5

// Committed is what a group has committed for one partition.
type Committed struct {
	Offset   int64 // -1: nothing
	Metadata string
}

// EndOffsets returns the high watermark of every partition (index = partition), open and aborted
// transactions and control records included. It fails if any partition does not answer.
func (c *Client) EndOffsets(ctx context.Context, topicName string) ([]int64, error) {
	return c.listOffsets(ctx, topicName, latestOffset)
}

// StartOffsets returns the first offset still in the log of every partition (index = partition).
func (c *Client) StartOffsets(ctx context.Context, topicName string) ([]int64, error) {
	return c.listOffsets(ctx, topicName, earliestOffset)
}

// OffsetsSince returns, for every partition (index = partition), the first offset whose record was written at t or
// later, by the records' own timestamps; where there is none, the end. It is for people who look back, not for
// decisions: what orders records is their offset.
func (c *Client) OffsetsSince(ctx context.Context, topicName string, t time.Time) ([]int64, error) {
	ends, err := c.EndOffsets(ctx, topicName)
	if err != nil {
		return nil, err
	}
	offsets, err := c.listOffsets(ctx, topicName, max(t.UnixMilli(), 0))
	if err != nil {
		return nil, err
	}
	for p, o := range offsets {
		if o == noSuchTime && p < len(ends) {
			offsets[p] = ends[p]
		}
	}
	return offsets, nil
}

func (c *Client) listOffsets(ctx context.Context, topicName string, at int64) ([]int64, error) {
	var offsets []int64
	err := c.try(ctx, func(ctx context.Context) (err error) {
		offsets, err = c.listOffsetsOnce(ctx, topicName, at)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list offsets of %s: %w", topicName, err)
	}
	return offsets, nil
}

// try is retry for requests whose callers repeat them: it gives up after offsetAttempts.
func (c *Client) try(ctx context.Context, f func(context.Context) error) error {
	var pause backoff
	for attempt := 1; ; attempt++ {
		err := f(ctx)
		if err == nil || permanent(err) || attempt == offsetAttempts {
			return err
		}
		if !pause.wait(ctx) {
			return fmt.Errorf("%w (last failure: %w)", context.Cause(ctx), err)
		}
		c.refresh(ctx)
	}
}

// listOffsetsOnce asks each leader once, for all of its partitions. The partitions are those that Kafka has
// now, not those of a cached view: a fence that did not see a new partition would be none.
func (c *Client) listOffsetsOnce(ctx context.Context, topicName string, at int64) ([]int64, error) {
	meta, err := c.metadata(ctx, []string{topicName})
	if err != nil {
		return nil, err
	}
	byLeader := make(map[int32][]int32)
	for p, leader := range meta[topicName].leaders {
		if leader < 0 {
			return nil, protocol.NewErrNoLeader(topicName, i32(p))
		}
		byLeader[leader] = append(byLeader[leader], i32(p))
	}
	offsets := make([]int64, len(meta[topicName].leaders))
	for i := range offsets {
		offsets[i] = unanswered
	}
	for leader, partitions := range byLeader {
		if err := c.listOffsetsOf(ctx, leader, topicName, partitions, at, offsets); err != nil {
			return nil, err
		}
	}
	for p, o := range offsets {
		if o == unanswered || o < 0 && at < 0 {
			return nil, fmt.Errorf("partition %d was not answered: %w", p, errMalformed)
		}
	}
	return offsets, nil
}

func (c *Client) listOffsetsOf(ctx context.Context, leader int32, topicName string, partitions []int32, at int64, offsets []int64) error {
	var w writer
	w.int32(-1) // replica: a client
	w.int8(0)   // read uncommitted: the high watermark
	w.array(1)
	w.str(topicName)
	w.array(len(partitions))
	for _, p := range partitions {
		w.int32(p)
		w.int32(noEpoch)
		w.int64(at)
	}
	r, err := c.do(ctx, requestTimeout, protocol.ListOffsets, 5, w.b, toBroker(leader))
	if err != nil {
		return err
	}
	r.int32() // throttle
	for range r.array(6) {
		r.str()
		for range r.array(26) {
			p, code := int(r.int32()), r.int16()
			r.int64() // timestamp
			offset := r.int64()
			r.int32() // leader epoch
			if err := codeError(code); err != nil {
				return fmt.Errorf("partition %d: %w", p, err)
			}
			if p >= 0 && p < len(offsets) && r.err == nil {
				offsets[p] = offset
			}
		}
	}
	return r.err
}

// Committed returns what a group has committed for every partition of a topic (index = partition).
func (c *Client) Committed(ctx context.Context, group, topicName string) ([]Committed, error) {
	var out []Committed
	err := c.try(ctx, func(ctx context.Context) error {
		meta, err := c.metadata(ctx, []string{topicName})
		if err != nil {
			return err
		}
		partitions := make([]int, len(meta[topicName].leaders))
		for p := range partitions {
			partitions[p] = p
		}
		out, err = c.offsetFetch(ctx, group, topicName, partitions)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read commits of group %s on %s: %w", group, topicName, err)
	}
	return out, nil
}

// offsetFetch reads what a group has committed for the given partitions, in their order.
func (c *Client) offsetFetch(ctx context.Context, group, topicName string, partitions []int) ([]Committed, error) {
	var w writer
	w.str(group)
	w.array(1)
	w.str(topicName)
	w.array(len(partitions))
	index := make(map[int]int, len(partitions))
	for i, p := range partitions {
		w.int32(i32(p))
		index[p] = i
	}
	r, err := c.doGroup(ctx, requestTimeout, group, protocol.OffsetFetch, 5, w.b)
	if err != nil {
		return nil, err
	}
	out := make([]Committed, len(partitions))
	answered := 0
	r.int32() // throttle
	for range r.array(6) {
		r.str()
		for range r.array(20) {
			p, offset := int(r.int32()), r.int64()
			r.int32() // leader epoch
			metadata, code := r.str(), r.int16()
			switch kafka.Error(code) {
			case 0:
			case kafka.GroupIdNotFound:
				offset = -1 // never used, or gone with all its offsets
			default:
				return nil, c.forget(group, fmt.Errorf("partition %d: %w", p, kafka.Error(code)))
			}
			if i, ok := index[p]; ok && r.err == nil {
				out[i] = Committed{Offset: max(offset, -1), Metadata: metadata}
				answered++
			}
		}
	}
	code := r.int16()
	if r.err != nil {
		return nil, r.err
	}
	if kafka.Error(code) == kafka.GroupIdNotFound {
		for i := range out {
			out[i].Offset = -1
		}
		return out, nil
	}
	if err := codeError(code); err != nil {
		return nil, c.forget(group, err)
	}
	if answered != len(partitions) {
		return nil, fmt.Errorf("%d of %d partitions answered: %w", answered, len(partitions), errMalformed)
	}
	return out, nil
}

// doGroup sends a request to the coordinator of a group, which it remembers: kafka-go would look it up
// before every request.
func (c *Client) doGroup(ctx context.Context, wait time.Duration, group string, key protocol.ApiKey, version int16, body []byte) (*reader, error) {
	broker, err := c.coordinator(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("find coordinator: %w", err)
	}
	r, err := c.do(ctx, wait, key, version, body, toBroker(broker))
	if err != nil {
		return nil, c.forget(group, err)
	}
	return r, nil
}

func (c *Client) coordinator(ctx context.Context, group string) (int32, error) {
	c.coordMu.Lock()
	id, ok := c.coordinators[group]
	c.coordMu.Unlock()
	if ok {
		return id, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := c.transport.RoundTrip(ctx, c.addr, &findcoordinator.Request{Key: group, KeyType: int8(kafka.CoordinatorKeyTypeConsumer)})
	if err != nil {
		return 0, err
	}
	res, ok := m.(*findcoordinator.Response)
	if !ok {
		return 0, errMalformed
	}
	if err := codeError(res.ErrorCode); err != nil {
		return 0, err
	}
	c.coordMu.Lock()
	c.coordinators[group] = res.NodeID
	c.coordMu.Unlock()
	return res.NodeID, nil
}

// forget has the coordinator of a group looked up anew before the next request; it returns err.
func (c *Client) forget(group string, err error) error {
	c.coordMu.Lock()
	delete(c.coordinators, group)
	c.coordMu.Unlock()
	return err
}
