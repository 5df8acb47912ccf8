package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// apply makes the assignment of a new generation true. Claims that stay are not touched: their owners do
// not even hear of it. Of those that go, owed ones end in order: nobody has them before this member has
// joined without them, so their owners may still commit. Any other is another's already, and ends at once.
func (m *member) apply(who identity, a assignment) {
	m.mu.Lock()
	var owed, fresh []*Claim
	for p, cl := range m.held {
		switch {
		case slices.Contains(a.assigned, p) && !cl.returned && cl.ctx.Err() == nil:
		case slices.Contains(a.owed, p):
			cl.cancel()
			owed = append(owed, cl)
		case slices.Contains(a.assigned, p):
			delete(m.held, p) // it rests, or was being given up: begun anew
		default:
			cl.fence()
			delete(m.held, p)
		}
	}
	for _, p := range a.assigned {
		if m.held[p] == nil {
			fresh = append(fresh, m.newClaim(who, p))
		}
	}
	m.me, m.told, m.applied = who, a, time.Now()
	if a.more {
		ping(m.nudge)
	}
	m.joining, m.between = false, false
	if !m.lost.IsZero() {
		m.metrics.lost.Add(time.Since(m.lost).Seconds())
		m.lost = time.Time{}
	}
	m.metrics.generation.Set(float64(who.generation))
	m.metrics.partitions.Set(float64(len(a.assigned)))
	m.metrics.rebalances.Inc()
	m.change()
	if len(a.owed) > 0 {
		m.work.Go(func() { m.giveUp(who.generation, owed) })
	}
	m.mu.Unlock()
	m.log.Info("generation begins", zap.Int32("generation", who.generation), zap.String("member", who.member),
		zap.Int("partitions", len(a.assigned)), zap.Int("new", len(fresh)), zap.Int("owed", len(a.owed)))
	if m.opt.Joined != nil {
		m.opt.Joined(len(a.assigned))
	}
	m.start(fresh)
}

// giveUp joins again without the partitions that the member owes, once their owners have returned.
func (m *member) giveUp(generation int32, owed []*Claim) {
	m.await(owed)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil || m.joining || m.me.generation != generation {
		return // the membership ends, or the join that came between has its own answer
	}
	for _, cl := range owed {
		cl.fence()
		if p := cl.place(); m.held[p] == cl {
			delete(m.held, p)
		}
	}
	m.nonce++
	m.rejoinLocked(generation)
}

// await waits until the owners of claims that were cancelled have returned, for the rebalance time-out at most,
// or the membership ends.
func (m *member) await(claims []*Claim) {
	t := time.NewTimer(m.rebalance)
	defer t.Stop()
	for _, cl := range claims {
		select {
		case <-cl.done:
		case <-m.ctx.Done():
			return
		case <-t.C:
			m.log.Warn("partition's owner does not return, the partition is given up without it",
				zap.String("topic", cl.Topic), zap.Int("partition", cl.Partition))
			return
		}
	}
}

// newClaim makes the claim of a partition that was just assigned. mu is held.
func (m *member) newClaim(who identity, p place) *Claim {
	cl := &Claim{
		Topic: p.topic, Partition: p.partition, c: m.c, seat: m, began: who,
		before: m.newest[p], ready: make(chan struct{}), done: make(chan struct{}),
	}
	cl.ctx, cl.cancel = context.WithCancel(m.ctx)
	m.held[p], m.newest[p] = cl, cl
	return cl
}

// start runs the owners of new claims. What the group has committed is read with one request per topic, but
// for partitions whose last owner in this process has not returned yet: they wait for it.
func (m *member) start(fresh []*Claim) {
	byTopic := map[string][]*Claim{}
	for _, cl := range fresh {
		if cl.before == nil {
			byTopic[cl.Topic] = append(byTopic[cl.Topic], cl)
		}
	}
	for _, cl := range fresh {
		m.work.Go(func() { m.serve(cl) })
	}
	for _, claims := range byTopic {
		m.work.Go(func() { m.open(claims) })
	}
}

