package spool

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// adoptEvery is how often a process looks for spools that others have left beside its own: no timer fires before
	// they are drained, and it is a look into a few directories.
	adoptEvery = 10 * time.Second
	// maxAdopted is how many of them are drained at a time, each with a window of memory. More than one, so that a
	// partition without a leader in the first does not hold up the others.
	maxAdopted = 4
)

// adopt is the goroutine that drains the spools which other processes have left below the same base. When processes
// are replaced one after the other, it may be that nobody comes who takes their directories.
func (s *Spool) adopt(ctx context.Context) {
	var draining sync.WaitGroup
	defer draining.Wait()
	told := map[string]string{} // faults, so that each is logged once
	tick := time.NewTicker(s.opt.adoptEvery)
	defer tick.Stop()
	for {
		select { // not at once: those who start at the same time take what they had themselves
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		found, err := s.abandoned(ctx)
		if err != nil {
			s.opt.Log.Warn("not all spools that other processes have left are found", zap.Error(err))
		}
		for _, dir := range found {
			o, err := s.adoptOne(dir)
			switch {
			case errors.Is(err, ErrLocked): // its process lives
			case err != nil:
				if told[dir] != err.Error() {
					s.opt.Log.Error("spool that another process has left can not be drained", zap.String("dir", dir), zap.Error(err))
				}
				told[dir] = err.Error()
				continue
			case o != nil:
				draining.Go(func() { s.drainAdopted(ctx, o) })
			}
			delete(told, dir)
		}
	}
}

// abandoned is the other directories that hold something, or are registered at the fence though they hold nothing,
// because their process died in between. Some of them may be in use. An error does not make the rest wrong.
func (s *Spool) abandoned(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	registered := map[string]bool{}
	entries, err := s.opt.Registry.List(ctx)
	for _, e := range entries {
		registered[e.Spool] = true
	}
	dirs, readErr := os.ReadDir(s.base)
	err = errors.Join(err, readErr)
	var found []string
	for _, d := range dirs {
		dir := filepath.Join(s.base, d.Name())
		if _, notOurs := strconv.Atoi(d.Name()); notOurs != nil || !d.IsDir() || dir == s.opt.Dir {
			continue
		}
		who, idErr := readIdentity(dir)
		segments, listErr := listSegments(dir)
		if idErr == nil && (len(segments) > 0 || registered[who.ID]) {
			found = append(found, dir)
		}
		if !errors.Is(idErr, fs.ErrNotExist) { // else it is being made
			err = errors.Join(err, idErr, listErr)
		}
	}
	return found, err
}

// adoptOne takes another directory; nil if there is no hand free for it, or it is adopted already.
func (s *Spool) adoptOne(dir string) (*Spool, error) {
	s.mu.Lock()
	busy := len(s.adopted) >= maxAdopted || s.adopted[dir] != nil
	s.mu.Unlock()
	if busy {
		return nil, nil
	}
	opt := s.opt
	opt.Dir, opt.Metrics = dir, nil
	o, err := Open(opt)
	if err != nil {
		return nil, err
	}
	o.metrics = s.metrics
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adopted == nil {
		s.adopted = map[string]*Spool{}
	}
	s.adopted[dir] = o
	return o, nil
}

// drainAdopted hands on what an adopted spool holds, and gives its directory back.
func (s *Spool) drainAdopted(ctx context.Context, o *Spool) {
	n := o.Behind()
	log := s.opt.Log.With(zap.String("dir", o.opt.Dir), zap.Int("records", n))
	log.Warn("spool that another process has left is being drained")
	err := errors.Join(o.DrainAll(ctx), o.Close())
	s.mu.Lock()
	delete(s.adopted, o.opt.Dir)
	s.mu.Unlock()
	switch {
	case err == nil:
		log.Info("spool that another process has left is drained")
	case ctx.Err() == nil:
		log.Error("spool that another process has left is not drained yet", zap.Error(err))
	}
}

// ofAdopted adds up what is asked of the adopted spools. The lock is held.
func (s *Spool) ofAdopted(what func(o *Spool) int64) int64 {
	n := int64(0)
	for _, o := range s.adopted {
		o.mu.Lock()
		n += what(o)
		o.mu.Unlock()
	}
	return n
}
