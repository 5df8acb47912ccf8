//go:build integration

package rebuild

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/stored"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	writer "github.com/weft-cdp/weft/services/journey-writer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func kind(k topic.Kind) topic.Header { return topic.Header{Key: topic.HeaderKind, Value: []byte(k)} }

// all reads a history to its end.
func all(t *testing.T, past keyed.Past, topicName string) []stream.Record {
	t.Helper()
	h, err := past.Open(context.Background(), topicName, 0)
	require.NoError(t, err)
	defer h.Close()
	var recs []stream.Record
	for {
		some, err := h.Next(context.Background())
		require.NoError(t, err)
		if len(some) == 0 {
			return recs
		}
		recs = append(recs, stream.Clone(some)...)
	}
}

// TestPastIsWhole has the writer store what is published, some of it twice, cuts Kafka in the middle of a
// repetition, and reads everything again: what ClickHouse gives is what Kafka held, once.
func TestPastIsWhole(t *testing.T) {
	address := os.Getenv("WEFT_TEST_CLICKHOUSE")
	require.NotEmpty(t, address, "WEFT_TEST_CLICKHOUSE: 'make test' sets it")
	ctx := context.Background()
	cfg := config.Defaults()
	cfg.Topics.Prefix, cfg.Topics.Partitions = "past.", 1
	set := cfg.Topics.Set()
	var names []string
	for _, s := range set.Specs() {
		names = append(names, s.Name)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, names...))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	cfg.Kafka.Brokers = k.ListenAddrs()
	cfg.ClickHouse = config.ClickHouse{Addresses: []string{address}, Username: "default", Database: fmt.Sprintf("weft_past_%d", time.Now().UnixNano())}
	client, err := stream.New(cfg.Kafka, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(client.Close)
	wh, err := warehouse.Open(cfg.ClickHouse)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, wh.Exec(ctx, "DROP DATABASE ${database} SYNC"))
		require.NoError(t, wh.Close())
	})

	send(t, client, set)
	s, err := writer.New(cfg, writer.Deps{Stream: client, Warehouse: wh})
	require.NoError(t, err)
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(run) }()
	for name := range stored.Makers(set) {
		require.Eventually(t, func() bool {
			ends, err := client.EndOffsets(ctx, name)
			require.NoError(t, err)
			got, err := client.Committed(ctx, set.Group(topic.StageWriter, name), name)
			require.NoError(t, err)
			return got[0].Offset >= ends[0]
		}, time.Minute, 50*time.Millisecond, name)
	}
	stop()
	require.NoError(t, <-done)

	storedIsWhatWasSent(t, wh)
	past := func(from string) *Past { return &Past{Stream: client, Warehouse: wh, Topics: set, From: from} }
	whole := map[string][]stream.Record{}
	for name := range stored.Makers(set) {
		whole[name] = all(t, past(Kafka), name)
	}
	kc, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...))
	require.NoError(t, err)
	t.Cleanup(kc.Close)
	cut := kadm.Offsets{}
	for name := range stored.Makers(set) {
		cut.AddOffset(name, 0, int64(len(whole[name])*2/3), -1)
	}
	_, err = kadm.NewClient(kc).DeleteRecords(ctx, cut)
	require.NoError(t, err)

	_, err = past(Kafka).Open(ctx, set.EventsIdentified(), 0)
	require.ErrorIs(t, err, ErrCut)
	for _, from := range []string{Auto, ClickHouse} {
		for name := range stored.Makers(set) {
			require.Equal(t, effects(t, set, name, whole[name]), effects(t, set, name, all(t, past(from), name)), "%s from %s", name, from)
		}
	}
}