// open reads what the group has committed for partitions of one topic, and lets their owners begin.
func (m *member) open(claims []*Claim) {
	partitions := make([]int, len(claims))
	for i, cl := range claims {
		partitions[i] = cl.Partition
	}
	var committed []Committed
	err := m.c.retry(m.ctx, "read commits of "+claims[0].Topic, func(ctx context.Context) (err error) {
		committed, err = m.c.offsetFetch(ctx, m.opt.Group, claims[0].Topic, partitions)
		return err
	})
	if err != nil {
		if m.ctx.Err() == nil {
			m.leave(fmt.Errorf("%w: %w", errCannotJoin, err))
		}
		return
	}
	for i, cl := range claims {
		cl.Offset, cl.Metadata = committed[i].Offset, committed[i].Metadata
		close(cl.ready)
	}
}

// serve runs the owner of one claim and judges what it returns.
func (m *member) serve(cl *Claim) {
	defer m.returned(cl)
	if cl.before != nil {
		<-cl.before.done // also when this claim has ended: a third may be waiting for it
		m.mu.Lock()
		cl.before = nil
		m.mu.Unlock()
		if cl.ctx.Err() == nil {
			m.open([]*Claim{cl})
		}
	}
	select {
	case <-cl.ready:
	case <-cl.ctx.Done():
	}
	if cl.ctx.Err() != nil {
		return
	}
	err := m.own(cl.ctx, cl)
	switch {
	case err == nil:
	case errors.Is(err, ErrStop), errors.Is(err, ErrRejoin):
		m.leave(fmt.Errorf("%s partition %d: %w", cl.Topic, cl.Partition, err))
	case cl.ctx.Err() != nil: // it was asked to end; what it says now changes nothing
		m.log.Debug("partition owner ended", zap.String("topic", cl.Topic), zap.Int("partition", cl.Partition), zap.Error(err))
	default:
		m.leave(fmt.Errorf("%s partition %d: %w", cl.Topic, cl.Partition, err))
	}
}

// returned notes that a claim's owner has returned: it commits no more. If it was not asked to, the
// partition rests, and is still this member's.
func (m *member) returned(cl *Claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := cl.place()
	if m.newest[p] == cl {
		delete(m.newest, p)
	}
	if cl.ctx.Err() != nil && m.held[p] == cl {
		delete(m.held, p)
	}
	cl.returned = true
	cl.fence()
	close(cl.done)
}

// hold says as whom to commit for a claim. It waits while the group is between two generations.
func (m *member) hold(ctx context.Context, cl *Claim) (identity, error) {
	for {
		m.mu.Lock()
		who, next, fenced, open := m.me, m.next, cl.fenced || m.between && m.leaving, !m.between
		if who.member == "" || who.generation < 0 {
			fenced = true // Kafka takes commits of nobody, if the group is empty
		}
		m.mu.Unlock()
		switch {
		case fenced:
			return who, ErrFenced
		case open:
			return who, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return who, context.Cause(ctx)
		}
	}
}

// refused draws the conclusions from a commit that the coordinator refused, and waits for what follows. nil:
// it may be repeated, as whom hold says then.
func (m *member) refused(ctx context.Context, cl *Claim, who identity, err error) error {
	m.judge(who, err)
	m.mu.Lock()
	next, fenced, over := m.next, cl.fenced || m.leaving, m.me != who
	m.mu.Unlock()
	switch {
	case fenced:
		return fmt.Errorf("%w: %w", ErrFenced, err)
	case over:
		return nil
	}
	t := time.NewTimer(refusedPause)
	defer t.Stop()
	select {
	case <-next:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w (last failure: %w)", context.Cause(ctx), err)
	}
}

// place is the partition that the claim is for.
func (cl *Claim) place() place { return place{cl.Topic, cl.Partition} }

// fence ends a claim for good: its commits are refused here, because the coordinator, which knows members and
// generations but not partitions, would take them. The member's mu is held.
func (cl *Claim) fence() {
	cl.fenced = true
	cl.cancel()
}
