package builder

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const command = "command-1"

// again is a record told again for a part.
func (e *env) again(part string, r stream.Record) stream.Record {
	e.t.Helper()
	e.seq++
	r = stream.Clone([]stream.Record{r})[0]
	r.Key = []byte(part)
	for i := range r.Headers {
		if r.Headers[i].Key == topic.HeaderPosition {
			r.Headers[i].Value = []byte(topic.Position{Stage: topic.StageCommands, Seq: e.seq}.String())
		}
	}
	r.Headers = append(r.Headers, topic.Header{Key: topic.HeaderRefold, Value: []byte(command)})
	return r
}

// parted are the records that end a key; refolded is the one behind all that was told again.
func (e *env) parted(key, into string) stream.Record {
	e.t.Helper()
	b, err := json.Marshal(identity.Parted{Command: command, Node: key, Into: into, Person: key, Generation: 1, Time: base})
	require.NoError(e.t, err)
	return e.record(key, topic.KindSplit, event.Meta{}, b)
}

func (e *env) refolded(part string) stream.Record {
	e.t.Helper()
	b, err := json.Marshal(identity.Part{Command: command, Node: part, Time: base})
	require.NoError(e.t, err)
	return e.again(part, e.record(part, topic.KindRefolded, event.Meta{}, b))
}

// TestSplitProfilesAreAsIfNeverMet joins two people wrongly, with their events, and splits them: each part's profile is the
// fold of its own events, told once, and found under its identifiers; of the person that was nothing is left. A rebuild
// finds the same, and has nothing to tell.
func TestSplitProfilesAreAsIfNeverMet(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			e := newEnv(t)
			rnd := rand.New(rand.NewPCG(seed, 21)) //nolint:gosec // a reproducible test
			queue, want, of := e.lives(rnd)
			people := slices.Sorted(maps.Keys(want)) // in the order in which links lead
			first, second := people[0], people[1]
			queue = append(queue, e.merge(second, first))
			rnd.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
			renumber(queue)
			_, stop := e.start()
			for _, r := range queue {
				e.send(r)
			}
			require.Eventually(t, func() bool { return e.committed() == int64(len(queue)) }, patience, retry)
			parts := map[string]string{}
			for i, p := range []string{first, second} {
				parts[p] = e.rules.Part(command, i, 1).String()
				want[parts[p]] = want[p]
				delete(want, p)
			}
			for k, p := range of {
				if parts[p] != "" {
					of[k] = parts[p]
					e.send(e.parted(k, parts[p]))
				}
			}
			live := func(p string, n int) { // behind the cut
				r := e.event(parts[p], fmt.Sprint("live-", p, n), 2000+n, added(fmt.Sprint("live", n)))
				apply(t, want[parts[p]], e.cfg.Builder.BrandTraits, r)
				e.send(r)
			}
			live(first, 0)
			for _, r := range queue {
				kind, _ := topic.Get(r.Headers, topic.HeaderKind)
				into := of[string(r.Key)]
				if topic.Kind(kind) != topic.KindEvent || into != parts[first] && into != parts[second] {
					continue
				}
				e.send(e.again(into, r))
				if rnd.IntN(20) == 0 {
					live(second, rnd.IntN(1000)+1)
				}
				if rnd.IntN(30) == 0 {
					stop()
					_, stop = e.start()
				}
			}
			require.Eventually(t, func() bool { return e.applied() == e.end() }, patience, retry)
			for _, r := range e.read(e.topics.ProfilesChanged()) {
				require.NotContains(t, []string{parts[first], parts[second]}, string(r.Key), "a part was told before it was whole")
			}
			for _, p := range []string{first, second} {
				e.send(e.refolded(parts[p]))
				e.send(e.event(p, "late-"+p, 1, `"type":"page"`)) // decided before the cut: told again, or nobody's
			}
			e.whole(want)
			firsts := map[string]string{}
			for _, r := range e.read(e.topics.ProfilesChanged()) {
				if by, ok := topic.Get(r.Headers, topic.HeaderRefold); ok {
					firsts[string(r.Key)] += by
				}
			}
			require.Equal(t, map[string]string{parts[first]: command, parts[second]: command}, firsts)
			require.Eventually(t, func() bool { return e.committed() == e.end() }, patience, retry)
			stop()
			before := e.stored(of)
			e.redis.FlushAll()
			report, err := e.rebuild(e.topics, 0)
			require.NoError(t, err)
			require.Zero(t, report.Untold)
			require.Equal(t, before, e.stored(of))
			s, _ := e.start()
			for key, person := range of {
				f := e.await(s, "profile", key, func(status int, f found) bool { return status == http.StatusOK && f.Freshness.CaughtUp })
				require.Equal(t, person, f.ID)
			}
			e.whole(want)
		})
	}
}

func apply(t require.TestingT, s *profile.State, brandTraits []string, r stream.Record) {
	m, err := topic.ParseMeta(r.Headers)
	require.NoError(t, err)
	ev, err := event.Decode(r.Value, m)
	require.NoError(t, err)
	s.Apply(ev, &profile.Rules{BrandTraits: brandTraits})
}

