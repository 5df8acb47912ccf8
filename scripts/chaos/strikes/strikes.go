// Package strikes hurts a deployment by a seeded schedule, several parts of it at once.
//
// It owns: which strike comes when, and undoing it. It guarantees that the same seed gives each part the same strikes
// in the same order (their moments depend on the machine), that each strike is noted before it is made, and that
// after Run nothing stays hurt which servers.Deployment.Heal does not heal. It must not know what is right.
package strikes

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/servers"
)

// The kinds of strikes; those of links are servers.Harm.
const (
	Kill     = "SIGKILL"
	Pause    = "SIGSTOP, back after its session"
	Hiccup   = "SIGSTOP, back at once"
	Restart  = "SIGTERM, restarted"
	FullDisk = "full disk"
	Clock    = "clock step"
	Outage   = "two brokers of three killed"
)

const (
	// quietEvery and quietFor are a breath for everything: without it the stages would never own a partition for long
	// enough to be struck in the middle of work.
	quietEvery = 20 * time.Second
	quietFor   = 4 * time.Second
	// recoverLimit is how long a struck server may take to answer again.
	recoverLimit = 2 * time.Minute
	// fallPoll is the pause between looks for processes that have ended by themselves.
	fallPoll = 200 * time.Millisecond
)

// Plan bounds a schedule: whichever comes first.
type Plan struct {
	Seed    uint64
	For     time.Duration
	PerPart int // strikes on each stage; 0: no bound
}

// Schedule is one run's.
type Schedule struct {
	plan   Plan
	d      *servers.Deployment
	ledger *ledger.Ledger
	begun  time.Time
	counts sync.Map // stage -> *atomic.Int64
}

// New prepares a schedule.
func New(plan Plan, d *servers.Deployment, l *ledger.Ledger) *Schedule {
	return &Schedule{plan: plan, d: d, ledger: l}
}

// part is something that is struck by itself.
type part struct {
	name   string
	pauses [2]time.Duration // between strikes, from and to
	strike func(ctx context.Context, r *rand.Rand) error
	staged string // the stage, of a service
}

// Run strikes until the plan's bound. What ends by itself, without being struck, is noted and started again.
func (s *Schedule) Run(ctx context.Context) error {
	s.begun = time.Now()
	bounded, cancel := context.WithTimeoutCause(ctx, s.plan.For, errOver)
	defer cancel()
	var all sync.WaitGroup
	parts := s.parts()
	errs := make([]error, len(parts)+1)
	for i, p := range parts {
		all.Go(func() { errs[i] = s.loop(bounded, p) })
	}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		errs[len(parts)] = s.watch(watching)
	}()
	all.Wait()
	stop()
	<-watched
	return errors.Join(errs...)
}

var errOver = errors.New("the schedule is over")

// loop strikes one part.
func (s *Schedule) loop(ctx context.Context, p part) error {
	h := fnv.New64a()
	_, _ = h.Write([]byte(p.name))                     // never fails
	r := rand.New(rand.NewPCG(s.plan.Seed, h.Sum64())) //nolint:gosec // a schedule, not a secret
	for {
		wait := p.pauses[0] + time.Duration(r.Int64N(int64(p.pauses[1]-p.pauses[0])))
		if !sleep(ctx, wait) || !s.quiet(ctx) || s.enough(p.staged) {
			return nil
		}
		if err := p.strike(ctx, r); err != nil && ctx.Err() == nil {
			return fmt.Errorf("strike %s: %w", p.name, err)
		}
	}
}

// quiet waits out a breath, if this is one.
func (s *Schedule) quiet(ctx context.Context) bool {
	if into := time.Since(s.begun) % quietEvery; into > quietEvery-quietFor {
		return sleep(ctx, quietEvery-into)
	}
	return true
}

// enough says that a stage has had its strikes.
func (s *Schedule) enough(stage string) bool {
	return stage != "" && s.plan.PerPart > 0 && s.count(stage).Load() >= int64(s.plan.PerPart)
}

func (s *Schedule) count(stage string) *atomic.Int64 {
	n, _ := s.counts.LoadOrStore(stage, new(atomic.Int64))
	return n.(*atomic.Int64) //nolint:errcheck // nothing else is stored
}

// sleep waits; false: ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// note writes a strike down, before it is made.
func (s *Schedule) note(stage, kind, target string) error {
	s.count(stage).Add(1)
	return s.ledger.Append(ledger.Entry{Kind: ledger.Struck, Stage: stage, What: kind, Target: target})
}

// watch starts again what has ended by itself, and notes it.
func (s *Schedule) watch(ctx context.Context) error {
	for sleep(ctx, fallPoll) {
		if err := Raise(s.d, s.ledger); err != nil {
			return err
		}
	}
	return nil
}

// Raise starts again what has ended by itself. The ledger says of a service that it fell, which none may; of a
// server it is a note: no promise speaks of them.
func Raise(d *servers.Deployment, l *ledger.Ledger) error {
	for _, x := range d.Services {
		if err := raise(l, ledger.Fell, x.Stage, x.Process); err != nil {
			return err
		}
	}
	for _, p := range d.Servers() {
		if err := raise(l, ledger.Noted, p.Name, p); err != nil {
			return err
		}
	}
	return nil
}

func raise(l *ledger.Ledger, kind ledger.Kind, stage string, p *servers.Process) error {
	why := p.Fallen()
	if why == nil {
		return nil
	}
	if err := l.Append(ledger.Entry{Kind: kind, Stage: stage, What: why.Error()}); err != nil {
		return err
	}
	return p.Start()
}
