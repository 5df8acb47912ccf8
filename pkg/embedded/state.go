package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// lockWait is how long the children of a killed predecessor may take to end: more than a guard's stopGrace.
	lockWait = stopGrace + 5*time.Second
	// poll is the pause between looks at something that will be ready soon.
	poll = 20 * time.Millisecond
)

// lockDir takes the directory for this process and those that inherit the file. The guards do, so that a
// directory stays taken until the last child of a killed process is gone.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator's directory
	if err != nil {
		return nil, fmt.Errorf("embedded parts: %w", err)
	}
	err = await(ctx, lockWait, func(context.Context) error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another process: %w", dir, err), f.Close())
	}
	return f, nil
}

// await polls try until it returns nil, and returns its last error where that takes longer than limit or ctx ends.
func await(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// ports remembers the port of each listener in the data directory, so that addresses stay the same over a restart
// wherever they can.
type ports struct {
	file string
	mu   sync.Mutex
	last map[string]int
}

func readPorts(dir string) (*ports, error) {
	p := &ports{file: filepath.Join(dir, "ports.json"), last: map[string]int{}}
	text, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("embedded parts: %w", err)
	}
	if err := json.Unmarshal(text, &p.last); err != nil {
		return nil, fmt.Errorf("read %s: %w", p.file, err)
	}
	return p, nil
}

func (p *ports) write() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := json.Marshal(p.last)
	if err != nil {
		return fmt.Errorf("write %s: %w", p.file, err)
	}
	if err := os.WriteFile(p.file, text, 0o600); err != nil {
		return fmt.Errorf("embedded parts: %w", err)
	}
	return nil
}

// pick returns the port that name had last time if it is free, and a free one otherwise. Another process may take it
// before it is used: callers try again then.
func (p *ports) pick(name string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, ok := p.last[name]; ok {
		if l, err := net.Listen("tcp", loopback(last)); err == nil {
			return last, l.Close()
		}
	}
	port, err := FreePort()
	if err != nil {
		return 0, err
	}
	p.last[name] = port
	return port, nil
}

const (
	// firstPort and lastPort bound the ports that are picked. They are below those that systems give to connections by
	// themselves (from 32768 on Linux, 49152 elsewhere): one that is free now is free when its server starts, or is back.
	firstPort, lastPort = 28_000, 32_767
	// portAttempts is how many ports are tried before it is said that none is free: most are.
	portAttempts = 100
)

// FreePort is a port of 127.0.0.1 that nobody listens on, for a server that starts soon.
func FreePort() (int, error) {
	var failed error
	for range portAttempts {
		port := firstPort + rand.IntN(lastPort-firstPort+1) //nolint:gosec // spreading, not a secret
		l, err := net.Listen("tcp", loopback(port))
		if err == nil {
			return port, l.Close()
		}
		failed = err
	}
	return 0, fmt.Errorf("find a free port: %w", failed)
}

// loopback is the address of a port on this machine.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