// end is how many records are on events.identified, applied how many of them the stage has folded.
func (e *env) end() (n int64) {
	ends, err := e.stream.EndOffsets(e.t.Context(), e.topics.EventsIdentified())
	require.NoError(e.t, err)
	for _, end := range ends {
		n += end
	}
	return n
}

func (e *env) applied() (n int64) {
	_, st := e.connect()
	for p := range e.topics.Partitions {
		at, err := keyed.Applied(e.t.Context(), st, e.topics, topic.StageBuilder, p)
		require.NoError(e.t, err)
		n += max(0, at)
	}
	return n
}

// stored is what the stage holds of each key: where it leads, and the profile there.
func (e *env) stored(of map[string]string) map[string]string {
	e.t.Helper()
	_, st := e.connect()
	all := map[string]string{}
	for key := range of {
		f, err := keyed.ReadState[state](e.t.Context(), st, e.topics, topic.StageBuilder, profile.StateVersion, key)
		require.NoError(e.t, err)
		require.NotNil(e.t, f.State)
		b, err := f.State.AppendBinary(nil)
		require.NoError(e.t, err)
		all[key] = fmt.Sprint(f.Live, f.Parted, f.Waiting, string(b))
	}
	return all
}

// However the events of two people come, whatever they were joined to, and whatever is new meanwhile: the profile of a part
// is the fold of its events alone, and nothing is said of those that are told again.
func TestAPartIsTheFoldOfItsEvents(t *testing.T) {
	m, err := newMetrics(nil)
	require.NoError(t, err)
	as, err := loadAudiences("")
	require.NoError(t, err)
	rules := profile.Rules{BrandTraits: []string{"tier"}}
	rapid.Check(t, func(t *rapid.T) {
		f := &fold{topics: topic.Set{Prefix: "test.", Partitions: 1}, rules: rules, audiences: as, metrics: m, log: zap.NewNop()}
		draw := func(who string, n int) keyed.Record {
			body := rapid.SampledFrom([]string{
				`"type":"page","name":"Home"`, added("p1"), added("p2"), ordered("o1", "7.25"), ordered("o2", "600"),
				`"type":"identify","traits":{"tier":"` + who + `","n":1}`, `"type":"track","event":"Order Completed","properties":{"total":"many"}`,
			}).Draw(t, "event")
			id := fmt.Sprint(who, n)
			when := at(rapid.IntRange(0, 100).Draw(t, "at"))
			return keyed.Record{
				Record: stream.Record{Key: []byte(who), Value: fmt.Appendf(nil, `{"messageId":%q,"timestamp":%q,%s}`, id, when.Format("2006-01-02T15:04:05Z"), body)},
				Kind:   topic.KindEvent, Meta: event.Meta{Source: "shop", Brand: "main", MessageID: id, ReceivedAt: when},
			}
		}
		before := map[string][]keyed.Record{}
		var joined []keyed.Record
		for i := range rapid.IntRange(0, 12).Draw(t, "events") {
			who := rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "who")
			r := draw(who, i)
			before[who], joined = append(before[who], r), append(joined, r)
		}
		one := state{}
		for _, r := range joined {
			f.Apply("one", &one, r, base)
			f.Settle("one", &one, base)
		}
		var left []string
		for _, out := range f.Freeze("one", "", &one, base) {
			if out.Topic == f.topics.AudiencesChanged() {
				left = append(left, string(out.Value))
			} else if out.Value != nil {
				t.Fatalf("%s is no tombstone", out.Value)
			}
		}
		if len(left) != len(one.Profile.Audiences) {
			t.Fatalf("in %v, left %v", one.Profile.Audiences, left)
		}
		for _, who := range []string{"ann", "bob"} {
			var live []keyed.Record
			for i := range rapid.IntRange(0, 4).Draw(t, "live") {
				live = append(live, draw(who, 100+i))
			}
			var alone, part state
			for _, r := range slices.Concat(before[who], live) {
				f.Apply(who, &alone, r, base)
			}
			wanted := f.Settle(who, &alone, base)
			told := slices.Clone(before[who])
			for len(told)+len(live) > 0 {
				if len(told) == 0 || len(live) > 0 && rapid.Bool().Draw(t, "live first") {
					f.Apply(who, &part, live[0], base)
					live = live[1:]
					continue
				}
				told[0].Refold = true
				part.changed = false
				f.Apply(who, &part, told[0], base)
				if part.changed {
					t.Fatalf("an event that is told again is a reason to say something")
				}
				told = told[1:]
			}
			f.Apply(who, &part, keyed.Record{Kind: topic.KindRefolded, Refold: true, Record: stream.Record{
				Headers: []topic.Header{{Key: topic.HeaderRefold, Value: []byte(command)}},
			}}, base)
			got := f.Settle(who, &part, base)
			if len(got) > 0 {
				require.Equal(t, command, string(got[0].Headers[len(got[0].Headers)-1].Value))
				got[0].Headers = got[0].Headers[:len(got[0].Headers)-1]
			}
			require.Equal(t, wanted, got)
			a, err := alone.AppendBinary(nil)
			require.NoError(t, err)
			b, err := part.AppendBinary(nil)
			require.NoError(t, err)
			require.Equal(t, a, b)
		}
	})
}
