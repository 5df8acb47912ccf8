package writer

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

// Why a batch ended: a closed set, for the metric's label.
const (
	endedByCount  = "count"
	endedByBytes  = "bytes"
	endedByMemory = "memory" // of all partitions of this process together
	endedByAge    = "age"
	endedByStop   = "none" // there is no batch
)

// batch is where the next range ends, and why there. Without a reason it holds no records.
type batch struct {
	end     int64
	endedBy string
}

func (b batch) rows() bool { return b.endedBy != "" && b.endedBy != endedByStop }

// reader cuts a partition into ranges. It hands each record on at once and keeps none but the rest of one
// fetch, which is the fetcher's memory: what a range holds is in the rows that were made of it.
type reader struct {
	src     source
	limits  limits
	now     func() time.Time
	memory  *openBytes
	rest    []stream.Record // of the last fetch; valid until the next
	fetched int64           // offset behind all that was fetched
	high    int64           // high watermark as of the last fetch; -1: not known yet

	// Of the range that is being read:
	records int
	bytes   int       // of keys and values
	first   time.Time // when its first record came
}

func newReader(src source, from int64, l limits, now func() time.Time, m *openBytes) *reader {
	return &reader{src: src, limits: l, now: now, memory: m, fetched: from, high: -1}
}

func (r *reader) close() {
	r.begin()
	r.src.Close()
}

// begin has the next record be the first of a range.
func (r *reader) begin() {
	r.memory.used.Add(-int64(r.bytes))
	r.records, r.bytes = 0, 0
}

// behind is how many records are known of and not stored: those of the range, and all after it.
func (r *reader) behind() int64 {
	return max(r.high-r.fetched, 0) + int64(len(r.rest)+r.records)
}

func (r *reader) fetch(ctx context.Context, wait time.Duration) error {
	b, err := r.src.Fetch(ctx, max(wait, 0))
	if err != nil {
		return err
	}
	r.rest, r.fetched, r.high = b.Records, b.Next, b.HighWatermark
	return nil
}

// next waits for records, hands each to add, and ends the range by count, bytes, memory or age, whichever
// comes first. Without records for the length of limits.flush, the batch has none and ends where the log was
// read to, which may be behind control records.
func (r *reader) next(ctx context.Context, add func(*stream.Record) error) (batch, error) {
	idle := r.now().Add(r.limits.flush)
	for {
		b, err := r.drain(math.MaxInt64, add)
		if err != nil || b.rows() {
			return b, err
		}
		until := idle
		if r.records > 0 {
			until = r.first.Add(r.limits.flush)
		}
		wait := until.Sub(r.now())
		switch {
		case wait <= 0 && r.records > 0:
			return batch{r.fetched, endedByAge}, nil
		case wait <= 0:
			return batch{end: r.fetched}, nil
		}
		if err := r.fetch(ctx, wait); err != nil {
			return batch{}, err
		}
	}
}

// drain hands on what is at hand, until the range is full.
func (r *reader) drain(to int64, add func(*stream.Record) error) (batch, error) {
	for len(r.rest) > 0 && r.rest[0].Offset < to {
		rec := &r.rest[0]
		if r.records == 0 {
			r.first = r.now()
		}
		if err := add(rec); err != nil {
			return batch{}, err
		}
		r.rest = r.rest[1:]
		size := len(rec.Key) + len(rec.Value)
		r.records++
		r.bytes += size
		used := r.memory.used.Add(int64(size))
		switch end := rec.Offset + 1; {
		case to != math.MaxInt64: // its end is given
		case r.records >= r.limits.rows:
			return batch{end, endedByCount}, nil
		case r.bytes >= r.limits.bytes:
			return batch{end, endedByBytes}, nil
		case used >= maxOpenBytes && r.bytes >= minOpenBytes:
			return batch{end, endedByMemory}, nil
		}
	}
	return batch{}, nil
}

// take hands on the records before end, all of them: a range that was announced by another owner.
func (r *reader) take(ctx context.Context, end int64, add func(*stream.Record) error) error {
	for {
		if _, err := r.drain(end, add); err != nil {
			return err
		}
		if len(r.rest) > 0 || r.fetched >= end {
			return nil
		}
		if err := r.fetch(ctx, r.limits.flush); err != nil {
			return err
		}
	}
}

// openBytes is what the open ranges of all partitions of a process hold.
type openBytes struct {
	used atomic.Int64 // bytes of keys and values
}