// send publishes events and merges, a third of them twice in a row, and what is told of them.
func send(t *testing.T, client *stream.Client, set topic.Set) {
	t.Helper()
	ids := []string{"10000000-0000-8000-8000-000000000001", "20000000-0000-8000-8000-000000000002"}
	received := time.Now().UTC().Truncate(time.Millisecond)
	put := func(name string, seq int, stage, key string, value []byte, hs ...topic.Header) {
		pos := topic.Position{Stage: stage, Seq: int64(seq)}
		r := stream.Record{Key: []byte(key), Value: value, Headers: append(hs, topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})}
		require.NoError(t, client.Produce(context.Background(), name, 0, []stream.Record{r}))
	}
	const n = 30
	for i := range n {
		if i == 12 {
			for j, r := range toldAgain(t, set, received) {
				pos := topic.Position{Stage: topic.StageCommands, Seq: int64(j + 1)}
				r.Headers = append(r.Headers, topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})
				require.NoError(t, client.Produce(context.Background(), set.EventsIdentified(), 0, []stream.Record{r}))
			}
		}
		m := event.Meta{Source: "shop", Brand: "main", MessageID: fmt.Sprint("m", i), ReceivedAt: received.Add(time.Duration(i) * time.Second), Trusted: true}
		for range 1 + (i%3)/2 + i/(n*2/3-4)%2 { // around the cut, everything twice
			put(set.EventsIdentified(), i, topic.StageStitcher, ids[i%2], fmt.Appendf(nil, `{"type":"track","event":"Product Added","userId":"u%d","timestamp":%q,"properties":{"product_id":"p%d","price":%d.50,"cart_id":"c"}}`,
				i, received.Format(time.RFC3339Nano), i%4, i), append(topic.MetaHeaders(m), kind(topic.KindEvent))...)
		}
	}
	merge, err := identity.Merge{Loser: ids[1], Winner: ids[0], Members: []string{ids[1]}, Version: 2,
		Cause: identity.Cause{Source: "test", MessageID: "m1", Rule: identity.RuleSameEvent, Time: received}}.Encode()
	require.NoError(t, err)
	put(set.EventsIdentified(), n, topic.StageStitcher, ids[1], merge, append(topic.MetaHeaders(event.Meta{MessageID: "m1", ReceivedAt: received}), kind(topic.KindMerge))...)
	for i := range 9 {
		change := fmt.Appendf(nil, `{"audience":"a%d","profile":%q,"change":"entered","at":%q,"reason":"condition"}`, i, ids[0], received.Format("2006-01-02T15:04:05.000Z"))
		put(set.AudiencesChanged(), i, topic.StageBuilder, ids[0], change)
		r := journey.Request{ID: fmt.Sprint("id", i), Receipt: fmt.Sprint("r", i), Journey: "j", Version: "v", Brand: "main", Profile: ids[0], Channel: "email",
			DecidedAt: received.UnixMilli() + int64(i), ArmedAt: received.UnixMilli(), DueAt: received.UnixMilli()}
		b, err := journey.Encode(r)
		require.NoError(t, err)
		put(set.ActivationsRequested(), i, topic.StageDecide, ids[0], b)
		b, err = journey.Encode(r.Settle(journey.Delivered, journey.ReasonSent, "", received.UnixMilli()+100))
		require.NoError(t, err)
		put(set.ActivationsSettled(), i, topic.StageDeliver, ids[0], b)
	}
}

// toldAgain is what a split of the second of send's people tells: where it went, its first message, its first event, and that
// this was all.
func toldAgain(t *testing.T, set topic.Set, received time.Time) []stream.Record {
	t.Helper()
	const member, part, command = "20000000-0000-8000-8000-000000000002", "00000000-0000-8000-8000-000000000009", "c1"
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	again := func(origin string, hs ...topic.Header) []topic.Header {
		return append(hs, topic.Header{Key: topic.HeaderRefold, Value: []byte(command)}, topic.Header{Key: topic.HeaderOrigin, Value: []byte(origin)})
	}
	m := event.Meta{Source: "shop", Brand: "main", MessageID: "m1", ReceivedAt: received.Add(time.Second), Trusted: true}
	settled, err := journey.Encode((&journey.Request{ID: "id1", Receipt: "r1", Journey: "j", Version: "v", Brand: "main", Profile: "10000000-0000-8000-8000-000000000001", DecidedAt: received.UnixMilli() + 1,
		ArmedAt: received.UnixMilli(), DueAt: received.UnixMilli()}).Settle(journey.Delivered, journey.ReasonSent, "", received.UnixMilli()+100))
	require.NoError(t, err)
	return []stream.Record{
		{Key: []byte(member), Value: encode(identity.Parted{Command: command, Node: member, Into: part, Generation: 3, Time: received, Actor: "ann", Reason: "twins"}),
			Headers: []topic.Header{kind(topic.KindSplit)}},
		{Key: []byte(part), Value: settled, Headers: again(set.ActivationsSettled()+":0:1", kind(topic.KindDecision))},
		{Key: []byte(part), Value: fmt.Appendf(nil, `{"type":"track","event":"Product Added","userId":"u1","timestamp":%q,"properties":{"product_id":"p1","price":1.50,"cart_id":"c"}}`,
			received.Format(time.RFC3339Nano)), Headers: again(set.EventsIdentified()+":0:1", append(topic.MetaHeaders(m), kind(topic.KindEvent))...)},
		{Key: []byte(part), Value: encode(identity.Part{Command: command, Node: part, Generation: 3, Cuts: [][2]string{}, Time: received}),
			Headers: []topic.Header{kind(topic.KindRefolded), {Key: topic.HeaderRefold, Value: []byte(command)}}},
	}
}

