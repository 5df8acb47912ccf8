package stitcher

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// An anonymous visitor logs in; everything the stitcher can be sent arrives beside it.
func TestEveryRecordEndsOnce(t *testing.T) {
	e := newEnv(t)
	stop := e.start()
	defer stop()
	anon, user, mail := e.node(event.AnonymousID, "a1"), e.node(event.UserID, "u1"), e.node(event.Email, "jane@example.com")
	const page = `{"type":"page","anonymousId":"a1","properties":{"price":1.10000000000000000001,"x":"\u017b"}}`
	e.send("a1", "web", "m1", "", page)
	e.settled()
	e.send("a1", "web", "m2", "", `{"type":"identify","anonymousId":"a1","userId":"u1","traits":{"email":" Jane@Example.COM "}}`)
	e.send("a1", "web", "m2", "", `{"type":"identify","anonymousId":"a1","userId":"u1"}`)             // the sender tried again
	e.send("a1", "app", "m2", "", `{"type":"track","event":"Opened","anonymousId":"a1"}`)             // another source's own m2
	e.send("t9", "till", "m3", "sales", `{"type":"track","event":"Sold","userId":"u1"}`)              // from an inlet
	e.send("t9", "till", "m3", "sales", `{"type":"track","event":"Sold","userId":"u1"}`)              // the till sent it again
	e.send("x", "web", "m4", "", `{"type":"track","event":"Seen","userId":"null","anonymousId":"0"}`) // names nobody
	e.send("x", "web", "m5", "", `{"type":"track","event":`)
	e.produce(stream.Record{Key: []byte("x"), Value: []byte(`{}`), Headers: []topic.Header{{Key: topic.HeaderKind, Value: []byte("merge")}}})
	e.produce(stream.Record{Key: []byte("n"), Value: []byte(`{"type":"page","userId":"bare"}`)}) // no header at all
	e.send("u1", "web", "m6", "", `{"type":"alias","userId":"u1","previousId":"u0"}`)
	e.settled()

	identified := e.read(e.topics.EventsIdentified())
	got := map[string]string{} // source and message id to profile
	for _, r := range ofKind(identified, topic.KindEvent) {
		key := header(r, topic.HeaderSource) + "/" + header(r, topic.HeaderMessageID)
		got[key] += string(r.Key) + " "
		if key == "web/m1" {
			require.Equal(t, page, string(r.Value), "the body is passed on untouched")
			require.Equal(t, "1790000000123", header(r, topic.HeaderReceivedAt))
			require.Equal(t, "main", header(r, topic.HeaderBrand))
		}
	}
	first := user
	if u0 := e.node(event.UserID, "u0"); u0.Before(user) {
		first = u0
	}
	bare := e.topics.EventsCollected() + ":" + fmt.Sprint(topic.Partition([]byte("n"), testPartitions)) + ":0"
	for k := range got {
		if strings.HasPrefix(k, "/"+e.topics.EventsCollected()) {
			bare = k[1:]
		}
	}
	known := func(k string) string { // u1, or u0 for what was decided behind the alias on another partition
		if strings.TrimSpace(strings.ReplaceAll(got[k], first.String(), "")) == "" {
			return got[k]
		}
		return strings.Repeat(user.String()+" ", strings.Count(got[k], " "))
	}
	want := map[string]string{
		"web/m1": anon.String() + " ", "web/m2": known("web/m2"), "app/m2": known("app/m2"), "till/m3": known("till/m3"),
		"web/m4": e.rules().EventIdentifier("web", "m4").Node.String() + " ", "web/m6": first.String() + " ",
		"/" + bare: e.node(event.UserID, "bare").String() + " ",
	}
	require.Equal(t, want, got)
	require.Equal(t, 1, strings.Count(got["till/m3"], " "), "an id of the till's own is judged")

	checkRejected(t, e)
	checkMerges(t, e, identified, anon, mail)
	roots, err := identity.Lookup(t.Context(), identity.NewGraph(e.store, e.topics.Prefix), anon, user, mail)
	require.NoError(t, err)
	require.Equal(t, []identity.Node{first, first, first}, roots)
	require.Equal(t, map[string]float64{"web": 1, "till": 1}, e.counts("weft_stitcher_duplicates_total"))
	require.Equal(t, map[string]float64{"blocked": 2}, e.counts("weft_stitcher_identifiers_ignored_total"))
}

