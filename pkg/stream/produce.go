package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	// maxProduceBytes is where a request is split: below Kafka's default max.message.bytes of 1 MiB, with
	// room for the batch's header and for brokers that count a little differently.
	maxProduceBytes = 900_000
	// produceAttempt bounds one attempt; the broker is given produceSlack less, so that its own time-out
	// (too few in-sync replicas) is heard before ours.
	produceAttempt = 10 * time.Second
	produceSlack   = 2 * time.Second
	// acksAll: the leader answers when all in-sync replicas have the records.
	acksAll = -1
)

// lane is one partition as producers see it.
type lane struct {
	topic     string
	partition int
}

// Produce appends recs to one partition, in order, and returns nil only when all in-sync replicas have
// them. Topic, Partition, Offset and Time of the records are not looked at. It retries until ctx ends;
// then some or all of recs may have been written. An error wrapping ErrPermanent will not go away; a
// *RecordError among them says which record is at fault. Records sent twice, because an answer was lost,
// stand in the log twice.
//
// Calls for the same partition wait for each other. A caller whose order matters must repeat a failed call
// before it sends anything later.
func (c *Client) Produce(ctx context.Context, topicName string, partition int, recs []Record) error {
	if len(recs) == 0 {
		return nil
	}
	free := c.lane(topicName, partition)
	select {
	case <-free:
		defer func() { free <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("produce to %s partition %d: %w", topicName, partition, context.Cause(ctx))
	}
	what := fmt.Sprintf("produce to %s partition %d", topicName, partition)
	for done := 0; done < len(recs); {
		n := chunk(recs[done:])
		if err := c.produceChunk(ctx, what, topicName, partition, recs[done:done+n]); err != nil {
			if re := (*RecordError)(nil); errors.As(err, &re) {
				re.Index += done
			}
			return err
		}
		done += n
	}
	return nil
}

// lane returns the channel that holds a token while nothing is in flight to the partition.
func (c *Client) lane(topicName string, partition int) chan struct{} {
	c.lanesMu.Lock()
	defer c.lanesMu.Unlock()
	free, ok := c.lanes[lane{topicName, partition}]
	if !ok {
		free = make(chan struct{}, 1)
		free <- struct{}{}
		c.lanes[lane{topicName, partition}] = free
	}
	return free
}

// chunk is how many of recs go into one request: at least one.
func chunk(recs []Record) int {
	total := 0
	for i := range recs {
		if total += recordSize(&recs[i], i); total > maxProduceBytes && i > 0 {
			return i
		}
	}
	return len(recs)
}

// produceChunk sends recs as one batch. If the broker finds that too large, which happens where its limit
// is lower than ours, halves are sent one after the other, down to the record that is at fault.
func (c *Client) produceChunk(ctx context.Context, what, topicName string, partition int, recs []Record) error {
	batch := c.encode(recs, time.Now())
	err := c.retry(ctx, what, func(ctx context.Context) error {
		return c.produceOnce(ctx, topicName, i32(partition), batch)
	})
	if err == nil {
		return nil
	}
	switch kafkaCode(err) {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize:
	default:
		return err
	}
	if len(recs) == 1 {
		return fmt.Errorf("%s: %w", what, &RecordError{Bytes: recordSize(&recs[0], 0), Err: kafkaCode(err)})
	}
	half := len(recs) / 2
	if err := c.produceChunk(ctx, what, topicName, partition, recs[:half]); err != nil {
		return err
	}
	err = c.produceChunk(ctx, what, topicName, partition, recs[half:])
	if re := (*RecordError)(nil); errors.As(err, &re) {
		re.Index += half
	}
	return err
}

func (c *Client) produceOnce(ctx context.Context, topicName string, partition int32, batch []byte) error {
	timeout := produceAttempt - produceSlack
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), time.Millisecond))
	}
	w := writer{b: make([]byte, 0, 64+len(topicName)+len(batch))}
	w.nullStr("") // no transaction
	w.int16(acksAll)
	w.int32(int32(timeout.Milliseconds())) //nolint:gosec // at most produceAttempt
	w.array(1)
	w.str(topicName)
	w.array(1)
	w.int32(partition)
	w.int32(i32(len(batch)))
	w.b = append(w.b, batch...)
	r, err := c.do(ctx, produceAttempt, protocol.Produce, 8, w.b, toLeader(topicName, partition))
	if err != nil {
		return err
	}
	answered := 0
	for range r.array(6) {
		r.str()
		for range r.array(36) {
			r.int32() // partition
			code := r.int16()
			r.int64() // base offset
			r.int64() // log append time
			r.int64() // log start
			for range r.array(6) {
				r.int32()
				r.str()
			}
			message := r.str()
			if err := codeError(code); err != nil {
				if message != "" {
					return fmt.Errorf("%w: %s", err, message)
				}
				return err
			}
			answered++
		}
	}
	if r.err != nil {
		return r.err
	}
	if answered != 1 {
		return errMalformed
	}
	return nil
}
