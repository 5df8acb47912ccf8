package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	// startLimit is how long a server may take until it answers: Redis reads its log, ClickHouse a library of
	// half a gigabyte, perhaps from a slow disk.
	startLimit = 90 * time.Second
	// startTries bounds how often a server is started anew where it ends before it answers, as it does when its port
	// was taken meanwhile.
	startTries = 3
	// tailBytes is how much of a server's log an error quotes.
	tailBytes = 600
)

// command is a server to run as a child.
type command struct {
	name  string // in errors and logs
	argv  []string
	env   []string // added to this process's
	log   string   // file that takes standard output and error
	ready func(ctx context.Context) error
}

// child is a running server behind its guard.
type child struct {
	name  string
	log   string
	guard *exec.Cmd
	hold  *os.File      // the guard ends when this end of the pipe is closed, by us or with us
	done  chan struct{} // closed when the guard has been waited for
	err   error         // valid once done is closed
}

// run starts what build returns (called anew for each try, to pick ports), waits until it is ready, and watches it.
func (p *Parts) run(ctx context.Context, build func() (command, error)) error {
	var err error
	for range startTries {
		var c command
		if c, err = build(); err != nil {
			return err
		}
		var ch *child
		if ch, err = p.spawn(c); err != nil {
			return fmt.Errorf("start %s: %w", c.name, err)
		}
		var again bool
		if again, err = ch.await(ctx, c.ready); err == nil {
			p.watch(ch)
			return nil
		}
		err = errors.Join(fmt.Errorf("start %s: %w", c.name, err), ch.stop(context.WithoutCancel(ctx)))
		if !again {
			return err
		}
	}
	return err
}

// spawn starts the command behind a guard: fd 3 is the pipe, fd 4 the lock of the data directory.
func (p *Parts) spawn(c command) (*child, error) {
	if err := os.MkdirAll(filepath.Dir(c.log), 0o700); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the child has its own
	held, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close() //nolint:errcheck // the guard has its own
	argv := slices.Concat(p.self, []string{guardCommand, "--"}, c.argv)
	guard := exec.Command(argv[0], argv[1:]...) //nolint:gosec // this very binary
	guard.Env = append(os.Environ(), c.env...)
	guard.Stdout, guard.Stderr = out, out
	guard.ExtraFiles = []*os.File{held, p.lock}
	// A group of its own: the terminal's Ctrl-C is for this process, which stops the servers last.
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := guard.Start(); err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	ch := &child{name: c.name, log: c.log, guard: guard, hold: hold, done: make(chan struct{})}
	go func() {
		defer close(ch.done)
		ch.err = guard.Wait()
	}()
	return ch, nil
}

// await waits until ready answers. again says that the child has ended instead, so that another try makes sense.
func (ch *child) await(ctx context.Context, ready func(context.Context) error) (again bool, err error) {
	errEnded := errors.New("it ended")
	err = await(ctx, startLimit, func(ctx context.Context) error {
		select {
		case <-ch.done:
			return errEnded
		default:
			return ready(ctx)
		}
	})
	select {
	case <-ch.done: // ended before or just after it answered: perhaps another process did
		return true, ch.unexpected()
	default:
	}
	return false, err
}

// unexpected is the error of a child that has ended by itself, with the end of its log.
func (ch *child) unexpected() error {
	cause := ch.err
	if cause == nil {
		cause = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended by itself: %w; the end of %s: %s", ch.name, cause, ch.log, tail(ch.log))
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

// watch reports the child's end by itself and has it stopped with the others.
func (p *Parts) watch(ch *child) {
	p.onClose(ch.stop)
	go func() {
		<-ch.done
		select {
		case <-p.closing:
		case p.ended <- ch.unexpected():
		}
	}()
	p.log.Info("started", zap.String("part", ch.name), zap.String("log", ch.log))
}

// stop closes the pipe, on which the guard asks the server to end, kills it if it does not, and ends itself.
func (ch *child) stop(ctx context.Context) error {
	_ = ch.hold.Close() // closed already where the start failed
	select {
	case <-ch.done:
		return nil
	case <-ctx.Done():
	}
	// The server dies with its guard.
	err := ch.guard.Process.Kill()
	<-ch.done
	return errors.Join(fmt.Errorf("stop %s: killed: %w", ch.name, ctx.Err()), ignoreDone(err))
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
