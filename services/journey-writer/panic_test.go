package writer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/pkg/warehouse/memory"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// A record on which the code panics is a row of events_rejected; those around it are stored once, also when the
// range is read again by another process, and when its token is forgotten by then.
func TestPanicIsPoison(t *testing.T) {
	server := memory.NewServer(memory.Options{Window: 100, Now: time.Now})
	client := server.Client(nil)
	require.NoError(t, client.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	const winner, loser, n = "00000000-0000-8000-8000-000000000001", "30000000-0000-8000-8000-000000000002", 6
	body := fmt.Sprintf(`{"loser":%q,"winner":%q,"members":[%q],"version":3,"cause":{"source":"collector:1:5","messageId":"m9","rule":"same_event","time":"2026-03-04T05:06:07.008Z"},
		"evidence":[{"type":"user_id","value":"u1","node":%q}]}`, loser, winner, loser, winner)
	var recs []*stream.Record
	for i := range n {
		r := record(person, fmt.Sprintf(`{"type":"track","event":"E%d"}`, i))
		if i == 2 || i == 4 {
			r = record(loser, body, topic.Header{Key: topic.HeaderKind, Value: []byte(topic.KindMerge)})
		}
		r.Topic, r.Partition, r.Offset = "t", 0, int64(i)
		recs = append(recs, r)
	}
	poison := map[int64]bool{1: true, 2: true}
	core, logged := observer.New(zap.ErrorLevel)
	m, err := newMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	var poisoned int
	read := func(known bool) {
		rows := newRows(kindEvents, "t", client, time.Now, func(table) {}, func() { poisoned++ })
		rows.panicked = m.panics("t", zap.New(core))
		inner := rows.read
		rows.read = func(r *stream.Record, meta event.Meta) error {
			err := inner(r, meta) // its rows are added by now
			if poison[r.Offset] {
				panic(strings.Repeat("boom ", 1000))
			}
			return err
		}
		if known {
			require.NoError(t, rows.known(t.Context(), 0, n, time.Now().Add(-time.Hour)))
		}
		for _, r := range recs {
			require.NoError(t, rows.add(r))
		}
		require.NoError(t, rows.store(t.Context(), warehouse.Token{Text: "t:0:0-6", Limit: time.Minute}))
	}
	read(false)
	read(false)
	for _, name := range kindEvents.tables() {
		server.Forget(name, 100)
	}
	read(true)

	offsets := func(table string) (all []string) {
		for _, r := range server.Rows(table) {
			all = append(all, r.Values["offset"])
		}
		return all
	}
	require.Equal(t, []string{"0", "3", "5"}, offsets(warehouse.TableEvents))
	require.Equal(t, []string{"4"}, offsets(warehouse.TableIdentities))
	require.Equal(t, []string{"4"}, offsets(warehouse.TableRedirects))
	require.Equal(t, []string{"4"}, offsets(warehouse.TableMoves))
	require.Equal(t, []string{"1", "2"}, offsets(warehouse.TableRejected))
	for _, r := range server.Rows(warehouse.TableRejected) {
		at, err := strconv.Atoi(r.Values["offset"])
		require.NoError(t, err)
		require.Equal(t, []string{reasonPanic, topic.StageWriter, "t:0:" + r.Values["offset"], "m1", string(recs[at].Value)},
			[]string{r.Values["reason"], r.Values["service"], r.Values["origin"], r.Values["message_id"], r.Values["body"]})
		require.Contains(t, r.Values["error"], "panic: boom")
		require.LessOrEqual(t, len(r.Values["error"]), maxPanicText+len("panic: "))
	}
	require.Equal(t, 6, poisoned)
	var counted dto.Metric
	require.NoError(t, m.panicked.WithLabelValues("t").Write(&counted))
	require.EqualValues(t, 6, counted.GetCounter().GetValue())
	require.NotZero(t, logged.Len())
	require.Less(t, logged.Len(), 6, "rarely")
	stack, _ := logged.All()[0].ContextMap()["stack"].(string)
	require.Contains(t, stack, "TestPanicIsPoison", "the stack is that of the panic")
}

// The reader of events has nothing left of the record that it panicked on.
func TestPanicLeavesNoTraceInTheReader(t *testing.T) {
	rows := newRows(kindEvents, "t", &nowhere{}, time.Now, func(table) {}, func() {})
	rows.panicked = func(*stream.Record, any) {}
	clean := newRows(kindEvents, "t", &nowhere{}, time.Now, func(table) {}, func() {})
	inner := rows.read
	rows.read = func(r *stream.Record, m event.Meta) error {
		if err := inner(r, m); err != nil || !bytes.Contains(r.Value, []byte("poison")) {
			return err
		}
		var none *stream.Record
		return fmt.Errorf("never: %d", none.Offset)
	}
	require.NoError(t, rows.add(record(person, `{"type":"track","event":"poison","properties":{"price":"x","order_id":"o"},"context":{"library":{"name":"a","version":"b"}}}`)))
	for _, to := range []*tableRows{rows, clean} {
		require.NoError(t, to.add(record(person, `{"type":"page","name":"n"}`)))
	}
	events := func(rows *tableRows) []map[string]string { return rows.tables[0].Values() }
	require.Equal(t, events(clean), events(rows))
	rejected := rows.tables[len(rows.tables)-1].Values()
	require.Len(t, rejected, 1)
	require.Contains(t, rejected[0]["error"], "nil pointer")
}
