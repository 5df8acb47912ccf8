package collector

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/plan"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/transform"
)

// reasonPlanViolation is the reason of events that their source's tracking plan blocks.
const reasonPlanViolation = "plan_violation"

// suppressionEvery is how often the suppression list is looked at: an objection counts at once, as people
// understand it.
const suppressionEvery = time.Second

// transformStep does the transformations of a source; nil: it has none.
func transformStep(s config.Source, m *metrics) (step, error) {
	chain, err := transform.Compile(s.Transformations)
	if err != nil || chain == nil {
		return nil, err
	}
	rules := chain.Rules()
	dropped, failed := make([]prometheus.Counter, len(rules)), make([]prometheus.Counter, len(rules))
	for i, rule := range rules {
		dropped[i] = m.transformed.WithLabelValues(s.Name, rule, "dropped")
		failed[i] = m.transformed.WithLabelValues(s.Name, rule, "failed")
	}
	return func(it *item) error {
		r, err := chain.Apply(it.body)
		switch {
		case err != nil && r.Rule >= 0:
			failed[r.Rule].Inc()
			return err
		case err != nil:
			return err
		case r.Dropped:
			dropped[r.Rule].Inc()
			return errDropped
		}
		it.body = r.Body
		return nil
	}, nil
}

// suppressStep keeps nothing of people on the list, nor of those who were erased.
func (in *intake) suppressStep() step {
	return func(it *item) error {
		if in.suppresses(it.meta.Brand, it.body, event.Filling{}) {
			return errSuppressed
		}
		return nil
	}
}

// suppresses says whether an item, valid or not, names one who is on the list or was erased.
func (in *intake) suppresses(brand string, body []byte, fill event.Filling) bool {
	var entries *suppression.Entries
	if in.suppressed != nil {
		entries = in.suppressed.Entries()
	}
	if entries.Len() == 0 && in.erased.Len() == 0 {
		return false
	}
	e := in.glimpse(body, fill)
	if entries.Len() > 0 {
		for _, id := range e.Identifiers() {
			if entries.Has(id.Value) {
				return true
			}
		}
	}
	e.Brand = brand
	return in.erased.Has(e)
}

// suppressing says whether there may be anybody of whom nothing is stored.
func (in *intake) suppressing() bool { return in.suppressed != nil || in.erased != nil }

// planStep holds items against the tracking plan of a source; nil: it has none.
func planStep(s config.Source, m *metrics) (step, error) {
	if s.Plan == "" {
		return nil, nil
	}
	p, err := plan.Load(s.Plan)
	if err != nil {
		return nil, err
	}
	for _, rule := range p.Rules() { // there from the start, so that a first violation is a step up, and no new series
		for _, a := range []plan.Action{plan.Allow, plan.Flag, plan.Block} {
			m.violations.WithLabelValues(s.Name, rule, string(a))
		}
	}
	return func(it *item) error {
		e, err := event.Decode(it.body, it.meta)
		if err != nil {
			return err // the same as without a plan
		}
		v := p.Check(e)
		for _, x := range v.Violations {
			m.violations.WithLabelValues(s.Name, x.Rule, string(x.Action)).Inc()
		}
		switch v.Action {
		case plan.Block:
			worst := v.Worst()
			return &event.Error{Reason: reasonPlanViolation, Path: worst.Path, Detail: fmt.Sprintf("%s (rule %s of the tracking plan)", worst.Detail, worst.Rule)}
		case plan.Flag:
			it.meta.AddFlag(event.FlagPlanViolation)
		}
		return nil
	}, nil
}

// watchSuppression takes the suppression list again when it has changed, until ctx ends. A list that cannot be read
// changes nothing; that is told once.
func watchSuppression(ctx context.Context, list *suppression.List, m *metrics, log *zap.Logger) {
	t := time.NewTicker(suppressionEvery)
	defer t.Stop()
	last := ""
	for {
		m.listed.Set(float64(list.Entries().Len()))
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		text := ""
		changed, err := list.Refresh()
		if err != nil {
			text = err.Error()
		}
		if changed {
			log.Info("suppression list taken", zap.Int("entries", list.Entries().Len()))
		}
		if text != last && text != "" {
			log.Error("suppression list can not be taken, the former one stands", zap.String("error", text))
		}
		last = text
	}
}
