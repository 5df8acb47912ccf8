package spool

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/stream"
)

const (
	// registerTimeout is how long a call waits for Redis before it is refused: with the wait for Kafka it stays below
	// the ten seconds after which SDKs give up.
	registerTimeout = 3 * time.Second
	// assertEvery is how often the registration is written again while there is something to drain, so that a Redis
	// that went back in time misses it for this long at most; and how often an idle spool looks for registrations
	// of its own that a lost answer or a crash has left.
	assertEvery = 5 * time.Second
)

// register makes sure that the fence knows, before the first acknowledgement. It is called by the writer alone.
func (s *Spool) register(ctx context.Context) error {
	s.mu.Lock()
	if s.episode == "" {
		s.episode = uuid.NewString()
	}
	id, done := s.episode, s.registered
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := s.assert(ctx, id); err != nil {
		s.opt.Log.Error("spool can not be registered at the fence, events are refused", zap.Error(err))
		return fmt.Errorf("%w: %w", ErrUnregistered, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.registered = true // nobody ends the episode while the writer writes
	s.opt.Log.Warn("kafka does not take events in time, they are spooled", zap.String("dir", s.opt.Dir), zap.String("registration", id))
	return nil
}

// assert writes the registration, for the first time or again.
func (s *Spool) assert(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return s.opt.Registry.Register(ctx, registry.Entry{ID: id, Spool: s.id, Host: host, Dir: s.opt.Dir, Since: s.opt.Now().UTC()})
}

// Usable is nil if what comes now could be acknowledged from the disk: there is room, the last write did not fail, and
// the fence is told already, or can be.
func (s *Spool) Usable(ctx context.Context) error {
	s.mu.Lock()
	err, registered := error(nil), s.registered
	switch {
	case s.closed:
		err = stream.ErrClosed
	case s.opt.Now().Before(s.broken):
		err = s.cause
	case s.used()+s.queued >= s.opt.MaxBytes:
		err = ErrFull
	}
	s.mu.Unlock()
	if err != nil || registered {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	if _, err := s.opt.Registry.List(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrUnregistered, err)
	}
	return nil
}

// keep is the goroutine that keeps the registration while there is something to drain, and takes it away afterwards.
func (s *Spool) keep(ctx context.Context) {
	tick := time.NewTicker(assertEvery)
	defer tick.Stop()
	for {
		if err := s.settle(ctx); err != nil && ctx.Err() == nil {
			s.opt.Log.Warn("spool's registration is not settled yet", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.emptied:
		}
	}
}

// settle brings the registration in line with what is spooled.
func (s *Spool) settle(ctx context.Context) error {
	s.mu.Lock()
	if s.behind > 0 && s.episode == "" { // left by an earlier process
		s.episode = uuid.NewString()
	}
	if s.behind == 0 && !s.writing {
		// What is spooled from here on is another episode, with an id of its own: it is not touched by what
		// takes this one away, however late that lands.
		s.episode, s.registered = "", false
	}
	id := s.episode
	s.mu.Unlock()
	if id != "" {
		if err := s.assert(ctx, id); err != nil {
			return err
		}
		s.mu.Lock()
		s.registered = s.registered || s.episode == id
		s.mu.Unlock()
		return nil
	}
	return s.sweep(ctx)
}

// sweep takes away the registrations of this directory that are over.
func (s *Spool) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	entries, err := s.opt.Registry.List(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		s.mu.Lock()
		mine := e.Spool == s.id && e.ID != s.episode && s.episode == "" && s.behind == 0
		s.mu.Unlock()
		if !mine {
			continue
		}
		if err := s.opt.Registry.Unregister(ctx, e.ID); err != nil {
			return err
		}
		s.opt.Log.Info("spool is drained", zap.String("dir", s.opt.Dir), zap.String("registration", e.ID))
	}
	return nil
}
