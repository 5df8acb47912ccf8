// Package collector is the doors of Weft: HTTP as Segment's SDKs speak it, and Kafka topics of yours.
//
// It owns: events.collected (its only writer), the checks at the door, the stamps an event gets there (source,
// brand, message id, received_at, sent_at, trust, historical), its key, and the unsubscribe page.
//
// It guarantees:
//   - A 2xx means that all in-sync replicas of Kafka have everything of that request: valid events on
//     events.collected, the others on events.rejected with the reason. What Kafka does not take in time is synced
//     to a spool on this machine's disk, of which the fence knows (package spool), and is handed on when Kafka takes
//     it. When that cannot be done either, the request gets 503 with Retry-After, and the sender comes again.
//   - A request that cannot be read gets 400 and, if its write key is known, is kept on events.rejected too
//     (its first bytes): nothing is dropped silently.
//   - Bodies are edited as text, never encoded anew: digits, escapes and duplicate keys arrive as sent.
//   - A record of an inlet topic becomes one event, exactly once in effect: it carries its topic, partition
//     and offset as source position, by which the stage behind drops repeats. Aborted transactions are left
//     out; the commit is the fetch position, so that the fence can wait for it.
//   - Memory for requests is bounded by collector.max_in_flight_bytes, whatever senders do.
//
// It must not know who a person is (identity-stitcher), nor what an event means for a cart.
package collector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/spool"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Deps is what the collector stands on. All but Store, Listen and SpoolFile are required.
type Deps struct {
	Stream  *stream.Client
	Store   *store.Client // nil: no spool, and each collector knows its own tokens of webhooks
	Log     *zap.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
	// Listen binds the HTTP door's address; nil: net.Listen. For networks inside a process.
	Listen func(network, address string) (net.Listener, error)
	// SpoolFile makes the files of the spool; nil: on the disk. For disks that a test has go down with the process.
	SpoolFile func(path string) (spool.File, error)
}

// sender hands over records and returns nil only when all in-sync replicas have all of them. Keys, values and headers
// must not be changed afterwards; the slice is its caller's again. *stream.Batcher is one.
type sender interface {
	SendAll(ctx context.Context, recs []stream.Record) error
}

// Service is the collector. Make it with New.
type Service struct {
	cfg    config.Config
	set    topic.Set
	deps   Deps
	intake *intake
	door   *door
	inlets []*inlet

	collected, rejected *stream.Batcher
	spool               *spool.Spool       // nil: none
	registry            *registry.Registry // of the spool

	closing atomic.Bool // the door will close soon

	mu       sync.Mutex
	listener net.Listener
	state    error // why it is not ready, apart from the inlets
}

var (
	errNotListening = errors.New("the HTTP door is not open yet")
	errNoTopics     = errors.New("the topics have not been seen yet")
	errCannotGoOn   = errors.New("the collector cannot go on")
)

