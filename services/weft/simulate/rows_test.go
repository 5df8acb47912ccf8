package simulate

import (
	"context"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/pkg/warehouse/memory"
)

// reach is a process' connection to ClickHouse.
func (p *process) reach() *memory.Client {
	return p.w.clickhouse.Client(func(_ context.Context, c *memory.Call) error {
		kind := reads
		switch c.Op {
		case memory.OpInsert:
			kind = inserts
		case memory.OpReload:
			kind = idles
		}
		return p.call(string(c.Op)+" "+c.Table+" "+c.Token, kind, c.Do)
	})
}

// checkRows: ClickHouse has one row per event, rejected record, message and receipt.
func (w *world) checkRows(f *findings, all *expected) error {
	if !w.shape.has(write) {
		return nil
	}
	w.rowsOf(f, warehouse.TableEvents, "message_id", func() (map[string]int, error) {
		want := map[string]int{}
		for id := range all.events {
			want[id] = 1
		}
		return want, nil
	})
	for table, from := range map[string]struct{ topic, column, header string }{
		warehouse.TableRejected: {w.topics.EventsRejected(), "message_id", topic.HeaderMessageID},
		warehouse.TableMessages: {w.topics.ActivationsRequested(), "", ""},
		warehouse.TableReceipts: {w.topics.ActivationsSettled(), "", ""},
	} {
		w.rowsOf(f, table, from.column, func() (map[string]int, error) {
			recs, _, err := w.read(from.topic)
			want := map[string]int{}
			for i := range recs {
				want[key(&recs[i], from.header)]++
			}
			return want, err
		})
	}
	return nil
}

// key is a header of a record, or nothing: then rows are only counted.
func key(r *stream.Record, name string) string {
	if name == "" {
		return ""
	}
	return header(r, name)
}

// rowsOf compares the rows of a table with what must be there, and finds rows of one record twice.
func (w *world) rowsOf(f *findings, table, column string, expect func() (map[string]int, error)) {
	rows := w.clickhouse.Rows(table) // first: what it has, its topic had before
	want, err := expect()
	if err != nil {
		f.miss("%v", err)
		return
	}
	got, from := map[string]int{}, map[warehouse.Origin]int{}
	for _, r := range rows {
		got[r.Values[column]]++
		if from[r.Origin]++; from[r.Origin] == 2 {
			f.bad("table %s has %s/%d at %d twice", table, r.Topic, r.Partition, r.Offset)
		}
	}
	w.seen["rows of "+table] = len(from)
	for k, n := range want {
		if got[k] < n {
			f.miss("table %s has %d rows of %q, must have %d", table, got[k], k, n)
		}
	}
	for k, n := range got {
		if n > want[k] {
			f.bad("table %s has %d rows of %q, must have %d", table, n, k, want[k])
		}
	}
}
