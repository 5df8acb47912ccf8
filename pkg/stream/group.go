package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

const (
	// defaultSession is used where the configuration has none; the same as config.Defaults.
	defaultSession = 10 * time.Second
	// heartbeatsPerSession and maxHeartbeat set the pace of heartbeats. Members learn from a heartbeat that
	// the group is changing, so this is also how long a new member waits for the others; one small request
	// per second and member is nothing to a broker.
	heartbeatsPerSession = 10
	maxHeartbeat         = time.Second
	// joinBackoff is kafka-go's pause after it could not join; RunGroup adds its own, growing ones.
	joinBackoff = 250 * time.Millisecond
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
}

// errCannotJoin means that the coordinator refuses this member for good.
var errCannotJoin = errors.New("group cannot be joined")

// own is what RunGroup runs per claim.
type own = func(ctx context.Context, cl *Claim) error

// RunGroup joins a consumer group and runs own in a goroutine of its own for each partition that this
// member is given, once per generation. The context given to own ends when the partition is revoked or ctx
// ends; own must then return soon, and may still commit what is durable before. No two calls of own for one
// partition run at the same time in this process; in other processes a stale owner may still run for a
// while, and its commits are refused.
//
// What own returns: nil: the partition rests until the next generation. ErrRejoin or ErrFenced: this member
// leaves the group and joins as a new one, with a new member id. An error wrapping ErrStop: RunGroup
// returns it. Any other error is logged, and the member joins anew after a pause.
//
// Topics that are missing at the start are waited for, with a warning; they are never created by this.
// RunGroup returns nil when ctx ends, having left the group, and an error that wraps ErrStop or ErrPermanent
// (group not allowed, settings refused) when it cannot go on.
func (c *Client) RunGroup(ctx context.Context, opt GroupOptions, own func(ctx context.Context, cl *Claim) error) error {
	log := c.log.With(zap.String("group", opt.Group))
	var pause backoff
	for {
		if !c.awaitTopics(ctx, log, opt.Topics) {
			return nil
		}
		began := time.Now()
		err := c.runMember(ctx, log, opt, own)
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

// awaitTopics returns when all topics exist; false means that ctx ended. kafka-go would join without them,
// get no partitions, and have brokers that allow it create them with a default partition count.
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

// member is one membership in a group: from joining to leaving.
type member struct {
	c     *Client
	log   *zap.Logger
	opt   GroupOptions
	own   own
	leave context.CancelCauseFunc // ends the membership; the first cause counts
}

// runMember joins, serves generations, and leaves. It returns why: what an owner returned, what the
// coordinator refused for good, or ctx's error.
func (c *Client) runMember(ctx context.Context, log *zap.Logger, opt GroupOptions, f own) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	group, err := kafka.NewConsumerGroup(c.groupConfig(opt))
	if err != nil {
		return fmt.Errorf("%w: %w: %w", errCannotJoin, ErrPermanent, err)
	}
	m := &member{c: c, log: log, opt: opt, own: f, leave: leave}
	for ctx.Err() == nil {
		began := time.Now()
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			gen.Start(func(ended context.Context) { m.serve(ctx, ended, gen) })
			if time.Since(began) < time.Second {
				// A generation that follows at once on another: keep a group that cannot settle from spinning.
				sleep(ctx, joinBackoff)
			}
		case permanent(err) || kafkaCode(err) == kafka.InvalidSessionTimeout || kafkaCode(err) == kafka.InconsistentGroupProtocol:
			leave(fmt.Errorf("%w: %w: %w", errCannotJoin, ErrPermanent, err))
		case errors.Is(err, kafka.RebalanceInProgress):
		default:
			log.Warn("joining the group did not work yet, trying again", zap.Error(err))
		}
	}
	// Close ends the generation, waits for serve and leaves the group.
	if err := group.Close(); err != nil {
		log.Warn("leaving the group did not work", zap.Error(err))
	}
	return context.Cause(ctx)
}

