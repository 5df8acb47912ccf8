package collector

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/inlet/registry/registrytest"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// fromTopic makes the till's topic a source of its own, as in a file.
func (b *broker) fromTopic(k config.KafkaInlet) {
	k.Topic = tillTopic
	b.cfg.Collector.Inlets = nil
	b.cfg.Collector.Sources = append(b.cfg.Collector.Sources, config.Source{Name: "till", Kind: config.KindKafka, Brand: "shop", Trusted: true, Kafka: k})
}

func counterOf(t *testing.T, r *running, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			slices.Sort(values)
			want := slices.Sorted(slices.Values(labels))
			if f.GetName() == name && slices.Equal(values, want) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

const schemaOfCards = `{"type":"object","required":["card"],"properties":{"card":{"type":"string"}}}`

// A registry that is away holds the partition: nothing is rejected, nothing passes, the process says so after a
// while, and when the registry is back everything goes on in order.
func TestAnInletWaitsForItsRegistry(t *testing.T) {
	b := newBroker(t)
	reg := registrytest.New()
	defer reg.Close()
	id := reg.Add("cards", "JSON", schemaOfCards)
	b.fromTopic(config.KafkaInlet{Format: config.FormatJSONSchema, Registry: config.SchemaRegistry{URL: reg.URL}, Mapping: map[string]string{
		"event": "'Card Used'", "externalIds.card": "$.card", "properties.n": "= record.n + 0",
	}})
	set := b.cfg.Topics.Set()
	k := b.foreign(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	const cards = 20
	for i := range cards {
		text := fmt.Sprintf(`{"card":"one","n":%d}`, i)
		if i == cards/2 {
			text = `{"n":0}` // its schema forbids it
		}
		require.NoError(t, k.ProduceSync(b.context(), &kgo.Record{Topic: tillTopic, Value: registrytest.Frame(id, []byte(text))}).FirstErr())
	}
	reg.Answer(http.StatusServiceUnavailable)
	s := b.start()
	require.Eventually(t, func() bool { return s.gauge("weft_collector_inlet_held_partitions")["till"] == 1 }, patience, 5*time.Millisecond)
	b.later.Store(int64(time.Minute))
	require.Eventually(t, func() bool { return s.InletsReady() != nil }, patience, 5*time.Millisecond)
	require.ErrorContains(t, s.InletsReady(), "inlet till: partition 0 of till.sales is held since 2")
	require.ErrorContains(t, s.InletsReady(), "503")
	require.Eventually(t, func() bool { return s.Ready() == nil }, patience, 5*time.Millisecond, "the door waits for no registry")
	require.Empty(t, flat(b.read(set.EventsRejected())))

	reg.Answer(0)
	b.caughtUp(tillTopic)
	require.Eventually(t, func() bool { return s.InletsReady() == nil }, patience, 5*time.Millisecond)
	require.Zero(t, s.gauge("weft_collector_inlet_held_partitions")["till"])
	require.NoError(t, s.stop())
	collected := flat(b.read(set.EventsCollected()))
	require.Len(t, collected, cards-1)
	last := int64(-1)
	for _, r := range collected {
		p, err := topic.ParsePosition(header(t, r, topic.HeaderPosition))
		require.NoError(t, err)
		require.Greater(t, p.Seq, last, "of one sender, in order")
		last = p.Seq
	}
	rejected := flat(b.read(set.EventsRejected()))
	require.Len(t, rejected, 1, "a poison record stops nobody")
	require.Equal(t, "invalid_schema", header(t, rejected[0], topic.HeaderReason))
	require.Equal(t, string(registrytest.Frame(id, []byte(`{"n":0}`))), string(rejected[0].Value), "as it came")
}

// Skipped records, those that cannot be events under each policy, snapshots, and a key of one's own.
func TestWhatBecomesOfRecords(t *testing.T) {
	mapping := map[string]string{"type": "'identify'", "userId": "= text(record.id)", "traits.points": "= record.points + 0"}
	records := []string{
		`{"op":"c","after":{"id":1,"points":1},"source":{"ts_ms":1777890672123}}`, `{"op":"r","after":{"id":2,"points":1},"source":{"ts_ms":1777890672123}}`,
		`{"op":"d","before":{"id":1,"points":1}}`, ``, `{"op":"c","after":{"id":3,"points":"x"}}`, `{"op":"c","after":{"id":4,"points":19.90},"source":{"ts_ms":1777890672123}}`,
	}
	for letter, want := range map[string]struct{ stored, rejected, skipped, discarded float64 }{
		"":                      {3, 1, 2, 0},
		config.DeadLetterReject: {3, 1, 2, 0},
		config.DeadLetterDrop:   {3, 0, 2, 1},
		config.DeadLetterStop:   {0, 0, 0, 0},
	} {
		t.Run(letter, func(t *testing.T) {
			b := newBroker(t)
			b.cfg.Collector.HistoricalAfter = 10_000 * time.Hour
			b.fromTopic(config.KafkaInlet{Format: config.FormatDebezium, Mapping: mapping, When: `op != "d"`, Key: `"table"`, DeadLetter: letter})
			set := b.cfg.Topics.Set()
			k := b.foreign(kgo.RecordPartitioner(kgo.ManualPartitioner()))
			for _, text := range records {
				require.NoError(t, k.ProduceSync(b.context(), &kgo.Record{Topic: tillTopic, Value: []byte(text)}).FirstErr())
			}
			s := b.start()
			if letter == config.DeadLetterStop {
				require.Eventually(t, func() bool { return s.gauge("weft_collector_inlet_down")["till"] == 1 }, patience, 5*time.Millisecond)
				require.ErrorIs(t, s.InletsReady(), stream.ErrStop)
				require.ErrorContains(t, s.InletsReady(), "till.sales:0:4 cannot be an event")
				require.ErrorContains(t, s.InletsReady(), "cannot add a text and a number")
				require.NoError(t, s.stop())
				return
			}
			b.caughtUp(tillTopic)
			require.Eventually(t, func() bool { return s.InletsReady() == nil }, patience, 5*time.Millisecond)
			require.NoError(t, s.stop())
			for result, n := range map[string]float64{"stored": want.stored, "rejected": want.rejected, "skipped": want.skipped, "discarded": want.discarded} {
				require.InDelta(t, n, counterOf(t, s, "weft_collector_events_total", "till", result), 0, result)
			}
			require.InDelta(t, want.discarded, counterOf(t, s, "weft_collector_discarded_total", "till", event.ExpressionFailed), 0)
			require.Len(t, flat(b.read(set.EventsRejected())), int(want.rejected))
			collected := flat(b.read(set.EventsCollected()))
			require.Len(t, collected, int(want.stored))
			for i, r := range collected {
				require.Equal(t, "table", string(r.Key))
				meta, err := topic.ParseMeta(r.Headers)
				require.NoError(t, err)
				require.Equal(t, i == 1, meta.Historical, "of the snapshot: %s", r.Value)
			}
			require.Contains(t, string(collected[2].Value), "19.9")
		})
	}
}
