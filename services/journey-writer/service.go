// Package writer is journey-writer: it turns every topic behind the collector into rows of ClickHouse,
// exactly once, without a keeper and without transactions (architecture section 8).
//
// It owns: the announcements in the metadata of its groups' commits, what becomes of a record that cannot
// be read (a row of events_rejected), and how an event is laid out in columns.
//
// It guarantees, while Kafka and ClickHouse keep what they acknowledged: every record of every input is in
// ClickHouse exactly once, whatever is killed, frozen or answered too late; records that a stage published
// twice are there once. One OffsetCommit says both "all before X is in" and "next I insert [X, Y)"; then
// [X, Y) is inserted under a token made of topic, partition, X and Y. A new owner reads the announcement
// back and inserts the same range under the same token. A commit whose outcome is unknown is never repeated
// in its generation. Where it cannot keep the promise (records deleted before they were stored, a schema it
// does not know, positions that no longer fit the metadata), it stops, loudly.
//
// It must not know journeys, profiles or how people are found: it reads what others published.
package writer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// Warehouse is what the service asks of ClickHouse: *warehouse.Client, or a client of pkg/warehouse/memory.
// It is used by several goroutines at once. pkg/warehouse/conformance says what the service relies on.
type Warehouse interface {
	inserter
	// Migrate makes the tables, or brings them up to date.
	Migrate(ctx context.Context, files fs.FS, log *zap.Logger) error
	// HighestOffset is the highest offset of a partition that one of the tables holds a row of.
	HighestOffset(ctx context.Context, topicName string, partition int, tables ...string) (int64, bool, error)
	// ReloadPersons makes views see the redirects and parts inserted so far.
	ReloadPersons(ctx context.Context) error
}

// Deps is what the service stands on; its owner closes it after Run has returned.
type Deps struct {
	Stream    *stream.Client
	Warehouse Warehouse
	Log       *zap.Logger           // nil: none
	Metrics   prometheus.Registerer // nil: none
	Now       func() time.Time      // nil: time.Now
}

// Service is journey-writer.
type Service struct {
	deps    Deps
	topics  topic.Set
	inlets  []config.Source // that read a topic
	inputs  []input
	limits  limits
	metrics *metrics
	memory  openBytes
	pools   map[kind]*pool
	reload  chan struct{} // redirects or parts were stored: today's persons have changed

	mu       sync.Mutex
	migrated bool
	given    map[string]int // by topic: partitions that its group gave this process last; none: not a member yet
	owned    map[*partitionMetrics]bool
}

// New checks the configuration and starts nothing.
func New(cfg config.Config, deps Deps) (*Service, error) {
	if deps.Stream == nil || deps.Warehouse == nil {
		return nil, errors.New("journey-writer needs Kafka and ClickHouse")
	}
	if deps.Log == nil {
		deps.Log = zap.NewNop()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	set := topic.Set{Prefix: cfg.Topics.Prefix, Partitions: cfg.Topics.Partitions}
	s := &Service{
		deps: deps, topics: set, inlets: cfg.Collector.KafkaSources(), inputs: inputs(cfg, set),
		reload: make(chan struct{}, 1), owned: map[*partitionMetrics]bool{}, given: map[string]int{}, pools: map[kind]*pool{},
	}
	for _, in := range s.inputs {
		s.pools[in.kind] = newPool(in.kind)
	}
	var err error
	if s.limits, err = newLimits(cfg.Writer, set.Partitions); err != nil {
		return nil, err
	}
	for _, in := range s.inputs {
		if err := checkMetadata(in, set.Partitions, nil); err != nil {
			return nil, err
		}
	}
	if s.metrics, err = newMetrics(deps.Metrics); err != nil {
		return nil, err
	}
	return s, nil
}

// Run migrates the database and writes until ctx ends. An error is one that a person must look at.
func (s *Service) Run(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if err := s.checkInlets(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		clear(s.given)
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(s.inputs))
	var wg sync.WaitGroup
	for i, in := range s.inputs {
		wg.Go(func() {
			defer cancel()
			opt := stream.GroupOptions{Group: s.topics.Group(topic.StageWriter, in.topic), Topics: []string{in.topic}, Joined: func(partitions int) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.given[in.topic] = partitions
			}}
			errs[i] = s.deps.Stream.RunGroup(ctx, opt, func(ctx context.Context, cl *stream.Claim) error {
				return s.own(ctx, in, cl)
			})
		})
	}
	wg.Go(func() { s.reloadPersons(ctx) })
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("journey-writer: %w", err)
	}
	return nil
}

// migrate waits for ClickHouse and brings its schema up to date.
func (s *Service) migrate(ctx context.Context) error {
	delay := firstRetry
	for {
		err := s.deps.Warehouse.Migrate(ctx, clickhouse.Files, s.deps.Log)
		switch {
		case err == nil:
			s.mu.Lock()
			s.migrated = true
			s.mu.Unlock()
			return nil
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, warehouse.ErrPermanent) || errors.Is(err, warehouse.ErrNewerSchema) || errors.Is(err, warehouse.ErrEditedMigration):
			return fmt.Errorf("journey-writer: %w", err)
		}
		s.deps.Log.Warn("clickhouse is not ready, trying again", zap.Error(err))
		if !sleep(ctx, delay) {
			return nil
		}
		delay = min(2*delay, maxRetry)
	}
}

