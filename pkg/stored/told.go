package stored

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// partedRow is where a member of a split person went.
type partedRow struct {
	Offset     uint64    `ch:"offset"`
	Node       uuid.UUID `ch:"loser"`
	Into       uuid.UUID `ch:"winner"`
	Version    uint64    `ch:"version"`
	Command    string    `ch:"cause"`
	Time       time.Time `ch:"time"`
	ReceivedAt time.Time `ch:"received_at"`
	Actor      string    `ch:"actor"`
	Reason     string    `ch:"reason"`
}

// parted makes the records of splits in a range: all but whose the member was, which no fold asks.
func parted(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	var rows []partedRow
	err := w.Select(ctx, &rows, `SELECT offset, loser, winner, version, cause, time, received_at, actor, reason FROM ${database}.identities`+InPlace+
		` AND rule = 'split'`, p.Args()...)
	if err != nil {
		return nil, err
	}
	recs := make([]stream.Record, 0, len(rows))
	for i := range rows {
		x := &rows[i]
		value, err := json.Marshal(identity.Parted{
			Command: x.Command, Node: x.Node.String(), Into: x.Into.String(), Generation: x.Version >> identity.GenerationShift, Time: x.Time.UTC(), Actor: x.Actor, Reason: x.Reason,
		})
		if err != nil {
			return nil, fmt.Errorf("make offset %d again: %w", x.Offset, err)
		}
		r := record(x.Offset, x.Node.String(), value)
		r.Headers = append(topic.MetaHeaders(event.Meta{ReceivedAt: x.ReceivedAt.UTC()}), kind(topic.KindSplit))
		recs = append(recs, r)
	}
	return recs, nil
}

// again is what a record has that a split tells again.
type again struct {
	Told    uint64    `ch:"told"`
	Person  uuid.UUID `ch:"person"`
	Command string    `ch:"command"`
	Origin  string    `ch:"origin"`
}

// headers are those that say so.
func (a *again) headers(hs []topic.Header) []topic.Header {
	return append(hs, topic.Header{Key: topic.HeaderRefold, Value: []byte(a.Command)}, topic.Header{Key: topic.HeaderOrigin, Value: []byte(a.Origin)})
}

// toldEvents makes the events of a range that splits have told again, of the rows that they have as first told.
func toldEvents(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	var some []struct {
		Rows uint64 `ch:"rows"`
	}
	// The rows of the events lie anywhere: they are looked for only where there are any.
	if err := w.Select(ctx, &some, `SELECT count() AS rows FROM ${database}.event_parts`+InPlace, p.Args()...); err != nil || len(some) == 0 || some[0].Rows == 0 {
		return nil, err
	}
	var rows []struct {
		Event
		again
	}
	err := w.Select(ctx, &rows, `SELECT e.offset AS offset, e.brand AS brand, e.source AS source, e.type AS type, e.name AS name, e.profile_id AS profile_id, e.user_id AS user_id,
	e.anonymous_id AS anonymous_id, e.previous_id AS previous_id, e.group_id AS group_id, e.message_id AS message_id, e.time AS time, e.time_clamped AS time_clamped,
	e.original_timestamp AS original_timestamp, e.sent_at AS sent_at, e.received_at AS received_at, e.trusted AS trusted, e.historical AS historical, e.flags AS flags,
	e.set_aside AS set_aside, toString(e.topic) AS topic, e.partition AS partition, e.properties AS properties, e.traits AS traits, e.context AS context, p.told AS told, p.person AS person, p.command AS command, p.origin AS origin
FROM ${database}.events AS e
INNER JOIN
(
    SELECT event, offset AS told, person, command, concat(event_topic, ':', toString(event_partition), ':', toString(event_offset)) AS origin
    FROM ${database}.event_parts`+InPlace+`
) AS p ON bitXor(cityHash64(e.topic), bitShiftLeft(toUInt64(e.partition), 48) + e.offset) = p.event`, p.Args()...)
	if err != nil {
		return nil, err
	}
	recs := make([]stream.Record, 0, len(rows))
	for i := range rows {
		x := &rows[i]
		r, err := x.Record()
		if err != nil {
			return nil, fmt.Errorf("make offset %d again: %w", x.Told, err)
		}
		t := record(x.Told, x.Person.String(), r.Value)
		t.Headers = x.headers(r.Headers)
		recs = append(recs, t)
	}
	return recs, nil
}