func (c *Client) groupConfig(opt GroupOptions) kafka.ConsumerGroupConfig {
	session, rebalance := c.cfg.SessionTimeout, c.cfg.RebalanceTime
	if session <= 0 {
		session = defaultSession
	}
	if rebalance <= 0 {
		rebalance = session
	}
	debug := kafka.LoggerFunc(func(format string, args ...any) {
		if c.log.Core().Enabled(zap.DebugLevel) {
			c.log.Debug("kafka-go", zap.String("group", opt.Group), zap.String("said", fmt.Sprintf(format, args...)))
		}
	})
	return kafka.ConsumerGroupConfig{
		ID: opt.Group, Brokers: c.cfg.Brokers, Dialer: c.dialer, Topics: opt.Topics,
		GroupBalancers:    []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		HeartbeatInterval: min(session/heartbeatsPerSession, maxHeartbeat),
		SessionTimeout:    session, RebalanceTimeout: rebalance, JoinGroupBackoff: joinBackoff,
		WatchPartitionChanges: true, PartitionWatchInterval: watchEvery,
		StartOffset: kafka.FirstOffset, Timeout: requestTimeout,
		Logger: debug, ErrorLogger: debug,
	}
}

// serve runs one generation: it claims the partitions, runs their owners and returns when all have returned
// and the generation is over (ended). Returning earlier would make kafka-go join again, with the same
// member id, although the member is about to leave.
func (m *member) serve(ctx, ended context.Context, gen *kafka.Generation) {
	if ended.Err() != nil {
		return // it was over before it began: kafka-go does not wait for this call
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ended, cancel)()
	var owners sync.WaitGroup
	count := 0
	for topicName, assigned := range gen.Assignments {
		if len(assigned) == 0 {
			continue
		}
		claims, err := m.claim(ctx, gen, topicName, assigned)
		if err != nil {
			if ctx.Err() == nil {
				m.leave(err)
			}
			break
		}
		count += len(claims)
		for _, cl := range claims {
			owners.Add(1)
			go func() {
				defer owners.Done()
				m.run(ctx, cl)
			}()
		}
	}
	m.log.Info("generation begins", zap.Int32("generation", gen.ID), zap.String("member", gen.MemberID), zap.Int("partitions", count))
	owners.Wait()
	<-ended.Done()
}

// claim reads what the group has committed for partitions that this generation was given.
func (m *member) claim(ctx context.Context, gen *kafka.Generation, topicName string, assigned []kafka.PartitionAssignment) ([]*Claim, error) {
	partitions := make([]int, len(assigned))
	for i, a := range assigned {
		partitions[i] = a.ID
	}
	var committed []Committed
	err := m.c.retry(ctx, "read commits of "+topicName, func(ctx context.Context) (err error) {
		committed, err = m.c.offsetFetch(ctx, m.opt.Group, topicName, partitions)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCannotJoin, err)
	}
	claims := make([]*Claim, len(partitions))
	for i, p := range partitions {
		claims[i] = &Claim{
			Topic: topicName, Partition: p, Offset: committed[i].Offset, Metadata: committed[i].Metadata,
			c: m.c, group: m.opt.Group, generation: gen.ID, member: gen.MemberID,
		}
	}
	return claims, nil
}

// run runs the owner of one claim and judges what it returns.
func (m *member) run(ctx context.Context, cl *Claim) {
	if ctx.Err() != nil {
		return
	}
	err := m.own(ctx, cl)
	switch {
	case err == nil:
	case errors.Is(err, ErrStop), errors.Is(err, ErrRejoin):
		m.leave(fmt.Errorf("%s partition %d: %w", cl.Topic, cl.Partition, err))
	case ctx.Err() != nil: // it was asked to end; what it says now changes nothing
		m.log.Debug("partition owner ended", zap.String("topic", cl.Topic), zap.Int("partition", cl.Partition), zap.Error(err))
	default:
		m.leave(fmt.Errorf("%s partition %d: %w", cl.Topic, cl.Partition, err))
	}
}
