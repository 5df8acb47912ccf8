package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// join brings the member into the group's next generation, however long that takes, and applies what it was
// assigned. It returns nil also when the membership ends before, and an error if it can never succeed.
//
// Whether claims survive: the new leader, told of them, leaves them alone. So they survive every generation
// whose join carried them. A generation that was missed (the number went up by two; the answer of a
// coordinator that restarted) may have given them to others: then they end here, before anything is assigned.
func (m *member) join() error {
	m.prepare()
	defer func() {
		m.mu.Lock()
		m.joining = false
		m.mu.Unlock()
	}()
	pause := joinBackoff
	for failures := 0; m.ctx.Err() == nil; failures++ {
		err := m.joinOnce()
		m.mu.Lock()
		switch code := kafkaCode(err); {
		case err == nil:
			m.mu.Unlock()
			return nil
		case m.ctx.Err() != nil:
		case code == kafka.MemberIDRequired: // joinOnce has noted it
			failures--
			m.mu.Unlock()
			continue
		case code == kafka.RebalanceInProgress:
			m.contact = time.Now()
		case code == kafka.UnknownMemberId:
			m.contact = time.Now()
			m.lose(true)
		case code == kafka.FencedInstanceID:
			m.replaced(err)
		case permanent(err) || code == kafka.InvalidSessionTimeout || code == kafka.InconsistentGroupProtocol:
			m.mu.Unlock()
			return fmt.Errorf("%w: %w: %w", errCannotJoin, ErrPermanent, err)
		default:
			m.seen = m.me.generation // whoever answers next may have gone back to before the last join
			if time.Since(m.contact) > m.session {
				m.lose(false)
			}
			if failures >= quietRetries {
				m.log.Warn("joining the group did not work yet, trying again", zap.Error(err))
			}
		}
		m.mu.Unlock()
		sleep(m.ctx, pause/2+jitter(pause/2))
		if !errors.Is(err, kafka.RebalanceInProgress) {
			pause = min(2*pause, joinBackoffMax)
			m.c.refresh(m.ctx)
		}
	}
	return nil
}

// prepare gives up what has to be given up before joining: everything, if the group is eager.
func (m *member) prepare() {
	m.mu.Lock()
	if m.eager && len(m.held) > 0 {
		all := make([]*Claim, 0, len(m.held))
		for _, cl := range m.held {
			cl.cancel()
			all = append(all, cl)
		}
		m.mu.Unlock()
		m.await(all)
		m.mu.Lock()
		if m.ctx.Err() == nil {
			m.fenceAll()
		}
	}
	m.joining, m.again = true, false
	m.mu.Unlock()
}

// joinOnce is one JoinGroup and one SyncGroup.
func (m *member) joinOnce() error {
	counts, err := m.c.partitionCounts(m.ctx, m.opt.Topics) // before anybody waits for this member
	switch {
	case err == nil:
		m.counts = counts
	case m.counts == nil:
		return err
	}
	m.mu.Lock()
	who := m.me
	req := &joinRequest{
		session: m.session, rebalance: m.rebalance, topics: m.opt.Topics, owned: m.owned(), since: noGeneration, nonce: m.nonce,
	}
	if len(req.owned) > 0 {
		req.since = who.generation
	}
	m.mu.Unlock()
	joined, err := m.c.joinGroup(m.ctx, who, req)
	if kafkaCode(err) == kafka.MemberIDRequired {
		m.mu.Lock()
		m.me.member = joined.member
		m.mu.Unlock()
	}
	if err != nil {
		if who.instance != "" && who.member == "" && kafkaCode(err) == 0 && !neverSent(err) {
			m.mu.Lock()
			m.ghost = true
			m.mu.Unlock()
		}
		return err
	}
	who.member, who.generation = joined.member, joined.generation
	m.admitted(&joined)
	return m.sync(who, &joined)
}

// admitted notes the answer to a join: what is no longer sure to be ours ends.
func (m *member) admitted(joined *joinAnswer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.contact = time.Now()
	missed := joined.generation != m.seen && joined.generation != m.seen+1
	if len(m.held) > 0 && (missed || joined.protocol != stickyProtocol) {
		m.log.Warn("claims did not survive the group's change", zap.Int32("from", m.seen), zap.Int32("to", joined.generation),
			zap.String("protocol", joined.protocol))
		m.fenceAll()
	}
	m.me.member = joined.member
	m.eager = joined.protocol != stickyProtocol
	m.between = true
	m.change()
}

// sync has the leader assign, and applies what came for this member.
func (m *member) sync(who identity, joined *joinAnswer) error {
	var assignments map[string][]byte
	if joined.leads {
		assignments = m.lead(joined.members)
	}
	raw, err := m.c.syncGroup(m.ctx, m.rebalance+requestTimeout, who, assignments)
	if code := kafkaCode(err); err == nil || code == kafka.RebalanceInProgress {
		m.mu.Lock()
		m.seen, m.contact = who.generation, time.Now()
		m.mu.Unlock()
	}
	if err != nil {
		return err
	}
	a, err := decodeAssignment(raw)
	if err != nil {
		return err
	}
	m.apply(who, a)
	return nil
}

// lead is the leader's part: it shares out all partitions. It asks nobody while the others wait, except
// for topics that only they read.
func (m *member) lead(members []candidate) map[string][]byte {
	counts := map[string]int{}
	for _, other := range members {
		for _, t := range other.topics {
			if _, known := counts[t]; !known {
				counts[t] = m.countOf(t)
			}
		}
	}
	for _, other := range members {
		for _, p := range other.owned { // a broker that just started may not know a topic yet
			if n, read := counts[p.topic]; read {
				counts[p.topic] = max(n, p.partition+1)
			}
		}
	}
	out := make(map[string][]byte, len(members))
	shares := assign(members, counts)
	more := false
	for _, s := range shares {
		more = more || len(s.owed) > 0
	}
	for id, s := range shares {
		a := assignment{share: s, counts: counts, more: more}
		out[id] = a.encode()
	}
	return out
}

func (m *member) countOf(topicName string) int {
	if n, ok := m.counts[topicName]; ok {
		return n
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.pulse)
	defer cancel()
	counts, err := m.c.partitionCounts(ctx, []string{topicName})
	if err != nil {
		m.log.Warn("topic that another member reads was not counted", zap.String("topic", topicName), zap.Error(err))
	}
	return counts[topicName]
}

// partitionCounts reads how many partitions topics have; 0 for one that does not exist.
func (c *Client) partitionCounts(ctx context.Context, topics []string) (map[string]int, error) {
	counts := make(map[string]int, len(topics))
	for _, t := range topics {
		meta, err := c.metadata(ctx, []string{t})
		if err != nil && !errors.Is(err, ErrUnknownTopic) {
			return nil, err
		}
		counts[t] = len(meta[t].leaders)
	}
	return counts, nil
}
