package builder

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/topic"
)

// state is a profile's state and whether it changed since the last word was said about it.
type state struct {
	Profile profile.State
	// Since Settle, within one batch, never stored:
	changed bool
	command string // by which what was before the profile has been told again: the change is its doing
}

// AppendBinary appends the profile: its version is the state's.
func (s *state) AppendBinary(b []byte) ([]byte, error) { return s.Profile.AppendBinary(b) }

// UnmarshalBinary reads what AppendBinary has written, or what stood in Redis before: JSON with the profile in
// a member.
func (s *state) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != '{' {
		return s.Profile.UnmarshalBinary(b)
	}
	var old struct {
		Profile json.RawMessage `json:"p"`
	}
	if err := json.Unmarshal(b, &old); err != nil {
		return fmt.Errorf("read state of version 1: %w", err)
	}
	return s.Profile.UnmarshalBinary(old.Profile)
}

// fold is the keyed.Fold of profiles. Its metrics count attempts: after a refusal a batch is folded again.
type fold struct {
	topics    topic.Set
	rules     profile.Rules
	audiences *profile.Audiences
	metrics   *metrics
	log       *zap.Logger
}

var (
	_ keyed.Fold[state]    = (*fold)(nil)
	_ keyed.Settler[state] = (*fold)(nil)
	_ keyed.Freezer[state] = (*fold)(nil)
)

// Apply folds one event. One that is told again is in the next word about the profile, and no reason for it: that is the
// record behind the last of them. Other kinds (merges and splits never come here) are of no meaning to this version, and
// what was decided of messages is nothing to a profile.
func (f *fold) Apply(key string, s *state, r keyed.Record, _ time.Time) []keyed.Output {
	switch r.Kind {
	case topic.KindEvent:
	case topic.KindDecision:
		return nil
	case topic.KindRefolded:
		s.changed = true
		s.command, _ = topic.Get(r.Headers, topic.HeaderRefold)
		return nil
	default:
		f.metrics.ignored.Inc()
		f.log.Debug("record of another kind is ignored", zap.String("kind", string(r.Kind)), zap.String("profile", key))
		return nil
	}
	e, err := event.Decode(r.Value, r.Meta)
	if err != nil {
		f.metrics.rejected.Inc()
		return []keyed.Output{keyed.Reject(r, topic.StageBuilder, event.Reason(err, "invalid_event"), err, f.topics)}
	}
	was := s.Profile.Capped()
	for _, err := range s.Profile.Apply(e, &f.rules) {
		f.metrics.commerce.Inc()
		f.log.Debug("commerce part of an event is left out", zap.Error(err), zap.String("source", e.Source), zap.String("message_id", e.MessageID))
	}
	f.capped(key, s, was)
	s.changed = s.changed || !r.Refold
	return nil
}

// capped counts what a limit has begun to leave out.
func (f *fold) capped(key string, s *state, was profile.Capped) {
	now := s.Profile.Capped()
	for _, what := range (now &^ was).Names() {
		f.metrics.capped.WithLabelValues(what).Inc()
		f.log.Warn("profile has reached a limit", zap.String("profile", key), zap.String("what", what))
	}
}

// Due says that profiles want no waking: time enters with events.
func (f *fold) Due(*state) (time.Time, bool) { return time.Time{}, false }

// Timer is never called.
func (f *fold) Timer(string, *state, time.Time) []keyed.Output { return nil }

// Merge takes in the profile of a merged key.
func (f *fold) Merge(key string, into *state, from state, _ time.Time) []keyed.Output {
	was := into.Profile.Capped()
	into.Profile.Merge(&from.Profile)
	f.capped(key, into, was|from.Profile.Capped())
	into.changed = true
	return nil
}

// Settle tells the profile as it is now, and memberships that began or ended.
func (f *fold) Settle(key string, s *state, now time.Time) []keyed.Output {
	if !s.changed || s.Profile.Events == 0 {
		return nil
	}
	s.changed = false
	was := s.Profile.Capped()
	changes, errs := s.Profile.Settle(key, f.audiences, now)
	f.capped(key, s, was)
	for _, err := range errs {
		why := reasonFailed
		if errors.Is(err, profile.ErrAbsent) {
			why = reasonAbsent
		}
		f.metrics.evaluations.WithLabelValues(why).Inc()
		f.log.Debug("audience is not decided", zap.Error(err), zap.String("profile", key))
	}
	f.metrics.profiles.Inc()
	b, err := s.Profile.Encode(key)
	outs := f.output(nil, f.topics.ProfilesChanged(), key, b, err)
	if s.command != "" && err == nil {
		outs[0].Headers = append(outs[0].Headers, topic.Header{Key: topic.HeaderRefold, Value: []byte(s.command)})
		s.command = ""
	}
	return append(outs, f.memberships(key, changes)...)
}

// Freeze takes the profile of a merged or split key back and ends its memberships: the profile it is now part of, or each
// of its parts, has its own.
func (f *fold) Freeze(key, into string, s *state, now time.Time) []keyed.Output {
	if s.Profile.Events == 0 {
		return nil
	}
	out := keyed.Output{Topic: f.topics.ProfilesChanged(), Key: key, Headers: schemaHeader()}
	return append([]keyed.Output{out}, f.memberships(key, s.Profile.Leave(key, into, now))...)
}

func (f *fold) memberships(key string, changes []profile.AudienceChange) []keyed.Output {
	var outs []keyed.Output
	for i := range changes {
		f.metrics.memberships.WithLabelValues(changes[i].Change).Inc()
		b, err := json.Marshal(changes[i])
		outs = f.output(outs, f.topics.AudiencesChanged(), key, b, err)
	}
	return outs
}

// output adds a record with an encoded value. Encoding does not fail: every JSON text in a state was checked
// when it was taken in. Should it do so, the state stands, and its next change is told.
func (f *fold) output(outs []keyed.Output, topicName, key string, b []byte, err error) []keyed.Output {
	if err != nil {
		f.metrics.unencoded.Inc()
		f.log.Error("change of a profile can not be told", zap.Error(err), zap.String("profile", key))
		return outs
	}
	return append(outs, keyed.Output{Topic: topicName, Key: key, Headers: schemaHeader(), Value: b})
}

func schemaHeader() []topic.Header {
	return []topic.Header{{Key: topic.HeaderSchema, Value: []byte(strconv.Itoa(topic.SchemaVersion))}}
}
