package collector

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/collector/hooks"
)

// A record on which the code panics is on events.rejected, the same each time it is read; those around it are on
// events.collected once.
func TestPanicOnARecordOfAnInlet(t *testing.T) {
	b := newBroker(t)
	set := b.cfg.Topics.Set()
	core, logged := observer.New(zap.ErrorLevel)
	b.log = zap.New(core)
	k := b.foreign(kgo.RecordPartitioner(kgo.ManualPartitioner())) // all to partition 0
	const sales, every = 20, 5
	for i := range sales {
		text := sale(i)
		if i%every == 1 {
			text = fmt.Sprintf(`{"id":"poison-%d"}`, i)
		}
		b.produce(k, tillTopic, text)
	}
	s := b.prepare()
	for _, in := range s.inlets {
		in.reader = poisoned{in.reader}
	}
	s.begin()
	b.caughtUp(tillTopic)
	require.NoError(t, s.stop())

	require.Len(t, flat(b.read(set.EventsCollected())), sales-sales/every)
	rejected := flat(b.read(set.EventsRejected()))
	require.Len(t, rejected, sales/every)
	for _, r := range rejected {
		p, err := topic.ParsePosition(header(t, r, topic.HeaderPosition))
		require.NoError(t, err)
		origin := fmt.Sprintf("%s:%d:%d", tillTopic, p.Partition, p.Seq)
		require.Equal(t, reasonPanic, header(t, r, topic.HeaderReason))
		require.Equal(t, origin, header(t, r, topic.HeaderOrigin))
		require.Equal(t, origin, header(t, r, topic.HeaderMessageID))
		require.Equal(t, origin, string(r.Key))
		require.Equal(t, "shop", header(t, r, topic.HeaderBrand))
		require.Contains(t, header(t, r, topic.HeaderError), "index out of range")
		require.Equal(t, fmt.Sprintf(`{"id":"poison-%d"}`, p.Seq), string(r.Value), "the bytes as they came")
	}
	told := logged.FilterMessage("record panicked, it is set aside on events.rejected")
	require.NotZero(t, told.Len())
	require.Less(t, told.Len(), sales/every, "rarely")
	stack, _ := told.All()[0].ContextMap()["stack"].(string)
	require.Contains(t, stack, "poisoned.Read")
}

// poisoned panics on some records.
type poisoned struct{ recordReader }

func (p poisoned) Read(ctx context.Context, rec inlets.Record) (inlets.Event, error) {
	if bytes.Contains(rec.Value, []byte("poison")) {
		var none []int
		return inlets.Event{}, fmt.Errorf("never: %d", none[len(rec.Value)])
	}
	return p.recordReader.Read(ctx, rec)
}

// An item on which a step panics is rejected, and the others of its batch are stored.
func TestPanicOnAnItem(t *testing.T) {
	f := newFixture(t)
	core, logged := observer.New(zap.ErrorLevel)
	f.rarely = rarely(zap.New(core))
	f.keys.find("wk_demo").steps = []step{panics}
	const batch = `{"batch":[{"type":"page","userId":"1","messageId":"a"},{"type":"page","userId":"poison"},{"type":"page","userId":"3","messageId":"c"}]}`
	for range 3 {
		w := f.do("POST", "/v1/batch", basic("wk_demo"), batch)
		require.Equal(t, 200, w.Code)
		require.Contains(t, w.Body.String(), `"index":1`)
		require.Equal(t, []string{`{"type":"page","userId":"1","messageId":"a"}`, `{"type":"page","userId":"3","messageId":"c"}`}, values(f.collected.take()))
		rec := one(t, f.rejected.take())
		require.Equal(t, reasonPanic, header(t, rec, topic.HeaderReason))
		require.Contains(t, header(t, rec, topic.HeaderError), "batch[1]: record_panic: runtime error: index out of range")
		require.Equal(t, `{"type":"page","userId":"poison"}`, string(rec.Value), "as it came")
	}
	require.InDelta(t, 3, f.counter(t, "weft_collector_rejected_total", "web", reasonPanic), 0)
	require.Equal(t, 1, logged.FilterMessage("item panicked, it is set aside on events.rejected").Len(), "rarely")
}

func panics(it *item) error {
	if bytes.Contains(it.body, []byte("poison")) {
		var none []int
		return fmt.Errorf("never: %d", none[len(it.body)])
	}
	return nil
}

