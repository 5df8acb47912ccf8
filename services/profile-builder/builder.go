// Package builder is profile-builder: it folds events.identified into one live profile per person, tells
// every change on profiles.changed and audiences.changed, and answers who a person is over HTTP.
//
// It owns: the profiles' states in Redis, profiles.changed, audiences.changed, and the profile API. It
// guarantees that every event of events.identified is in exactly one profile once, whatever crashes or is
// repeated and however people are merged meanwhile; that profiles.changed holds, per profile id, the
// profile after its last change, one record per profile and batch, and a tombstone for an id that was
// merged into another, split or erased; that a part of somebody who was split is told first when all that it was
// before is in it; that a membership is told when it begins and when it ends. It must not know how a
// person is recognised (identity-stitcher: here a profile id is a given) nor what is done about an audience.
// What a profile is and how it is folded is package profile's; exactly-once is package keyed's.
//
// An event that cannot be read goes to events.rejected with the reason. An order or cart event whose
// numbers cannot be read counts as an event, without them; weft_builder_unreadable_commerce_total says how
// many there were.
package builder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/audiences"
)

// Limits of the HTTP server: requests are one line and a few headers, answers one profile.
const (
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 15 * time.Second // above lookupTimeout and offsetsTimeout together
	idleTimeout    = 75 * time.Second // above the 60 s after which common load balancers drop idle connections
	maxHeaderBytes = 16 << 10
)

// Deps are the parts that the service stands on. All but Metrics, Now, History and Listen are required.
type Deps struct {
	Stream  *stream.Client
	Store   *store.Client
	Log     *zap.Logger
	Metrics prometheus.Registerer // nil: not measured
	Now     func() time.Time      // nil: time.Now
	// History is ClickHouse, for the questions why somebody is who; nil: they are not answered.
	History explain.History
	// Listen binds the API's address; nil: net.Listen. For networks inside a process.
	Listen func(network, address string) (net.Listener, error)
}

// Service is profile-builder. Any number of them may run: each owns the partitions its group gives it, and
// each answers for every profile.
type Service struct {
	cfg   config.Config
	log   *zap.Logger
	bind  func(network, address string) (net.Listener, error)
	stage *keyed.Stage
	api   *api

	mu       sync.Mutex
	listener net.Listener
}

// New reads the audience file and the identity key (made if there is none) and builds the service. It
// reaches neither Kafka nor Redis.
func New(cfg config.Config, deps Deps) (*Service, error) {
	if deps.Stream == nil || deps.Store == nil || deps.Log == nil {
		return nil, errors.New("profile-builder: stream, store and log are required")
	}
	if deps.Listen == nil {
		deps.Listen = func(network, address string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(context.Background(), network, address)
		}
	}
	as, err := loadAudiences(cfg.Builder.AudiencesFile)
	if err != nil {
		return nil, fmt.Errorf("builder.audiences_file: %w", err)
	}
	rules, err := loadRules(cfg.Identity)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("profile-builder: %w", err)
	}
	topics := topic.Set{Prefix: cfg.Topics.Prefix, Partitions: cfg.Topics.Partitions}
	f := &fold{topics: topics, rules: profile.Rules{BrandTraits: cfg.Builder.BrandTraits}, audiences: as, metrics: m, log: deps.Log}
	stage, err := keyed.NewFold(keyed.Options{
		Stage: topic.StageBuilder, Input: topics.EventsIdentified(), Topics: topics,
		// The API finds people by their identifiers' hashes: another key would find nobody.
		Admit:        identity.Admit(deps.Store, keyed.DeploymentKey(topics), rules, stream.ErrStop),
		BatchRecords: cfg.Builder.BatchRecords, StateVersion: profile.StateVersion, Waits: identity.Waits,
	}, f, keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Metrics: deps.Metrics, Now: deps.Now})
	if err != nil {
		return nil, fmt.Errorf("profile-builder: %w", err)
	}
	people := &identityAPI{keys: hashKeys(cfg.Builder.AdminKeys), log: deps.Log, orders: &commandsAPI{
		stream: deps.Stream, ledger: undo.NewLedger(deps.Store, topics), topics: topics, loader: identity.NewGraph(deps.Store, topics.Prefix),
		names: explain.New(nil, rules), log: deps.Log, now: deps.Now,
	}}
	if people.orders.now == nil {
		people.orders.now = time.Now
	}
	if deps.History != nil {
		people.people = explain.New(deps.History, rules)
	}
	if wh, ok := deps.History.(*warehouse.Client); ok {
		folds := func() (undo.Folds, error) { return undo.LoadFolds(cfg) }
		people.orders.previews = undo.NewPreviewer(undo.NewHistory(wh, rules), rules, folds, undo.LinksOf(wh), people.orders.now)
	}
	return &Service{
		cfg: cfg, log: deps.Log, bind: deps.Listen, stage: stage,
		api: newAPI(cfg.Builder.AccessKeys, rules, &profiles{store: deps.Store, topics: topics, ends: newEnds(deps.Stream, topics.EventsIdentified())}, people, m, deps.Log),
	}, nil
}

// loadRules reads the identity key (made if there is none) and the rules file.
func loadRules(cfg config.Identity) (*identity.Rules, error) {
	key, text, err := cfg.Load()
	if err != nil {
		return nil, err
	}
	rules, err := identity.NewRules(key, identity.Options{DefaultRegion: cfg.DefaultRegion, File: cfg.RulesFile, Text: text})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return rules, nil
}

// loadAudiences reads the file, or the shipped example if none is named.
func loadAudiences(file string) (*profile.Audiences, error) {
	if file == "" {
		return profile.ParseAudiences(audiences.ExampleName, audiences.Example())
	}
	text, err := os.ReadFile(file) //nolint:gosec // the path is the operator's configuration
	if err != nil {
		return nil, fmt.Errorf("read audiences: %w", err)
	}
	return profile.ParseAudiences(file, text)
}

// Listen binds the API's address, if it is not bound yet. Run does it, too.
func (s *Service) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := s.bind("tcp", s.cfg.Builder.Listen)
	if err != nil {
		return fmt.Errorf("profile-builder: listen on %s: %w", s.cfg.Builder.Listen, err)
	}
	s.listener = l
	return nil
}

// Addr is where the API listens; empty before Listen or Run.
func (s *Service) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Ready is nil when every partition owned here has recovered and is nearly caught up, and the API listens.
func (s *Service) Ready() error {
	if s.Addr() == "" {
		return errors.New("profile-builder: the API does not listen yet")
	}
	return s.stage.Ready()
}

// Run works until ctx ends, and then returns nil once requests under way are answered, or until an error
// that a person must look at. It is called once.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.api, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: zap.NewStdLog(s.log),
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	serving := make(chan error, 1)
	go func() {
		err := server.Serve(s.listener)
		stop() // without its API the service is no service
		serving <- err
	}()
	err := s.stage.Run(ctx)
	s.drain(ctx, server)
	if serveErr := <-serving; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve the profile API: %w", serveErr))
	}
	if err != nil {
		return fmt.Errorf("profile-builder: %w", err)
	}
	return nil
}

// drain answers the requests under way, within the deadline of a shutdown phase.
func (s *Service) drain(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Admin.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		s.log.Warn("profile requests were cut off", zap.Error(err))
		_ = server.Close() // its connections are gone either way
	}
}
