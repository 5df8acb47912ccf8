package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
)

// retryAfter is the pause after a disk or Redis has failed: until it is over, calls are refused at once.
const retryAfter = 500 * time.Millisecond

// pack encodes those records whose lane is in disk, in items that are not too large; lanes holds each record's.
func pack(recs []stream.Record, lanes []int, disk map[int]bool) []*item {
	last := make(map[int]*item, len(disk))
	var items []*item
	for i := range recs {
		lane := lanes[i]
		if !disk[lane] {
			continue
		}
		it := last[lane]
		if it == nil || len(it.data)+stream.EncodedSize(&recs[i]) > maxItem {
			it = &item{lane: lane, done: make(chan error, 1)}
			last[lane] = it
			items = append(items, it)
		}
		it.data = stream.AppendEncoded(it.data, &recs[i])
		it.count++
	}
	return items
}

// put queues items, and counts their records as waiting from now on, so that what comes later goes behind them.
// After an error nothing was queued.
func (s *Spool) put(items []*item) error {
	if len(items) == 0 {
		return nil
	}
	if err := s.queueItems(items); err != nil {
		s.metrics.refuse(err)
		return fmt.Errorf("spool records: %w", err)
	}
	return nil
}

func (s *Spool) queueItems(items []*item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return stream.ErrClosed
	case s.opt.Now().Before(s.broken):
		return s.cause
	}
	size := int64(0)
	for _, it := range items {
		size += it.onDisk()
	}
	if s.used()+s.queued+size > s.opt.MaxBytes {
		return ErrFull
	}
	for _, it := range items {
		s.lanes[it.lane].behind += it.count
		s.behind += it.count
	}
	s.queue = append(s.queue, items...)
	s.queued += size
	signal(s.wake)
	return nil
}

// onDisk is what an item takes at most.
func (it *item) onDisk() int64 { return int64(len(it.data) + partHeader + groupHeader) }

// used is how many bytes the segments take, with those of adopted spools: a process has one bound, however often it
// is replaced while Kafka is away. The lock is held.
func (s *Spool) used() int64 {
	n := s.ofAdopted((*Spool).used)
	for _, g := range s.segments {
		n += g.size
	}
	return n
}

// write is the goroutine that writes.
func (s *Spool) write(ctx context.Context) {
	var buf []byte
	for {
		items := s.take()
		if len(items) == 0 {
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				s.refuseAll()
				return
			}
		}
		began := time.Now()
		buf = appendGroup(buf[:0], items)
		err := s.register(ctx)
		if err == nil {
			err = s.append(buf)
		}
		s.answer(items, err)
		if err == nil {
			s.metrics.wrote(items, time.Since(began))
		}
		signal(s.moved)
		if cap(buf) > 2*maxGroup {
			buf = nil
		}
	}
}

// take takes what goes into the next group.
func (s *Spool) take() []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for n < len(s.queue) && (n == 0 || size+len(s.queue[n].data) <= maxGroup) {
		size += len(s.queue[n].data)
		n++
	}
	items := append([]*item(nil), s.queue[:n]...)
	clear(s.queue[:n])
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.writing = n > 0
	return items
}

// answer tells the callers of items what became of them.
func (s *Spool) answer(items []*item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	for _, it := range items {
		s.queued -= it.onDisk()
		if err != nil {
			s.lanes[it.lane].behind -= it.count
			s.behind -= it.count
		}
		it.done <- err
	}
	if err == nil {
		s.broken, s.cause = time.Time{}, nil
		return
	}
	s.broken, s.cause = s.opt.Now().Add(retryAfter), err
}

// refuseAll ends what is queued, and refuses what comes.
func (s *Spool) refuseAll() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for items := s.take(); len(items) > 0; items = s.take() {
		s.answer(items, fmt.Errorf("spool: %w", stream.ErrClosed))
	}
}

// append writes a group behind the last one and syncs it. A segment in which that fails is left as it is before the
// group: what an fsync that failed has kept is not known, so it is never asked again.
func (s *Spool) append(group []byte) error {
	g, f, err := s.segment()
	if err != nil {
		return s.failed("begin a segment", err)
	}
	n, err := f.Write(group)
	if err == nil {
		err = f.Sync()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		g.end += int64(len(group))
		g.size = g.end
		return nil
	}
	g.size = g.end + int64(n)
	cut := f.Truncate(g.end)
	if cut == nil {
		g.size = g.end
	}
	s.active = nil
	return s.failed("write a group", errors.Join(err, cut, f.Close()))
}

func (s *Spool) failed(what string, err error) error {
	s.opt.Log.Error("spool's disk fails, events are refused", zap.String("at", what), zap.Error(err))
	return fmt.Errorf("%s: %w: %w", what, ErrDisk, err)
}

// segment is the one to write to.
func (s *Spool) segment() (*segment, File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil {
		g := s.segments[len(s.segments)-1]
		if g.end < min(maxSegment, s.opt.MaxBytes/minSegments) {
			return g, s.active, nil
		}
		err := s.active.Close()
		if s.active = nil; err != nil {
			return nil, nil, err
		}
	}
	g := &segment{number: s.next, path: segmentPath(s.opt.Dir, s.next)}
	f, err := s.opt.Create(g.path)
	if err != nil {
		return nil, nil, err
	}
	s.next++
	s.segments, s.active = append(s.segments, g), f
	if err := syncDir(s.opt.Dir); err != nil {
		s.active = nil
		return nil, nil, errors.Join(err, f.Close())
	}
	return g, f, nil
}
