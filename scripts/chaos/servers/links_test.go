package servers

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo answers every byte with itself and counts what it got.
func echo(t *testing.T) (address string, got *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	got = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for b := make([]byte, 1); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
					got.Add(1)
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

// ask sends one byte over a link and waits for it, for as long as given.
func ask(address string, limit time.Duration) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// Each harm does what it is called, and after Heal nothing is left of it.
func TestLinksAreHurtAndHealed(t *testing.T) {
	const patient, short = 30 * time.Second, 200 * time.Millisecond
	upstream, got := echo(t)
	d := &Deployment{ports: map[string]int{}}
	l, err := d.link("echo", upstream)
	require.NoError(t, err)
	defer l.close()
	r := rand.New(rand.NewPCG(1, 1))
	require.NoError(t, ask(l.Address, patient))
	for _, harm := range Harms() {
		before := got.Load()
		require.NoError(t, l.Hurt(harm, r))
		switch harm {
		case Cut:
			require.ErrorIs(t, ask(l.Address, patient), syscall.ECONNREFUSED)
			require.Equal(t, before, got.Load())
		case Swallow:
			require.ErrorIs(t, ask(l.Address, short), os.ErrDeadlineExceeded)
			require.Eventually(t, func() bool { return got.Load() == before+1 }, patient, time.Millisecond, "the request must go through")
		case Delay:
			begun := time.Now()
			require.NoError(t, ask(l.Address, patient))
			require.Greater(t, time.Since(begun), 30*time.Millisecond)
		case Throttle:
			require.NoError(t, ask(l.Address, patient))
		case Sever:
			c, err := net.Dial("tcp", l.Address)
			require.NoError(t, err)
			go func() {
				for {
					if _, err := c.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			}()
			n, err := io.Copy(io.Discard, c) // until it is cut
			require.True(t, err == nil || errors.Is(err, syscall.ECONNRESET), "%v", err)
			require.Positive(t, n)
			require.LessOrEqual(t, n, int64(20_050))
			require.NoError(t, c.Close())
		default:
			t.Fatalf("%s is not tried", harm)
		}
		require.NoError(t, l.Heal(context.Background()))
		require.NoError(t, ask(l.Address, patient), "after %s", harm)
	}
}

// A process that we end has not fallen; one that ends by itself has, with the end of its log; both start again.
func TestProcessTellsHowItEnded(t *testing.T) {
	shell, err := exec.LookPath("sh")
	require.NoError(t, err)
	p := &Process{
		Name: "p", argv: []string{shell, "-c", "echo a word; sleep 1000"}, log: filepath.Join(t.TempDir(), "logs", "p.log"),
		ready: func(context.Context) error { return nil },
	}
	require.NoError(t, p.Start())
	require.NoError(t, p.Start(), "it runs already")
	require.NotZero(t, p.PID())
	p.Pause()
	p.Resume()
	p.Kill()
	require.NoError(t, p.Fallen())
	require.Error(t, p.Ready(context.Background()))
	require.NoError(t, p.Start())
	require.Eventually(t, func() bool { return len(tail(p.log)) >= len("a word") }, 30*time.Second, time.Millisecond)
	require.NoError(t, syscall.Kill(-p.PID(), syscall.SIGKILL)) // not by us
	require.Eventually(t, func() bool { return p.PID() == 0 }, 30*time.Second, time.Millisecond)
	require.NoError(t, p.Start(), "it is told, though it runs again")
	require.ErrorContains(t, p.Fallen(), "a word")
	require.NoError(t, p.Fallen(), "it is told once")
	require.NoError(t, p.Term())
	require.NoError(t, p.Fallen())
}

// What the runtime writes when a program ends in disorder is found in the middle of a log.
func TestCriesAreHeard(t *testing.T) {
	p := &Process{Name: "p", log: filepath.Join(t.TempDir(), "p.log")}
	cries, err := p.Cries()
	require.NoError(t, err)
	require.Empty(t, cries, "it never ran")
	for text, want := range map[string][]string{
		"{\"msg\":\"ready\"}\n{\"msg\":\"a fatal error: no more\"}": nil,
		"{\"msg\":\"ready\"}\npanic: no\n\ngoroutine 1":             {"panic: no"},
		"WARNING: DATA RACE\nfatal error: all asleep":               {"WARNING: DATA RACE", "fatal error: all asleep"},
	} {
		require.NoError(t, os.WriteFile(p.log, []byte(text), 0o600))
		cries, err := p.Cries()
		require.NoError(t, err)
		require.Equal(t, want, cries)
	}
}
