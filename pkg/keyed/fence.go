package keyed

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Edge is one step of the pipeline above a decider: topics, who reads them, and the stage whose outboxes
// must have been published before the next edge's end is noted.
type Edge struct {
	Inputs []string
	Stage  string // reads Inputs, in the group topic.Set.Group(Stage, input)
	Slots  bool   // Stage keeps slots whose outboxes are walked too
}

// defaultFencePoll is the pause between two looks at an edge that is not through yet.
const defaultFencePoll = 25 * time.Millisecond

// Fence walks down the pipeline (rule 3). When a walk has ended, everything that was acknowledged before
// it began has had its effect. It walks only when somebody holds a ticket. One fence serves all stages of
// a process; it is safe for concurrent use.
type Fence struct {
	edges []Edge
	t     topic.Set
	deps  Deps
	poll  time.Duration

	mu    sync.Mutex
	begun int64
	want  int64
	done  int64
	wake  chan struct{}
	over  chan struct{} // closed when the next walk ends

	// Of the walk in progress.
	at       string    // what it waits for; "": no walk is in progress
	since    time.Time // when it last got further than ever before
	furthest int       // steps it has been at, over all its beginnings
	passing  bool      // it has passed overridden spools

	passed bool // the last walk that ended had
}

// NewFence makes a fence over edges, from the inlets down to the decider's own input. poll 0 is the
// default. It starts nothing.
func NewFence(edges []Edge, t topic.Set, poll time.Duration, deps Deps) *Fence {
	if poll <= 0 {
		poll = defaultFencePoll
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &Fence{edges: edges, t: t, deps: deps, poll: poll, wake: make(chan struct{}, 1), over: make(chan struct{})}
}

// Ticket is the number of the next walk to begin, which it asks for.
func (f *Fence) Ticket() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want = max(f.want, f.begun+1)
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return f.begun + 1
}

// Done is the number of the last walk that has ended. A finished walk stays true for ever.
func (f *Fence) Done() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

// ended is closed when the next walk ends. Who asks must look at Done afterwards, or it may miss one.
func (f *Fence) ended() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over
}

// Run walks until ctx ends.
func (f *Fence) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
		for f.begin() {
			if err := retry(ctx, f.deps.Log, "fence walk is held", func() error { return f.walk(ctx) }); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("walk the fence: %w", err)
			}
			f.mu.Lock()
			f.done, f.at, f.passed = f.begun, "", f.passing
			close(f.over)
			f.over = make(chan struct{})
			f.mu.Unlock()
		}
	}
}

func (f *Fence) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.want <= f.begun {
		return false
	}
	f.begun++
	f.furthest = 0
	return true
}

// Waiting tells what the walk in progress waits for, and since when it has got no further; ok is false if no
// walk is in progress. A topic that can not be read counts as waiting for it: errors take a walk back to its
// top, but do not begin its waiting anew.
func (f *Fence) Waiting() (since time.Time, at string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since, f.at, f.at != ""
}

// step notes that the walk is at its n-th step, from 1.
func (f *Fence) step(n int, at string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = at
	if n > f.furthest {
		f.furthest, f.since = n, f.deps.Now()
	}
}

// walk looks at the spools and takes the edges one after the other; it may be begun again from the top after an
// error.
func (f *Fence) walk(ctx context.Context) error {
	f.step(1, "the registrations of spools")
	passing, err := f.spooled(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.passing = passing
	f.mu.Unlock()
	return f.Walk(ctx)
}

// Walk goes down the edges now, whoever holds a ticket, and passes what is registered as spooled: who has registered itself
// would wait for ever. On a fence of its own.
func (f *Fence) Walk(ctx context.Context) error {
	n := 1
	for _, e := range f.edges {
		for _, input := range e.Inputs {
			n++
			f.step(n, input+", to be read by "+e.Stage)
			if err := f.committed(ctx, e.Stage, input); err != nil {
				return err
			}
		}
		if e.Slots {
			n++
			f.step(n, "the outbox of "+e.Stage)
			if err := f.published(ctx, e.Stage); err != nil {
				return err
			}
		}
	}
	return nil
}

// committed waits until the stage's group has committed what input ends at now, on every partition.
func (f *Fence) committed(ctx context.Context, stage, input string) error {
	ends, err := f.deps.Stream.EndOffsets(ctx, input)
	if err != nil {
		return fmt.Errorf("end of %s: %w", input, err)
	}
	group := f.t.Group(stage, input)
	return f.until(ctx, "fence waits for a stage to read its input", input, func() (bool, error) {
		got, err := f.deps.Stream.Committed(ctx, group, input)
		if err != nil {
			return false, fmt.Errorf("commits of %s: %w", group, err)
		}
		for p, end := range ends {
			if end > 0 && (p >= len(got) || got[p].Offset < end) {
				return false, nil
			}
		}
		return true, nil
	})
}

// published waits until every slot of stage has published what its outbox holds now.
func (f *Fence) published(ctx context.Context, stage string) error {
	ms, err := f.metas(ctx, stage)
	if err != nil {
		return err
	}
	return f.until(ctx, "fence waits for a stage to publish", stage, func() (bool, error) {
		now, err := f.metas(ctx, stage)
		if err != nil {
			return false, err
		}
		for p := range ms {
			if now[p].marked || now[p].pubSeq < ms[p].nextSeq {
				return false, nil
			}
		}
		return true, nil
	})
}

func (f *Fence) metas(ctx context.Context, stage string) ([]meta, error) {
	p := f.deps.Store.Pipe()
	var replies []*store.Reply
	for i := range f.t.Partitions {
		replies = append(replies, newSlot(f.deps.Store, f.t, stage, i, nil).askMeta(ctx, p))
	}
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read outboxes of %s: %w", stage, err)
	}
	ms := make([]meta, len(replies))
	for i, r := range replies {
		m, err := parseMeta(r.Slice())
		if err != nil {
			return nil, fmt.Errorf("read outboxes of %s: %w", stage, err)
		}
		ms[i] = m
	}
	return ms, nil
}

func (f *Fence) until(ctx context.Context, msg, what string, fn func() (bool, error)) error {
	t := time.NewTicker(f.poll)
	defer t.Stop()
	since := time.Now()
	for {
		ok, err := fn()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if time.Since(since) > fencePatience { // it says so in the log
			f.deps.Log.Warn(msg, zap.String("at", what), zap.Duration("waited", fencePatience))
			since = time.Now()
		}
	}
}
