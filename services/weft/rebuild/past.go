// Package rebuild is what 'weft rebuild' reads: the history of a deployment, from Kafka and, where its
// retention has cut a topic, from ClickHouse; and for 'weft plan' stored events of a time.
//
// It owns: where each part of history is taken from, and that nothing of it is missing or there twice. How rows become
// records again is package stored's. It must not know what the records are folded into.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/stored"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Where history comes from.
const (
	Auto       = "auto"       // Kafka, and ClickHouse below what Kafka holds
	Kafka      = "kafka"      // Kafka alone
	ClickHouse = "clickhouse" // ClickHouse as far as it reaches, then Kafka
)

const (
	// rowsAtOnce is the most rows asked for at once: some 50 MB of events.
	rowsAtOnce = 50_000
	// overlap is how many offsets behind the change from ClickHouse to Kafka are compared with what ClickHouse
	// stored: a record published twice may have its first copy before the change, and repeats come within
	// seconds of it.
	overlap = 50_000
)

// Errors that say what to do.
var (
	// ErrCut means that Kafka has deleted what is needed, and ClickHouse may not be asked.
	ErrCut = errors.New("kafka no longer holds the beginning of the topic: ClickHouse is needed (clickhouse.addresses, --from auto)")
	// ErrNotStored means that ClickHouse does not reach up to where Kafka begins.
	ErrNotStored = errors.New("journey-writer has not stored all that kafka has deleted")
)

// Past is the past of a deployment.
type Past struct {
	Stream    *stream.Client
	Warehouse stored.Warehouse // nil: there is none
	Topics    topic.Set
	From      string // Auto, Kafka or ClickHouse

	mu   sync.Mutex
	ends map[string][]int64
}

var _ keyed.Past = (*Past)(nil)

// Ends returns where a topic ended when it was first asked, so that all of a rebuild sees the same.
func (p *Past) Ends(ctx context.Context, topicName string) ([]int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ends, ok := p.ends[topicName]; ok {
		return ends, nil
	}
	ends, err := p.Stream.EndOffsets(ctx, topicName)
	if err != nil {
		return nil, err
	}
	if p.ends == nil {
		p.ends = map[string][]int64{}
	}
	p.ends[topicName] = ends
	return ends, nil
}

// Open implements keyed.Past.
func (p *Past) Open(ctx context.Context, topicName string, partition int) (keyed.History, error) {
	starts, err := p.Stream.StartOffsets(ctx, topicName)
	if err != nil {
		return nil, err
	}
	start := starts[partition]
	log := &keyed.LogPast{Stream: p.Stream, End: p.Ends}
	f := stored.Makers(p.Topics)[topicName]
	switch {
	case f == nil || start == 0 && p.From != ClickHouse:
		return log.From(ctx, topicName, partition, start)
	case p.From == Kafka || p.Warehouse == nil:
		if topicName == p.Topics.EventsIdentified() {
			return nil, fmt.Errorf("%w (it begins at offset %d)", ErrCut, start)
		}
		return log.From(ctx, topicName, partition, start)
	}
	group := p.Topics.Group(topic.StageWriter, topicName)
	commits, err := p.Stream.Committed(ctx, group, topicName)
	if err != nil {
		return nil, err
	}
	reached := max(0, commits[partition].Offset)
	if reached < start {
		return nil, fmt.Errorf("%w: group %s is at %d, the log begins at %d", ErrNotStored, group, reached, start)
	}
	change := start
	if p.From == ClickHouse {
		change = max(start, reached-overlap)
	}
	rest, err := log.From(ctx, topicName, partition, change)
	if err != nil {
		return nil, err
	}
	h := &history{LogHistory: rest, w: p.Warehouse, make: f, at: stored.Place{Topic: topicName, Partition: partition, To: change}}
	if topicName == p.Topics.EventsIdentified() {
		err = h.compare(ctx, min(reached, change+overlap))
	}
	return h, err
}

// history is rows, and then a log.
type history struct {
	*keyed.LogHistory
	w    stored.Warehouse
	make stored.Maker
	at   stored.Place // what of the rows is to come

	known map[int64]bool // offsets that have a row, of those below until
	until int64
}

// Whole implements keyed.History: rows reach back to the beginning, unless their table forgets.
func (h *history) Whole() bool { return true }

// compare reads which offsets behind the change have rows.
func (h *history) compare(ctx context.Context, until int64) error {
	h.known, h.until = map[int64]bool{}, until
	p := h.at
	p.From, p.To = h.at.To, until
	for _, table := range []string{"events", "identities", "events_rejected", "event_parts", "message_parts", "identity_moves"} {
		var rows []struct {
			Offset uint64 `ch:"offset"`
		}
		if err := h.w.Select(ctx, &rows, `SELECT DISTINCT offset FROM ${database}.`+table+stored.InPlace, p.Args()...); err != nil {
			return err
		}
		for _, r := range rows {
			h.known[int64(r.Offset)] = true //nolint:gosec // offsets are below 2^63
		}
	}
	return nil
}

// Next implements keyed.History.
func (h *history) Next(ctx context.Context) ([]stream.Record, error) {
	for h.at.From < h.at.To {
		p := h.at
		p.To = min(p.From+rowsAtOnce, h.at.To)
		recs, err := h.make(ctx, h.w, p)
		if err != nil {
			return nil, err
		}
		h.at.From = p.To
		if len(recs) > 0 {
			return recs, nil
		}
	}
	for {
		recs, err := h.LogHistory.Next(ctx)
		if err != nil || len(recs) == 0 {
			return nil, err
		}
		if h.known == nil || recs[0].Offset >= h.until {
			return recs, nil
		}
		kept := recs[:0:0]
		for i := range recs {
			// A record without a row is a repeat of one that has; of an erasure there are none, and it may be told twice.
			k, _ := topic.View(recs[i].Headers, topic.HeaderKind)
			if recs[i].Offset >= h.until || h.known[recs[i].Offset] || topic.Kind(k) == topic.KindErase {
				kept = append(kept, recs[i])
			}
		}
		if len(kept) > 0 {
			return kept, nil
		}
	}
}
