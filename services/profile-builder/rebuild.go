package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// ErrHistoryShort means that profiles were told of which history no longer holds anything: folded again, they
// would be gone.
var ErrHistoryShort = errors.New("history does not reach back to all profiles")

// Rebuild folds the profiles again. Nothing of the stage may be running. Afterwards the stage tells what it
// never told: profiles and memberships that differ from what was told last.
func Rebuild(ctx context.Context, cfg config.Config, deps Deps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
	stage, err := newRebuild(cfg, deps, opt.From)
	if err != nil {
		return keyed.RebuildReport{}, fmt.Errorf("profile-builder: %w", err)
	}
	return stage.Rebuild(ctx, opt)
}

func newRebuild(cfg config.Config, deps Deps, from topic.Set) (*keyed.Stage, error) {
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
		return nil, err
	}
	topics := cfg.Topics.Set()
	f := &refold{
		fold: &fold{topics: topics, rules: profile.Rules{BrandTraits: cfg.Builder.BrandTraits}, audiences: as, metrics: m, log: deps.Log},
		from: from, seed: maphash.MakeSeed(),
	}
	return keyed.NewFold(keyed.Options{
		Stage: topic.StageBuilder, Input: topics.EventsIdentified(), Topics: topics,
		Admit:        identity.Admit(deps.Store, keyed.DeploymentKey(topics), rules, stream.ErrStop),
		BatchRecords: cfg.Builder.BatchRecords, StateVersion: profile.StateVersion, Waits: identity.Waits,
	}, f, keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Metrics: deps.Metrics, Now: deps.Now})
}

// refold is fold in a rebuild. While history is folded nothing is said; at the end each profile is compared
// with what was told of it last.
type refold struct {
	*fold
	from topic.Set
	seed maphash.Seed
	told map[string]*told // by profile id, of the partition that is being concluded
}

var (
	_ keyed.Restorer[state] = (*refold)(nil)
	_ keyed.Settler[state]  = (*refold)(nil)
)

// told is what the world knows of a profile.
type told struct {
	lives     bool   // a document that no tombstone followed
	document  uint64 // its hash
	audiences []string
	met       bool // its state was concluded
}

// Settle says nothing yet.
func (f *refold) Settle(_ string, s *state, _ time.Time) []keyed.Output {
	s.changed = false
	return nil
}

// Freeze says nothing yet.
func (f *refold) Freeze(string, string, *state, time.Time) []keyed.Output { return nil }

// InOrder says that order is nothing: a profile is a function of the set of its events.
func (f *refold) InOrder() bool { return false }

// Recall implements keyed.Restorer.
func (f *refold) Recall(context.Context, keyed.Reader) error { return nil }

// Restore implements keyed.Restorer: a profile follows from its events alone.
func (f *refold) Restore(string, *state, time.Time) {}

// Concluding reads what was told of the profiles of a partition. Both topics have the profile's id as key.
func (f *refold) Concluding(ctx context.Context, partition int, read keyed.Reader) error {
	from := []int{partition}
	if f.from.Prefix != f.topics.Prefix { // keys are spread anew
		if f.told != nil {
			return nil
		}
		from = from[:0]
		for p := range f.from.Partitions {
			from = append(from, p)
		}
	}
	f.told = map[string]*told{}
	for _, p := range from {
		if _, err := read(ctx, f.from.ProfilesChanged(), p, f.document); err != nil {
			return err
		}
		if err := f.memberships(ctx, p, read); err != nil {
			return err
		}
	}
	return nil
}

func (f *refold) of(key []byte) *told {
	t := f.told[string(key)]
	if t == nil {
		t = &told{}
		f.told[string(key)] = t
	}
	return t
}

// document takes in a record of profiles.changed. The document says which audiences the profile is in; the
// records on audiences.changed that said so come behind it.
func (f *refold) document(r keyed.Record) error {
	t := f.of(r.Key)
	t.lives, t.audiences = r.Value != nil, nil
	if r.Value == nil {
		return nil
	}
	var d struct {
		Audiences []string `json:"audiences"`
	}
	if err := json.Unmarshal(r.Value, &d); err != nil {
		return fmt.Errorf("read document of %s: %w", r.Key, err)
	}
	t.document, t.audiences = maphash.Bytes(f.seed, r.Value), d.Audiences
	return nil
}

// memberships takes in what was told on audiences.changed: all of it, or, where its beginning is gone, what
// the last document says.
func (f *refold) memberships(ctx context.Context, partition int, read keyed.Reader) error {
	members := map[string][]string{}
	whole, err := read(ctx, f.from.AudiencesChanged(), partition, func(r keyed.Record) error {
		var c profile.AudienceChange
		if err := json.Unmarshal(r.Value, &c); err != nil {
			return fmt.Errorf("read change of %s: %w", r.Key, err)
		}
		key, is := string(r.Key), c.Change == profile.Entered
		at, was := slices.BinarySearch(members[key], c.Audience)
		switch {
		case is && !was:
			members[key] = slices.Insert(members[key], at, c.Audience)
		case was && !is:
			members[key] = slices.Delete(members[key], at, at+1)
		}
		return nil
	})
	if err != nil || !whole {
		return err
	}
	for key, t := range f.told {
		if topic.Partition([]byte(key), f.from.Partitions) == partition {
			t.audiences = members[key]
		}
	}
	for key := range members {
		f.of([]byte(key)).audiences = members[key]
	}
	return nil
}

// Conclude says what was never told of a profile.
func (f *refold) Conclude(key string, end keyed.End, s *state, now time.Time) ([]keyed.Output, bool) {
	t := f.of([]byte(key))
	if t.met {
		return nil, false
	}
	t.met = true
	before := s.Profile.Audiences
	s.Profile.Audiences = t.audiences
	if !end.Lives() {
		var outs []keyed.Output
		if t.lives {
			outs = append(outs, keyed.Output{Topic: f.topics.ProfilesChanged(), Key: key, Headers: schemaHeader()})
		}
		outs = append(outs, f.fold.memberships(key, s.Profile.Leave(key, end.Into, now))...)
		s.Profile.Audiences = before
		return outs, false
	}
	if s.Profile.Events == 0 {
		return nil, false
	}
	changes, errs := s.Profile.Settle(key, f.audiences, now)
	for _, err := range errs {
		f.log.Debug("audience is not decided", zap.Error(err), zap.String("profile", key))
	}
	var outs []keyed.Output
	b, err := s.Profile.Encode(key)
	if f.from.Prefix != f.topics.Prefix || !t.lives || t.document != maphash.Bytes(f.seed, b) {
		outs = f.output(outs, f.topics.ProfilesChanged(), key, b, err)
	}
	outs = append(outs, f.fold.memberships(key, changes)...)
	return outs, !slices.Equal(before, s.Profile.Audiences)
}

// Concluded makes sure that nobody was forgotten.
func (f *refold) Concluded(partition int) error {
	lost, example := 0, ""
	for key, t := range f.told {
		if !t.met && t.lives && topic.Partition([]byte(key), f.topics.Partitions) == partition {
			lost, example = lost+1, key
		}
	}
	if lost > 0 {
		return fmt.Errorf("%w: of %d profiles of partition %d, such as %s, it holds nothing. Let it come from ClickHouse where Kafka has cut it", ErrHistoryShort, lost, partition, example)
	}
	return nil
}