// checkRejected: the poison with its bytes, the duplicate without.
func checkRejected(t *testing.T, e *env) {
	t.Helper()
	rejected := map[string]int{}
	for _, r := range e.read(e.topics.EventsRejected()) {
		rejected[header(r, topic.HeaderReason)]++
		require.Equal(t, topic.StageStitcher, header(r, topic.HeaderService))
		require.Contains(t, header(r, topic.HeaderOrigin), e.topics.EventsCollected()+":")
		require.NotEmpty(t, header(r, topic.HeaderError))
		switch header(r, topic.HeaderReason) {
		case ReasonDuplicate:
			require.Empty(t, r.Value)
			of := header(r, topic.HeaderSource) + "/" + header(r, topic.HeaderMessageID)
			require.Contains(t, []string{"web/m2", "till/m3"}, of)
			require.Equal(t, "1790000000123", header(r, topic.HeaderReceivedAt))
		case event.InvalidJSON:
			require.Equal(t, `{"type":"track","event":`, string(r.Value))
		}
	}
	require.Equal(t, map[string]int{ReasonDuplicate: 2, event.InvalidJSON: 1, ReasonUnknownKind: 1}, rejected)
}

// checkMerges: one per link, with its evidence, the same on both topics.
func checkMerges(t *testing.T, e *env, identified []stream.Record, anon, mail identity.Node) {
	t.Helper()
	merges := map[string]identity.Merge{}
	for _, r := range ofKind(identified, topic.KindMerge) {
		m, err := identity.ParseMerge(r.Value)
		require.NoError(t, err)
		require.Equal(t, m.Loser, string(r.Key))
		require.Equal(t, m.Cause.MessageID, header(r, topic.HeaderMessageID))
		merges[m.Loser] = m
	}
	require.Len(t, merges, 3, "a1, the e-mail, and one of u0 and u1")
	require.Equal(t, identity.RuleSameEvent, merges[anon.String()].Cause.Rule)
	require.Equal(t, receivedAt(), merges[mail.String()].Cause.Time)
	require.Equal(t, "jane@example.com", merges[mail.String()].Evidence[1].Value)
	linked := map[string]identity.Merge{}
	for _, r := range e.read(e.topics.IdentitiesLinked()) {
		m, err := identity.ParseMerge(r.Value)
		require.NoError(t, err)
		linked[string(r.Key)] = m
	}
	require.Equal(t, merges, linked)
}

// A message id is remembered across restarts, and the same event of a replayed partition is not.
func TestDuplicatesAcrossRestarts(t *testing.T) {
	e := newEnv(t)
	for range 3 {
		stop := e.start()
		e.send("a1", "web", "m1", "", `{"type":"page","anonymousId":"a1"}`)
		e.settled()
		stop()
	}
	require.Len(t, e.read(e.topics.EventsIdentified()), 1)
	require.Len(t, e.read(e.topics.EventsRejected()), 2)
}

