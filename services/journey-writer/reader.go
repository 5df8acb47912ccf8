package writer

import (
	"context"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

// Why a batch ended: a closed set, for the metric's label.
const (
	endedByCount = "count"
	endedByBytes = "bytes"
	endedByAge   = "age"
	endedByStop  = "none" // there is no batch
)

// batch is where the next range ends, and why there. Without a reason it holds no records.
type batch struct {
	end     int64
	endedBy string
}

func (b batch) rows() bool { return b.endedBy != "" && b.endedBy != endedByStop }

// reader cuts a partition into batches and keeps what was fetched beyond the end of one for the next. What
// it holds is bounded by the limits of a batch and one fetch.
type reader struct {
	src     source
	limits  limits
	now     func() time.Time
	recs    []stream.Record
	fetched int64     // offset behind all that was fetched
	high    int64     // high watermark as of the last fetch; -1: not known yet
	first   time.Time // when the first of recs came
}

func newReader(src source, from int64, l limits, now func() time.Time) *reader {
	return &reader{src: src, limits: l, now: now, fetched: from, high: -1}
}

func (r *reader) close() { r.src.Close() }

func (r *reader) fetch(ctx context.Context, wait time.Duration) error {
	b, err := r.src.Fetch(ctx, max(wait, 0))
	if err != nil {
		return err
	}
	if len(r.recs) == 0 && len(b.Records) > 0 {
		r.first = r.now()
	}
	r.recs = append(r.recs, stream.Clone(b.Records)...) // kept beyond the next Fetch
	r.fetched, r.high = b.Next, b.HighWatermark
	return nil
}

// next waits for records and chooses the end of the next batch, by count, bytes or age, whichever comes
// first. Without records for the length of limits.flush, the batch has none and ends where the log was read
// to, which may be behind control records.
func (r *reader) next(ctx context.Context) (batch, error) {
	idle := r.now().Add(r.limits.flush)
	for {
		if b, full := r.full(); full {
			return b, nil
		}
		until := idle
		if len(r.recs) > 0 {
			until = r.first.Add(r.limits.flush)
		}
		wait := until.Sub(r.now())
		if wait <= 0 {
			if len(r.recs) > 0 {
				return batch{r.fetched, endedByAge}, nil
			}
			return batch{end: r.fetched}, nil
		}
		if err := r.fetch(ctx, wait); err != nil {
			return batch{}, err
		}
	}
}

// full is the end of a batch that needs no more records.
func (r *reader) full() (batch, bool) {
	size := 0
	for i := range r.recs {
		size += len(r.recs[i].Value) + len(r.recs[i].Key)
		switch {
		case i+1 >= r.limits.rows:
			return batch{r.recs[i].Offset + 1, endedByCount}, true
		case size >= r.limits.bytes:
			return batch{r.recs[i].Offset + 1, endedByBytes}, true
		}
	}
	return batch{}, false
}

// take gives the records before end, all of them: it fetches what is not at hand, which is so for a range
// that was announced by another owner.
func (r *reader) take(ctx context.Context, end int64) ([]stream.Record, error) {
	for r.fetched < end {
		if err := r.fetch(ctx, r.limits.flush); err != nil {
			return nil, err
		}
	}
	n := 0
	for n < len(r.recs) && r.recs[n].Offset < end {
		n++
	}
	out := r.recs[:n:n]
	r.recs = append([]stream.Record(nil), r.recs[n:]...) // lets go of the memory of those taken
	if len(r.recs) > 0 {
		r.first = r.now()
	}
	return out, nil
}
