//go:build integration

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clockTick is Linux's unit of CPU time in /proc; it is 100 a second on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// listening is the state of a socket in /proc/net/tcp that listens.
const listening = "0A"

// subject is a process whose CPU time is measured.
type subject struct {
	name string
	pid  int
}

// measured are the services, and of the servers those that run on this machine outside of containers.
func (d *deployment) measured() []subject {
	d.t.Helper()
	var out []subject
	for _, name := range d.names() {
		out = append(out, subject{name, d.processes[name].cmd.Process.Pid})
	}
	for _, server := range []struct{ name, address string }{{"Kafka", shared.kafka}, {"Redis", shared.redis}, {"ClickHouse", shared.clickHouse}} {
		if pid, ok := listener(d.t, server.address); ok {
			out = append(out, subject{server.name, pid})
		}
	}
	return out
}

// cpuTimes is the CPU time that each process has used: user and system.
func cpuTimes(t testing.TB, subjects []subject) map[string]time.Duration {
	t.Helper()
	out := map[string]time.Duration{}
	for _, s := range subjects {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
		require.NoError(t, err)
		// The name, in parentheses, may hold spaces; user and system time are the 14th and 15th field.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, f := range fields[11:13] {
			ticks, err := strconv.ParseInt(f, 10, 64)
			require.NoError(t, err)
			out[s.name] += time.Duration(ticks) * clockTick
		}
	}
	return out
}

// listener is the process that listens on a port of this machine.
func listener(t testing.TB, address string) (pid int, ok bool) {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // no IPv6
		}
		for _, line := range strings.Split(string(text), "\n") {
			if f := strings.Fields(line); len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	require.NoError(t, err)
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && inodes[to] {
			pid, err := strconv.Atoi(strings.Split(link, "/")[2])
			require.NoError(t, err)
			return pid, true
		}
	}
	return 0, false
}
