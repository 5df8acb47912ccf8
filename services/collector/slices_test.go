package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// largeContext is a batch of small events, 20 times as large with the context in each of them. Every tenth is faulty.
func largeContext(events int) string {
	items := make([]string, events)
	for i := range items {
		items[i] = fmt.Sprintf(`{"type":"page","userId":"u","messageId":"m%d"}`, i)
		if i%10 == 3 {
			items[i] = fmt.Sprintf(`{"type":"page","messageId":"m%d"}`, i)
		}
	}
	return `{"context":{"library":{"name":"` + strings.Repeat("x", 4000) + `"}},"batch":[` + strings.Join(items, ",") + `]}`
}

// TestABatchMayGrow: good events are taken however large the context of their batch makes them together, in bounded memory.
func TestABatchMayGrow(t *testing.T) {
	const limit, events = 20_000, 100
	f := newFixture(t, func(c *config.Collector) { c.MaxRequestBytes, c.MaxInFlightBytes = limit, 4*limit })
	calls := 0
	f.collected.fail = func(recs []stream.Record) error {
		calls++
		size := 0
		for _, r := range recs {
			size += len(r.Value)
		}
		require.LessOrEqual(t, size, limit)
		require.LessOrEqual(t, f.budget.used.Load(), int64(4*limit))
		return nil
	}
	w := f.do("POST", "/v1/batch", basic("wk_demo"), largeContext(events))
	require.Equal(t, 200, w.Code, w.Body)
	require.Greater(t, calls, 1)
	require.Zero(t, f.budget.used.Load())
	taken := f.collected.take()
	require.Len(t, taken, events-events/10)
	at := -1
	for _, rec := range taken {
		i, err := strconv.Atoi(header(t, rec, topic.HeaderMessageID)[1:])
		require.NoError(t, err)
		require.Greater(t, i, at, "in order")
		at = i
		require.Contains(t, string(rec.Value), "xxxx")
	}
	require.Len(t, f.rejected.take(), events/10)
	var got struct{ Rejected []rejectedItem }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Len(t, got.Rejected, events/10)
	for i, x := range got.Rejected {
		require.Equal(t, rejectedItem{10*i + 3, fmt.Sprintf("m%d", 10*i+3), event.NoUserAnonID, x.Message}, x)
		require.NotEmpty(t, x.Message)
	}
	require.InDelta(t, 90, f.counter(t, "weft_collector_events_total", "web", "stored"), 0)

	calls = 0
	f.collected.fail = func([]stream.Record) error {
		if calls++; calls == 2 {
			return errors.New("no broker")
		}
		return nil
	}
	w = f.do("POST", "/v1/batch", basic("wk_demo"), largeContext(events))
	require.Equal(t, 503, w.Code, "all of it is to come again")
	require.Equal(t, 2, calls)
	require.Zero(t, f.budget.used.Load())
}

// What a batch says once for all of its events is copied into each, and Kafka is not to get tens of times what was sent.
func TestABatchMayNotGrowWithoutEnd(t *testing.T) {
	f := newFixture(t)
	items := strings.TrimSuffix(strings.Repeat(`{"type":"page","userId":"u"},`, 2500), ",")
	text := func(n int) string { return `{"x":"` + strings.Repeat("x", n-len(`{"x":""}`)) + `"}` }
	most := maxCopied / 2500
	w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"context":`+text(most-2)+`,"integrations":{},"batch":[`+items+`]}`)
	require.Equal(t, 200, w.Code, w.Body)
	require.Len(t, f.collected.take(), 2500)
	w = f.do("POST", "/v1/batch", basic("wk_demo"), `{"context":`+text(most-1)+`,"integrations":{},"batch":[`+items+`]}`)
	require.Equal(t, 400, w.Code)
	require.Equal(t, event.TooLarge, code(t, w))
	require.Contains(t, w.Body.String(), "send fewer events at a time")
	require.Empty(t, f.collected.take())
	rec := one(t, f.rejected.take())
	require.Equal(t, event.TooLarge, header(t, rec, topic.HeaderReason))
	require.Zero(t, f.budget.used.Load())
}
