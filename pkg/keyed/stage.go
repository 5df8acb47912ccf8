package keyed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// maxReadyLag is how many records a partition may be behind and still count as caught up: what a stage
// folds in about a second.
const maxReadyLag = 10_000

// Stage runs one stage over all partitions of its input that the group gives to this process.
type Stage struct {
	opt     Options
	deps    Deps
	dec     decider
	script  *store.Script
	metrics *metrics
	poison  poisonLog

	vouching vouching

	quiet bool                    // a rebuild: nothing is published
	mute  func([]Output) []Output // a rebuild: leaves out what was published before; nil: nothing

	mu      sync.Mutex
	workers map[int]*worker // by partition, those owned at the moment
	joined  bool
	given   int // partitions that the group gave this process last
}

// decider is what differs between a fold and a planner.
type decider interface {
	// decide fills the worker's decision for its intake, which may be empty. A *PanicError among what it
	// returns asks for smaller batches.
	decide(ctx context.Context, w *worker, now time.Time) error
	// accepted is called when the script was, or when there was nothing to write.
	accepted(w *worker, now time.Time)
	published(ctx context.Context, slot Slot, outs []Output) error
	// home brings a move to its target. A *stuckError says that only this move's origin is concerned.
	home(ctx context.Context, slot Slot, m *move) error
	// block sees to it that nothing is decided for the target of a move that can not come home.
	block(ctx context.Context, slot Slot, m *move) error

	// Of a rebuild: recall comes before the history, conclude behind it, for each slot. owns says whether a key
	// of the slot, without its tag, is deleted at the beginning; until is where a slot goes on whose input ends
	// at end.
	recall(ctx context.Context, read Reader) error
	conclude(ctx context.Context, b *rebuild, w *worker) error
	owns(key string) bool
	inOrder() bool
	until(partition int, end int64) int64
}

// decision is what a batch came to. Its memory is used again for the next one.
type decision struct {
	states     []stateWrite
	outputs    []Output
	moves      []*move
	vouch      []byte // what the planner has seen of what it shares
	seenIDs    [][]byte
	seenAt     time.Time
	seenWindow time.Duration
	arena      []byte // holds the encoded states and outputs
}

// arenaKept is the most memory that a worker keeps for its next batch: a batch of large states gives it back.
const arenaKept = 4 << 20

func (d *decision) reset() {
	clear(d.states)
	clear(d.outputs)
	clear(d.moves)
	if cap(d.arena) > arenaKept {
		d.arena = nil
	}
	*d = decision{states: d.states[:0], outputs: d.outputs[:0], moves: d.moves[:0], arena: d.arena[:0]}
}

// NewPlan makes a stage of a Planner. It starts nothing.
func NewPlan(opt Options, p Planner, deps Deps) (*Stage, error) {
	return newStage(opt, deps, func(s *Stage) decider {
		s.vouching.voucher, _ = p.(Voucher)
		s.vouching.turn = make(chan struct{}, 1)
		return newPlanDecider(p)
	})
}

// NewFold makes a stage of a Fold. It starts nothing.
func NewFold[S any](opt Options, fold Fold[S], deps Deps) (*Stage, error) {
	return newStage(opt, deps, func(s *Stage) decider { return newFoldDecider(s, fold) })
}

func newStage(opt Options, deps Deps, dec func(*Stage) decider) (*Stage, error) {
	if err := opt.validate(); err != nil {
		return nil, fmt.Errorf("stage %s: %w", opt.Stage, err)
	}
	if deps.Stream == nil || deps.Store == nil || deps.Log == nil {
		return nil, fmt.Errorf("stage %s: stream, store and log are required", opt.Stage)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	s := &Stage{opt: opt, deps: deps, script: store.NewScript(commitSource), workers: map[int]*worker{}}
	m, err := newMetrics(deps.Metrics, opt.Stage, newHolds(s))
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", opt.Stage, err)
	}
	s.metrics, s.poison = m, poisonLog{log: deps.Log.With(zap.String("stage", opt.Stage)), metrics: m}
	s.dec = dec(s)
	return s, nil
}

