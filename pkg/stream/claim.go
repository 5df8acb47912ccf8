package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Claim is one partition in one generation of a group.
type Claim struct {
	Topic     string
	Partition int
	Offset    int64  // committed when the claim began; -1 if none: the owner begins at the log's start
	Metadata  string // committed with it

	c          *Client
	group      string
	generation int32
	member     string
}

// Member is the id under which the group knows this claim's owner; it changes with each joining anew.
func (cl *Claim) Member() string { return cl.member }

// Generation is the number of the group's generation that the claim belongs to.
func (cl *Claim) Generation() int32 { return cl.generation }

// Commit notes offset, the next to be read, and metadata in the group. nil: it is done. ErrFenced: it was
// refused and has no effect. Any other error: the outcome is unknown; the commit may even take effect
// later, as long as the generation lasts. What certainly was not carried out (no coordinator yet, no
// connection) is tried again until ctx ends.
func (cl *Claim) Commit(ctx context.Context, offset int64, metadata string) error {
	what := func(err error) error {
		return fmt.Errorf("commit offset %d of %s partition %d in group %s: %w", offset, cl.Topic, cl.Partition, cl.group, err)
	}
	if len(metadata) > math.MaxInt16 {
		return what(fmt.Errorf("%w: metadata of %d bytes", ErrPermanent, len(metadata)))
	}
	var pause backoff
	for {
		sent, err := cl.commitOnce(ctx, offset, metadata)
		switch {
		case err == nil:
			return nil
		case fenced(err):
			return what(fmt.Errorf("%w: %w", ErrFenced, err))
		case sent || permanent(err):
			return what(err)
		}
		if !pause.wait(ctx) {
			return what(fmt.Errorf("%w (last failure: %w)", context.Cause(ctx), err))
		}
		cl.c.refresh(ctx)
	}
}

// commitOnce is one request. sent says whether it may have been carried out although there is an error.
func (cl *Claim) commitOnce(ctx context.Context, offset int64, metadata string) (sent bool, err error) {
	broker, err := cl.c.coordinator(ctx, cl.group)
	if err != nil {
		return false, fmt.Errorf("find coordinator: %w", err)
	}
	var w writer
	w.str(cl.group)
	w.int32(cl.generation)
	w.str(cl.member)
	w.nullStr("") // no static membership
	w.array(1)
	w.str(cl.Topic)
	w.array(1)
	w.int32(i32(cl.Partition))
	w.int64(offset)
	w.int32(noEpoch)
	w.str(metadata)
	r, err := cl.c.do(ctx, requestTimeout, protocol.OffsetCommit, 7, w.b, toBroker(broker))
	if err != nil {
		return !neverSent(err), cl.c.forget(cl.group, err)
	}
	answered := 0
	r.int32() // throttle
	for range r.array(6) {
		r.str()
		for range r.array(6) {
			r.int32()
			if err := codeError(r.int16()); err != nil {
				// Only this code is a refusal before anything was done: the others are also what
				// becomes of a write to the offsets topic that its replicas did not confirm.
				return !errors.Is(err, kafka.GroupLoadInProgress), cl.c.forget(cl.group, err)
			}
			answered++
		}
	}
	if r.err == nil && answered != 1 {
		r.err = errMalformed
	}
	return true, r.err
}

// fenced says that the coordinator refused a commit because the generation is over. RebalanceInProgress is
// among them: the coordinator refuses so when the next generation has begun and is not yet distributed.
func fenced(err error) bool {
	switch kafkaCode(err) {
	case kafka.IllegalGeneration, kafka.UnknownMemberId, kafka.RebalanceInProgress, kafka.FencedInstanceID:
		return true
	}
	return false
}

// neverSent says that an error came before the request was on the wire.
func neverSent(err error) bool {
	if kafkaCode(err) == kafka.BrokerNotAvailable {
		return true // kafka-go: no such broker in its view of the cluster
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
