// Package audit checks Weft's conservation law (promise P8): per source and minute of receipt,
//
//	accepted = stored + rejected + duplicate
//
// It owns: the two counts and their comparison. Accepted is counted from Kafka, stored, rejected and duplicate
// from ClickHouse; no counter or metric of a service is asked, so that the audit finds what they do not know.
// It guarantees that a report which closes has looked at every record that Kafka held when the audit began. It
// changes nothing, and must not know how a stage works, only what each topic promises to hold.
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

const (
	// settle is how long before the audit a minute must have ended to count as complete while events keep
	// coming: an event is stamped before Kafka has it, and the door waits for Kafka for some seconds.
	settle = 15 * time.Second
	// maxDoubles is how many double rows a report names.
	maxDoubles = 20
	// pollEvery is the pause between looks while the stages catch up.
	pollEvery = 500 * time.Millisecond
)

// Log is what the audit reads of Kafka. FromStream makes one.
type Log interface {
	StartOffsets(ctx context.Context, topicName string) ([]int64, error)
	EndOffsets(ctx context.Context, topicName string) ([]int64, error)
	// Read calls each with the committed records of a partition in [from, to), in order. The record is valid
	// during the call only.
	Read(ctx context.Context, topicName string, partition int, from, to int64, each func(*stream.Record) error) error
	// Behind is how many records a group has not yet committed, over all partitions of a topic.
	Behind(ctx context.Context, group, topicName string) (int64, error)
}

// Warehouse is what the audit asks ClickHouse. *warehouse.Client is one.
type Warehouse interface {
	Balances(ctx context.Context, t topic.Set, from, to time.Time) ([]warehouse.Balance, error)
	Doubles(ctx context.Context, limit int) ([]warehouse.Double, error)
}

// Options say what to judge.
type Options struct {
	Topics topic.Set
	// Since leaves out what was received before the minute it lies in; zero: all that Kafka still holds.
	Since time.Time
	// Wait is how long the stages may take to catch up before the audit judges.
	Wait time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// OnWait is called before each further look, with what is not through yet; may be nil.
	OnWait func(Report)
}

// Key is what is balanced.
type Key struct {
	Brand, Source string
	Minute        time.Time // of receipt, UTC
}

// Line is the balance of one key.
type Line struct {
	Key
	Accepted, Stored, Rejected, Duplicate uint64
	Later                                 uint64 // stored, and then refused by a later stage: not part of the balance
	// Open says that events may still have been arriving for this minute, so that it was not judged.
	Open bool
}

// Missing is how many accepted events are nowhere; negative: there are more than were accepted.
func (l Line) Missing() int64 {
	return int64(l.Accepted) - int64(l.Stored) - int64(l.Rejected) - int64(l.Duplicate) //nolint:gosec // counts of events
}

// Lag is how far a stage is behind on one of its topics.
type Lag struct {
	Stage, Topic string
	Records      int64
}

// Report is the result of an audit.
type Report struct {
	Lines   []Line // by brand, source, minute
	Doubles []warehouse.Double
	Lags    []Lag     // of stages that were behind at the last look
	From    time.Time // nothing received before was judged; zero: everything
}

// Closes says that every minute that is over balances, and nothing was stored twice. Minutes that were still
// receiving at the last look (Line.Open) are not judged.
func (r Report) Closes() bool {
	return len(r.Doubles) == 0 && !slices.ContainsFunc(r.Lines, func(l Line) bool { return !l.Open && l.Missing() != 0 })
}

// settled says that nothing is left to wait for.
func (r Report) settled() bool {
	return len(r.Lags) == 0 && !slices.ContainsFunc(r.Lines, func(l Line) bool { return l.Missing() != 0 })
}

// Sources adds up the lines of each brand and source; Minute is zero.
func (r Report) Sources() []Line {
	sums := map[Key]Line{}
	for _, l := range r.Lines {
		k := Key{Brand: l.Brand, Source: l.Source}
		s := sums[k]
		s.Key = k
		s.Accepted, s.Stored, s.Rejected = s.Accepted+l.Accepted, s.Stored+l.Stored, s.Rejected+l.Rejected
		s.Duplicate, s.Later, s.Open = s.Duplicate+l.Duplicate, s.Later+l.Later, s.Open || l.Open
		sums[k] = s
	}
	return slices.SortedFunc(maps.Values(sums), compareLines)
}

