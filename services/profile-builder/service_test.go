package builder

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func added(product string) string {
	return fmt.Sprintf(`"type":"track","event":"Product Added","properties":{"cart_id":"c1","product_id":%q,"price":12.5,"currency":"EUR"}`, product)
}

func ordered(id, total string) string {
	return fmt.Sprintf(`"type":"track","event":"Order Completed","properties":{"order_id":%q,"total":%s,"currency":"EUR"}`, id, total)
}

// TestAShopperBecomesAPerson is the way of one person: anonymous with a cart, then known, then a buyer; the
// profile is found under every identifier, and both topics tell it.
func TestAShopperBecomesAPerson(t *testing.T) {
	e := newEnv(t)
	s, _ := e.start()
	anon, user := e.node(event.AnonymousID, "a-1"), e.node(event.UserID, "u/1 ü")

	e.send(e.event(anon, "m1", 1, `"type":"page","name":"Home"`))
	e.send(e.event(anon, "m2", 2, added("p1")))
	f := e.await(s, event.AnonymousID, "a-1", events(2))
	require.Equal(t, anon, f.ID)
	require.Equal(t, []string{"open-cart"}, f.Audiences)
	require.Len(t, f.OpenCarts, 1)
	require.Equal(t, at(2), f.Freshness.AsOf)
	require.Eventually(t, func() bool { return s.Ready() == nil }, patience, retry) // other partitions may still begin

	e.send(e.event(user, "m3", 3, `"type":"identify","traits":{"email":"a@x.example"}`))
	e.send(e.merge(anon, user))
	e.send(e.merge(anon, user)) // published twice, as a crash may
	e.send(e.event(anon, "m4", 4, added("p2")))
	f = e.await(s, event.AnonymousID, "a-1", events(4))
	require.Equal(t, user, f.ID, "an old id leads to the person")
	require.Equal(t, []string{"open-cart"}, f.Audiences)

	again := e.event(user, "m5", 5, ordered("o1", "600"))
	e.send(again)
	e.send(again) // a redelivery
	e.send(e.record(user, "of a later version", event.Meta{}, []byte(`{}`)))
	f = e.await(s, event.UserID, "u/1 ü", events(5))
	require.Equal(t, []string{"big-spenders"}, f.Audiences)
	require.Equal(t, map[string]string{"EUR": "600.0000"}, f.Revenue)
	require.Empty(t, f.OpenCarts)
	require.JSONEq(t, `"a@x.example"`, string(f.Traits["email"]))
	_, _, byID := e.get(s, "profile", anon)
	require.Equal(t, user, byID.ID)
	status, _, history := e.get(s, event.AnonymousID, "a-1", "orders")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, user, history.Profile)
	require.JSONEq(t, `[{"id":"o1","brand":"main","time":"2026-03-01T12:00:05.000Z","amount":"600.0000","currency":"EUR","status":"completed"}]`, string(history.Orders))
	require.Equal(t, at(5), history.Freshness.AsOf)
	require.Eventually(t, func() bool { // the redelivery may still be on its way
		_, _, history = e.get(s, event.AnonymousID, "a-1", "orders")
		return history.Freshness.CaughtUp
	}, patience, retry)

	// What the state says is told a moment later: the outbox is published behind the script.
	var told map[string]string
	var doc found
	require.Eventually(t, func() bool {
		told = e.latest(e.topics.ProfilesChanged())
		return json.Unmarshal([]byte(told[user]), &doc) == nil && doc.Counts.Events == 5
	}, patience, retry)
	require.Len(t, told, 1, "the merged id ended in a tombstone")
	require.Equal(t, f.Counts, doc.Counts)
	require.Equal(t, f.Audiences, doc.Audiences)
	require.Eventually(t, func() bool { return len(e.read(e.topics.AudiencesChanged())) == 5 }, patience, retry)
	require.Equal(t, []string{
		"false big-spenders entered condition", "false open-cart entered condition", "false open-cart left condition",
		"true open-cart entered condition", "true open-cart left merged",
	}, e.memberships(anon))
}

