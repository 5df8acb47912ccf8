//go:build integration

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// soon bounds what must happen; nothing waits for it to pass.
const soon = 90 * time.Second

// upProcess is a running 'weft up'.
type upProcess struct {
	cmd                              *exec.Cmd
	door, profiles, clickHouse       string // URLs
	writeKey, accessKey, explanation string
}

// syncBuffer is written by a process and read by a test.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startUp runs 'weft up' as a newcomer does, but on free ports and with its data in dir.
func startUp(t *testing.T, dir string) *upProcess {
	t.Helper()
	var out, log syncBuffer
	u := &upProcess{cmd: exec.Command(os.Args[0], "up", "--data-dir", dir)}
	u.cmd.Dir = t.TempDir() // where no journey files are
	u.cmd.Env = append(os.Environ(), envMain+"=1",
		"WEFT_COLLECTOR_LISTEN=127.0.0.1:0", "WEFT_BUILDER_LISTEN=127.0.0.1:0", "WEFT_ADMIN_LISTEN=127.0.0.1:0", "WEFT_LOG_FORMAT=console")
	u.cmd.Stdout, u.cmd.Stderr = &out, &log
	require.NoError(t, u.cmd.Start())
	t.Cleanup(func() {
		_ = u.cmd.Process.Kill() // where the test ended before it
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "Ctrl-C stops it.") }, soon, 20*time.Millisecond,
		"weft up did not become ready")
	u.explanation = out.String()
	find := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindStringSubmatch(u.explanation)
		require.Len(t, found, 2, "%s in %s", pattern, u.explanation)
		return found[1]
	}
	u.writeKey, u.door = find(`curl -u (\S+): `), find(`(http://\S+)/v1/track`)
	u.accessKey, u.profiles = find(`Bearer (\w+)'`), find(`(http://\S+)/v1/profiles`)
	u.clickHouse = find(`(http://\S+) \(HTTP`)
	return u
}

// do makes a request and returns status and body; user and password may be empty.
func do(t *testing.T, method, url, user, bearer, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Close = true
	if user != "" {
		req.SetBasicAuth(user, "")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, strings.TrimSpace(string(text))
}

func (u *upProcess) track(t *testing.T, order string) {
	t.Helper()
	body := fmt.Sprintf(`{"type":"track","event":"Order Completed","userId":"u1","properties":{"order_id":%q,"total":12.34,"currency":"EUR"}}`, order)
	code, text := do(t, http.MethodPost, u.door+"/v1/track", u.writeKey, "", body)
	require.Equal(t, http.StatusOK, code, text)
}

// requireSeen waits until that many orders are in ClickHouse and in the profile, exactly.
func (u *upProcess) requireSeen(t *testing.T, orders int) {
	t.Helper()
	var rows, profile string
	require.Eventually(t, func() bool {
		_, rows = do(t, http.MethodPost, u.clickHouse, "", "", "SELECT count() FROM weft.events")
		_, profile = do(t, http.MethodGet, u.profiles+"/v1/profiles/user_id/u1", "", u.accessKey, "")
		return rows == fmt.Sprint(orders) && strings.Contains(profile, fmt.Sprintf(`"orders":%d,`, orders))
	}, soon, 50*time.Millisecond, "%d orders; rows, profile", orders)
}

// The newcomer's path, with a kill and a restart on the way.
func TestUpSurvivesAKillAndLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	u := startUp(t, dir)
	require.FileExists(t, filepath.Join(dir, "journeys", "abandoned-cart.yaml"))
	u.track(t, "o1")
	u.requireSeen(t, 1)
	u.track(t, "o2") // acknowledged, and then the process is killed
	require.NoError(t, u.cmd.Process.Kill())
	require.Error(t, u.cmd.Wait())

	again := startUp(t, dir)
	require.Equal(t, []string{u.writeKey, u.accessKey, u.clickHouse}, []string{again.writeKey, again.accessKey, again.clickHouse})
	again.track(t, "o3")
	again.requireSeen(t, 3)

	require.NoError(t, again.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, again.cmd.Wait())
	require.Empty(t, processesIn(t, dir))
}

// A server that goes away ends the process, with an error that names it.
func TestUpEndsWithItsParts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	u := startUp(t, dir)
	killed := 0
	for _, id := range processesIn(t, filepath.Join(dir, "redis")) {
		pid, err := strconv.Atoi(id)
		require.NoError(t, err)
		if err = syscall.Kill(pid, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
			continue // a child that redis-server had for a moment, to write its log anew
		}
		require.NoError(t, err)
		killed++
	}
	require.Positive(t, killed)
	var exit *exec.ExitError
	require.ErrorAs(t, u.cmd.Wait(), &exit)
	require.Equal(t, exitError, exit.ExitCode())
	log, ok := u.cmd.Stderr.(*syncBuffer)
	require.True(t, ok)
	require.Contains(t, log.String(), "redis-server ended by itself")
	require.Equal(t, 1, strings.Count(log.String(), "stopped by an error"))
	require.Eventually(t, func() bool { return len(processesIn(t, dir)) == 0 }, soon, 50*time.Millisecond, "a server is left")
}

// processesIn lists the live processes whose command line names dir, or that work in it.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var ids []string
	for _, e := range entries {
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline") // it may have ended
		cwd, _ := os.Readlink("/proc/" + e.Name() + "/cwd")
		if strings.Contains(string(line), dir) || strings.HasPrefix(cwd, dir) {
			ids = append(ids, e.Name())
		}
	}
	return ids
}