// Run works until ctx ends, and then returns nil, or until an error that a person must look at:
// ErrStateLost, ErrNewerState, ErrPartitionCount, store.ErrNonDurable, or a log that no longer reaches back
// to where the slot is.
func (s *Stage) Run(ctx context.Context) error {
	if err := s.checkDeployment(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("stage %s: %w", s.opt.Stage, err)
	}
	group := stream.GroupOptions{Group: s.opt.Topics.Group(s.opt.Stage, s.opt.Input), Topics: []string{s.opt.Input}, Joined: s.member}
	err := s.watched(ctx, func(ctx context.Context) error { return s.deps.Stream.RunGroup(ctx, group, s.own) })
	if err != nil {
		return fmt.Errorf("stage %s: %w", s.opt.Stage, err)
	}
	return nil
}

// checkDeployment asks whether Redis keeps what it acknowledges, and writes or compares the deployment's
// partition count, with the topic's own too.
func (s *Stage) checkDeployment(ctx context.Context) error {
	want := strconv.Itoa(s.opt.Topics.Partitions)
	return retry(ctx, s.deps.Log, "deployment check is held", func() error {
		if err := s.deps.Store.Check(ctx); err != nil {
			return err
		}
		got, err := s.deps.Store.Fact(ctx, DeploymentKey(s.opt.Topics), "partitions", want)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: configured %s, deployed with %s", ErrPartitionCount, want, got)
		}
		n, err := s.deps.Stream.PartitionCount(ctx, s.opt.Input)
		if err != nil {
			return err
		}
		if n != s.opt.Topics.Partitions {
			return fmt.Errorf("%w: %s has %d, configured %s", ErrPartitionCount, s.opt.Input, n, want)
		}
		if s.opt.Admit == nil {
			return nil
		}
		return s.opt.Admit(ctx)
	})
}

// DeploymentKey is the Redis hash that holds what is fixed for a deployment's life.
func DeploymentKey(t topic.Set) string { return t.Prefix + "deployment" }

// member hears of each assignment.
func (s *Stage) member(partitions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined, s.given = true, partitions
}

func (s *Stage) own(ctx context.Context, cl *stream.Claim) error {
	w := newWorker(s, cl)
	s.mu.Lock()
	s.workers[cl.Partition] = w
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if s.workers[cl.Partition] == w {
			delete(s.workers, cl.Partition)
		}
		s.mu.Unlock()
		w.close()
	}()
	return w.run(ctx)
}

// Ready is nil when this process is a member of the group and every partition that it was given has recovered
// its slot, is not held and is nearly caught up; else it names each that is not, and why. A member without partitions, because others have them all, is ready.
func (s *Stage) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.joined {
		return fmt.Errorf("stage %s: is not a member of its group yet", s.opt.Stage)
	}
	if n := len(s.workers); n < s.given {
		return fmt.Errorf("stage %s: %d of %d partitions are not taken over yet", s.opt.Stage, s.given-n, s.given)
	}
	var faults []error
	for _, p := range slices.Sorted(maps.Keys(s.workers)) {
		w := s.workers[p]
		if held := w.hold.text(); held != "" {
			faults = append(faults, fmt.Errorf("stage %s: partition %d %s", s.opt.Stage, p, held))
			continue
		}
		if !w.recovered.Load() {
			faults = append(faults, fmt.Errorf("stage %s: partition %d is recovering", s.opt.Stage, p))
			continue
		}
		if lag := w.lag.Load(); lag > maxReadyLag {
			faults = append(faults, fmt.Errorf("stage %s: partition %d is %d records behind", s.opt.Stage, p, lag))
		}
	}
	return errors.Join(faults...)
}

// ring wakes the owner of a partition in this process, if there is one, because its slot has changed.
func (s *Stage) ring(partition int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.workers[partition]; w != nil {
		select {
		case w.bell <- struct{}{}:
		default:
		}
	}
}

// stops says whether an error can not heal by trying again.
func stops(err error) bool {
	for _, e := range []error{
		ErrStateLost, ErrRebuilding, ErrNewerState, ErrPartitionCount, topic.ErrNewerSchema, stream.ErrOffsetOutOfRange, store.ErrNonDurable,
		stream.ErrStop,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// retry calls fn until it succeeds, ctx ends or the error is one that stops.
func retry(ctx context.Context, log *zap.Logger, msg string, fn func() error) error {
	var b backoff
	for {
		err := fn()
		if err == nil || stops(err) || ctx.Err() != nil {
			return err
		}
		log.Warn(msg, zap.Error(err))
		if !b.wait(ctx) {
			return ctx.Err()
		}
	}
}