// checkInlets waits for Kafka and reckons the announcements with the inlets' topics as they are: they are
// others', and their partition count is not ours. One that does not exist yet counts as if it had ours.
func (s *Service) checkInlets(ctx context.Context) error {
	counts := map[string]int{}
	delay := firstRetry
	for i := 0; i < len(s.inlets); {
		name := s.inlets[i].Kafka.Topic
		n, err := s.deps.Stream.PartitionCount(ctx, name)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			counts[inletStage(name)] = n
			i++
		case errors.Is(err, stream.ErrUnknownTopic):
			i++
		case errors.Is(err, stream.ErrPermanent):
			return fmt.Errorf("journey-writer: %w", err)
		default:
			s.deps.Log.Warn("inlet topic not described, trying again", zap.String("topic", name), zap.Error(err))
			if !sleep(ctx, delay) {
				return nil
			}
			delay = min(2*delay, maxRetry)
		}
	}
	for _, in := range s.inputs {
		if err := checkMetadata(in, s.topics.Partitions, counts); err != nil {
			return fmt.Errorf("journey-writer: %w", err)
		}
	}
	return nil
}

// own writes one partition until it is revoked.
func (s *Service) own(ctx context.Context, in input, cl *stream.Claim) error {
	log := s.deps.Log.With(zap.String("topic", cl.Topic), zap.Int("partition", cl.Partition))
	pm := s.metrics.partition(cl.Topic, cl.Partition, s.deps.Now)
	s.mu.Lock()
	s.owned[pm] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.owned, pm)
		s.mu.Unlock()
		pm.gone()
	}()
	poisoned := func() { s.metrics.poisoned.WithLabelValues(cl.Topic).Inc() }
	rows := &sharedRows{
		pool: s.pools[in.kind], topic: cl.Topic, partition: cl.Partition, to: timed{s.deps.Warehouse, s.metrics},
		now: s.deps.Now, stored: s.stored, poisoned: poisoned, panicked: s.metrics.panics(cl.Topic, log),
	}
	o := &owner{
		topic: cl.Topic, partition: cl.Partition, claim: cl, limits: s.limits, now: s.deps.Now, pause: sleep,
		log: log, metrics: pm, memory: &s.memory,
		bounds: &logBounds{s.deps.Stream, s.deps.Warehouse, cl.Topic, cl.Partition, in.kind.tables()},
		rows:   rows,
		open: func(from int64) source {
			return s.deps.Stream.NewFetcher(cl.Topic, cl.Partition, from, stream.FetchOptions{})
		},
	}
	return o.run(ctx, cl.Offset, cl.Metadata)
}

// stored counts rows, and has the persons loaded anew when some were merged or split.
func (s *Service) stored(t table) {
	if t.Rows() == 0 {
		return
	}
	s.metrics.rows.WithLabelValues(t.Table()).Add(float64(t.Rows()))
	switch t.Table() {
	case warehouse.TableRedirects, warehouse.TableEventParts, warehouse.TableMessageParts:
		select {
		case s.reload <- struct{}{}:
		default:
		}
	}
}

// reloadPersons loads the dictionaries of persons whenever redirects or parts were stored, at most once per
// reloadSpacing. A ClickHouse server does so by itself every five seconds; libchdb never does.
func (s *Service) reloadPersons(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.reload:
		}
		if err := s.deps.Warehouse.ReloadPersons(ctx); err == nil {
			s.metrics.reloads.Inc()
		} else if ctx.Err() == nil {
			s.metrics.reloadErr.Inc()
			s.deps.Log.Warn("persons not loaded, trying again", zap.Error(err))
			select {
			case s.reload <- struct{}{}:
			default:
			}
		}
		if !sleep(ctx, reloadSpacing) {
			return
		}
	}
}

// Ready is nil when the schema is up to date and the partitions that are ours are caught up. A writer that
// has none, because there are more writers than partitions, is ready once it is a member.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.migrated {
		return errors.New("schema of clickhouse is not up to date yet")
	}
	if len(s.given) == 0 {
		return errors.New("not yet a member of a group")
	}
	given := 0
	for _, n := range s.given {
		given += n
	}
	if n := len(s.owned); n < given {
		return fmt.Errorf("%d of %d partitions are not taken over yet", given-n, given)
	}
	for p := range s.owned {
		switch n := p.behind.Load(); {
		case n < 0:
			return fmt.Errorf("%s partition %s: not read yet", p.topic, p.part)
		case n > readyLag:
			return fmt.Errorf("%s partition %s: %d records behind", p.topic, p.part, n)
		}
	}
	return nil
}

// timed measures inserts.
type timed struct {
	inserter
	m *metrics
}

// Insert is inserter's.
func (t timed) Insert(ctx context.Context, rows warehouse.Rows, token warehouse.Token, now func() time.Time) error {
	if rows.Rows() == 0 {
		return nil
	}
	began := now()
	err := t.inserter.Insert(ctx, rows, token, now)
	if err == nil {
		t.m.seconds.WithLabelValues(rows.Table()).Observe(now().Sub(began).Seconds())
	}
	return err
}

// logBounds asks Kafka and ClickHouse about one partition.
type logBounds struct {
	stream interface {
		StartOffsets(ctx context.Context, topicName string) ([]int64, error)
	}
	warehouse Warehouse
	topic     string
	partition int
	tables    []string
}

func (b *logBounds) start(ctx context.Context) (int64, error) {
	offsets, err := b.stream.StartOffsets(ctx, b.topic)
	if err != nil {
		return 0, err
	}
	if b.partition >= len(offsets) {
		return 0, fmt.Errorf("topic %s has %d partitions, not %d", b.topic, len(offsets), b.partition+1)
	}
	return offsets[b.partition], nil
}

func (b *logBounds) stored(ctx context.Context) (int64, bool, error) {
	return b.warehouse.HighestOffset(ctx, b.topic, b.partition, b.tables...)
}

// sleep waits; false: ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

var (
	_ claim  = (*stream.Claim)(nil)
	_ source = (*stream.Fetcher)(nil)
	_ rows   = (*tableRows)(nil)

	_ Warehouse = (*warehouse.Client)(nil)
)
