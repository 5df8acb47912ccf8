//go:build integration

package embedded

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Nothing may stay behind where the process is killed, and what was acknowledged must be there afterwards.
func TestKilledWithSIGKILL(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this test binary
	cmd.Env = append(os.Environ(), envKilled+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // where the test ends before it does
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	var p Parts
	require.NoError(t, json.Unmarshal([]byte(line), &p), line)

	ask(t, &p, "CREATE TABLE default.t (a UInt64) ENGINE = MergeTree ORDER BY a")
	ask(t, &p, "INSERT INTO default.t SELECT number FROM numbers(1000)")
	answer, err := exchange(t.Context(), p.RedisAddr, "SET a b\r\n")
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", answer)
	kafkaWrite(t, p.KafkaAddr, "t", "v")
	children := processesWith(t, dir)
	require.Len(t, children, 4, "two servers and their guards: %v", children)

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	// Start waits until the children of the killed process are gone.
	opt := testOptions(t, dir)
	opt.Kafka, opt.Redis, opt.ClickHouse, opt.NeedRedis = true, true, true, true
	again := start(t, opt)
	for _, id := range children {
		require.True(t, gone(id), id)
	}
	require.Equal(t, "1000", ask(t, again, "SELECT count() FROM default.t"))
	answer, err = exchange(t.Context(), again.RedisAddr, "EXISTS a\r\n")
	require.NoError(t, err)
	require.Equal(t, ":1\r\n", answer)
	require.Equal(t, "v", kafkaRead(t, again.KafkaAddr, "t"))
}

// gone says whether a process has ended; one that nobody waits for stays as a zombie where the machine has no init.
func gone(id string) bool {
	text, err := os.ReadFile("/proc/" + id + "/stat")
	return err != nil || strings.Contains(string(text), ") Z ")
}

// A guard that is killed takes its server with it.
func TestKilledGuard(t *testing.T) {
	dir := t.TempDir()
	opt := testOptions(t, dir)
	opt.Redis, opt.NeedRedis = true, true
	p := start(t, opt)
	ids := processesWith(t, dir)
	require.Len(t, ids, 2)
	for _, id := range ids {
		if text, _ := os.ReadFile("/proc/" + id + "/cmdline"); strings.Contains(string(text), guardCommand+"\x00") {
			require.NoError(t, exec.Command("kill", "-KILL", id).Run()) //nolint:gosec // a process of this test
		}
	}
	require.ErrorContains(t, p.Run(t.Context()), "signal: killed")
	requireGone(t, p.RedisAddr)
}

// processesWith lists the processes whose command line names dir, or that work in it (Redis shows another line).
func processesWith(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var ids []string
	for _, e := range entries {
		text, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline") // it may have ended
		cwd, _ := os.Readlink("/proc/" + e.Name() + "/cwd")
		if strings.Contains(string(text), dir) || strings.HasPrefix(cwd, dir) {
			ids = append(ids, e.Name())
		}
	}
	return ids
}
