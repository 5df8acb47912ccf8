package writer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// claim is a partition that the group has given to this process: *stream.Claim.
type claim interface {
	// Commit: nil is done, stream.ErrFenced is refused, anything else is unknown.
	Commit(ctx context.Context, offset int64, metadata string) error
}

// source reads a partition in order: *stream.Fetcher.
type source interface {
	Fetch(ctx context.Context, maxWait time.Duration) (stream.Batch, error)
	Close()
}

// rows turns records of one topic into rows of its tables and stores them. It is for one goroutine.
type rows interface {
	// add makes rows of a record, which may be gone after the call. A record that cannot be read becomes a row that says so; the error is
	// for records of a newer schema only, which this binary must not touch.
	add(r *stream.Record) error
	// count is how many rows were added since reset.
	count() int
	// known reads which records of [from, to) have rows already, inserted since a time, and leaves those
	// rows out of what is added until reset.
	known(ctx context.Context, from, to int64, since time.Time) error
	// store inserts all rows under names made from the token's text. Like warehouse.Client.Insert.
	store(ctx context.Context, token warehouse.Token) error
	reset()
}

// bounds is what there is of the partition, in the log and in ClickHouse.
type bounds interface {
	// start is the first offset still in the log.
	start(ctx context.Context) (int64, error)
	// stored is the highest offset that ClickHouse has a row of; false: none.
	stored(ctx context.Context) (int64, bool, error)
}

// owner writes one partition from when the group gives it to this process until it is revoked.
type owner struct {
	topic     string
	partition int
	claim     claim
	open      func(from int64) source
	bounds    bounds
	rows      rows
	limits    limits
	now       func() time.Time
	pause     func(ctx context.Context, d time.Duration) bool
	log       *zap.Logger
	metrics   *partitionMetrics

	memory *openBytes

	reader     *reader
	seen       positions // as of the last record that was read; the announcement's are those of its beginning
	lastInsert time.Time
	lastCommit time.Time
	committed  int64 // offset of the last commit of this owner; -1: none yet
}

