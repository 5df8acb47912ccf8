//go:build integration

package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// runDemo runs 'weft demo' as a newcomer does, with temporary files in dir.
func runDemo(t *testing.T, dir string, flags ...string) (*exec.Cmd, *syncBuffer) {
	t.Helper()
	var out syncBuffer
	cmd := exec.Command(os.Args[0], append([]string{"demo"}, flags...)...) //nolint:gosec // this test binary
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), envMain+"=1", "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // where the test ended before it
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return cmd, &out
}

func requireNothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.Eventually(t, func() bool { return len(processesIn(t, dir)) == 0 }, soon, 50*time.Millisecond)
}

// The whole of Weft against the simulator's truth: the exit status is the assertion.
func TestDemoAgreesWithItsTruthAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd, out := runDemo(t, dir, "--visitors", "150", "--over", "5s", "--seed", "20261")
	require.NoError(t, cmd.Wait())
	require.Contains(t, out.String(), "Messages after a purchase: 0")
	require.Contains(t, out.String(), "Everything is as it must be.")
	requireNothingLeft(t, dir)
}

func TestDemoInterruptedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd, out := runDemo(t, dir, "--visitors", "50", "--over", "60s")
	require.Eventually(t, func() bool { return len(out.String()) > 0 && processesIn(t, dir) != nil }, soon, 20*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, exitError, exit.ExitCode())
	require.Contains(t, out.String(), "interrupted")
	requireNothingLeft(t, dir)
}
