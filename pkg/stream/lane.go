package stream

import (
	"context"
	"errors"
	"math"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// noProducer is the id of batches, and of lanes, that have none.
const noProducer = -1

// lane is one partition as this client's producers see it. All but its name belongs to whoever has taken the
// token, so that one request at a time is in flight.
//
// A lane is an idempotent producer of its own: an id that the broker gave, an epoch, and the sequence number of
// its next record. A batch that is sent again, because its answer was lost, has the same three, and the
// broker stores it once. When a batch is given up whose outcome is unknown, the next one has other records and
// must not be taken for it: then the lane goes on in the next epoch, from sequence 0. From the first batch of
// that epoch on the broker refuses what may still be on its way of the former one, so it cannot come late.
type lane struct {
	topic     string
	partition int32
	free      chan struct{} // holds a token while no request is in flight

	producer int64
	epoch    int16
	sequence int32
	limit    int // bytes of records per batch, before compression
}

type laneName struct {
	topic     string
	partition int
}

// lane returns the one of a partition.
func (c *Client) lane(topicName string, partition int) *lane {
	c.lanesMu.Lock()
	defer c.lanesMu.Unlock()
	l, ok := c.lanes[laneName{topicName, partition}]
	if !ok {
		l = &lane{topic: topicName, partition: i32(partition), free: make(chan struct{}, 1), producer: noProducer, limit: maxProduceBytes}
		l.free <- struct{}{}
		c.lanes[laneName{topicName, partition}] = l
	}
	return l
}

// identify makes sure that the lane has an id.
func (c *Client) identify(ctx context.Context, what string, l *lane) error {
	if l.producer != noProducer {
		return nil
	}
	return c.retry(ctx, what, func(ctx context.Context) error {
		var w writer
		w.nullStr("") // no transaction
		w.int32(math.MaxInt32)
		r, err := c.do(ctx, requestTimeout, protocol.InitProducerId, 1, w.b, nil)
		if err != nil {
			return err
		}
		r.int32() // throttle
		err = codeError(r.int16())
		id, epoch := r.int64(), r.int16()
		if err = errors.Join(err, r.err); err != nil {
			return err
		}
		l.producer, l.epoch, l.sequence = id, epoch, 0
		return nil
	})
}

// stored moves the lane behind n records. Sequence numbers go around behind the largest.
func (l *lane) stored(n int) {
	l.sequence = i32(int((int64(l.sequence) + int64(n)) % (math.MaxInt32 + 1)))
}

// abandon goes on without the batch sent last, of which it is not known whether it is stored.
func (l *lane) abandon() {
	l.sequence = 0
	if l.epoch++; l.epoch == math.MaxInt16 {
		l.producer = noProducer
	}
}

// forgotten says that the broker no longer knows what it stored of this producer: not its id, or not the
// batches before this one. Kafka forgets producers whose records are all deleted, or that were silent for
// producer.id.expiration.ms; and one that lost the end of a log, in an unclean election, has lost records.
func forgotten(err error) bool {
	switch kafkaCode(err) {
	case kafka.OutOfOrderSequenceNumber, kafka.UnknownProducerId, kafka.InvalidProducerEpoch, kafka.InvalidProducerIDMapping, kafka.ProducerFenced:
		return true
	}
	return false
}
