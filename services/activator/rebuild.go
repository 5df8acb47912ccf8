package activator

import (
	"context"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Rebuild folds what is known of the persons again. Nothing of the stage may be running. Carts that were
// decided stay decided; those that were not are pending when the stage starts, and are judged behind the fence.
func Rebuild(ctx context.Context, cfg config.Config, deps Deps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
	stage, err := newRebuild(ctx, cfg, deps, opt.From)
	if err != nil {
		return keyed.RebuildReport{}, fmt.Errorf("activator: %w", err)
	}
	return stage.Rebuild(ctx, opt)
}

func newRebuild(ctx context.Context, cfg config.Config, deps Deps, from topic.Set) (*keyed.Stage, error) {
	s, err := build(cfg, deps)
	if err != nil {
		return nil, err
	}
	if err := s.rules.load(ctx); err != nil {
		return nil, err
	}
	topics := cfg.Topics.Set()
	m, err := newMetrics(nil)
	if err != nil {
		return nil, err
	}
	f := &refold{
		fold: &fold{topics: topics, rules: s.rules, metrics: m, log: deps.Log}, from: from, began: s.now(),
		facts: journey.Ends{}, of: map[string][]*journey.End{}, since: map[string]int64{},
	}
	f.keep = func(r *journey.Receipt) bool { return !f.facts.Over(r.Receipt) && f.lived(r.Journey, r.ArmedAt) }
	return keyed.NewFold(keyed.Options{
		Stage: topic.StageDecide, Input: topics.EventsIdentified(), Topics: topics,
		BatchRecords: cfg.Activator.BatchRecords, StateVersion: journey.StateVersion, Waits: identity.Waits,
	}, f, keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Now: deps.Now})
}

// refold is fold in a rebuild. Timers do not fire: what they decided in life stands in requests and receipts,
// and is brought back from there at the time of each decision.
type refold struct {
	*fold
	from  topic.Set
	began time.Time
	facts journey.Ends              // some 300 bytes each
	of    map[string][]*journey.End // by profile, in the order of their times
	since map[string]int64          // by journey: when the first instance that was told of was armed
}

var _ keyed.Restorer[journey.State] = (*refold)(nil)

// lookBack is how old the carts may be, at the beginning of a rebuild, of a journey that never told of any: as
// old as one that is new may write about.
const lookBack = 72 * time.Hour

// lived says whether a journey can have armed an instance then. Old events arm for today's journeys, too, which
// may be younger than they are.
func (f *refold) lived(name string, armedAt int64) bool {
	since, ok := f.since[name]
	if !ok {
		since = f.began.Add(-lookBack).UnixMilli()
	}
	return armedAt >= since
}

// InOrder says that order counts: what a cart arms depends on what is armed.
func (f *refold) InOrder() bool { return true }

// Recall reads what was decided.
func (f *refold) Recall(ctx context.Context, read keyed.Reader) error {
	for p := range f.from.Partitions {
		_, err := read(ctx, f.from.ActivationsRequested(), p, func(r keyed.Record) error {
			_ = f.facts.Requested(r.Value) // what is not of the decider's making deliver rejects
			return nil
		})
		if err != nil {
			return err
		}
		_, err = read(ctx, f.from.ActivationsSettled(), p, func(r keyed.Record) error {
			return f.facts.Settled(r.Value)
		})
		if err != nil {
			return err
		}
	}
	for _, x := range f.facts {
		f.of[x.Profile] = append(f.of[x.Profile], x)
		if first, ok := f.since[x.Journey]; !ok || x.ArmedAt < first {
			f.since[x.Journey] = x.ArmedAt
		}
	}
	for _, xs := range f.of {
		journey.Order(xs)
	}
	return nil
}

// Restore brings back what was decided of a person before a time.
func (f *refold) Restore(key string, s *journey.State, until time.Time) {
	s.RestoreAll(f.of[key], until, f.facts.Over) // each time from the first: a batch may be folded again
}

// Apply folds one event. What it arms may have been decided before its time, where clocks differ.
func (f *refold) Apply(key string, s *journey.State, r keyed.Record, now time.Time) []keyed.Output {
	outs := f.fold.Apply(key, s, r, now)
	s.Drop(f.endedAs(key))
	return outs
}

// Merge unites two people. What moves here and was decided here meanwhile has ended.
func (f *refold) Merge(key string, into *journey.State, from journey.State, now time.Time) []keyed.Output {
	from.Drop(func(in *journey.Instance, _ int64) bool {
		x := f.facts[in.Receipt]
		return x != nil && x.Past
	})
	outs := f.fold.Merge(key, into, from, now)
	into.Drop(f.endedAs(key))
	return outs
}

// endedAs says which instances have ended as those of this person.
func (f *refold) endedAs(key string) func(*journey.Instance, int64) bool {
	return func(in *journey.Instance, _ int64) bool {
		x := f.facts[in.Receipt]
		return x != nil && x.Past && x.Profile == key
	}
}

// Concluding implements keyed.Restorer.
func (f *refold) Concluding(context.Context, int, keyed.Reader) error { return nil }

// Conclude ends what was published as ended, whosever it was, and what can not have lived: what a journey armed
// before it was there, and would have decided since.
func (f *refold) Conclude(key string, end keyed.End, s *journey.State, _ time.Time) ([]keyed.Output, bool) {
	if !end.Lives() {
		return nil, false
	}
	changed := s.RestoreAll(f.of[key], time.Time{}, f.facts.Over)
	dropped := s.Drop(func(in *journey.Instance, due int64) bool {
		return f.facts.Over(in.Receipt) || due < f.began.UnixMilli() && !f.lived(in.Journey, in.ArmedAt)
	})
	return nil, changed || dropped
}

// Concluded implements keyed.Restorer.
func (f *refold) Concluded(int) error { return nil }
