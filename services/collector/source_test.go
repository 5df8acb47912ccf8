package collector

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/topic"
)

// stepsForTest are what a source could be told to do, one of each kind.
func stepsForTest() []step {
	return []step{
		func(it *item) error { // edits
			it.body = bytes.Replace(it.body, []byte(`"secret"`), []byte(`"hidden"`), 1)
			return nil
		},
		func(it *item) error { // knows the request
			if it.client.userAgent == "crawler" && it.client.ip.IsValid() {
				it.meta.AddFlag(event.FlagBot)
			}
			return nil
		},
		func(it *item) error { // keeps nothing
			if bytes.Contains(it.body, []byte("forget me")) {
				return errSuppressed
			}
			return nil
		},
		func(it *item) error { // refuses
			if bytes.Contains(it.body, []byte("Forbidden")) {
				return &event.Error{Reason: event.InvalidType, Path: "event", Detail: "is forbidden"}
			}
			return nil
		},
	}
}

func TestStepsOfASource(t *testing.T) {
	f := newFixture(t)
	f.keys.find("wk_demo").steps = stepsForTest()
	w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[
		{"type":"track","event":"A","userId":"u","messageId":"1","properties":{"n":12345678901234567890.10,"x":"secret"}},
		{"type":"track","event":"B","userId":"u","messageId":"2","note":"forget me"},
		{"type":"track","event":"Forbidden","userId":"u","messageId":"3","properties":{"x":"secret"}},
		{"type":"track","userId":"u","messageId":"4"}]}`, "User-Agent", "crawler")
	require.Equal(t, 200, w.Code)
	rec := one(t, f.collected.take())
	require.Equal(t, `{"type":"track","event":"A","userId":"u","messageId":"1","properties":{"n":12345678901234567890.10,"x":"hidden"}}`, string(rec.Value))
	require.Equal(t, event.FlagBot, header(t, rec, topic.HeaderFlags))
	rejected := f.rejected.take()
	require.Len(t, rejected, 2)
	require.Equal(t, "3", header(t, rejected[0], topic.HeaderMessageID))
	require.Equal(t, "u", string(rejected[0].Key))
	require.Contains(t, string(rejected[0].Value), `"secret"`, "as it came")
	require.Equal(t, "batch[2]: invalid_type: event: is forbidden", header(t, rejected[0], topic.HeaderError))
	require.Equal(t, event.MissingEvent, header(t, rejected[1], topic.HeaderReason), "steps do not make an event valid")
	for result, n := range map[string]float64{"stored": 1, "rejected": 2, "suppressed": 1} {
		require.InDelta(t, n, f.counter(t, "weft_collector_events_total", "web", result), 0, result)
	}

	w = f.do("POST", "/v1/track", basic("wk_demo"), `{"event":"B","userId":"u","note":"forget me"}`)
	require.Equal(t, 200, w.Code)
	require.Empty(t, f.collected.take())
	require.Empty(t, f.rejected.take())
}

// counter is the value of a counter with these labels.
func (f *fixture) counter(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := f.registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.Metric {
			var have []string
			for _, l := range m.Label {
				have = append(have, l.GetValue())
			}
			slices.Sort(have)
			if family.GetName() == name && slices.Equal(have, slices.Sorted(slices.Values(labels))) {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

// A record of a topic goes the same way; what is suppressed is passed over for good.
func TestStepsOfAnInlet(t *testing.T) {
	b := newBroker(t)
	set := b.cfg.Topics.Set()
	s := b.prepare()
	for _, in := range s.inlets {
		in.source.steps = stepsForTest()
	}
	s.begin()
	b.produce(b.foreign(), set.EventsInbox(), `{"event":"A","userId":"u","x":"secret"}`, `{"event":"B","userId":"u","x":"forget me"}`,
		`{"event":"Forbidden","userId":"u","messageId":"3"}`)
	b.caughtUp(set.EventsInbox())
	require.NoError(t, s.stop())
	rec := one(t, flat(b.read(set.EventsCollected())))
	require.Contains(t, string(rec.Value), `"hidden"`)
	rec = one(t, flat(b.read(set.EventsRejected())))
	require.Equal(t, "3", header(t, rec, topic.HeaderMessageID))
	require.Equal(t, `{"event":"Forbidden","userId":"u","messageId":"3"}`, string(rec.Value))
}

func TestLateTimesAreFlagged(t *testing.T) {
	f := newFixture(t)
	f.do("POST", "/v1/page", basic("wk_demo"), `{"userId":"u","timestamp":"2099-01-01T00:00:00Z"}`)
	require.Equal(t, event.FlagLateClamped, header(t, one(t, f.collected.take()), topic.HeaderFlags))
}

// Keys are found by their hashes, several per source; none of a source of kind kafka.
func TestKeysAsHashes(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) {
		c.Sources[0].WriteKeyHashes = []string{hashOf("new"), hashOf("newer")}
		c.Sources[1].WriteKey = ""
		c.Sources[1].WriteKeyHashes = []string{hashOf("only")}
		c.Sources = append(c.Sources, config.Source{Name: "till", Kind: config.KindKafka, Kafka: config.KafkaInlet{Topic: "t"}})
	})
	for key, name := range map[string]string{"wk_demo": "web", "new": "web", "newer": "web", "only": "server", "wk_old": "old"} {
		require.Equal(t, name, f.keys.find(key).name)
	}
	for _, key := range []string{"", "wk_server", hashOf("new"), hashOf("new")[len("sha256:"):], "till"} {
		require.Nil(t, f.keys.find(key), key)
	}
}

func hashOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}
