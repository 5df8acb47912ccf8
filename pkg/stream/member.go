package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// member is one membership in a group, from joining to leaving. Its life is run's goroutine: join, apply what
// was assigned, wait until something asks to join again. beat keeps the session alive meanwhile, watch counts
// partitions, and each claim's owner has a goroutine of its own (owners.go).
type member struct {
	c       *Client
	log     *zap.Logger
	opt     GroupOptions
	own     own
	metrics groupMetricsOf

	session, rebalance, pulse time.Duration

	ctx   context.Context         // ends when the membership is to end; owners' contexts end with it
	leave context.CancelCauseFunc // the first cause counts
	work  sync.WaitGroup          // owners, and whoever waits for them

	wake  chan struct{} // run looks whether it must join
	nudge chan struct{} // beat beats at once

	counts map[string]int // partitions per topic as last read; run's only

	mu      sync.Mutex
	me      identity      // generation: the last synchronized one
	seen    int32         // the last generation known to have left our claims alone
	eager   bool          // the group speaks eagerProtocol
	joining bool          // run is between asking to join and applying what was assigned
	between bool          // our join was answered and not yet synchronized: no generation to commit with
	leaving bool          // no generation will follow
	again   bool          // join again
	told    assignment    // the last one
	applied time.Time     // when
	next    chan struct{} // closed, and renewed, when one of the above changes
	held    map[place]*Claim
	newest  map[place]*Claim // per partition, of those whose owner has not returned
	contact time.Time        // when the coordinator last answered
	lost    time.Time        // since when the membership is lost; zero: it is not
	ghost   bool             // a join of ours under our instance id may still reach the coordinator
	heir    time.Time        // until then one of our predecessor's may: a process that was killed while it joined
	nonce   int32            // goes up when a join must not be taken for a repetition of the last one
}

// errInstance means that another process has joined with our instance id.
var errInstance = errors.New("kafka.instance_id is in use twice: another process has joined the group with the same one; " +
	"give each process its own, or leave it empty")

func (c *Client) newMember(ctx context.Context, log *zap.Logger, opt GroupOptions, f own) *member {
	m := &member{
		c: c, log: log, opt: opt, own: f, metrics: c.groups.of(opt.Group),
		session: c.cfg.SessionTimeout, rebalance: c.cfg.RebalanceTime,
		wake: make(chan struct{}, 1), nudge: make(chan struct{}, 1), next: make(chan struct{}),
		me: identity{group: opt.Group, instance: opt.InstanceID, generation: noGeneration}, seen: noGeneration,
		held: map[place]*Claim{}, newest: map[place]*Claim{}, contact: time.Now(),
	}
	if m.session <= 0 {
		m.session = defaultSession
	}
	if m.rebalance <= 0 {
		m.rebalance = m.session
	}
	m.heir = time.Now().Add(m.session + m.rebalance)
	m.pulse = min(m.session/heartbeatsPerSession, maxHeartbeat)
	m.ctx, m.leave = context.WithCancelCause(ctx)
	return m
}

// run joins and serves until the membership ends, and returns why: what an owner returned, what the
// coordinator refused for good, or the context's error. All owners have returned then.
func (m *member) run() error {
	alive, stop := context.WithCancel(context.WithoutCancel(m.ctx)) // heartbeats go on while owners finish
	defer stop()
	var keepers sync.WaitGroup
	keepers.Go(func() { m.beat(alive) })
	keepers.Go(func() { m.watch(m.ctx) })
	for m.ctx.Err() == nil {
		if err := m.join(); err != nil {
			m.leave(err)
		}
		for !m.mustJoin() {
			select {
			case <-m.wake:
			case <-m.ctx.Done():
			}
			if m.ctx.Err() != nil {
				break
			}
		}
	}
	m.finish()
	stop()
	keepers.Wait()
	m.depart()
	return context.Cause(m.ctx)
}

// mustJoin says whether something asked to join again.
func (m *member) mustJoin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.again
}

// rejoinLocked asks run to join again, if the generation that there was reason to leave is still the current one.
// mu is held.
func (m *member) rejoinLocked(generation int32) {
	if m.joining || m.again || generation != m.me.generation {
		return
	}
	m.again = true
	m.change()
	ping(m.wake)
}

// change wakes those who wait for next. mu is held.
func (m *member) change() {
	close(m.next)
	m.next = make(chan struct{})
}

func ping(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// finish lets all owners end, and then no claim commits any more.
func (m *member) finish() {
	m.mu.Lock()
	m.leaving = true
	m.change()
	m.mu.Unlock()
	m.work.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fenceAll()
	m.change()
	m.metrics.partitions.Set(0)
}

// depart leaves the group, so that others have the partitions at once. A static member whose process ends as
// planned does not: it keeps its partitions for its successor. One that is to be a new member does not
// either: the coordinator replaces it when it joins anew, and refuses the replaced one's commits. Nor does one
// whose instance id is another's now.
func (m *member) depart() {
	m.mu.Lock()
	who, why := m.me, context.Cause(m.ctx)
	m.mu.Unlock()
	stays := who.instance != "" && (!errors.Is(why, ErrStop) && !errors.Is(why, errCannotJoin) || errors.Is(why, errInstance))
	if who.member == "" || stays {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), leaveTimeout)
	defer cancel()
	if err := m.c.leaveGroup(ctx, who); err != nil {
		m.log.Warn("leaving the group did not work, its session must run out", zap.Error(err))
	}
}

