package spool

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
)

const (
	// window is how many bytes of records are in memory while they are drained: most of a request to each of a
	// dozen partitions.
	window = 8 << 20
	// probe is how many bytes are tried while Kafka takes nothing: enough for some records of each partition. A whole
	// window would be read, encoded and compressed in vain every few seconds, beside those who wait for their fsync.
	probe = 64 << 10
	// keptWindow is how much memory of it a lane keeps for the next.
	keptWindow = 2 * window / 8
	// roundTime is how long Kafka may take over a window; a partition that needs longer is tried again later, and the
	// others go on without it.
	roundTime = 10 * time.Second
	// turnTime is how long new calls wait at most for the end of draining: as long as for Kafka otherwise.
	turnTime = time.Second
	// pauseFirst and pauseMax bound the doubling pause after a pass in which Kafka took nothing.
	pauseFirst = 100 * time.Millisecond
	pauseMax   = 2 * time.Second
)

// drain is the goroutine that hands on what is spooled. It passes through the segments again and again: a lane that
// Kafka does not take is left out for the rest of a pass.
func (s *Spool) drain(ctx context.Context) {
	p := pass{s: s, windows: make([]stream.Encoded, len(s.lanes))}
	pause, caught := time.Duration(0), false
	for ctx.Err() == nil {
		if s.Behind() == 0 {
			p.windows, caught = make([]stream.Encoded, len(s.lanes)), false
			select {
			case <-s.moved:
			case <-ctx.Done():
			}
			continue
		}
		// Under load there is always something new behind the end. So when Kafka takes what is spooled, and little
		// is left, those who come wait for the rest of it to be drained.
		turn := caught && s.left() <= window
		way := p.run
		if turn {
			way = p.turn
		}
		took, all := way(ctx)
		caught = took && all
		s.giveUpLost()
		if err := s.free(); err != nil {
			s.opt.Log.Error("spool's drained segments are not freed", zap.Error(err))
		}
		if took {
			pause = 0
			continue
		}
		pause = min(max(2*pause, pauseFirst), pauseMax)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// left is how many bytes are behind the drainer.
func (s *Spool) left() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, n := s.first(), s.queued
	for _, g := range s.segments {
		switch {
		case g.number > from.segment:
			n += g.end
		case g.number == from.segment:
			n += g.end - from.offset
		}
	}
	return n
}

// first is where the first group stands that holds something to be drained. The lock is held.
func (s *Spool) first() position {
	first := position{segment: s.next}
	for i := range s.lanes {
		if l := &s.lanes[i]; l.behind > 0 && l.from.before(first) {
			first = l.from
		}
	}
	return first
}

// pass is one way through the segments. It is for one goroutine.
type pass struct {
	s       *Spool
	windows []stream.Encoded // by lane
	left    map[int]bool     // lanes that Kafka does not take
	size    int
	limit   int // of size: window, or probe until Kafka takes something
	took    bool
	buf     []byte
	names   map[int]bool // lanes with something in their window
}

// turn is run with the doors of those lanes held that have something to drain, so that nothing is left of it.
func (p *pass) turn(ctx context.Context) (took, all bool) {
	s := p.s
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	s.mu.Lock()
	s.turning = make(chan struct{})
	for i := range s.lanes {
		s.lanes[i].turning = s.lanes[i].behind > 0
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.lanes {
			s.lanes[i].turning = false
		}
		close(s.turning)
	}()
	for { // until what was queued is written
		s.mu.Lock()
		quiet := len(s.queue) == 0 && !s.writing
		s.mu.Unlock()
		if quiet {
			return p.run(ctx)
		}
		select {
		case <-s.moved:
		case <-ctx.Done():
			return false, false
		}
	}
}

// run hands on what was written before it began. It says whether Kafka took anything, and whether all of it.
func (p *pass) run(ctx context.Context) (took, all bool) {
	s := p.s
	p.left, p.names, p.size = map[int]bool{}, map[int]bool{}, 0
	if p.limit = window; !p.took { // by the former pass
		p.limit = probe
	}
	p.took = false
	for i := range p.windows { // the disk may have failed in the middle of the former pass
		p.windows[i].Reset()
	}
	s.mu.Lock()
	from := s.first()
	segments := slices.Clone(s.segments)
	ends := make([]int64, len(segments))
	for i, g := range segments {
		ends[i] = g.end
	}
	s.mu.Unlock()
	for i, g := range segments {
		at := int64(0)
		switch {
		case g.number < from.segment:
			continue
		case g.number == from.segment:
			at = from.offset
		}
		if err := errors.Join(p.segment(ctx, g, at, ends[i]), g.close()); err != nil {
			s.opt.Log.Error("spool can not be read", zap.String("segment", g.path), zap.Error(err))
			return p.took, false
		}
		if p.stuck(ctx) {
			return p.took, false
		}
	}
	if n := len(segments); n > 0 {
		p.flush(ctx, position{segments[n-1].number, ends[n-1]})
	}
	return p.took, len(p.left) == 0
}

// stuck says that going on in this pass is of no use.
func (p *pass) stuck(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	if len(p.left) == 0 {
		return false
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for lane := range p.s.lanes {
		if p.s.lanes[lane].behind > 0 && !p.left[lane] {
			return false
		}
	}
	return true
}

// segment takes the groups of one segment.
func (p *pass) segment(ctx context.Context, g *segment, at, end int64) error {
	for at < end {
		parts, next, err := g.group(at, end, p.buf)
		if err == nil && next == 0 { // it was synced: the disk has lost it since
			next, err = g.resume(at, end)
			if next == 0 {
				next = end
			}
			if err == nil {
				p.s.damage(g, next-at)
				at = next
				continue
			}
		}
		if err != nil {
			return err
		}
		p.buf = parts
		if err := p.add(parts, position{g.number, at}); err != nil {
			return err
		}
		if at = next; p.size >= p.limit {
			if p.flush(ctx, position{g.number, at}); p.stuck(ctx) {
				return nil
			}
		}
	}
	return nil
}

// add puts the parts of a group that are not drained yet into their lanes' windows.
func (p *pass) add(parts []byte, at position) error {
	for len(parts) > 0 {
		one, rest, err := nextPart(parts)
		if err != nil {
			return err
		}
		parts = rest
		if p.left[one.lane] || at.before(p.s.lanes[one.lane].from) { // from is the drainer's own
			continue
		}
		if err := p.windows[one.lane].Add(one.data); err != nil {
			return err
		}
		p.names[one.lane] = true
		p.size += len(one.data)
	}
	return nil
}

// flush hands the windows to Kafka, the lanes side by side. Those that were taken stand at upTo then.
func (p *pass) flush(ctx context.Context, upTo position) {
	s := p.s
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	var mu sync.Mutex
	var lanes sync.WaitGroup
	for lane := range p.names {
		lanes.Go(func() {
			err := s.hand(ctx, lane, &p.windows[lane])
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				p.left[lane] = true
				name, partition := s.topicOf(lane)
				s.opt.Log.Debug("spooled records are not taken yet", zap.String("topic", name), zap.Int("partition", partition), zap.Error(err))
			}
		})
	}
	lanes.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for lane := range s.lanes {
		w := &p.windows[lane]
		if !p.left[lane] {
			n := w.Len()
			s.lanes[lane].behind -= n
			s.behind -= n
			s.lanes[lane].from = upTo
			p.took = p.took || n > 0
			s.metrics.drained.Add(float64(n))
		}
		if w.Reset(); w.Bytes() > keptWindow {
			*w = stream.Encoded{}
		}
	}
	clear(p.names)
	if p.size = 0; p.took {
		p.limit = window
	}
}

// hand produces the records of one lane. One that Kafka refuses for good is put elsewhere, for it is acknowledged.
func (s *Spool) hand(ctx context.Context, lane int, e *stream.Encoded) error {
	name, partition := s.topicOf(lane)
	for from := 0; from < e.Len(); {
		err := s.opt.Producer.ProduceEncoded(ctx, name, partition, e, from)
		var at *stream.RecordError
		if !errors.As(err, &at) || s.opt.Refused == nil {
			return err
		}
		r, err := e.Record(at.Index)
		if err != nil {
			return err
		}
		if err := s.opt.Refused(ctx, name, partition, r, at); err != nil {
			return err
		}
		from = at.Index + 1
	}
	return nil
}

// free removes the segments of which all is drained, and notes how far the rest is.
func (s *Spool) free() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind == 0 && s.active != nil { // what is being written would count
		err := s.active.Close()
		if s.active = nil; err != nil {
			return err
		}
	}
	first := s.first()
	for len(s.segments) > 0 && s.segments[0].number < first.segment {
		if err := s.remove(s.segments[0]); err != nil {
			return err
		}
		s.segments = s.segments[1:]
	}
	if s.behind == 0 {
		signal(s.emptied)
	}
	return writePosition(s.opt.Dir, first)
}

// remove deletes a segment, unless a person must see it.
func (s *Spool) remove(g *segment) error {
	err := g.close()
	if g.damaged {
		return errors.Join(err, os.Rename(g.path, g.path+damagedSuffix))
	}
	return errors.Join(err, os.Remove(g.path))
}

// DrainAll hands on what is spooled, ends the registration, and returns nil when both are done, or ctx's error. It
// takes the place of Run for a spool that nobody sends to.
func (s *Spool) DrainAll(ctx context.Context) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	var draining sync.WaitGroup
	draining.Go(func() { s.drain(own) })
	defer func() { cancel(); draining.Wait() }()
	for {
		over := s.Behind() == 0
		err := s.settle(ctx)
		if over && err == nil {
			return s.free() // what holds nothing that counts, too
		}
		select {
		case <-s.emptied:
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}