// New checks the configuration and builds the collector; it starts nothing. It makes the unsubscribe secret's
// file if there is none.
func New(cfg config.Config, deps Deps) (*Service, error) {
	set := cfg.Topics.Set()
	queue := stream.BatcherOptions{MaxQueuedBytes: 2 * cfg.Collector.MaxInFlightBytes, Drain: cfg.Collector.ProduceTimeout}
	s := &Service{
		cfg: cfg, set: set, deps: deps, state: errNotListening,
		collected: deps.Stream.NewBatcher(set.EventsCollected(), set.Partitions, queue),
		rejected:  deps.Stream.NewBatcher(set.EventsRejected(), set.Partitions, queue),
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	if s.intake, err = newIntake(cfg.Collector, deps.Now, m); err != nil {
		return nil, err
	}
	if deps.Store != nil { // before the sources are compiled: they ask whether there is one
		s.intake.erased = suppression.NewErased(deps.Store, set.Prefix, suppression.RulesOf(cfg.Identity, deps.Store, keyed.DeploymentKey(set)))
		if err := deps.Metrics.Register(erasedIdentifiers(s.intake.erased.Len)); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	if s.inlets, err = newInlets(cfg, deps, s.intake, m); err != nil {
		return nil, err
	}
	if deps.Store != nil {
		s.registry = registry.New(deps.Store, set)
	}
	if s.spool, err = openSpool(cfg, deps, s.registry); err != nil {
		return nil, err
	}
	if deps.Store != nil {
		s.intake.tokens = newTokens(deps.Store, set, deps.Log)
	}
	collected, rejected := throughSpool(s.spool, 0, s.collected, cfg.Collector), throughSpool(s.spool, 1, s.rejected, cfg.Collector)
	if s.door, err = newDoor(cfg.Collector, s.intake, collected, rejected, m, deps.Log); err != nil {
		return nil, closeSpool(s.spool, err)
	}
	return s, nil
}

// Listen opens the HTTP door's port, so that Addr is known; Run does it if it was not called. Requests are
// answered once Run runs.
func (s *Service) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	bind := s.deps.Listen
	if bind == nil {
		bind = net.Listen
	}
	l, err := bind("tcp", s.cfg.Collector.Listen)
	if err != nil {
		return fmt.Errorf("open the HTTP door: %w", err)
	}
	s.listener = l
	return nil
}

// Addr is where the HTTP door listens, host:port; empty before Listen.
func (s *Service) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Ready returns nil when the HTTP door is open and Kafka has shown the topics, or, since it does not answer, the spool
// can take events, and people who were erased can be recognised: a load balancer may send requests. What inlets do is no matter of the door's, see InletsReady.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.state, s.intake.erased.Ready())
}

// InletsReady returns nil when every inlet partition that this process owns has been read up to its end once. It
// names every inlet that is down or held, and why.
func (s *Service) InletsReady() error {
	var errs []error
	for _, in := range s.inlets {
		errs = append(errs, in.ready())
	}
	return errors.Join(errs...)
}

func (s *Service) become(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.closing.Load() {
		return // it was just about to say so
	}
	s.state = err
}

// Run opens the doors and serves until ctx ends; then it finishes what is in flight and returns nil. An
// error means that it cannot go on: the port is taken, or the topics have another partition count. An inlet
// that has lost records to retention is down alone: InletsReady, the log and a metric say so.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	server, err := s.server()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	var fatal error
	fail := func(err error) {
		once.Do(func() { fatal = err })
		cancel(errCannotGoOn)
	}
	var batchers, workers sync.WaitGroup
	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	for _, b := range []*stream.Batcher{s.collected, s.rejected} {
		batchers.Go(func() {
			if err := b.Run(sending); err != nil {
				fail(fmt.Errorf("send events: %w", err))
			}
		})
	}
	if s.spool != nil {
		batchers.Go(func() {
			if err := s.spool.Run(sending); err != nil {
				fail(fmt.Errorf("spool events: %w", err))
			}
		})
	}
	s.become(errNoTopics)
	workers.Go(func() {
		if err := s.awaitTopics(ctx); err != nil && ctx.Err() == nil {
			fail(err)
		}
	})
	if list := s.intake.suppressed; list != nil {
		workers.Go(func() { watchSuppression(ctx, list, s.intake.metrics, s.deps.Log) })
	}
	if e := s.intake.erased; e != nil {
		workers.Go(func() { e.Run(ctx, s.deps.Log) })
	}
	for _, in := range s.inlets {
		workers.Go(func() { in.run(ctx) })
	}
	workers.Go(func() {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("serve HTTP: %w", err))
		}
	})
	<-ctx.Done()
	// Who was not ready has nobody who must notice; and nothing more may come in by a wrong partition count.
	noticed := s.Ready() == nil && !errors.Is(context.Cause(ctx), errCannotGoOn)
	s.closing.Store(true)
	s.become(errNotListening)
	s.shut(ctx, server, noticed)
	workers.Wait()
	stopSending()
	batchers.Wait()
	return closeSpool(s.spool, fatal)
}
