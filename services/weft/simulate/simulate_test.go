package simulate

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/identity"
	shipped "github.com/weft-cdp/weft/schemas/identity"
)

var (
	flagSeeds = flag.Int("seeds", defaultSeeds, "schedules per shape")
	flagSeed  = flag.Uint64("seed", 0, "this schedule alone, with its trace; 0: -seeds of them")
	flagFirst = flag.Uint64("first", 1, "seed of the first schedule")
	flagShape = flag.String("shape", "", "these shapes alone, with commas between them; empty: all of them")
	flagTwice = flag.Bool("twice", false, "each schedule once more, to see how much of it is the same")
	flagHunt  = flag.Bool("hunt", false, "the shapes in turn, until the first violation: what looks for a mutation")
)

// defaultSeeds is what 'go test' runs of every shape: enough to see that the simulation works.
const defaultSeeds = 2

// files are what processes read from the disk. No schedule changes them.
type files struct {
	identity, unsubscribe, journeys string
	limits                          string // rules of identity without any: whoever is linked is one person
	spools                          string // the disk that collectors share
	rules                           *identity.Rules
}

// journeyFile sends one reminder to whoever agreed.
const journeyFile = `name: abandoned-cart
arms: cart
delay: %s
cancel: order
channel: email
purpose: marketing
from: Your shop <shop@example.com>
subject: Your cart is waiting
text: |
  {{range .Lines}}{{.Name}} {{end}}
`

func newFiles(t testing.TB) files {
	t.Helper()
	dir := t.TempDir()
	f := files{
		identity: filepath.Join(dir, "identity.key"), unsubscribe: filepath.Join(dir, "unsubscribe.key"),
		limits: filepath.Join(dir, "rules.yaml"), journeys: filepath.Join(dir, "journeys"), spools: filepath.Join(dir, "spools"),
	}
	// Keys are fixed: profile ids are made with them, and a seed must mean the same in every run.
	require.NoError(t, os.WriteFile(f.identity, []byte(strings.Repeat("5a", identity.KeyBytes)), 0o600))
	require.NoError(t, os.WriteFile(f.unsubscribe, []byte(strings.Repeat("a5", identity.KeyBytes)), 0o600))
	unlimited := regexp.MustCompile(`values: [0-9]+`).ReplaceAll(shipped.Rules(), []byte("values: 0"))
	require.NoError(t, os.WriteFile(f.limits, unlimited, 0o600))
	require.NoError(t, os.Mkdir(f.journeys, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(f.journeys, "cart.yaml"), fmt.Appendf(nil, journeyFile, delay), 0o600))
	key, err := config.LoadOrCreateSecret(f.identity)
	require.NoError(t, err)
	f.rules, err = identity.NewRules(key, identity.Options{})
	require.NoError(t, err)
	return f
}

// result is what one schedule came to.
type result struct {
	violations []string
	journal    []string
	digest     uint64
	steps      int
	injected   map[string]int
	virtual    time.Duration
	seen       map[string]int // what the schedule led to
	befell     []string       // the faults, each with its process and request, sorted
}

// hanging is how long a schedule may take in real time: a hundred times what it takes, and more, for machines
// that do other things too and for the race detector.
const hanging = 5 * time.Minute

// play runs one schedule in a bubble of its own.
func play(t *testing.T, s *shape, seed uint64, f files) result {
	t.Helper()
	return playOr(t, s, seed, f, func() {})
}

// playOr is play; stuck is called before the process ends because virtual time stands still.
func playOr(t *testing.T, s *shape, seed uint64, f files, stuck func()) (r result) {
	t.Helper()
	// A goroutine that waits for a lock, or outside of the bubble, keeps virtual time from going on.
	hang := time.AfterFunc(hanging, func() {
		stuck()
		debug.SetTraceback("all")
		panic("virtual time stands still: " + again(s, seed))
	})
	defer hang.Stop()
	if s.config > 0 || s.outages > 0 { // no schedule sees the files of another
		f = newFiles(t)
	}
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(s, seed, f)
		require.NoError(t, err)
		r.violations = w.run()
		w.mu.Lock() // connections that are being closed still note what they see
		defer w.mu.Unlock()
		r.journal, r.digest, r.steps, r.injected, r.virtual = w.journal, w.digest.Sum64(), w.steps, w.injected, w.now()
		maps.Copy(w.seen, w.heard)
		r.seen, r.befell = w.seen, slices.Sorted(slices.Values(w.befell))
	})
	return r
}

