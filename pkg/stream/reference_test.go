package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// runGroup is the signature of RunGroup.
type runGroup = func(c *Client, ctx context.Context, opt GroupOptions, own own) error

// memberships are the two implementations that one conformance suite holds to the same promises: ours, and the
// reference, which is built on kafka-go's ConsumerGroup and stops all partitions at each rebalance.
func memberships() map[string]runGroup {
	return map[string]runGroup{"weft": (*Client).RunGroup, "reference": runReference}
}

// runReference is RunGroup by kafka.ConsumerGroup: one generation after the other, claims that end with it.
func runReference(c *Client, ctx context.Context, opt GroupOptions, own own) error { //nolint:revive // like the method (*Client).RunGroup
	log := c.log.With(zap.String("group", opt.Group))
	var pause backoff
	for c.awaitTopics(ctx, log, opt.Topics) {
		err := (&reference{c: c, log: log, opt: opt, own: own}).run(ctx)
		switch {
		case errors.Is(err, ErrStop) || errors.Is(err, errCannotJoin):
			return fmt.Errorf("group %s: %w", opt.Group, err)
		case ctx.Err() != nil:
			return nil
		}
		pause.wait(ctx)
	}
	return nil
}

type reference struct {
	c     *Client
	log   *zap.Logger
	opt   GroupOptions
	own   own
	leave context.CancelCauseFunc
}

func (m *reference) run(ctx context.Context) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	m.leave = leave
	c := m.c
	debug := kafka.LoggerFunc(func(format string, args ...any) {
		m.log.Debug("kafka-go", zap.String("said", fmt.Sprintf(format, args...)))
	})
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: m.opt.Group, Brokers: c.cfg.Brokers, Topics: m.opt.Topics,
		Dialer: &kafka.Dialer{
			ClientID: c.cfg.ClientID, Timeout: dialTimeout, DialFunc: c.conns.dial,
			TLS: c.transport.TLS, SASLMechanism: c.transport.SASL,
		},
		GroupBalancers:    []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		HeartbeatInterval: maxHeartbeat, SessionTimeout: c.cfg.SessionTimeout, RebalanceTimeout: c.cfg.RebalanceTime,
		JoinGroupBackoff: joinBackoff, WatchPartitionChanges: true, PartitionWatchInterval: c.watchEvery,
		StartOffset: kafka.FirstOffset, Timeout: requestTimeout, Logger: debug, ErrorLogger: debug,
	})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			gen.Start(func(ended context.Context) { m.serve(ctx, ended, gen) })
		case permanent(err):
			leave(fmt.Errorf("%w: %w: %w", errCannotJoin, ErrPermanent, err))
		}
	}
	if err := group.Close(); err != nil {
		m.log.Debug("leaving the group did not work", zap.Error(err))
	}
	return context.Cause(ctx)
}

func (m *reference) serve(ctx, ended context.Context, gen *kafka.Generation) {
	if ended.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ended, cancel)()
	var owners sync.WaitGroup
	who := identity{group: m.opt.Group, member: gen.MemberID, generation: gen.ID}
	for topicName, assigned := range gen.Assignments {
		for _, a := range assigned {
			cl := &Claim{Topic: topicName, Partition: a.ID, c: m.c, seat: fixedSeat{who}, began: who}
			err := m.c.retry(ctx, "read commits", func(ctx context.Context) error {
				committed, err := m.c.offsetFetch(ctx, m.opt.Group, topicName, []int{a.ID})
				if err == nil {
					cl.Offset, cl.Metadata = committed[0].Offset, committed[0].Metadata
				}
				return err
			})
			if err != nil {
				m.leave(err)
				break
			}
			owners.Go(func() {
				if err := m.own(ctx, cl); err != nil && (ctx.Err() == nil || errors.Is(err, ErrStop) || errors.Is(err, ErrRejoin)) {
					m.leave(err)
				}
			})
		}
	}
	owners.Wait()
	<-ended.Done()
}

// fixedSeat is a membership in one generation: its claims end with it.
type fixedSeat struct{ who identity }

func (s fixedSeat) hold(context.Context, *Claim) (identity, error) { return s.who, nil }

func (s fixedSeat) refused(_ context.Context, _ *Claim, _ identity, err error) error {
	return fmt.Errorf("%w: %w", ErrFenced, err)
}

var (
	_ seat = (*member)(nil)
	_ seat = fixedSeat{}
)