// A message id that an inlet's sender gave is judged like one that came over HTTP, whichever of the two is first and
// also behind a rebuild. A record that was named by its place only is judged by its position, and notes nothing.
func TestMessageIDsOfInletsAreJudged(t *testing.T) {
	e := newEnv(t)
	e.received = time.Now()
	stop := e.start()
	const sold = `{"type":"track","event":"Sold","userId":"u1"}`
	send := func(id, inlet string) { e.send("u1", "till", id, inlet, sold) }
	send("resent", "sales")
	send("resent", "sales")
	send("replayed later", "sales")
	send("replayed later", "") // a repaired copy has no position
	send("replayed first", "")
	send("replayed first", "sales")
	for i := range int64(2) {
		send(fmt.Sprintf("sales:0:%d", e.seq["sales"]+1), "sales")
		send(fmt.Sprintf("other:0:%d", i), "sales") // only looks like one
	}
	e.settled()
	stop()
	ids := func(name string) []string {
		var list []string
		for _, r := range e.read(name) {
			list = append(list, header(r, topic.HeaderMessageID))
		}
		return list
	}
	taken := []string{"resent", "replayed later", "replayed first", "sales:0:5", "other:0:0", "sales:0:7", "other:0:1"}
	again := []string{"resent", "replayed later", "replayed first"}
	require.Equal(t, taken, ids(e.topics.EventsIdentified()))
	require.Equal(t, again, ids(e.topics.EventsRejected()))

	e.redis.FlushAll()
	_, err := e.rebuild()
	require.NoError(t, err)
	stop = e.start()
	for _, id := range again {
		send(id, "sales")
	}
	e.settled()
	stop()
	require.Equal(t, taken, ids(e.topics.EventsIdentified()))
	require.Equal(t, append(again, again...), ids(e.topics.EventsRejected()))

	at := topic.Position{Stage: topic.StageCollector + "/sales", Partition: 3, Seq: 1704}
	for id, want := range map[string]bool{
		"sales:3:1704": true, "sales:3:1705": false, "sales:3:17040": false, "sales:31704": false, "r-1": false, "sales": false, "": false,
	} {
		require.Equal(t, want, unique(at, id), id)
	}
	require.False(t, unique(topic.Position{}, ""))
	require.False(t, unique(topic.Position{}, ":0:0"))
	require.Zero(t, testing.AllocsPerRun(100, func() { unique(at, "sales:3:1704") }))
}

// Several services against each other, stopped and started at random on a Redis that fails at random: what
// is published is what one undisturbed stitcher would have decided.
func TestNothingLostNothingTwice(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { nothingLost(t, newEnv(t), seed, nil) })
	}
}

// nothingLost sends events of some people to two services that fail and come again, and compares what is
// published. disaster, if set, may stop all of them before the i-th event; it returns those that go on.
func nothingLost(t *testing.T, e *env, seed uint64, disaster func(i int, stops []func()) []func()) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // a seed reproduces
	parent := map[identity.Node]identity.Node{}
	find := func(n identity.Node) identity.Node {
		for parent[n] != (identity.Node{}) {
			n = parent[n]
		}
		return n
	}
	type sent struct{ ids []identity.Node }
	var events []sent
	duplicates := 0
	stops := []func(){e.start(), e.start()}
	for i := range 150 {
		if disaster != nil {
			stops = disaster(i, stops)
		}
		switch rng.IntN(12) {
		case 0:
			j := rng.IntN(len(stops))
			stops[j]()
			stops[j] = e.start()
		case 1:
			e.redis.SetError("LOADING injected")
			time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, func() { e.redis.SetError("") })
		}
		anon, user := fmt.Sprint("a", rng.IntN(12)), fmt.Sprint("u", rng.IntN(6))
		s := sent{ids: []identity.Node{e.node(event.AnonymousID, anon)}}
		body := fmt.Sprintf(`{"type":"track","event":"E","anonymousId":%q}`, anon)
		if rng.IntN(3) == 0 {
			body = fmt.Sprintf(`{"type":"track","event":"E","anonymousId":%q,"userId":%q}`, anon, user)
			s.ids = append(s.ids, e.node(event.UserID, user))
			if l, w := find(s.ids[0]), find(s.ids[1]); l != w {
				if l.Before(w) {
					l, w = w, l
				}
				parent[l] = w
			}
		}
		e.send(anon, "web", fmt.Sprint("m", len(events)), "", body)
		if rng.IntN(8) == 0 {
			duplicates++
			e.send(anon, "web", fmt.Sprint("m", len(events)), "", body)
		}
		events = append(events, s)
	}
	e.redis.SetError("")
	e.settled()
	for _, stop := range stops {
		stop()
	}
	e.redis.SetError("")

	identified := e.read(e.topics.EventsIdentified())
	to := map[string]string{}
	for _, r := range ofKind(identified, topic.KindMerge) {
		m, err := identity.ParseMerge(r.Value)
		require.NoError(t, err)
		if w, ok := to[m.Loser]; ok {
			require.Equal(t, w, m.Winner)
		}
		to[m.Loser] = m.Winner
	}
	published := ofKind(identified, topic.KindEvent)
	require.Len(t, published, len(events))
	for i, r := range published {
		require.Equal(t, fmt.Sprint("m", i), header(r, topic.HeaderMessageID))
		for _, at := range []string{string(r.Key), events[i].ids[0].String()} {
			for to[at] != "" {
				at = to[at]
			}
			require.Equal(t, find(events[i].ids[0]).String(), at, "event %d", i)
		}
	}
	require.Len(t, e.read(e.topics.EventsRejected()), duplicates)
	graph := identity.NewGraph(e.store, e.topics.Prefix)
	for i := range events {
		for _, id := range events[i].ids {
			roots, err := identity.Lookup(t.Context(), graph, id)
			require.NoError(t, err)
			require.Equal(t, find(id), roots[0], "whose %s is", id)
		}
	}
}

