package simulate

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	flagLedger  = flag.String("ledger", "", "directory of the ledger of a long run: go on where it ends; empty: no long run")
	flagMinutes = flag.Float64("minutes", 60, "how long a long run plays; it ends with the schedules it has begun")
	flagCommit  = flag.String("commit", "unknown", "what is played, for the ledger")
)

// ledgerFile is the ledger's name in its directory.
const ledgerFile = "ledger.json"

// saveEvery is how often a long run writes its ledger; what it plays in between is played again if it is killed.
const saveEvery = 10 * time.Second

// ledger is what all long runs together have played. Runs add up: the next goes on with the seeds behind those of
// the last, whatever has changed in the code.
type ledger struct {
	Shapes   map[string]*tally `json:"shapes"`
	Runs     []*longRun        `json:"runs"`
	Findings []finding         `json:"findings"`

	path  string
	mu    sync.Mutex
	saved time.Time
}

// tally is what was played of a shape.
type tally struct {
	Next      uint64 `json:"next"` // seed of the next schedule
	Schedules int    `json:"schedules"`
	Requests  int    `json:"requests"`
	Faults    int    `json:"faults"`
	Events    int    `json:"events"`
	Findings  int    `json:"findings"`
}

// longRun is one call of make simulate-long.
type longRun struct {
	Commit    string    `json:"commit"`
	Began     time.Time `json:"began"`
	Seconds   float64   `json:"seconds"`
	Schedules int       `json:"schedules"`
	Findings  int       `json:"findings"`
}

// finding is a schedule that broke a promise, or that never ended.
type finding struct {
	Again      string   `json:"again"` // the command that plays it once more
	Commit     string   `json:"commit"`
	Violations []string `json:"violations"`
}

// openLedger reads a ledger, or begins one.
func openLedger(dir string) (*ledger, error) {
	l := &ledger{Shapes: map[string]*tally{}, path: filepath.Join(dir, ledgerFile), saved: time.Now()}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("%s: %w", l.path, err)
	}
	return l, nil
}

// begin notes a run.
func (l *ledger) begin(commit string, now time.Time) *longRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &longRun{Commit: commit, Began: now.UTC()}
	l.Runs = append(l.Runs, r)
	return r
}

// next is the seed to play of a shape.
func (l *ledger) next(shape string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.Shapes[shape]
	if t == nil {
		t = &tally{Next: 1}
		l.Shapes[shape] = t
	}
	return t.Next
}

// played adds a schedule: the one that next named.
func (l *ledger) played(run *longRun, s *shape, seed uint64, r *result, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.Shapes[s.name]
	t.Next = seed + 1
	t.Schedules++
	t.Requests += r.steps
	for _, n := range r.injected {
		t.Faults += n
	}
	t.Events += r.seen["events"]
	run.Schedules++
	run.Seconds = now.Sub(run.Began).Seconds()
	if len(r.violations) > 0 {
		t.Findings++
		run.Findings++
		l.Findings = append(l.Findings, finding{Again: again(s, seed), Commit: run.Commit, Violations: r.violations})
	}
	if len(r.violations) == 0 && now.Sub(l.saved) < saveEvery {
		return nil
	}
	l.saved = now
	return l.write()
}

// save writes the ledger.
func (l *ledger) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write()
}

func (l *ledger) write() error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	half := l.path + ".new"
	if err := os.WriteFile(half, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(half, l.path)
}

// stuck notes a schedule whose virtual time stands still: the process is about to end because of it.
func (l *ledger) stuck(run *longRun, s *shape, seed uint64) error {
	return l.played(run, s, seed, &result{violations: []string{"virtual time stands still"}}, time.Now())
}

// String is the ledger as a table.
func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	var all tally
	seconds := 0.0
	for _, r := range l.Runs {
		seconds += r.Seconds
	}
	b.WriteString("| shape | schedules | events | requests | faults | findings |\n|---|---|---|---|---|---|\n")
	for _, name := range sortedKeys(l.Shapes) {
		t := l.Shapes[name]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", name, t.Schedules, t.Events, t.Requests, t.Faults, t.Findings)
		all.Schedules += t.Schedules
		all.Events += t.Events
		all.Requests += t.Requests
		all.Faults += t.Faults
		all.Findings += t.Findings
	}
	fmt.Fprintf(&b, "| all, %d runs, %.0f s | %d | %d | %d | %d | %d |\n", len(l.Runs), seconds, all.Schedules, all.Events, all.Requests, all.Faults, all.Findings)
	return b.String()
}

// TestLong plays on where the ledger ends, the shapes in turn, until its minutes are over. Findings are kept and do
// not end it: it fails at the end if there were some. Without a ledger it shows that one adds up, over two short runs.
func TestLong(t *testing.T) {
	if *flagLedger != "" {
		playLong(t, chosen(), *flagLedger, *flagMinutes)
		return
	}
	dir, s := t.TempDir(), shapes()[:1]
	playLong(t, s, dir, 0)
	playLong(t, s, dir, 0)
	l, err := openLedger(dir)
	require.NoError(t, err)
	require.Len(t, l.Runs, 2)
	require.Equal(t, uint64(3), l.next(s[0].name))
	require.Equal(t, 2, l.Shapes[s[0].name].Schedules)
	require.Empty(t, l.Findings)
}

// playLong is one long run: each shape at least once.
func playLong(t *testing.T, shapes []*shape, dir string, minutes float64) {
	t.Helper()
	l, err := openLedger(dir)
	require.NoError(t, err)
	f := newFiles(t)
	run := l.begin(*flagCommit, time.Now())
	for end := run.Began.Add(time.Duration(minutes * float64(time.Minute))); ; {
		for _, s := range shapes {
			seed := l.next(s.name)
			r := playOr(t, s, seed, f, func() { _ = l.stuck(run, s, seed) }) // the panic that follows says it too
			require.NoError(t, l.played(run, s, seed, &r, time.Now()))
			if len(r.violations) > 0 {
				t.Logf("%s\n%s", again(s, seed), strings.Join(r.violations, "\n"))
			}
		}
		if !time.Now().Before(end) {
			break
		}
	}
	require.NoError(t, l.save())
	t.Logf("%d schedules in %.0f s, %d findings. All runs:\n%s", run.Schedules, run.Seconds, run.Findings, l)
	if run.Findings > 0 {
		t.Fail()
	}
}
