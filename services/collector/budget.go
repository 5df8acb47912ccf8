package collector

import "sync/atomic"

// budget bounds the bytes that requests hold in memory. It never waits: a door without room says so.
type budget struct {
	max  int64
	used atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.max {
		b.used.Add(-n)
		return false
	}
	return true
}

// share is the bytes that the requests of one source hold, or of all whose source is not known yet.
type share struct{ used atomic.Int64 }

// lease is what one request holds of the budget. For one goroutine.
type lease struct {
	b    *budget
	of   *share // nil: nobody's
	held int64
}

// grow takes n more bytes; false: there is no room.
//
// A source with several requests at once may hold as many bytes as are free (the dynamic threshold of Choudhury and Hahne,
// "Dynamic queue length thresholds for shared-memory packet switches", 1998): one that floods the door gets half of it,
// two get a third each, and as much again stays free for those who come.
func (l *lease) grow(n int) bool {
	more := int64(n)
	if !l.b.take(more) {
		return false
	}
	if l.of != nil {
		own := l.of.used.Add(more)
		if own > l.held+more && own > l.b.max-l.b.used.Load()+more {
			l.of.used.Add(-more)
			l.b.used.Add(-more)
			return false
		}
	}
	l.held += more
	return true
}

func (l *lease) give(n int) {
	l.b.used.Add(-int64(n))
	l.held -= int64(n)
	if l.of != nil {
		l.of.used.Add(-int64(n))
	}
}

// move has what is held count as another's: the key stood in the body.
func (l *lease) move(to *share) {
	if l.of != nil {
		l.of.used.Add(-l.held)
	}
	l.of = to
	l.of.used.Add(l.held)
}

func (l *lease) release() { l.give(int(l.held)) }