// A webhook, too, is answered: one event on which a step panics, and a delivery that cannot be taken apart.
func TestPanicOnAWebhook(t *testing.T) {
	f := hookFixture(t)
	f.hooks["shopify"].source.steps = []step{func(*item) error { panic("in a step") }}
	require.Equal(t, 200, f.shopify("orders/updated", "1", shopifyOrder))
	require.Equal(t, reasonPanic, header(t, one(t, f.rejected.take()), topic.HeaderReason))
	f.hooks["shopify"].reader = panicking{f.hooks["shopify"].reader}
	require.Equal(t, 200, f.shopify("orders/updated", "2", `{"id":2}`))
	rec := one(t, f.rejected.take())
	require.Equal(t, reasonPanic, header(t, rec, topic.HeaderReason))
	require.Equal(t, `{"id":2}`, string(rec.Value))
}

// A proof that panics proves nothing: the delivery is refused, and comes again.
func TestPanicOnTheProofOfAWebhook(t *testing.T) {
	f := hookFixture(t)
	f.hooks["shopify"].reader = unproven{f.hooks["shopify"].reader}
	for range 2 {
		require.Equal(t, 401, f.shopify("orders/updated", "1", shopifyOrder))
	}
	require.Empty(t, f.collected.take())
	require.Empty(t, f.rejected.take())
	require.InDelta(t, 2, f.counter(t, "weft_collector_hooks_total", "shopify", hookUnsigned), 0)
	require.Equal(t, 200, f.do("POST", "/v1/p", basic("wk_demo"), `{"userId":"u"}`).Code)
}

type unproven struct{ hooks.Hook }

func (unproven) Verify(*hooks.Delivery) error { panic("in the proof") }

// Whoever asks whom an item names, to keep nothing of those who are on the list, may panic as well: where that cannot be
// told, the item is set aside without its bytes, at the HTTP door and of an inlet, and the others go on.
func TestPanicWhileLookingWhomAnItemNames(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	require.NoError(t, os.WriteFile(list, []byte("gone@example.com\n"), 0o600))
	f := newFixture(t, func(c *config.Collector) { c.SuppressionFile = list })
	f.intake.glimpse = blind
	w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[{"type":"page","userId":"1","messageId":"a"},{"type":"page","userId":"poison"}]}`)
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), `"index":1`)
	require.Len(t, f.collected.take(), 1)
	rec := one(t, f.rejected.take())
	require.Equal(t, reasonPanic, header(t, rec, topic.HeaderReason))
	require.Empty(t, rec.Value)
	require.Equal(t, 400, f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[poison`).Code, "one that cannot be taken apart")
	require.Empty(t, one(t, f.rejected.take()).Value)

	b := newBroker(t)
	b.cfg.Collector.SuppressionFile = list
	k := b.foreign(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 6 {
		text := sale(i)
		if i%3 == 1 {
			text = fmt.Sprintf(`{"id":"poison-%d","card":"c"}`, i)
		}
		b.produce(k, tillTopic, text)
	}
	s := b.prepare()
	s.intake.glimpse = blind
	s.begin()
	b.caughtUp(tillTopic)
	require.NoError(t, s.stop())
	require.Len(t, flat(b.read(b.cfg.Topics.Set().EventsCollected())), 4)
	rejected := flat(b.read(b.cfg.Topics.Set().EventsRejected()))
	require.Len(t, rejected, 2)
	for _, r := range rejected {
		require.Equal(t, reasonPanic, header(t, r, topic.HeaderReason))
		require.Empty(t, r.Value)
	}
}

// blind is event.Glimpse with a defect.
func blind(item []byte, fill event.Filling) *event.Event {
	if bytes.Contains(item, []byte("poison")) {
		panic("in the glimpse")
	}
	return event.Glimpse(item, fill)
}

type panicking struct{ hooks.Hook }

func (panicking) Events(*hooks.Delivery) hooks.Result { panic("in the reader") }

// What the code itself cannot do is kept also where a source drops what cannot be an event.
func TestAPanickingRecordIsNotDropped(t *testing.T) {
	in := &inlet{letter: config.DeadLetterDrop}
	for reason, left := range map[string]string{reasonPanic: "", event.InvalidJSON: leftDiscarded} {
		r, err := in.lettered(&stream.Record{}, record{reason: reason})
		require.NoError(t, err)
		require.Equal(t, left, r.left, reason)
	}
}
