package keyed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Past is what a stage has read and written before.
type Past interface {
	// Open gives the records of a partition again. The caller closes it.
	Open(ctx context.Context, topicName string, partition int) (History, error)
}

// History is one partition's records, for one goroutine.
type History interface {
	// Next returns the next records in the order of their offsets; none: the end is reached, which is where the
	// log ended when the rebuild began. They are valid until the next call.
	Next(ctx context.Context) ([]stream.Record, error)
	// Whole says whether nothing is missing before the first record, as far as can be known.
	Whole() bool
	Close()
}

// LogPast is the past as Kafka still holds it.
type LogPast struct {
	Stream *stream.Client
	// End is where a partition ends for this rebuild: asked once, so that every look at it ends there.
	End func(ctx context.Context, topicName string) ([]int64, error)
}

var _ Past = (*LogPast)(nil)

// Open implements Past.
func (p *LogPast) Open(ctx context.Context, topicName string, partition int) (History, error) {
	starts, err := p.Stream.StartOffsets(ctx, topicName)
	if err != nil {
		return nil, err
	}
	return p.From(ctx, topicName, partition, starts[partition])
}

// From is Open from an offset on.
func (p *LogPast) From(ctx context.Context, topicName string, partition int, from int64) (*LogHistory, error) {
	ends, err := p.End(ctx, topicName)
	if err != nil {
		return nil, err
	}
	h := &LogHistory{next: from, end: ends[partition], whole: from == 0}
	h.fetcher = p.Stream.NewFetcher(topicName, partition, from, stream.FetchOptions{})
	return h, nil
}

// LogHistory reads a log up to an end.
type LogHistory struct {
	fetcher   *stream.Fetcher
	next, end int64
	whole     bool
}

var _ History = (*LogHistory)(nil)

// historyWait is how long one fetch waits: the records are known to be there.
const historyWait = time.Second

// Next implements History.
func (h *LogHistory) Next(ctx context.Context) ([]stream.Record, error) {
	for h.next < h.end {
		b, err := h.fetcher.Fetch(ctx, historyWait)
		if err != nil {
			return nil, fmt.Errorf("read history from %d: %w", h.next, err)
		}
		h.next = b.Next
		recs := b.Records
		for len(recs) > 0 && recs[len(recs)-1].Offset >= h.end {
			recs = recs[:len(recs)-1]
		}
		if len(recs) > 0 {
			return recs, nil
		}
	}
	return nil, nil
}

// Whole implements History.
func (h *LogHistory) Whole() bool { return h.whole }

// Close implements History.
func (h *LogHistory) Close() { h.fetcher.Close() }

// Reader reads what was published: see gets the records of a partition of a topic, without repeats, in their
// order, valid for the call. whole is false if the beginning is not there any more.
type Reader func(ctx context.Context, topicName string, partition int, see func(Record) error) (whole bool, err error)

// read is the Reader of a rebuild. It notes the highest sequences of the stage's own.
func (b *rebuild) read(ctx context.Context, topicName string, partition int, see func(Record) error) (bool, error) {
	h, err := b.opt.Past.Open(ctx, topicName, partition)
	if err != nil {
		return false, fmt.Errorf("read %s partition %d: %w", topicName, partition, err)
	}
	defer h.Close()
	seen := map[string]int64{}
	for {
		recs, err := h.Next(ctx)
		if err != nil {
			return false, fmt.Errorf("read %s partition %d: %w", topicName, partition, err)
		}
		if len(recs) == 0 {
			return h.Whole(), nil
		}
		for i := range recs {
			r, err := parseRecord(recs[i])
			if errors.Is(err, topic.ErrNewerSchema) {
				return false, fmt.Errorf("%s partition %d offset %d: %w", topicName, partition, recs[i].Offset, err)
			}
			if err != nil {
				continue // nobody else could read it either
			}
			if repeated(seen, r.Position) {
				continue
			}
			b.note(r.Position)
			if err := see(r); err != nil {
				return false, fmt.Errorf("%s partition %d offset %d: %w", topicName, partition, r.Offset, err)
			}
		}
	}
}

// repeated says whether a position is not above the highest seen, and notes it if it is.
func repeated(seen map[string]int64, p topic.Position) bool {
	if p.Stage == "" {
		return false
	}
	src := p.Source()
	if last, ok := seen[src]; ok && p.Seq <= last {
		return true
	}
	seen[src] = p.Seq
	return false
}

// note remembers the sequences that outputs of this stage have had: the rebuilt slots go on above them.
func (b *rebuild) note(p topic.Position) {
	if p.Stage != b.s.opt.Stage {
		return
	}
	if b.foreign { // keys are spread anew, so every slot goes on above all of them
		for i := range b.next {
			b.next[i] = max(b.next[i], p.Seq+1)
		}
		return
	}
	if p.Partition < len(b.next) {
		b.next[p.Partition] = max(b.next[p.Partition], p.Seq+1)
	}
}