// again is the command that plays a schedule once more.
func again(s *shape, seed uint64) string {
	return fmt.Sprintf("make simulate SEED=%d SHAPE=%s", seed, s.name)
}

// TestMain silences the clients, whose own logs tell of every connection that a schedule cuts.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800) // worlds are small and short-lived
	redis.SetLogger(nothing{})
	goleak.VerifyTestMain(m)
}

type nothing struct{}

func (nothing) Printf(context.Context, string, ...any) {}

// TestSimulate plays schedules of all shapes and prints how many, how fast, and what befell them.
func TestSimulate(t *testing.T) {
	f := newFiles(t)
	if *flagHunt {
		hunt(t, f)
		return
	}
	for _, s := range chosen() {
		t.Run(s.name, func(t *testing.T) {
			if *flagSeed == 0 {
				t.Parallel()
			}
			began := time.Now()
			var same likeness
			n, steps, injected, seen := 0, 0, map[string]int{}, map[string]int{}
			for seed := *flagFirst; n < *flagSeeds; seed++ {
				if *flagSeed != 0 {
					seed = *flagSeed
				}
				r := play(t, s, seed, f)
				n++
				if *flagTwice {
					same.take(r, play(t, s, seed, f))
				}
				steps += r.steps
				for k, v := range r.injected {
					injected[k] += v
				}
				for k, v := range r.seen {
					seen[k] += v
				}
				if *flagSeed != 0 {
					t.Logf("%s\ntrace %x, %s of virtual time", strings.Join(r.journal, "\n"), r.digest, r.virtual)
				}
				if len(r.violations) > 0 {
					t.Errorf("%s\n%s", again(s, seed), strings.Join(r.violations, "\n"))
				}
				if *flagSeed != 0 || t.Failed() {
					break
				}
			}
			took := time.Since(began)
			if *flagTwice {
				t.Logf("played twice: %s", &same)
			}
			t.Logf("%d schedules, %.1f a second, %d requests; faults: %s; seen: %s", n, float64(n)/took.Seconds(), steps, summary(injected), summary(seen))
		})
	}
}

// chosen are the shapes that -shape names.
func chosen() []*shape {
	return slices.DeleteFunc(shapes(), func(s *shape) bool {
		return *flagShape != "" && !slices.Contains(strings.Split(*flagShape, ","), s.name)
	})
}

// hunt plays schedules of all chosen shapes in turn and stops at the first that is violated.
func hunt(t *testing.T, f files) {
	for n := range *flagSeeds {
		for i, s := range chosen() {
			seed := *flagFirst + uint64(n) //nolint:gosec // a count
			if r := play(t, s, seed, f); len(r.violations) > 0 {
				t.Fatalf("caught after %d schedules: %s\n%s", n*len(chosen())+i+1, again(s, seed), strings.Join(r.violations, "\n"))
			}
		}
	}
}

// likeness is how much schedules are the same when they are played again.
type likeness struct{ plays, traces, plans, faults, shared int }

func (l *likeness) take(a, b result) {
	l.plays++
	if a.digest == b.digest {
		l.traces++
	}
	if slices.Equal(a.befell, b.befell) {
		l.plans++
	}
	l.faults += len(a.befell)
	for _, x := range a.befell {
		if _, ok := slices.BinarySearch(b.befell, x); ok {
			l.shared++
		}
	}
}

func (l *likeness) String() string {
	return fmt.Sprintf("%d schedules, the whole trace the same in %d, all faults the same in %d; %d of %d faults are the same",
		l.plays, l.traces, l.plans, l.shared, l.faults)
}

func summary(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}
