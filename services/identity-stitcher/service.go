// Package stitcher is identity-stitcher: it reads events.collected, works out whose each event is, and
// passes it on to events.identified under the profile's id.
//
// It owns: the decision which profile a record belongs to, dropping duplicates of a sender by message id,
// and publishing merges. It guarantees that every record of events.collected ends exactly once in effect
// as one of three: an event on events.identified, body untouched; a record on events.rejected with the
// bytes and the reason, if it cannot be read; or a record without a body on events.rejected with reason
// "duplicate", or "suppressed" if it names somebody who was erased, so that accepted = stored + rejected + duplicate can be
// audited from the topics alone. It guarantees that every merge is published, on events.identified and identities.linked, in the same outbox
// as the first event it matters to and before it. It must not know what an event means beyond its identifiers; the identity
// rules and the graph are package identity's, exactly-once is package keyed's.
//
// A duplicate is a message id seen from the same source within the configured window (seven days by
// default), over HTTP or on a topic. Not judged is the id that the collector gives to an inlet's record that came
// without: it is the record's place, whose repeats package keyed drops by source position.
//
// A record whose identifiers are all void (see blocked in schemas/identity/rules.yaml) is not lost: it becomes a profile
// of its own, whose id is made of its source and message id.
package stitcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
	"github.com/weft-cdp/weft/services/identity-stitcher/commands"
	"github.com/weft-cdp/weft/services/identity-stitcher/erase"
)

// Deps are the parts that the service stands on. All but Warehouse, Metrics and Now are required.
type Deps struct {
	Stream *stream.Client
	Store  *store.Client
	Log    *zap.Logger
	// Warehouse is ClickHouse, where commands read what is stored of a person; nil: those that need it are refused.
	Warehouse commands.Warehouse
	Metrics   prometheus.Registerer // nil: not measured
	Now       func() time.Time      // nil: time.Now
}

// Service is identity-stitcher. Any number of them may run; each owns the partitions its group gives it.
type Service struct {
	stage    *keyed.Stage
	commands *commands.Executor
	erased   *suppression.Erased
	judges   *judges
	log      *zap.Logger
}

// New reads or makes the identity key and builds the service. It reaches neither Kafka nor Redis.
func New(cfg config.Config, deps Deps) (*Service, error) {
	if deps.Store == nil || deps.Log == nil {
		return nil, errors.New("identity-stitcher: store and log are required")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if cfg.Stitcher.DuplicateWindow <= 0 {
		return nil, fmt.Errorf("stitcher.duplicate_window: %s is not above 0", cfg.Stitcher.DuplicateWindow)
	}
	rules, err := loadRules(cfg.Identity)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("identity-stitcher: %w", err)
	}
	topics := topic.Set{Prefix: cfg.Topics.Prefix, Partitions: cfg.Topics.Partitions}
	graph, judged := identity.NewGraph(deps.Store, topics.Prefix), policy(cfg.Identity, rules)
	p := &planner{
		rules:    rules,
		graph:    graph,
		resolver: identity.NewResolver(graph, cfg.Stitcher.CacheEntries, judged),
		judges:   newJudges(deps.Store, deps.Log, topics, rules.Judgement(judged)),
		topics:   topics,
		window:   cfg.Stitcher.DuplicateWindow,
		now:      deps.Now,
		metrics:  m,
		erased:   suppression.NewErased(deps.Store, topics.Prefix, func(context.Context) (*identity.Rules, error) { return rules, nil }),
	}
	stage, err := keyed.NewPlan(keyed.Options{
		Stage:        topic.StageStitcher,
		Input:        topics.EventsCollected(),
		Topics:       topics,
		BatchRecords: cfg.Stitcher.BatchRecords,
		Admit:        p.judges.admit(identity.Admit(deps.Store, keyed.DeploymentKey(topics), rules, stream.ErrStop)),
	}, p, keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Metrics: deps.Metrics, Now: deps.Now})
	if err != nil {
		return nil, fmt.Errorf("identity-stitcher: %w", err)
	}
	x, err := commands.New(commands.Deps{
		Stream: deps.Stream, Store: deps.Store, Graph: p.resolver, Rules: rules, Topics: topics, Warehouse: deps.Warehouse,
		Log: deps.Log.Named("commands"), Metrics: deps.Metrics, Now: deps.Now, More: moreCommands(deps, p),
	})
	if err != nil {
		return nil, fmt.Errorf("identity-stitcher: %w", err)
	}
	return &Service{stage: stage, commands: x, erased: p.erased, judges: p.judges, log: deps.Log}, nil
}

// moreCommands are the commands that package commands does not know: what they need of this service, it gives them here.
func moreCommands(deps Deps, p *planner) map[identity.CommandKind]commands.Handler {
	d := erase.Deps{
		Graph: p.resolver, Loader: p.graph, Register: suppression.NewRegister(deps.Store, p.topics.Prefix), Ledger: undo.NewLedger(deps.Store, p.topics),
		Rules: p.rules, Topics: p.topics,
	}
	if w, ok := deps.Warehouse.(erase.Warehouse); ok {
		d.Warehouse = w
	}
	e := erase.New(d)
	return map[identity.CommandKind]commands.Handler{identity.CommandErase: e.Erase, identity.CommandUnsuppress: e.Let}
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

// policy is what may become one person by the configuration.
func policy(cfg config.Identity, rules *identity.Rules) identity.Policy {
	g := cfg.Governor
	return identity.Policy{
		TypeOf: rules.TypeOf, Claims: identity.Claims(cfg.Claims), Devices: rules.Devices(),
		Caps: identity.Caps{
			Members: g.MembersPerPerson, Merges: g.MergesPerPerson, Degree: g.LinksPerIdentifier,
			PerMinute: g.MergesPerMinute, PerMinutePerSource: g.MergesPerMinutePerSource,
		},
	}
}

// Run works until ctx ends, and then returns nil, or until an error that a person must look at, such as
// identity.ErrOtherKey.
func (s *Service) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer stop()
	following.Go(func() { s.erased.Run(ctx, s.log) })
	defer s.judges.leave()
	var said, others error
	following.Go(func() {
		select {
		case <-s.judges.in: // commands change the graph, too
		case <-ctx.Done():
			return
		}
		if said = s.commands.Run(ctx); said != nil {
			stop() // the service is not whole without it
		}
	})
	following.Go(func() {
		if others = s.judges.run(ctx); others != nil {
			stop()
		}
	})
	err := s.stage.Run(ctx)
	stop()
	following.Wait()
	if err = errors.Join(err, said, others); err != nil {
		return fmt.Errorf("identity-stitcher: %w", err)
	}
	return nil
}

// Ready is nil when every partition owned here has recovered and is nearly caught up.
func (s *Service) Ready() error { return s.stage.Ready() }
