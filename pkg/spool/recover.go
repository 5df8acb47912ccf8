package spool

import (
	"errors"
	"fmt"

	"go.uber.org/zap"
)

// recover reads what an earlier process has left, to know what waits for each lane. New records go into a segment of
// their own.
func (s *Spool) recover() error {
	segments, err := listSegments(s.opt.Dir)
	if err != nil {
		return err
	}
	done := readPosition(s.opt.Dir)
	for i := range s.lanes {
		s.lanes[i].from = done
	}
	s.next = done.segment + 1
	var buf []byte
	for _, g := range segments {
		s.next = max(s.next, g.number+1)
		if g.number < done.segment {
			if err := s.remove(g); err != nil {
				return err
			}
			continue
		}
		from := int64(0)
		if g.number == done.segment {
			from = min(done.offset, g.end)
		}
		torn, err := g.walk(from, &buf, func(_ int64, parts []byte) error { return s.count(parts) })
		if err = errors.Join(err, g.close()); err != nil {
			return fmt.Errorf("segment %s: %w", g.path, err)
		}
		if torn > 0 {
			s.opt.Log.Warn("end of a spool's segment does not read: most likely it was being written when its process died, and was not acknowledged",
				zap.String("segment", g.path), zap.Int64("bytes", torn))
		}
		if g.damaged {
			s.opt.Log.Error("spool is damaged: events in it that were acknowledged do not read any more; the segment is kept for a person to look at",
				zap.String("segment", g.path))
		}
		s.segments = append(s.segments, g)
	}
	return nil
}

func (s *Spool) count(parts []byte) error {
	for len(parts) > 0 {
		p, rest, err := nextPart(parts)
		if err != nil {
			return err
		}
		if p.lane >= len(s.lanes) {
			return fmt.Errorf("records of lane %d of %d", p.lane, len(s.lanes))
		}
		s.lanes[p.lane].behind += p.count
		s.behind += p.count
		parts = rest
	}
	return nil
}

// walk calls see with the parts of every group from an offset on. It leaves out what does not read: between
// groups it is damage; at the end it is torn, and end moves before it. It returns how many bytes are torn.
func (g *segment) walk(from int64, buf *[]byte, see func(offset int64, parts []byte) error) (torn int64, err error) {
	for at := from; at < g.end; {
		parts, next, err := g.group(at, g.end, *buf)
		if err != nil {
			return 0, err
		}
		if next == 0 {
			next, err := g.resume(at, g.end)
			if err != nil {
				return 0, err
			}
			if next == 0 {
				torn, g.end = g.end-at, at
				return torn, nil
			}
			g.damaged, at = true, next
			continue
		}
		*buf = parts
		if err := see(at, parts); err != nil {
			return 0, err
		}
		at = next
	}
	return 0, nil
}

// damage notes that bytes of a segment that were synced do not read any more.
func (s *Spool) damage(g *segment, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.damaged {
		return // a former pass has told
	}
	g.damaged = true
	s.opt.Log.Error("spool is damaged: events in it that were acknowledged do not read any more; the segment is kept for a person to look at",
		zap.String("segment", g.path), zap.Int64("bytes", bytes))
}

// giveUpLost takes from what waits the records that damage has struck since they were counted. How many that are of
// a lane is only known when nothing of it is left to be read or written: what still counts then is not there.
func (s *Spool) giveUpLost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 || s.writing {
		return
	}
	end := position{}
	if n := len(s.segments); n > 0 {
		end = position{s.segments[n-1].number, s.segments[n-1].end}
	}
	for i := range s.lanes {
		l := &s.lanes[i]
		if l.behind == 0 || l.from.before(end) {
			continue
		}
		name, partition := s.topicOf(i)
		s.opt.Log.Error("acknowledged events are lost with a damaged spool", zap.String("topic", name), zap.Int("partition", partition), zap.Int("events", l.behind))
		s.behind -= l.behind
		l.behind = 0
	}
}