// Total adds up all lines.
func (r Report) Total() Line {
	var t Line
	for _, l := range r.Lines {
		t.Accepted, t.Stored, t.Rejected = t.Accepted+l.Accepted, t.Stored+l.Stored, t.Rejected+l.Rejected
		t.Duplicate, t.Later, t.Open = t.Duplicate+l.Duplicate, t.Later+l.Later, t.Open || l.Open
	}
	return t
}

func compareLines(a, b Line) int {
	return cmp.Or(cmp.Compare(a.Brand, b.Brand), cmp.Compare(a.Source, b.Source), a.Minute.Compare(b.Minute))
}

// Run judges. It waits, at most opt.Wait, until the stages have caught up and everything balances; then it
// returns the last look. An error means that Kafka or ClickHouse could not be asked.
func Run(ctx context.Context, opt Options, log Log, wh Warehouse) (Report, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	begun := opt.Now()
	c := newCount(opt.Topics, log)
	for {
		moved, err := c.advance(ctx)
		if err != nil {
			return Report{}, err
		}
		r, err := c.compare(ctx, opt, wh)
		if err != nil {
			return Report{}, err
		}
		over := opt.Now().Sub(begun) >= opt.Wait
		if r.settled() || over {
			if moved { // events keep coming: their minutes cannot balance yet
				open := begun.Add(-settle).Truncate(time.Minute)
				for i := range r.Lines {
					r.Lines[i].Open = r.Lines[i].Missing() != 0 && !r.Lines[i].Minute.Before(open)
				}
			}
			if r.Doubles, err = wh.Doubles(ctx, maxDoubles); err != nil {
				return Report{}, err
			}
			return r, nil
		}
		if opt.OnWait != nil {
			opt.OnWait(r)
		}
		select {
		case <-ctx.Done():
			return Report{}, ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// count is what Kafka says, read once and then kept up to date.
type count struct {
	set      topic.Set
	log      Log
	accepted map[Key]uint64
	from     time.Time // earlier minutes are not whole any more in Kafka
	parts    []*part
}

// part is one partition of events.collected or events.rejected.
type part struct {
	topic     string
	partition int
	next      int64
	cut       bool // its beginning was deleted, and no record of the rest was seen yet
	seen      map[string]int64
}

func newCount(set topic.Set, log Log) *count {
	return &count{set: set, log: log, accepted: map[Key]uint64{}}
}

// advance reads what came since; moved says that there was something.
func (c *count) advance(ctx context.Context) (moved bool, err error) {
	if c.parts == nil {
		if err := c.begin(ctx); err != nil {
			return false, err
		}
	}
	ends := map[string][]int64{}
	for _, name := range []string{c.set.EventsCollected(), c.set.EventsRejected()} {
		if ends[name], err = c.log.EndOffsets(ctx, name); err != nil {
			return false, fmt.Errorf("audit: end of %s: %w", name, err)
		}
	}
	for _, p := range c.parts {
		if p.partition >= len(ends[p.topic]) {
			return false, fmt.Errorf("audit: %s has lost partitions", p.topic)
		}
		end := ends[p.topic][p.partition]
		if end <= p.next {
			continue
		}
		if err := c.log.Read(ctx, p.topic, p.partition, p.next, end, func(r *stream.Record) error { return c.take(p, r) }); err != nil {
			return false, fmt.Errorf("audit: read %s/%d: %w", p.topic, p.partition, err)
		}
		p.next, moved = end, true
	}
	return moved, nil
}

func (c *count) begin(ctx context.Context) error {
	for _, name := range []string{c.set.EventsCollected(), c.set.EventsRejected()} {
		starts, err := c.log.StartOffsets(ctx, name)
		if err != nil {
			return fmt.Errorf("audit: start of %s: %w", name, err)
		}
		for i, start := range starts {
			c.parts = append(c.parts, &part{topic: name, partition: i, next: start, cut: start > 0, seen: map[string]int64{}})
		}
	}
	return nil
}

// take counts a record that the collector wrote: each one of HTTP, and each source position of an inlet once,
// since what stands behind drops repeats of a position without a trace (architecture section 4, rule 1).
func (c *count) take(p *part, r *stream.Record) error {
	if p.topic == c.set.EventsRejected() {
		if service, _ := topic.Get(r.Headers, topic.HeaderService); service != topic.StageCollector {
			return nil
		}
	}
	if text, ok := topic.Get(r.Headers, topic.HeaderPosition); ok {
		// One that cannot be read is none of ours: the stage behind rejects the record, so it counts as any other.
		if pos, err := topic.ParsePosition(text); err == nil {
			last, known := p.seen[pos.Source()]
			if known && pos.Seq <= last {
				return nil
			}
			p.seen[pos.Source()] = pos.Seq
		}
	}
	meta, err := topic.ParseMeta(r.Headers)
	if err != nil && errors.Is(err, topic.ErrNewerSchema) {
		return fmt.Errorf("offset %d: %w", r.Offset, err)
	} // what else cannot be read is zero, as it is for the stages that reject the record
	received := time.UnixMilli(0).UTC()
	if !meta.ReceivedAt.IsZero() {
		received = meta.ReceivedAt
	}
	minute := received.Truncate(time.Minute)
	if p.cut {
		// The minute of the first record that is left may have lost others.
		p.cut = false
		if whole := minute.Add(time.Minute); whole.After(c.from) {
			c.from = whole
		}
	}
	c.accepted[Key{meta.Brand, meta.Source, minute}]++
	return nil
}

// compare puts both sides together.
func (c *count) compare(ctx context.Context, opt Options, wh Warehouse) (Report, error) {
	from := c.from
	if since := opt.Since.UTC().Truncate(time.Minute); !opt.Since.IsZero() && since.After(from) {
		from = since
	}
	low := from
	if low.IsZero() {
		low = time.UnixMilli(0)
	}
	lags, err := c.lags(ctx)
	if err != nil {
		return Report{}, err
	}
	// The upper bound is far enough for the clock of a collector that is ahead of ours.
	balances, err := wh.Balances(ctx, c.set, low, opt.Now().Add(24*time.Hour))
	if err != nil {
		return Report{}, err
	}
	lines := map[Key]*Line{}
	line := func(k Key) *Line {
		if lines[k] == nil {
			lines[k] = &Line{Key: k}
		}
		return lines[k]
	}
	for k, n := range c.accepted {
		if !k.Minute.Before(low) {
			line(k).Accepted = n
		}
	}
	for _, b := range balances {
		l := line(Key{b.Brand, b.Source, b.Minute.UTC()})
		l.Stored, l.Rejected, l.Duplicate, l.Later = b.Stored, b.Rejected, b.Duplicate, b.Later
	}
	r := Report{From: from, Lags: lags}
	for _, l := range lines {
		if l.Accepted+l.Stored+l.Rejected+l.Duplicate > 0 {
			r.Lines = append(r.Lines, *l)
		}
	}
	slices.SortFunc(r.Lines, compareLines)
	return r, nil
}

// lags looks at the stages that the balance goes through.
func (c *count) lags(ctx context.Context) ([]Lag, error) {
	var out []Lag
	for _, l := range []Lag{
		{Stage: topic.StageStitcher, Topic: c.set.EventsCollected()},
		{Stage: topic.StageWriter, Topic: c.set.EventsIdentified()},
		{Stage: topic.StageWriter, Topic: c.set.EventsRejected()},
	} {
		n, err := c.log.Behind(ctx, c.set.Group(l.Stage, l.Topic), l.Topic)
		if err != nil {
			return nil, fmt.Errorf("audit: how far %s is behind on %s: %w", l.Stage, l.Topic, err)
		}
		if n > 0 {
			l.Records = n
			out = append(out, l)
		}
	}
	return out, nil
}
