package writer

import (
	"context"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// pool keeps the memory of rows that are stored, for whichever partition of the topic gets the next record: a
// process with many partitions needs no more of it than its open ranges do.
type pool struct {
	kind kind
	rows sync.Pool
}

func newPool(k kind) *pool { return &pool{kind: k} }

func (p *pool) get() *tableRows {
	if t, ok := p.rows.Get().(*tableRows); ok {
		return t
	}
	return rowsOf(p.kind)
}

// sharedRows is the rows of one partition, with tables from a pool while a range is open.
type sharedRows struct {
	pool *pool
	open *tableRows // nil: nothing was added since reset

	topic     string
	partition int
	to        inserter
	now       func() time.Time
	stored    func(t table)
	poisoned  func()
	panicked  func(r *stream.Record, v any)
}

func (s *sharedRows) take() *tableRows {
	if s.open == nil {
		s.open = s.pool.get()
		s.open.topic, s.open.partition, s.open.to, s.open.now = s.topic, s.partition, s.to, s.now
		s.open.stored, s.open.poisoned, s.open.panicked = s.stored, s.poisoned, s.panicked
	}
	return s.open
}

func (s *sharedRows) add(r *stream.Record) error { return s.take().add(r) }

func (s *sharedRows) count() int {
	if s.open == nil {
		return 0
	}
	return s.open.count()
}

func (s *sharedRows) known(ctx context.Context, from, to int64, since time.Time) error {
	return s.take().known(ctx, from, to, since)
}

func (s *sharedRows) store(ctx context.Context, token warehouse.Token) error {
	return s.take().store(ctx, token)
}

func (s *sharedRows) reset() {
	if s.open != nil {
		s.open.reset()
		s.pool.rows.Put(s.open)
		s.open = nil
	}
}

// tables is the names of the topic's tables.
func (k kind) tables() []string {
	t := rowsOf(k)
	names := make([]string, len(t.tables))
	for i, b := range t.tables {
		names[i] = b.Table()
	}
	return names
}

var _ rows = (*sharedRows)(nil)
