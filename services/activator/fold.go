package activator

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// fold is the decide stage: package journey's rules as a keyed.Fold. It reads the rulebook anew at every
// call, so that a reload takes effect with the next record.
type fold struct {
	topics  topic.Set
	rules   *rulebook
	metrics *metrics
	log     *zap.Logger
	// unfenced says that the fence has passed events that wait in a spool; nil: it has not.
	unfenced func() bool
	keep     func(r *journey.Receipt) bool // leaves receipts out in a rebuild; nil: none
}

var _ keyed.Fold[journey.State] = (*fold)(nil)

// Apply folds one event, or what else is told of the time before a split. Other kinds (merges and splits never come here)
// mean nothing to this version.
func (f *fold) Apply(key string, s *journey.State, r keyed.Record, now time.Time) []keyed.Output {
	switch r.Kind {
	case topic.KindEvent:
	case topic.KindDecision:
		f.bring(key, s, &r)
		return nil
	case topic.KindRefolded:
		return f.whole(key, s, &r, now)
	default:
		f.metrics.ignored.Inc()
		f.log.Debug("record of another kind is ignored", zap.String("kind", string(r.Kind)), zap.String("profile", key))
		return nil
	}
	e, err := event.Decode(r.Value, r.Meta)
	if err != nil {
		f.metrics.rejected.Inc()
		return []keyed.Output{keyed.Reject(r, topic.StageDecide, event.Reason(err, "invalid_event"), err, f.topics)}
	}
	var res journey.Result
	if r.Refold {
		res = f.rules.decider().Again(key, string(r.Key), s, e, now)
	} else {
		res = f.rules.decider().Observe(key, s, e, now)
	}
	if res.Unreadable != nil {
		f.metrics.commerce.Inc()
		f.log.Debug("part of a cart or order event is left out", zap.Error(res.Unreadable), zap.String("source", e.Source), zap.String("message_id", e.MessageID))
	}
	return f.outputs(key, s, &res)
}

// bring takes in what was decided for somebody whom the part of r's key was one with.
func (f *fold) bring(key string, s *journey.State, r *keyed.Record) {
	origin, _ := topic.Get(r.Headers, topic.HeaderOrigin)
	at, err := topic.ParsePosition(origin) // of the same form: topic:partition:offset
	if err == nil {
		err = s.Bring(string(r.Key), r.Value, strings.HasSuffix(at.Stage, topic.Set{}.ActivationsRequested()))
	}
	if err != nil { // not of the decider's making
		f.metrics.rejected.Inc()
		f.log.Warn("decision that is told again can not be read", zap.Error(err), zap.String("profile", key), zap.String("origin", origin))
	}
}

// whole ends what is told of the time before a split.
func (f *fold) whole(key string, s *journey.State, r *keyed.Record, now time.Time) []keyed.Output {
	var part struct {
		Time time.Time `json:"time"` // of the command
	}
	if err := json.Unmarshal(r.Value, &part); err != nil || part.Time.IsZero() {
		f.log.Warn("end of a telling does not say of when the split is: now is taken", zap.Error(err), zap.String("profile", key))
		part.Time = now
	}
	res := f.rules.decider().Whole(key, string(r.Key), s, part.Time, now)
	return f.outputs(key, s, &res)
}

// Due is when the person's first cart wants to be decided.
func (f *fold) Due(s *journey.State) (time.Time, bool) { return s.Due() }

// Timer decides what is due.
func (f *fold) Timer(key string, s *journey.State, now time.Time) []keyed.Output {
	res := f.rules.decider().Fire(key, s, now)
	if f.unfenced != nil && f.unfenced() {
		res.Unfence()
	}
	return f.outputs(key, s, &res)
}

// Merge unites two people.
func (f *fold) Merge(key string, into *journey.State, from journey.State, now time.Time) []keyed.Output {
	res := f.rules.decider().Merge(key, into, from, now)
	return f.outputs(key, into, &res)
}

func (f *fold) outputs(key string, s *journey.State, res *journey.Result) []keyed.Output {
	f.metrics.armed.Add(float64(res.Armed))
	if res.Capped > 0 {
		f.metrics.capped.Add(float64(res.Capped))
		f.log.Warn("carts of a person have reached a limit", zap.String("profile", key))
	}
	outs := make([]keyed.Output, 0, len(res.Requests)+len(res.Receipts))
	for i := range res.Requests {
		r := &res.Requests[i]
		f.metrics.requested.WithLabelValues(r.Channel).Inc()
		outs = f.output(outs, f.topics.ActivationsRequested(), key, r.Brand, r)
	}
	for i := range res.Receipts {
		r := &res.Receipts[i]
		if f.keep != nil && !f.keep(r) || s.Over(r.Receipt) {
			continue
		}
		f.metrics.settled.WithLabelValues(r.Outcome, r.Reason).Inc()
		outs = f.output(outs, f.topics.ActivationsSettled(), key, r.Brand, r)
	}
	return outs
}

// output encodes v. It cannot fail: requests and receipts are texts, numbers and decimals.
func (f *fold) output(outs []keyed.Output, topicName, key, brand string, v any) []keyed.Output {
	b, err := journey.Encode(v)
	if err != nil {
		f.log.Error("decision can not be encoded", zap.Error(err), zap.String("profile", key))
		return outs
	}
	return append(outs, keyed.Output{Topic: topicName, Key: key, Headers: headers(brand), Value: b})
}

func headers(brand string) []topic.Header {
	hs := []topic.Header{{Key: topic.HeaderSchema, Value: []byte(strconv.Itoa(topic.SchemaVersion))}}
	if brand != "" {
		hs = append(hs, topic.Header{Key: topic.HeaderBrand, Value: []byte(brand)})
	}
	return hs
}
