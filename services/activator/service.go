// Package activator is the activator: it decides for every abandoned cart whether a message is sent, and
// delivers it.
//
// Two stages in one process. Decide folds events.identified into what is known of each person and, behind
// the fence, ends every armed cart in a request on activations.requested or a receipt on
// activations.settled. Deliver hands each request to its channel and writes its receipt.
//
// It owns: the deciders' states in Redis, the journeys that run, activations.requested and
// activations.settled. It guarantees that every armed cart ends in exactly one receipt, whatever crashes;
// that no message is requested for a cart which an order acknowledged before the decision had bought; that
// a message which waits for its channel is not sent to somebody who has bought or said no since; that
// a changed journey or suppression file is taken while running, and a faulty one changes nothing; that a
// message is never sent twice through a channel that cannot tell, where a crash leaves its fate open the
// receipt says unknown. It must not know how people are recognized (identity-stitcher) nor what is written
// about it all (journey-writer). The rules are package journey's, exactly-once is package keyed's, channels
// are package connector's.
//
// Metrics of the decide stage count attempts: after a refusal a batch is folded again.
package activator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
	"github.com/weft-cdp/weft/pkg/connector/smtp"
	"github.com/weft-cdp/weft/pkg/connector/webhook"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// deliverBatch is the most messages per script of the deliver stage: a batch waits for its slowest
// message, and a mail takes a fraction of a second.
const deliverBatch = 100

// fenceUnready is how long the fence may wait at one place before the activator says that it is not ready:
// a rebalance or a restart above it passes within this, and as long as it waits no cart is decided at all.
const fenceUnready = time.Minute

// Deps are the parts that the service stands on. All but Metrics, Now and Senders are required.
type Deps struct {
	Stream  *stream.Client
	Store   *store.Client
	Log     *zap.Logger
	Metrics prometheus.Registerer // nil: not measured
	Now     func() time.Time      // nil: time.Now
	// Senders are the channels by name; nil: those that the configuration names.
	Senders map[string]connector.Sender
}

// Service is the activator. Any number of them may run: each owns the partitions its groups give it.
type Service struct {
	rules   *rulebook
	fence   *keyed.Fence
	decide  *keyed.Stage
	deliver *keyed.Stage
	now     func() time.Time
}

// New reads secrets and passwords (the secret of unsubscribe links is made if there is none), looks at the
// journeys and suppression list, and builds the service. It reaches neither Kafka nor Redis nor a channel.
func New(cfg config.Config, deps Deps) (*Service, error) {
	s, err := build(cfg, deps)
	if err != nil {
		return nil, fmt.Errorf("activator: %w", err)
	}
	return s, nil
}

func build(cfg config.Config, deps Deps) (*Service, error) {
	if deps.Stream == nil || deps.Store == nil || deps.Log == nil {
		return nil, errors.New("stream, store and log are required")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	secret, err := config.LoadOrCreateSecret(cfg.Collector.UnsubscribeSecret)
	if err != nil {
		return nil, fmt.Errorf("collector.unsubscribe_secret_file: %w", err)
	}
	senders, err := newSenders(cfg.Activator, deps)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	topics := cfg.Topics.Set()
	s := &Service{now: deps.Now}
	if s.rules, err = newRulebook(cfg, secret, senders, deps, m); err != nil {
		return nil, err
	}
	kd := keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Metrics: deps.Metrics, Now: deps.Now}
	s.fence = keyed.NewFence(edges(cfg), topics, cfg.Activator.FencePoll, kd)
	if deps.Metrics != nil {
		err := errors.Join(deps.Metrics.Register(fenceWait(s.waiting)), deps.Metrics.Register(erasedIdentifiers(s.rules.erased.Len)))
		if err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	s.decide, err = keyed.NewFold(keyed.Options{
		Stage: topic.StageDecide, Input: topics.EventsIdentified(), Topics: topics,
		BatchRecords: cfg.Activator.BatchRecords, Fence: s.fence, StateVersion: journey.StateVersion, Waits: identity.Waits,
	}, &fold{topics: topics, rules: s.rules, metrics: m, log: deps.Log, unfenced: s.fence.Overridden}, kd)
	if err != nil {
		return nil, err
	}
	s.deliver, err = keyed.NewPlan(keyed.Options{
		Stage: topic.StageDeliver, Input: topics.ActivationsRequested(), Topics: topics,
		BatchRecords: min(cfg.Activator.BatchRecords, deliverBatch),
	}, newDelivery(topics, decided(deps.Store, topics, s.rules), senders, deps, m), kd)
	return s, err
}

// newSenders makes the channels that are configured, unless they are given.
func newSenders(cfg config.Activator, deps Deps) (map[string]connector.Sender, error) {
	if deps.Senders != nil {
		return deps.Senders, nil
	}
	senders := map[string]connector.Sender{}
	if cfg.SMTP.Address != "" {
		s, err := smtp.New(cfg.SMTP)
		if err != nil {
			return nil, err
		}
		senders[journey.ChannelEmail] = s
	}
	if cfg.Webhook.URL != "" {
		s, err := webhook.New(cfg.Webhook, deps.Now)
		if err != nil {
			return nil, err
		}
		senders[journey.ChannelWebhook] = s
	}
	return senders, nil
}

// edges are the pipeline above the decision: all that was acknowledged at a door has gone down them before
// a cart is decided.
func edges(cfg config.Config) []keyed.Edge {
	topics := cfg.Topics.Set()
	inlets := []string{topics.EventsInbox()}
	for _, s := range cfg.Collector.KafkaSources() {
		inlets = append(inlets, s.Kafka.Topic)
	}
	return []keyed.Edge{
		{Inputs: inlets, Stage: topic.StageCollector},
		{Inputs: []string{topics.EventsCollected()}, Stage: topic.StageStitcher, Slots: true},
		{Inputs: []string{topics.EventsIdentified()}, Stage: topic.StageDecide},
	}
}

// waiting is how long the fence has got no further, and at what; 0 if it is not walking.
func (s *Service) waiting() (time.Duration, string) {
	since, at, ok := s.fence.Waiting()
	if !ok {
		return 0, ""
	}
	return s.now().Sub(since), at
}

// Ready is nil when the journeys are loaded, people who were erased can be recognised, every partition owned here has recovered and is nearly caught
// up, and the fence does not wait for long.
func (s *Service) Ready() error {
	if !s.rules.loaded() {
		return errors.New("activator: the journeys are not loaded yet")
	}
	var held error
	if d, at := s.waiting(); d > fenceUnready {
		held = fmt.Errorf("activator: nothing is decided, the fence has waited %s for %s", d.Truncate(time.Second), at)
	}
	return errors.Join(held, s.rules.erased.Ready(), s.decide.Ready(), s.deliver.Ready())
}

// Run works until ctx ends, and then returns nil once messages under way are handed over, or until an
// error that a person must look at. It is called once.
func (s *Service) Run(ctx context.Context) error {
	if err := s.rules.load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("activator: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	parts := []func(context.Context) error{s.rules.watch, s.rules.follow, s.fence.Run, s.decide.Run, s.deliver.Run}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, run := range parts {
		wg.Go(func() {
			defer stop() // one part that ends, ends them all
			errs[i] = run(ctx)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("activator: %w", err)
	}
	return nil
}
