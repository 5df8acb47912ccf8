//go:build mutations

package simulate

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	flagMutation = flag.String("mutation", "", "these mutations alone, with commas between them; empty: all of them")
	flagHunts    = flag.Int("hunts", 400, "schedules of each shape within which a mutation must be caught")
)

// The test of pkg/identity that hunts for mutations of the graph, and in how many unions.
const (
	graphHunt   = "^TestLong$"
	graphUnions = 1_000_000
)

// huntLimit is how long the hunt for one mutation may take.
const huntLimit = 30 * time.Minute

var directedLine = regexp.MustCompile(`--- FAIL: (TestTen|TestDoors)/`)

var caughtLine = regexp.MustCompile(`caught after (\d+) schedules: ([^\n]*)\n\s*([^\n]*)`)

// TestMutationsAreCaught builds the simulation with each mutation, by way of an overlay, and lets it hunt.
func TestMutationsAreCaught(t *testing.T) {
	here, err := filepath.Abs(root)
	require.NoError(t, err)
	for _, m := range wanted(t) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			binary := m.build(t, here)
			ctx, cancel := context.WithTimeout(t.Context(), huntLimit)
			defer cancel()
			began := time.Now()
			if m.graph {
				out, err := exec.CommandContext(ctx, binary, "-test.run", graphHunt, "-test.failfast", "-identity.unions", fmt.Sprint(graphUnions),
					"-identity.from", fmt.Sprint(m.from)).CombinedOutput() //nolint:gosec // made here
				require.Error(t, err, "%s was not caught within %d unions\n%s", m.name, graphUnions, tail(out))
				t.Logf("%s: %s; %s", m.name, tail(out), time.Since(began).Truncate(time.Second/10))
				return
			}
			hunt := func(test string) ([]byte, error) {
				return exec.CommandContext(ctx, binary, "-test.run", test, "-test.v", "-test.failfast", "-hunt", //nolint:gosec // made here
					"-seeds", fmt.Sprint(*flagHunts), "-shape", m.shapes).CombinedOutput()
			}
			out, err := hunt("^(TestTen|TestDoors)$") // the directed ones first: they are few
			if err == nil {
				out, err = hunt("^TestSimulate$")
			}
			require.Error(t, err, "%s was not caught within %d schedules of each of %s\n%s", m.name, *flagHunts, m.shapes, tail(out))
			t.Logf("%s: %s; %s", m.name, how(string(out)), time.Since(began).Truncate(time.Second/10))
		})
	}
}

// wanted are the mutations that -mutation names, each of which there must be.
func wanted(t *testing.T) []mutation {
	t.Helper()
	all := mutations()
	if *flagMutation == "" {
		return all
	}
	var out []mutation
	for _, name := range strings.Split(*flagMutation, ",") {
		i := slices.IndexFunc(all, func(m mutation) bool { return m.name == name })
		require.GreaterOrEqual(t, i, 0, "no mutation is called %q", name)
		out = append(out, all[i])
	}
	return out
}

// how says by what a mutation was caught.
func how(out string) string {
	if at := directedLine.FindStringIndex(out); at != nil {
		line, _, _ := strings.Cut(out[at[0]:], "\n")
		_, why, _ := strings.Cut(out, "Should be empty, but was [")
		why, _, _ = strings.Cut(why, "\n")
		return "caught by " + line + ": " + why
	}
	if m := caughtLine.FindStringSubmatch(out); m != nil {
		return "caught after " + m[1] + " schedules: " + m[2] + ": " + m[3]
	}
	return "caught: " + tail([]byte(out))
}

// hunters is the package whose tests must catch the mutation.
func (m *mutation) hunters() string {
	if m.graph {
		return "./pkg/identity"
	}
	return "./services/weft/simulate"
}

func tail(b []byte) string { return string(b[max(0, len(b)-2000):]) }

// build makes the mutated test binary.
func (m *mutation) build(t *testing.T, here string) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for i, file := range m.files() {
		path := filepath.Join(here, file)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		mutated, lost := m.apply(text, file)
		require.Empty(t, lost)
		to := filepath.Join(dir, fmt.Sprintf("%d%s", i, filepath.Ext(file)))
		require.NoError(t, os.WriteFile(to, []byte(mutated), 0o600))
		replace[path] = to
	}
	overlay := filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, b, 0o600))
	binary := filepath.Join(dir, "simulate.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-ldflags", "-s -w", "-o", binary, m.hunters())
	cmd.Dir = here
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}
