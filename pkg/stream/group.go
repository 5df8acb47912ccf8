package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

const (
	// defaultSession is used where the configuration has none; the same as config.Defaults.
	defaultSession = 10 * time.Second
	// heartbeatsPerSession and maxHeartbeat set the pace of heartbeats. Members learn from a heartbeat that
	// the group is changing, so this is also how long a new member waits for the others, and how much later than
	// the session time-out a killed member's partitions are back; two small requests per second and member are
	// nothing to a broker.
	heartbeatsPerSession = 20
	maxHeartbeat         = 500 * time.Millisecond
	// handoverPulse is the pace of heartbeats while partitions are on their way from one owner to another, for
	// handoverHurry at most: owners that take longer have a batch in flight, and a heartbeat does not count then.
	handoverPulse = 25 * time.Millisecond
	handoverHurry = 2 * time.Second
	// joinBackoff and joinBackoffMax bound the pause after a join that did not work. No heartbeats are sent
	// meanwhile, so the longest is well below any session time-out that brokers allow.
	joinBackoff    = 100 * time.Millisecond
	joinBackoffMax = time.Second
	// refusedPause is how long a refused commit waits for the next generation before it looks again.
	refusedPause = 50 * time.Millisecond
	// leaveTimeout is how long a process that ends tries to leave its groups: its sessions run out anyway.
	leaveTimeout = 3 * time.Second
	// watchEvery is how often partitions are counted: an inlet topic of others may grow.
	watchEvery = 30 * time.Second
	// settled is how long a membership or generation must have lasted for its end not to look like a
	// failure that repeats, so that the next one begins without a pause.
	settled = 10 * time.Second
)

// GroupOptions name a consumer group and what it reads.
type GroupOptions struct {
	Group  string
	Topics []string
	// InstanceID makes the membership static (KIP-345): a process that ends as planned and is back with the same
	// id within the session time-out finds its partitions as it left them, and nobody else notices. It must be unique
	// in the group. Empty: kafka.instance_id of the configuration, and if that is empty too, none.
	InstanceID string
	// Joined is called after each assignment with the number of partitions that are now this member's, also if
	// there are none. It must return soon. nil: nobody wants to know.
	Joined func(partitions int)
}

// errCannotJoin means that the coordinator refuses this member for good.
var errCannotJoin = errors.New("group cannot be joined")

// own is what RunGroup runs per claim.
type own = func(ctx context.Context, cl *Claim) error

// RunGroup joins a consumer group and runs own in a goroutine of its own for each partition that this
// member is given, until it is revoked: when the group changes and the partition stays, nothing happens to its
// owner. The context given to own ends when the partition is revoked or ctx ends; own must then return soon, and
// may still commit what is durable before: a partition that moves in order is another's only after own has
// returned, or the rebalance time-out has passed. A member that was silent for the session time-out loses its
// partitions; its owners' contexts end when it finds out. No two calls of own for one partition run at the same
// time in this process; in other processes a stale owner may still run for a while, and its commits are refused.
//
// What own returns: nil: the partition rests until the next generation. ErrRejoin or ErrFenced: this member
// gives up all its partitions and joins as a new one, with a new member id. An error wrapping ErrStop: RunGroup
// returns it. Any other error is logged, and the member joins anew after a pause.
//
// Topics that are missing at the start are waited for, with a warning; they are never created by this.
// RunGroup returns nil when ctx ends, having left the group, and an error that wraps ErrStop or ErrPermanent
// (group not allowed, settings refused, instance id used twice) when it cannot go on.
func (c *Client) RunGroup(ctx context.Context, opt GroupOptions, own func(ctx context.Context, cl *Claim) error) error {
	log := c.log.With(zap.String("group", opt.Group))
	if opt.InstanceID == "" {
		opt.InstanceID = c.cfg.InstanceID
	}
	var pause backoff
	for {
		if !c.awaitTopics(ctx, log, opt.Topics) {
			return nil
		}
		began := time.Now()
		err := c.newMember(ctx, log, opt, own).run()
		if time.Since(began) > settled {
			pause = backoff{}
		}
		switch {
		case errors.Is(err, ErrStop) || errors.Is(err, errCannotJoin):
			return fmt.Errorf("group %s: %w", opt.Group, err)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrRejoin) || errors.Is(err, ErrFenced):
			log.Info("joining the group as a new member", zap.Error(err))
		default:
			log.Error("partition owner failed, joining the group anew", zap.Error(err))
		}
		if !pause.wait(ctx) {
			return nil
		}
	}
}

// awaitTopics returns when all topics exist; false means that ctx ended.
func (c *Client) awaitTopics(ctx context.Context, log *zap.Logger, topics []string) bool {
	var pause backoff
	for attempt := 1; ; attempt++ {
		_, err := c.metadata(ctx, topics)
		if err == nil {
			return true
		}
		if ctx.Err() == nil && attempt >= quietRetries {
			log.Warn("waiting for topics", zap.Strings("topics", topics), zap.Error(err))
		}
		if !pause.wait(ctx) {
			return false
		}
		c.refresh(ctx)
	}
}
