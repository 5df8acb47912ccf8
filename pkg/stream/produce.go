package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"go.uber.org/zap"
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

// Produce appends recs to one partition, in order, and returns nil only when all in-sync replicas have
// them. Topic, Partition, Offset and Time of the records are not looked at. It retries until ctx ends;
// then some or all of recs may have been written. An error wrapping ErrPermanent will not go away; a
// *RecordError among them says which record is at fault.
//
// What one call writes stands in the log once, however often its requests are repeated, as long as the broker
// remembers this producer; if it does not, a batch whose answer was lost may stand there twice. So may records
// of a call that failed and that the caller repeats.
//
// Calls for the same partition wait for each other. A caller whose order matters must repeat a failed call
// before it sends anything later; what may still be on its way of the failed one is refused once the repeated
// one is written.
func (c *Client) Produce(ctx context.Context, topicName string, partition int, recs []Record) error {
	return c.produce(ctx, topicName, partition, unencoded(recs), 0)
}

func (c *Client) produce(ctx context.Context, topicName string, partition int, recs run, done int) error {
	if done >= recs.count() {
		return nil
	}
	what := produceWhat{topicName, partition}
	l := c.lane(topicName, partition)
	select {
	case <-l.free:
		defer func() { l.free <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	for done < recs.count() {
		n, err := c.produceBatch(ctx, what, l, recs, done)
		switch {
		case err == nil:
			done += n
		case !tooLarge(err):
			return err
		case n == 1:
			return fmt.Errorf("%s: %w", what, &RecordError{Index: done, Bytes: recs.size(done), Err: kafkaCode(err)})
		default: // this broker's limit is lower than ours: smaller batches from now on
			l.limit /= 2
		}
	}
	return nil
}

// tooLarge says that the broker refuses a batch for its size.
func tooLarge(err error) bool {
	switch kafkaCode(err) {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize:
		return true
	}
	return false
}

// produceWhat names a call in errors.
type produceWhat struct {
	topic     string
	partition int
}

func (w produceWhat) String() string {
	return fmt.Sprintf("produce to %s partition %d", w.topic, w.partition)
}

// produceBatch sends those of recs behind the first done, as many as go into one batch, until they are stored, and
// returns how many they are. A broker that has forgotten the producer is sent them as of a new one.
func (c *Client) produceBatch(ctx context.Context, what produceWhat, l *lane, recs run, done int) (int, error) {
	var pause backoff
	for {
		if err := c.identify(ctx, what.String(), l); err != nil {
			return 0, err
		}
		n, err := c.produceAs(ctx, what, l, recs, done)
		switch {
		case err == nil:
			l.stored(n)
			c.wire.produced.Add(float64(n))
			return n, nil
		case !forgotten(err):
			l.abandon()
			return n, err
		}
		c.log.Error("broker no longer knows this producer, going on as a new one: records that it had acknowledged may be gone",
			zap.String("topic", l.topic), zap.Int32("partition", l.partition), zap.Error(err))
		if l.producer = noProducer; !pause.wait(ctx) {
			return n, fmt.Errorf("%s: %w (last failure: %w)", what, context.Cause(ctx), err)
		}
	}
}

// produceAs sends one batch, again and again with the same sequence numbers, until the broker has stored it,
// has refused it for good, or has forgotten the producer.
func (c *Client) produceAs(ctx context.Context, what produceWhat, l *lane, recs run, done int) (int, error) {
	e := c.encoder()
	defer c.release(e)
	n := e.request(c.cfg.ClientID, produceTime(ctx), l, recs, done)
	var lost error
	err := c.retry(ctx, what.String(), func(ctx context.Context) error {
		err := c.produceOnce(ctx, l, e)
		switch {
		case kafkaCode(err) == kafka.DuplicateSequenceNumber: // it is stored, and so are later ones
			return nil
		case forgotten(err):
			lost = err
			return nil
		}
		return err
	})
	if err == nil {
		err = lost
	}
	return n, err
}

// produceTime is how long the broker may wait for its replicas.
func produceTime(ctx context.Context) time.Duration {
	timeout := produceAttempt - produceSlack
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), time.Millisecond))
	}
	return timeout
}

// produceOnce is one request.
func (c *Client) produceOnce(ctx context.Context, l *lane, e *encoder) error {
	r, err := c.send(ctx, produceAttempt, &exchange{
		key: protocol.Produce, version: 8, frame: e.frame, route: toLeader(l.topic, l.partition),
	})
	if err != nil {
		e.abandoned = true
		return err
	}
	answered := 0
	var refused error
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
			if refused = codeError(code); refused != nil && message != "" {
				refused = fmt.Errorf("%w: %s", refused, message)
			}
			answered++
		}
	}
	c.wire.throttle(time.Duration(r.int32()) * time.Millisecond)
	if r.err != nil {
		return r.err
	}
	if answered != 1 {
		return errMalformed
	}
	return refused
}
