//go:build integration

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// readyLimit is how long a service may take from its start to ready, with the machine busy.
	readyLimit = 3 * time.Minute
	// stopLimit is how long it may take to stop in order.
	stopLimit = 2 * time.Minute
	// poll is the pause between looks at a condition, at first; it grows with the time waited, up to maxPoll, because
	// looking costs the machine that is waited for.
	poll    = 50 * time.Millisecond
	maxPoll = 500 * time.Millisecond
	// shownLog is how much of a log's end is shown when a test has failed.
	shownLog = 6 << 10
)

// process is one service in a process of its own. It is for one goroutine at a time.
type process struct {
	t       *testing.T
	name    string
	args    []string
	environ []string
	admin   string // host:port, the same after a restart
	logFile string

	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process is gone
	mu      sync.Mutex
	told    bool // its end is our doing
	endedAs error
}

// start starts the process, again if it was killed.
func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(p.t, err)
	defer log.Close() //nolint:errcheck // the child writes it
	cmd := exec.Command(weft, p.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environ, log, log
	// A process group of its own, so that nobody's Ctrl-C stops it out of turn; the kernel ends it should we be killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(p.t, cmd.Start())
	ended := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.ended, p.told, p.endedAs = cmd, ended, false, nil
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.endedAs = err
		p.mu.Unlock()
		close(ended)
	}()
}

// signal sends a signal to a process that is there.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s), "%s to %s", s, p.name)
}

// kill ends it with SIGKILL and waits until it is gone.
func (p *process) kill() {
	p.t.Helper()
	p.mu.Lock()
	p.told = true
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// running fails the test if the process has ended by itself.
func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// stop ends it in order; how it ended is told.
func (p *process) stop() error {
	if p.cmd == nil {
		return nil
	}
	p.mu.Lock()
	told := p.told
	p.mu.Unlock()
	if !p.running() {
		if told {
			return nil
		}
		return fmt.Errorf("%s ended by itself: %w", p.name, p.endedAs)
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be held
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s did not stop within %s of SIGTERM", p.name, stopLimit)
	}
	if p.endedAs != nil {
		return fmt.Errorf("%s after SIGTERM: %w", p.name, p.endedAs)
	}
	return nil
}

// ready is nil when /readyz says so, else why not.
func (p *process) ready() error {
	if !p.running() {
		return errors.New("it has ended")
	}
	c := http.Client{Timeout: readyLimit}
	resp, err := c.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // was only read
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	return err
}

// awaitReady waits until the service has caught up.
func (p *process) awaitReady() {
	p.t.Helper()
	eventually(p.t, readyLimit, p.name+" is ready", p.ready)
}

// peakMemory is the most memory that the process has had resident, in bytes.
func (p *process) peakMemory() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	_, rest, ok := strings.Cut(string(text), "VmHWM:")
	require.True(p.t, ok)
	var kb int64
	_, err = fmt.Sscan(rest, &kb)
	require.NoError(p.t, err)
	return kb << 10
}

// showLog prints the end of the process's log.
func (p *process) showLog() {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return // it was never started
	}
	if len(text) > shownLog {
		text = text[len(text)-shownLog:]
	}
	p.t.Logf("the end of the log of %s (%s):\n%s", p.name, filepath.Base(p.logFile), text)
}

// eventually waits until look returns nil; if it does not in time, the test ends with the last reason.
func eventually(t testing.TB, limit time.Duration, what string, look func() error) {
	t.Helper()
	begun := time.Now()
	for {
		err := look()
		if err == nil {
			return
		}
		waited := time.Since(begun)
		if waited > limit {
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v; the test has ended", what, err)
		case <-time.After(min(max(poll, waited/20), maxPoll)):
		}
	}
}

// want is an error unless got is what is wanted.
func want[T comparable](what string, wanted, got T) error {
	if wanted == got {
		return nil
	}
	return fmt.Errorf("%s: want %v, found %v", what, wanted, got)
}

// takenPorts are the ports given out by this process.
var takenPorts = struct {
	sync.Mutex
	next int
}{next: firstPort + os.Getpid()%(lastPort-firstPort)}

// Ports below the range from which Linux takes those of outgoing connections, and below those of embedded.FreePort, so
// that a service that was killed finds its port free when it comes back.
const firstPort, lastPort = 20_000, 28_000

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	takenPorts.Lock()
	defer takenPorts.Unlock()
	for range lastPort - firstPort {
		takenPorts.next++
		if takenPorts.next >= lastPort {
			takenPorts.next = firstPort
		}
		address := fmt.Sprintf("127.0.0.1:%d", takenPorts.next)
		if l, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, l.Close())
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}