// run is the protocol of architecture section 8, from the announcement that was committed with offset
// (-1: none) and metadata, until ctx ends (nil) or an error that says how to go on: stream.ErrRejoin,
// stream.ErrFenced, stream.ErrStop, or another, which is tried again.
func (o *owner) run(ctx context.Context, offset int64, metadata string) error {
	ann, err := o.begin(ctx, offset, metadata)
	if err != nil {
		return o.end(ctx, err)
	}
	o.committed = -1
	o.reader = newReader(o.open(ann.Start), ann.Start, o.limits, o.now, o.memory)
	defer o.reader.close()
	defer o.rows.reset()
	if err := o.takeOver(ctx, &ann); err != nil {
		return o.end(ctx, err)
	}
	if err := o.finish(ctx, &ann); err != nil {
		return o.end(ctx, err)
	}
	for {
		o.seen = ann.Positions.clone()
		next, err := o.reader.next(ctx, o.read)
		o.metrics.seen(o.reader)
		if err != nil && ctx.Err() == nil {
			return o.end(ctx, err)
		}
		if ctx.Err() != nil { // revoked: what is in is acknowledged, nothing is announced
			next = batch{end: ann.End}
		}
		if next.rows() && !o.pause(ctx, o.limits.spacing-o.now().Sub(o.lastInsert)) {
			next = batch{end: ann.End}
		}
		if !next.rows() && next.end == o.committed && o.now().Sub(o.lastCommit) < idleCommit && ctx.Err() == nil {
			continue
		}
		if ann, err = o.announce(ctx, ann, next); err != nil {
			return o.end(ctx, err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := o.insert(ctx, &ann); err != nil {
			return o.end(ctx, err)
		}
	}
}

// end is how an error leaves run: what came of the partition being revoked is no error.
func (o *owner) end(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, stream.ErrStop) {
		return nil
	}
	if errors.Is(err, stream.ErrOffsetOutOfRange) {
		return fmt.Errorf("%w: records of %s partition %d were deleted before they were stored: %w", stream.ErrStop, o.topic, o.partition, err)
	}
	return err
}

// begin finds out what to insert first.
func (o *owner) begin(ctx context.Context, offset int64, metadata string) (announcement, error) {
	if offset >= 0 {
		ann, err := decodeAnnouncement(offset, metadata)
		if err != nil {
			return ann, fmt.Errorf("%w: %w", stream.ErrStop, err)
		}
		return ann, nil
	}
	// Nothing is committed: the first start ever, or the group's offsets have expired.
	start, err := o.bounds.start(ctx)
	if err != nil {
		return announcement{}, err
	}
	stored, some, err := o.bounds.stored(ctx)
	if err != nil {
		return announcement{}, err
	}
	switch {
	case some && start > stored+1:
		return announcement{}, fmt.Errorf("%w: the group's offsets are gone, ClickHouse ends at offset %d, and the log of %s partition %d starts at %d",
			stream.ErrStop, stored, o.topic, o.partition, start)
	case some:
		return o.resume(ctx, start, stored+1)
	case start > 0:
		o.log.Warn("log does not begin at its first record, and nothing of it is stored", zap.Int64("start", start))
	}
	return announcement{Start: start, End: start, Positions: positions{}}, nil
}

// resume goes on where ClickHouse ends, before end, when the group's offsets are gone. A range is stored
// table by table and month by month, so whoever stored the last one may have died in the middle of it: the
// log's tail that holds what of it is before end is announced as of 1970. takeOver announces it anew and
// reads back each table, whenever its rows were inserted, and the table gets what it misses. What it cannot tell apart: a record that
// was published again, if the first of the two is no longer in the log, is stored a second time.
func (o *owner) resume(ctx context.Context, start, end int64) (announcement, error) {
	ever := time.UnixMilli(0).UTC()
	ann := announcement{End: end, At: ever, First: ever}
	var err error
	if ann.Start, err = o.lastRange(ctx, start, end); err != nil {
		return ann, err
	}
	if ann.Positions, err = o.positionsBefore(ctx, start, ann.Start); err != nil {
		return ann, err
	}
	o.log.Warn("group has no committed offset, completing the tail of what is stored and going on behind it",
		zap.Int64("from", ann.Start), zap.Int64("stored", end-1))
	return ann, nil
}

// lastRange is where a range that holds the record before end can have begun at the earliest, by the limits
// of a batch: all of its records but the last are below limits.bytes. A longer one would not fit in memory.
func (o *owner) lastRange(ctx context.Context, start, end int64) (int64, error) {
	type sized struct {
		offset int64
		bytes  int
	}
	var recs []sized
	err := o.scan(ctx, max(start, end-max(tailRange, 2*int64(o.limits.rows))), end, func(r *stream.Record) {
		recs = append(recs, sized{r.Offset, len(r.Key) + len(r.Value)})
	})
	if err != nil {
		return 0, err
	}
	from, size := end, 0
	for i := len(recs) - 1; i >= 0 && size < o.limits.bytes; i-- {
		if from = recs[i].offset; i < len(recs)-1 {
			size += recs[i].bytes
		}
	}
	return from, nil
}

// positionsBefore reads the tail of the log before an offset again, for its source positions alone.
func (o *owner) positionsBefore(ctx context.Context, start, offset int64) (positions, error) {
	ps := positions{}
	err := o.scan(ctx, max(start, offset-tailRecords), offset, func(r *stream.Record) {
		if p, ok := position(r); ok {
			ps.above(p)
		}
	})
	return ps, err
}

// scan reads [from, to) of the log again.
func (o *owner) scan(ctx context.Context, from, to int64, see func(r *stream.Record)) error {
	src := o.open(from)
	defer src.Close()
	for from < to {
		b, err := src.Fetch(ctx, o.limits.flush)
		if err != nil {
			return err
		}
		for i := range b.Records {
			if r := &b.Records[i]; r.Offset < to {
				see(r)
			}
		}
		if b.Next == from && b.HighWatermark <= from {
			return fmt.Errorf("%w: ClickHouse has offset %d of %s partition %d, and the log ends at %d: it is another log",
				stream.ErrStop, to-1, o.topic, o.partition, from)
		}
		from = b.Next
	}
	return nil
}

// position is the record's source position; false: it has none that can be read, and is always new. Its
// stage is the record's memory.
func position(r *stream.Record) (topic.Position, bool) {
	text, ok := topic.View(r.Headers, topic.HeaderPosition)
	if !ok {
		return topic.Position{}, false
	}
	p, err := topic.ParsePosition(text)
	if err != nil || p.Partition < 0 || p.Partition >= maxSourcePartition || p.Seq < 0 {
		return topic.Position{}, false
	}
	return p, true
}

// takeOver prepares the announcement of another owner for insert. One that is past its deadline is revived:
// ClickHouse may have forgotten its token, because it was inserted, and the answer lost, by an owner whose
// partition then rested while others went on. The range is announced anew, and then what is stored of it is
// left out, by this owner and by all who take over from it. The token stays the same, so an insert of before
// that arrives only now is still one with ours; and a month's part of an insert is stored as a whole or not
// at all, so whoever inserts the rest of a month inserts the same rows.
func (o *owner) takeOver(ctx context.Context, ann *announcement) error {
	if ann.End == ann.Start {
		return nil
	}
	late := o.now().After(ann.At.Add(o.limits.deadline))
	if late {
		o.log.Warn("announced range is past its deadline, reading back what is stored of it",
			zap.Int64("from", ann.Start), zap.Int64("to", ann.End), zap.Time("announced", ann.At))
		if err := o.commit(ctx, ann); err != nil {
			return err
		}
	}
	if late || ann.First.Before(ann.At) {
		if err := o.rows.known(ctx, ann.Start, ann.End, ann.First.Add(-o.limits.skew)); err != nil {
			return fmt.Errorf("read back [%d, %d): %w", ann.Start, ann.End, err)
		}
	}
	return nil
}

// finish reads and stores a range that another owner announced.
func (o *owner) finish(ctx context.Context, ann *announcement) error {
	if ann.End == ann.Start {
		return nil
	}
	reading, cancel := grace(ctx, o.limits.grace)
	defer cancel()
	o.seen = ann.Positions.clone()
	if err := o.reader.take(reading, ann.End, o.read); err != nil {
		return err
	}
	return o.insert(ctx, ann)
}

// read makes rows of a record, unless it was published before.
func (o *owner) read(r *stream.Record) error {
	if p, ok := position(r); ok && !o.seen.above(p) {
		o.metrics.double()
		return nil
	}
	if err := o.rows.add(r); err != nil {
		return fmt.Errorf("%w: offset %d of %s partition %d: %w", stream.ErrStop, r.Offset, o.topic, o.partition, err)
	}
	return nil
}

// insert stores the announced range, [ann.Start, ann.End), whose rows are made, and moves ann's positions over
// it. After limits.deadline from the announcement nothing is sent any more, so that a worker that slept cannot
// come after the window of tokens.
func (o *owner) insert(ctx context.Context, ann *announcement) error {
	if ann.End == ann.Start {
		return nil
	}
	ctx, cancel := grace(ctx, o.limits.grace) // a batch in flight finishes under a deadline of its own
	defer cancel()
	if o.rows.count() > 0 {
		token := warehouse.Token{
			Text:     fmt.Sprintf("%s:%d:%d-%d", o.topic, o.partition, ann.Start, ann.End),
			Deadline: ann.At.Add(o.limits.deadline), Limit: o.limits.insert,
		}
		if err := o.store(ctx, token); err != nil {
			return err
		}
		o.lastInsert = o.now()
	}
	o.rows.reset()
	o.reader.begin()
	ann.Positions = o.seen
	return nil
}

// store inserts until it is done, or the deadline has passed.
func (o *owner) store(ctx context.Context, token warehouse.Token) error {
	delay := firstRetry
	for {
		err := o.rows.store(ctx, token)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, warehouse.ErrDeadline):
			return fmt.Errorf("%w: %w", stream.ErrRejoin, err)
		case errors.Is(err, warehouse.ErrPermanent):
			return fmt.Errorf("%w: %w", stream.ErrStop, err)
		case ctx.Err() != nil:
			return err
		}
		o.metrics.insertFailed()
		o.log.Warn("insert not confirmed, trying again with the same token", zap.String("token", token.Text), zap.Error(err))
		if !o.pause(ctx, delay/2+rand.N(delay/2)) { //nolint:gosec // jitter, not a secret
			return err
		}
		delay = min(2*delay, maxRetry)
	}
}

