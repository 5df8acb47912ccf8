package servers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// poll is the pause between looks at something that will be ready soon.
	poll = 50 * time.Millisecond
	// termLimit is how long a process may take to end in order; then it is killed, which is told.
	termLimit = 25 * time.Second
	// tailBytes is how much of a log a fault quotes.
	tailBytes = 1500
)

// Process is a child that can be ended and started again. Safe for concurrent use.
type Process struct {
	Name string
	argv []string
	env  []string
	log  string
	// ready fails until the process answers.
	ready func(ctx context.Context) error
	// launch starts the command; nil: as usual.
	launch func(cmd *exec.Cmd) error

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
	told   bool          // its end is our doing
	fallen []error       // ends that were not, and that Fallen has not told yet
}

// Start starts it, again if it has ended; it does nothing to one that runs.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(p.log), 0o700); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close()                             //nolint:errcheck // the child writes it
	cmd := exec.Command(p.argv[0], p.argv[1:]...) //nolint:gosec // servers of our own
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, log, log
	// A group of its own, so that Ctrl-C stops it through us; the kernel ends it should we be killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	launch := p.launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	if err := launch(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.told = cmd, ended, false
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		if !p.told { // kept, should somebody start it again before anybody looks
			if err == nil {
				err = errors.New("exit status 0")
			}
			p.fallen = append(p.fallen, fmt.Errorf("%s ended by itself: %w; the end of %s: %s", p.Name, err, p.log, tail(p.log)))
		}
		p.mu.Unlock()
		close(ended)
	}()
	return nil
}

// running wants mu.
func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// PID is its number; 0: it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// signal sends a signal to it, if it runs. told says that its end, should this be it, is our doing.
func (p *Process) signal(s syscall.Signal, told bool) (ended <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	p.told = p.told || told
	_ = p.cmd.Process.Signal(s) // it may end just now
	return p.ended
}

// Kill ends it with SIGKILL and waits until it is gone.
func (p *Process) Kill() { <-p.signal(syscall.SIGKILL, true) }

// Pause stops it with SIGSTOP; Resume lets it go on.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP, false) }

// Resume lets a paused process go on.
func (p *Process) Resume() { p.signal(syscall.SIGCONT, false) }

// Term ends it in order, with SIGTERM. One that takes too long is killed: the error says so.
func (p *Process) Term() error {
	ended := p.signal(syscall.SIGTERM, true)
	select {
	case <-ended:
		return nil
	case <-time.After(termLimit):
		p.Kill()
		return fmt.Errorf("%s had not ended %s after SIGTERM", p.Name, termLimit)
	}
}

// Expect says whether an end by itself would be our doing: while the disk of a server is full, say.
func (p *Process) Expect(told bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = told
}

// Fallen tells, once, each time that the process has ended by itself, with the end of its log; nil: never, or told.
func (p *Process) Fallen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errors.Join(p.fallen...)
	p.fallen = nil
	return err
}

// Cries are the lines of its log that no sound program writes: panics, what the runtime gives up over, data races.
func (p *Process) Cries() ([]string, error) {
	f, err := os.Open(p.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // it never ran
	}
	if err != nil {
		return nil, fmt.Errorf("read the log of %s: %w", p.Name, err)
	}
	defer f.Close() //nolint:errcheck // read only
	var out []string
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		if strings.Contains(line, "panic:") || strings.Contains(line, "DATA RACE") || strings.HasPrefix(line, "fatal error:") {
			out = append(out, strings.TrimSpace(line))
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("read the log of %s: %w", p.Name, err)
		}
	}
}

// Ready is nil when it answers.
func (p *Process) Ready(ctx context.Context) error {
	if p.PID() == 0 {
		return fmt.Errorf("%s does not run", p.Name)
	}
	if err := p.ready(ctx); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}

// Await waits until it answers.
func (p *Process) Await(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := p.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer after %s: %w; the end of %s: %s", p.Name, limit, err, p.log, tail(p.log))
		case <-time.After(poll):
		}
	}
}

func tail(file string) []byte {
	f, err := os.Open(file) //nolint:gosec // a log of our own
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // read only
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		if _, err := f.Seek(-tailBytes, io.SeekEnd); err != nil {
			return nil
		}
	}
	text, _ := io.ReadAll(io.LimitReader(f, tailBytes)) // what there is of it
	return bytes.TrimSpace(text)
}