// memberships lists what audiences.changed tells, and of whom: true is the one asked for.
func (e *env) memberships(of string) []string {
	e.t.Helper()
	var changes []string
	for _, r := range e.read(e.topics.AudiencesChanged()) {
		var c profile.AudienceChange
		require.NoError(e.t, json.Unmarshal(r.Value, &c))
		require.Equal(e.t, string(r.Key), c.Profile)
		changes = append(changes, fmt.Sprintf("%t %s %s %s", c.Profile == of, c.Audience, c.Change, c.Reason))
	}
	slices.Sort(changes)
	return changes
}

// TestProfilesAreTheFoldOfTheirEvents sends many events and merges in random order, with redeliveries and
// restarts, and compares every profile with one fold of all its events.
func TestProfilesAreTheFoldOfTheirEvents(t *testing.T) {
	e := newEnv(t)
	rnd := rand.New(rand.NewPCG(7, 11)) //nolint:gosec // a reproducible test
	queue, want, of := e.lives(rnd)
	rnd.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	renumber(queue)
	_, stop := e.start()
	for i, r := range queue {
		e.send(r)
		if rnd.IntN(10) == 0 {
			e.send(r)
		}
		if i%60 == 59 {
			stop()
			_, stop = e.start()
		}
	}
	s, _ := e.start() // a second one beside it
	for key, person := range of {
		f := e.await(s, "profile", key, events(eventsEach))
		require.Equal(t, person, f.ID)
	}
	wanted := e.documents(want)
	require.Eventually(t, func() bool { return maps.Equal(wanted, e.latest(e.topics.ProfilesChanged())) }, patience, retry)
}

// eventsEach is how many events each person of lives has.
const eventsEach = 40

// lives makes events and merges of some people, in random order: what to send, what becomes of it, and the
// person whom each key is in the end.
func (e *env) lives(rnd *rand.Rand) (queue []stream.Record, want map[string]*profile.State, of map[string]string) {
	e.t.Helper()
	const people, keysOf = 4, 5
	want, of = map[string]*profile.State{}, map[string]string{}
	for person := range people {
		var keys []string
		for k := range keysOf {
			keys = append(keys, e.node(event.AnonymousID, fmt.Sprintf("person %d device %d", person, k)))
		}
		slices.Sort(keys) // links lead to the earlier node
		want[keys[0]] = &profile.State{}
		for i, k := range keys {
			of[k] = keys[0]
			if i > 0 {
				queue = append(queue, e.merge(k, keys[rnd.IntN(i)]))
			}
		}
		for i := range eventsEach {
			id := fmt.Sprintf("m-%d-%d", person, i)
			fields := []string{
				`"type":"page","name":"Home"`, added(fmt.Sprint("p", i%3)), ordered(fmt.Sprint("o", i%4), fmt.Sprintf("%d.25", i)),
				fmt.Sprintf(`"type":"identify","traits":{"n%d":%d,"tier":%d}`, i%3, i, i), `"type":"track","event":"Order Completed","properties":{"total":"many"}`,
			}[rnd.IntN(5)]
			r := e.event(keys[rnd.IntN(keysOf)], id, rnd.IntN(1000), fields)
			queue = append(queue, r)
			m, err := topic.ParseMeta(r.Headers)
			require.NoError(e.t, err)
			ev, err := event.Decode(r.Value, m)
			require.NoError(e.t, err)
			want[keys[0]].Apply(ev, &profile.Rules{BrandTraits: e.cfg.Builder.BrandTraits})
		}
	}
	return queue, want, of
}

// documents are what the people's last documents must be.
func (e *env) documents(want map[string]*profile.State) map[string]string {
	e.t.Helper()
	as, err := loadAudiences("")
	require.NoError(e.t, err)
	docs := map[string]string{}
	for person, st := range want {
		_, errs := st.Settle(person, as, base)
		require.Empty(e.t, errs)
		b, err := st.Encode(person)
		require.NoError(e.t, err)
		docs[person] = string(b)
	}
	return docs
}

// renumber gives positions in the order of sending.
func renumber(queue []stream.Record) {
	for i := range queue {
		for j := range queue[i].Headers {
			if queue[i].Headers[j].Key == topic.HeaderPosition {
				queue[i].Headers[j].Value = []byte(topic.Position{Stage: topic.StageStitcher, Seq: int64(i) + 1}.String())
			}
		}
	}
}