// announce acknowledges ann's range and announces the next in one commit.
func (o *owner) announce(ctx context.Context, ann announcement, next batch) (announcement, error) {
	out := announcement{Start: ann.End, End: next.end, Positions: ann.Positions}
	if !next.rows() { // nothing to insert: the offset may pass over what is no record
		out.Start = next.end
	}
	if err := o.commit(ctx, &out); err != nil {
		return out, err
	}
	if next.rows() {
		o.metrics.batch(next.endedBy)
	}
	return out, nil
}

// commit announces ann as of now. A commit whose outcome is unknown is never repeated in its generation: it
// may still take effect, after a later one.
func (o *owner) commit(ctx context.Context, ann *announcement) error {
	ctx, cancel := grace(ctx, o.limits.grace)
	defer cancel()
	ann.At = o.now().Truncate(time.Millisecond)
	if ann.First.IsZero() || ann.First.After(ann.At) {
		ann.First = ann.At
	}
	metadata, err := ann.encode()
	if err != nil {
		return fmt.Errorf("%w: %w", stream.ErrStop, err)
	}
	if err := o.claim.Commit(ctx, ann.Start, metadata); err != nil {
		if errors.Is(err, stream.ErrFenced) {
			o.metrics.commit("fenced")
			return err
		}
		o.metrics.commit("unknown")
		return fmt.Errorf("%w: %w", stream.ErrRejoin, err)
	}
	o.metrics.commit("done")
	o.committed, o.lastCommit = ann.Start, o.now()
	if ann.End > ann.Start {
		o.committed = -1 // behind the insert another commit is due
	}
	return nil
}

// grace is a context that ends d after its parent, or when it is cancelled.
func grace(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		stop()
		cancel()
	}
}
