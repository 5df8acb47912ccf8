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

// Claim is one partition that a group has given to this process, from then until it is revoked. It survives
// the group's rebalances as long as the partition stays here: its commits then carry the new generation.
type Claim struct {
	Topic     string
	Partition int
	Offset    int64  // committed when the claim began; -1 if none: the owner begins at the log's start
	Metadata  string // committed with it

	c     *Client
	seat  seat
	began identity // as whom and in which generation

	// Of the member, and guarded by its lock but for the channels.
	ctx      context.Context
	cancel   context.CancelFunc
	fenced   bool          // commits are refused here
	returned bool          // the owner has returned
	before   *Claim        // of the same partition, whose owner must return first; nil: none
	ready    chan struct{} // closed when Offset and Metadata are read
	done     chan struct{} // closed when the owner has returned
}

// seat is the membership that a claim's commits speak for.
type seat interface {
	// hold returns as whom to commit for cl; it waits while that is open. ErrFenced: cl is not the member's any more.
	hold(ctx context.Context, cl *Claim) (identity, error)
	// refused hears that the coordinator refused a commit, made as who, without effect. nil: it may be made again.
	// It wraps ErrFenced if cl is not the member's any more.
	refused(ctx context.Context, cl *Claim, who identity, err error) error
}

// Member is the id under which the group knows this claim's owner; it changes with each joining anew, and
// with it the claim ends.
func (cl *Claim) Member() string { return cl.began.member }

// Generation is the number of the group's generation in which the claim began.
func (cl *Claim) Generation() int32 { return cl.began.generation }

// Commit notes offset, the next to be read, and metadata in the group. nil: it is done. ErrFenced: it was
// refused and has no effect. Any other error: the outcome is unknown; the commit may even take effect
// later, as long as the generation that it was sent in lasts. What certainly was not carried out (no coordinator
// yet, no connection) is tried again until ctx ends.
//
// While the group rebalances, Commit waits for the outcome, and then commits with the new generation if the
// claim survives. A commit that was refused because its generation is over, is repeated in the new one: the
// refusal is certain. One whose outcome is unknown is never repeated in here.
//
// What a commit that was given up for unknown can still do: it carries the generation it was sent in, and the
// coordinator takes it only while that one lasts. So once this claim has made a commit in a newer generation, or
// another member has the partition, which takes a newer generation too, it can have no effect any more. Within
// its generation it can land after a later commit and undo it: callers for whom that is no harm commit again
// now and then, the others return ErrRejoin, which makes a new member, whose predecessor's commits are refused.
func (cl *Claim) Commit(ctx context.Context, offset int64, metadata string) error {
	what := func(err error) error {
		return fmt.Errorf("commit offset %d of %s partition %d in group %s: %w", offset, cl.Topic, cl.Partition, cl.began.group, err)
	}
	if len(metadata) > math.MaxInt16 {
		return what(fmt.Errorf("%w: metadata of %d bytes", ErrPermanent, len(metadata)))
	}
	var pause backoff
	for {
		who, err := cl.seat.hold(ctx, cl)
		if err != nil {
			return what(err)
		}
		sent, err := cl.commitOnce(ctx, who, offset, metadata)
		switch {
		case err == nil:
			return nil
		case fenced(err):
			if err := cl.seat.refused(ctx, cl, who, err); err != nil {
				return what(err)
			}
			continue
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
func (cl *Claim) commitOnce(ctx context.Context, who identity, offset int64, metadata string) (sent bool, err error) {
	broker, err := cl.c.coordinator(ctx, who.group)
	if err != nil {
		return false, fmt.Errorf("find coordinator: %w", err)
	}
	var w writer
	w.str(who.group)
	w.int32(who.generation)
	w.str(who.member)
	w.nullStr(who.instance)
	w.array(1)
	w.str(cl.Topic)
	w.array(1)
	w.int32(i32(cl.Partition))
	w.int64(offset)
	w.int32(noEpoch)
	w.str(metadata)
	r, err := cl.c.do(ctx, requestTimeout, protocol.OffsetCommit, 7, w.b, toBroker(broker))
	if err != nil {
		return !neverSent(err), cl.c.forget(who.group, err)
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
				return !errors.Is(err, kafka.GroupLoadInProgress), cl.c.forget(who.group, err)
			}
			answered++
		}
	}
	if r.err == nil && answered != 1 {
		r.err = errMalformed
	}
	return true, r.err
}

// fenced says that the coordinator refused a commit because the generation, or the membership, is over.
// RebalanceInProgress is among them: the coordinator refuses so when the next generation has begun and is not
// yet distributed.
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