// beat sends heartbeats; from them a member learns that the group is changing, or goes on without it.
func (m *member) beat(ctx context.Context) {
	t := time.NewTimer(m.pulse)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-m.nudge:
		}
		m.mu.Lock()
		who, idle := m.me, m.joining || m.me.member == "" || m.me.generation == noGeneration
		m.mu.Unlock()
		if !idle {
			err := m.c.heartbeat(ctx, m.session/3, who)
			if ctx.Err() != nil {
				return
			}
			if m.judge(who, err); kafkaCode(err) == 0 && err != nil {
				m.c.refresh(ctx)
			}
		}
		t.Reset(m.pace())
	}
}

// pace is the pause until the next heartbeat: short while a generation is expected in which moved
// partitions get their new owners, who wait until everybody has noticed.
func (m *member) pace() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told.more && !m.joining && time.Since(m.applied) < handoverHurry {
		return min(m.pulse, handoverPulse)
	}
	return m.pulse
}

// judge draws the conclusions from what the coordinator answered to who's heartbeat or commit.
func (m *member) judge(who identity, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if who != m.me || m.joining {
		return // of an earlier generation
	}
	switch {
	case err == nil:
		m.contact = time.Now()
	case kafkaCode(err) == kafka.RebalanceInProgress || kafkaCode(err) == kafka.IllegalGeneration:
		m.contact = time.Now()
		m.rejoinLocked(who.generation)
	case kafkaCode(err) == kafka.UnknownMemberId:
		m.contact = time.Now()
		m.log.Warn("the group went on without this member, joining anew", zap.String("member", who.member))
		m.again = true
		m.lose(true)
	case kafkaCode(err) == kafka.FencedInstanceID:
		m.contact = time.Now()
		m.again = true
		m.replaced(err)
	case permanent(err):
		m.leave(fmt.Errorf("%w: %w: %w", errCannotJoin, ErrPermanent, err))
	case time.Since(m.contact) > m.session:
		m.log.Warn("group's coordinator was not reached for a session, partitions are given up", zap.Error(err))
		m.again = true
		m.lose(false)
	default:
		m.log.Debug("heartbeat not answered", zap.Error(err))
	}
}

// lose ends all claims at once: others may have the partitions. forget: the coordinator does not know the
// member id any more. If it does, the next join must make a new generation, because commits of the claims that
// end here, whose outcome is unknown, may still land in this one. mu is held.
func (m *member) lose(forget bool) {
	if len(m.held) > 0 && m.lost.IsZero() {
		m.lost = time.Now()
	}
	m.fenceAll()
	m.metrics.partitions.Set(0)
	m.me.generation, m.seen = noGeneration, noGeneration
	m.nonce++
	if forget {
		m.me.member, m.nonce = "", 0
	}
	m.change()
	ping(m.wake)
}

// replaced is called when the coordinator knows another member under our instance id. mu is held.
func (m *member) replaced(err error) {
	// It may be an earlier join of our own, whose answer was lost, or the last one of the process before us. Once: if
	// another process lives under our instance id, it takes over again.
	if m.ghost || time.Now().Before(m.heir) || m.me.instance == "" {
		m.ghost, m.heir = false, time.Time{}
		m.log.Warn("membership was taken over, by an earlier join under our instance id as it seems; joining anew", zap.Error(err))
		m.lose(true)
		return
	}
	m.fenceAll()
	m.leave(fmt.Errorf("%w: %w: %w: %q: %w", errCannotJoin, ErrPermanent, errInstance, m.opt.InstanceID, err))
}

// fenceAll ends all claims and refuses their commits from here on. mu is held.
func (m *member) fenceAll() {
	for p, cl := range m.held {
		cl.fence()
		delete(m.held, p)
	}
	for _, cl := range m.newest {
		for ; cl != nil; cl = cl.before {
			cl.fence()
		}
	}
}

// watch has the group share out anew when a topic has more partitions than its leader knew: inlet topics of
// others may grow.
func (m *member) watch(ctx context.Context) {
	for {
		pause := m.c.watchEvery/2 + jitter(m.c.watchEvery) // so that not all members notice at once
		if !sleep(ctx, pause) {
			return
		}
		counts, err := m.c.partitionCounts(ctx, m.opt.Topics)
		if err != nil {
			m.log.Debug("partitions not counted", zap.Error(err))
			continue
		}
		m.mu.Lock()
		for t, n := range counts {
			if known := m.told.counts; known != nil && n > known[t] {
				m.log.Info("topic has grown", zap.String("topic", t), zap.Int("partitions", n))
				m.nonce++
				m.rejoinLocked(m.me.generation)
			}
		}
		m.mu.Unlock()
	}
}

// owned is what the next join claims: what is held, except what has been given up.
func (m *member) owned() []place {
	all := make([]place, 0, len(m.held))
	for p := range m.held {
		all = append(all, p)
	}
	slices.SortFunc(all, place.compare)
	return all
}

func jitter(d time.Duration) time.Duration { return rand.N(d) } //nolint:gosec // spreading, not a secret