// effects are what records mean to who reads them, without repetitions.
func effects(t *testing.T, set topic.Set, name string, recs []stream.Record) []string {
	t.Helper()
	var out []string
	highest := map[string]int64{}
	for _, r := range recs {
		if text, ok := topic.Get(r.Headers, topic.HeaderPosition); ok {
			p, err := topic.ParsePosition(text)
			require.NoError(t, err)
			if high, seen := highest[p.Source()]; seen && p.Seq <= high {
				continue
			}
			highest[p.Source()] = p.Seq
		}
		meta, err := topic.ParseMeta(r.Headers)
		require.NoError(t, err)
		k, _ := topic.Get(r.Headers, topic.HeaderKind)
		what := string(r.Value)
		switch {
		case k == string(topic.KindMerge):
			what = "merge"
			meta = event.Meta{}
		case k == string(topic.KindSplit):
			meta = event.Meta{}
		case k == string(topic.KindRefolded):
		case k == string(topic.KindDecision):
			p, forMessage, err := journey.PublishedReceipt(r.Value)
			require.NoError(t, err)
			what = fmt.Sprint(p, forMessage)
		case name == set.EventsIdentified():
			e, err := event.Decode(r.Value, meta)
			require.NoError(t, err)
			var s profile.State
			require.Empty(t, s.Apply(e, &profile.Rules{}))
			b, err := s.AppendBinary(nil)
			require.NoError(t, err)
			what = string(b)
		case name == set.ActivationsSettled():
			p, forMessage, err := journey.PublishedReceipt(r.Value)
			require.NoError(t, err)
			what = fmt.Sprint(p, forMessage)
		}
		command, _ := topic.Get(r.Headers, topic.HeaderRefold)
		origin, _ := topic.Get(r.Headers, topic.HeaderOrigin)
		out = append(out, fmt.Sprintf("%d %s %s %+v %q %s %s", r.Offset, r.Key, k, meta, what, command, origin))
	}
	return out
}

// storedIsWhatWasSent reads the newest of every kind of what send has sent, once each, by time and source.
func storedIsWhatWasSent(t *testing.T, wh *warehouse.Client) {
	t.Helper()
	read := func(s Selection) (ids []string) {
		n, err := Stored(context.Background(), wh, s, func(e *event.Event) {
			require.Equal(t, "Product Added", e.Name)
			require.Contains(t, string(e.RawProperties()), ".50", "digit for digit")
			ids = append(ids, e.MessageID)
		})
		require.NoError(t, err)
		require.Len(t, ids, n)
		return ids
	}
	late := time.Now().Add(time.Hour)
	require.Len(t, read(Selection{Until: late, PerKind: 1000}), 30, "what was published twice is there once")
	require.Equal(t, []string{"m29", "m28"}, read(Selection{Until: late, PerKind: 2, Sources: []string{"nobody", "shop"}}), "the newest")
	require.Empty(t, read(Selection{Until: late, PerKind: 1000, Sources: []string{"nobody"}}))
	require.Empty(t, read(Selection{Since: late, Until: late.Add(time.Hour), PerKind: 1000}))
	require.Empty(t, read(Selection{Until: late.Add(-48 * time.Hour), PerKind: 1000}))
}