func TestAnotherKeyRefusesToStart(t *testing.T) {
	e := newEnv(t)
	stop := e.start()
	e.send("a1", "web", "m1", "", `{"type":"page","anonymousId":"a1"}`)
	e.settled()
	stop()
	e.cfg.Identity.KeyFile = filepath.Join(t.TempDir(), "other.key")
	err := e.service().Run(t.Context())
	require.ErrorIs(t, err, identity.ErrOtherKey)
	require.ErrorContains(t, err, "identity.key_file")
}

func TestANewerGraphStopsTheStage(t *testing.T) {
	e := newEnv(t)
	n := e.node(event.UserID, "u1")
	page := fmt.Appendf(nil, "\x02%s\x63\x00", n[:15]) // an entry of two bytes, the first of which is its version
	require.NoError(t, e.store.Set(t.Context(), fmt.Sprintf("{%sg:%02x}p0", e.topics.Prefix, n[15]), page, 0))
	e.send("u1", "web", "m1", "", `{"type":"page","userId":"u1"}`)
	err := e.service().Run(t.Context())
	require.ErrorIs(t, err, identity.ErrNewerVersion)
}

func TestNewRefuses(t *testing.T) {
	e := newEnv(t)
	deps := Deps{Stream: e.stream, Store: e.store, Log: zap.NewNop()}
	for want, spoil := range map[string]func(*Deps){
		"store and log": func(d *Deps) { d.Store = nil },
		"stream":        func(d *Deps) { d.Stream = nil },
	} {
		d := deps
		spoil(&d)
		_, err := New(e.cfg, d)
		require.ErrorContains(t, err, want)
	}
	cfg := e.cfg
	cfg.Stitcher.DuplicateWindow = 0
	_, err := New(cfg, deps)
	require.ErrorContains(t, err, "stitcher.duplicate_window")
	cfg = e.cfg
	cfg.Identity.DefaultRegion = "Poland"
	_, err = New(cfg, deps)
	require.ErrorContains(t, err, "Poland")
	cfg = e.cfg
	cfg.Identity.KeyFile = filepath.Join(t.TempDir(), "short.key")
	require.NoError(t, os.WriteFile(cfg.Identity.KeyFile, []byte(hex.EncodeToString([]byte("short"))), 0o600))
	_, err = New(cfg, deps)
	require.ErrorContains(t, err, "identity.key_file")
}

// While Redis is away the service waits for it, and ends with its context.
func TestWaitsForRedis(t *testing.T) {
	e := newEnv(t)
	e.cfg.Redis.Addresses = []string{"127.0.0.1:1"}
	st, err := store.New(e.cfg.Redis, zap.NewNop())
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	s, err := New(e.cfg, Deps{Stream: e.stream, Store: st, Log: zap.NewNop()})
	require.NoError(t, err)
	require.Error(t, s.Ready())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Run(ctx))
}