func TestPoisonIsRejectedWithItsReason(t *testing.T) {
	e := newEnv(t)
	s, _ := e.start()
	user := e.node(event.UserID, "u")
	e.send(e.record(user, topic.KindEvent, event.Meta{Source: "shop", MessageID: "bad"}, []byte(`{"type":"track",`)))
	e.send(e.event(user, "m1", 1, `"type":"page"`))
	e.await(s, event.UserID, "u", events(1))
	only := e.node(event.UserID, "nothing but poison")
	e.send(e.record(only, topic.KindEvent, event.Meta{Source: "shop", MessageID: "bad2"}, []byte(`[]`)))
	require.Eventually(t, func() bool { return len(e.read(e.topics.EventsRejected())) == 2 }, patience, retry)
	status, _, _ := e.get(s, "profile", only)
	require.Equal(t, http.StatusNotFound, status, "poison makes nobody")
	for _, r := range e.read(e.topics.EventsRejected()) {
		service, _ := topic.Get(r.Headers, topic.HeaderService)
		require.Equal(t, topic.StageBuilder, service)
		reason, _ := topic.Get(r.Headers, topic.HeaderReason)
		require.NotEmpty(t, reason)
		if string(r.Key) == user {
			require.Equal(t, `{"type":"track",`, string(r.Value), "the bytes as they came")
		}
	}
	require.Eventually(t, func() bool { return len(e.read(e.topics.ProfilesChanged())) == 1 }, patience, retry)
}

func TestTheAPIWithoutRedisOrKafka(t *testing.T) {
	e := newEnv(t)
	s, _ := e.start()
	user := e.node(event.UserID, "u")
	e.send(e.event(user, "m1", 1, `"type":"page"`))
	e.await(s, event.UserID, "u", events(1))

	e.redis.SetError("LOADING Redis is loading the dataset in memory")
	status, h, f := e.get(s, event.UserID, "u")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "unavailable", f.Code)
	require.NotEmpty(t, h.Get("Retry-After"))
	e.redis.SetError("")
	e.await(s, event.UserID, "u", events(1))

	e.kafka.Close()
	f = e.await(s, event.UserID, "u", func(status int, f found) bool { return status == http.StatusOK && f.Freshness.Lag == nil })
	require.False(t, f.Freshness.CaughtUp)
	require.EqualValues(t, 1, f.Counts.Events)
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	e := newEnv(t)
	sc, st := e.connect()
	deps := Deps{Stream: sc, Store: st, Log: zap.NewNop()}
	_, err := New(e.cfg, Deps{Log: zap.NewNop()})
	require.ErrorContains(t, err, "required")

	file := filepath.Join(t.TempDir(), "audiences.yaml")
	require.NoError(t, os.WriteFile(file, []byte("audiences:\n  - name: a\n    when: profile.ordres > 1\n"), 0o600))
	cfg := e.cfg
	cfg.Builder.AudiencesFile = file
	_, err = New(cfg, deps)
	require.ErrorContains(t, err, "builder.audiences_file: "+file+":3: when: column 8")
	cfg.Builder.AudiencesFile = file + ".missing"
	_, err = New(cfg, deps)
	require.ErrorContains(t, err, "builder.audiences_file")
	cfg = e.cfg
	cfg.Identity.DefaultRegion = "Atlantis"
	_, err = New(cfg, deps)
	require.ErrorContains(t, err, "identity")
	cfg = e.cfg
	cfg.Builder.Listen = "256.0.0.1:http"
	s, err := New(cfg, deps)
	require.NoError(t, err)
	require.ErrorContains(t, s.Run(t.Context()), "listen on 256.0.0.1:http")
}

func TestAnotherKeyRefusesToStart(t *testing.T) {
	e := newEnv(t)
	sc, st := e.connect()
	deps := Deps{Stream: sc, Store: st, Log: zap.NewNop()}
	require.NoError(t, identity.CheckKey(t.Context(), st, keyed.DeploymentKey(e.topics), []byte("the key of whoever came first")))
	s, err := New(e.cfg, deps)
	require.NoError(t, err)
	err = s.Run(t.Context())
	require.ErrorIs(t, err, identity.ErrOtherKey)
	require.ErrorContains(t, err, "identity.key_file")
}
