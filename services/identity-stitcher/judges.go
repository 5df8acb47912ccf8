package stitcher

import (
	"context"
	_ "embed" // judges.lua
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// ErrOtherRules means that identity-stitchers work that judge by other limits.
var ErrOtherRules = errors.New("identity-stitchers are working by other rules of who may be one person")

const (
	// judgesFor is how long a process counts as working since it last said so. As long does a change of the rules wait for
	// one that died, so it is short; longer than what Redis, the network or a collection of garbage take.
	judgesFor = 30 * time.Second
	// judgesAgain is when it says so again: two may fail.
	judgesAgain = judgesFor / 3
	// judgesUntil is how old the last word may be where something is decided: what is decided ends before the time is over.
	judgesUntil = judgesFor * 2 / 3
	// judgesLeave bounds the good-bye of one that ends.
	judgesLeave = 2 * time.Second
)

//go:embed judges.lua
var judgesScript string

// judges keeps all who work on one graph to the same rules: of one join, one must not be refused by a limit while another, with
// a higher one, completes it. Each registers in Redis, for a time, with what it judges by; who judges otherwise is let in, and
// changes the rules, only while nobody is there. Safe for concurrent use.
type judges struct {
	store *store.Client
	log   *zap.Logger
	key   string
	me    string
	text  string // what it judges by, a line for each thing

	mu   sync.Mutex
	last time.Time // when it last asked, and was let in; zero: not yet
	also string    // what else stands there, which it can work beside
	in   chan struct{}
}

func newJudges(st *store.Client, log *zap.Logger, topics topic.Set, text string) *judges {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return &judges{
		store: st, log: log, key: keyed.DeploymentKey(topics) + ":judges", text: text, in: make(chan struct{}),
		me: fmt.Sprintf("%s/%d/%s", host, os.Getpid(), uuid.NewString()[:8]),
	}
}

// enter registers, or says so again. ErrOtherRules: it must not work.
func (j *judges) enter(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		asked := time.Now() // by the clock that only grows
		said, err := j.ask(ctx, judgesFor)
		if err != nil {
			return fmt.Errorf("register with those who work on the identity graph: %w", err)
		}
		stands := string(said[1])
		if string(said[0]) == "1" {
			if stands != "" && stands != j.text && stands != j.also {
				j.log.Info("identity rules changed, nobody was working by others", zap.Strings("changes", identity.Differences(stands, j.text)))
			}
			if j.last.IsZero() {
				close(j.in)
			}
			j.last = asked
			return nil
		}
		differ := identity.Differences(stands, j.text)
		if len(differ) == 0 && j.also != stands { // one of another version, that knows something more or less
			j.also = stands
			continue
		}
		names := make([]string, 0, len(said))
		for _, who := range said[2:] {
			name, _, _ := strings.Cut(string(who), " ")
			names = append(names, name)
		}
		return fmt.Errorf("%w: %s. Working: %s. Stop all of them, then start all with the new rules; one that died counts for %s (docs/identity.md)",
			ErrOtherRules, strings.Join(differ, "; "), strings.Join(names, ", "), judgesFor)
	}
}

func (j *judges) ask(ctx context.Context, during time.Duration) ([][]byte, error) {
	got, err := j.store.RunEach(ctx, judgesScript, [][]string{{j.key}}, [][]any{{"run:" + j.me, j.text, during.Milliseconds(), j.also}})
	if err != nil {
		return nil, err
	}
	if len(got) != 1 || len(got[0]) < 2 {
		return nil, fmt.Errorf("%s: answer of %d values", j.key, len(got))
	}
	return got[0], nil
}

// check is asked before anything is decided: of one that was held up for so long that it does not count any more, nothing more
// is taken by the old rules.
func (j *judges) check(ctx context.Context) error {
	j.mu.Lock()
	fresh := time.Since(j.last) < judgesUntil
	j.mu.Unlock()
	if fresh {
		return nil
	}
	return j.enter(ctx)
}

// run says again that this one works, until ctx ends or others judge otherwise.
func (j *judges) run(ctx context.Context) error {
	t := time.NewTicker(judgesAgain)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := j.enter(ctx); errors.Is(err, ErrOtherRules) {
			return err
		}
		// Any other error is that Redis is away; then nothing is decided either.
	}
}

// leave says that this one has ended; if it can not, its time runs out.
func (j *judges) leave() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.last.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), judgesLeave)
	defer cancel()
	_, _ = j.ask(ctx, 0)
}

// admit is what a stage asks at its start.
func (j *judges) admit(first func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := first(ctx); err != nil {
			return err
		}
		err := j.enter(ctx)
		if errors.Is(err, ErrOtherRules) {
			return fmt.Errorf("%w: %w", stream.ErrStop, err)
		}
		return err
	}
}