// toldDecisions makes the requests and receipts of a range that splits have told parts of.
func toldDecisions(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	var rows []struct {
		again
		Topic     string `ch:"decision_topic"`
		Partition uint32 `ch:"decision_partition"`
		Offset    uint64 `ch:"decision_offset"`
	}
	err := w.Select(ctx, &rows, `SELECT offset AS told, person, command, concat(decision_topic, ':', toString(decision_partition), ':', toString(decision_offset)) AS origin,
	decision_topic, decision_partition, decision_offset
FROM ${database}.message_parts`+InPlace, p.Args()...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	values, err := decisions(ctx, w, p)
	if err != nil {
		return nil, err
	}
	var recs []stream.Record
	for i := range rows {
		x := &rows[i]
		value, ok := values[x.Origin]
		if !ok { // it was erased
			continue
		}
		r := record(x.Told, x.Person.String(), value)
		r.Headers = x.headers([]topic.Header{{Key: topic.HeaderSchema, Value: []byte(fmt.Sprint(topic.SchemaVersion))}, kind(topic.KindDecision)})
		recs = append(recs, r)
	}
	return recs, nil
}

// decisions are the values of requests and receipts that were told again in a range, by where they stand first.
func decisions(ctx context.Context, w Warehouse, p Place) (map[string][]byte, error) {
	recs, err := Decisions(ctx, w, `(topic, partition, offset) IN (SELECT decision_topic, decision_partition, decision_offset FROM ${database}.message_parts`+InPlace+`)`, p.Args()...)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(recs))
	for i := range recs {
		out[topic.Position{Stage: recs[i].Topic, Partition: recs[i].Partition, Seq: recs[i].Offset}.String()] = recs[i].Value
	}
	return out, nil
}

// refolded makes the records of a range that end what a split tells a part: the part's own beginning is what is stored of
// each.
func refolded(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	var rows []struct {
		Offset      uint64    `ch:"offset"`
		Node        uuid.UUID `ch:"node"`
		Incarnation uint32    `ch:"incarnation"`
		Command     string    `ch:"command"`
		Time        time.Time `ch:"said_at"`
	}
	err := w.Select(ctx, &rows, `SELECT m.offset AS offset, m.node AS node, m.incarnation AS incarnation, s.command AS command, s.said_at AS said_at
FROM (SELECT offset, node, incarnation FROM ${database}.identity_moves`+InPlace+` AND incarnation > 0 AND node = person) AS m
INNER JOIN (SELECT winner, any(cause) AS command, min(time) AS said_at FROM ${database}.identities WHERE rule = 'split' GROUP BY winner) AS s ON s.winner = m.node`, p.Args()...)
	if err != nil {
		return nil, err
	}
	recs := make([]stream.Record, 0, len(rows))
	for i := range rows {
		x := &rows[i]
		value, err := json.Marshal(identity.Part{Command: x.Command, Node: x.Node.String(), Generation: uint64(x.Incarnation), Cuts: [][2]string{}, Time: x.Time.UTC()})
		if err != nil {
			return nil, fmt.Errorf("make offset %d again: %w", x.Offset, err)
		}
		r := record(x.Offset, x.Node.String(), value)
		r.Headers = []topic.Header{{Key: topic.HeaderSchema, Value: []byte(fmt.Sprint(topic.SchemaVersion))}, kind(topic.KindRefolded),
			{Key: topic.HeaderRefold, Value: []byte(x.Command)}}
		recs = append(recs, r)
	}
	return recs, nil
}
