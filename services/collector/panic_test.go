package collector

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/topic"
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
