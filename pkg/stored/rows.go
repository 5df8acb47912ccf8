// Package stored makes records again of what ClickHouse has of them.
//
// It owns: which columns say enough of a record, and the way back. It guarantees that a record made of a row has the same
// effect on a fold as the one that was stored; its bytes may differ. It must not know what the records are folded into.
package stored

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Warehouse is what is asked of ClickHouse.
type Warehouse interface {
	Select(ctx context.Context, dest any, sql string, args ...any) error
}

// Place is a range of a topic's partition.
type Place struct {
	Topic     string
	Partition int
	From, To  int64
}

// InPlace is the condition that selects a range's rows, in their order.
const InPlace = ` WHERE topic = ? AND partition = ? AND offset >= ? AND offset < ?`

// Args are the arguments of a query that ends with InPlace.
func (p Place) Args() []any {
	return []any{p.Topic, uint32(p.Partition), uint64(p.From), uint64(p.To)} //nolint:gosec // never negative
}

// A Maker makes the records of a range again, in their order.
type Maker func(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error)

// Makers are the topics that rows say enough of.
func Makers(set topic.Set) map[string]Maker {
	return map[string]Maker{
		set.EventsIdentified():     identified,
		set.AudiencesChanged():     audiences,
		set.ActivationsRequested(): requests,
		set.ActivationsSettled():   receipts,
	}
}

// Event is what a fold reads of a row of events.
type Event struct {
	Offset            uint64     `ch:"offset"`
	Brand             string     `ch:"brand"`
	Source            string     `ch:"source"`
	Type              string     `ch:"type"`
	Name              string     `ch:"name"`
	Profile           uuid.UUID  `ch:"profile_id"`
	UserID            string     `ch:"user_id"`
	AnonymousID       string     `ch:"anonymous_id"`
	PreviousID        string     `ch:"previous_id"`
	GroupID           string     `ch:"group_id"`
	MessageID         string     `ch:"message_id"`
	Time              time.Time  `ch:"time"`
	TimeClamped       bool       `ch:"time_clamped"`
	OriginalTimestamp *time.Time `ch:"original_timestamp"`
	SentAt            *time.Time `ch:"sent_at"`
	ReceivedAt        time.Time  `ch:"received_at"`
	Trusted           bool       `ch:"trusted"`
	Historical        bool       `ch:"historical"`
	Flags             []string   `ch:"flags"`
	Properties        string     `ch:"properties"`
	Traits            string     `ch:"traits"`
	Context           string     `ch:"context"`
	SetAside          []string   `ch:"set_aside"` // type:reason of identifiers that did not count
	Topic             string     `ch:"topic"`
	Partition         uint32     `ch:"partition"`
}

// EventColumns selects them.
const EventColumns = `SELECT offset, brand, source, type, name, profile_id, user_id, anonymous_id, previous_id, group_id, message_id,
	time, time_clamped, original_timestamp, sent_at, received_at, trusted, historical, flags, properties, traits, context,
	set_aside, topic, partition
FROM ${database}.events`

// mergeRow is what a fold reads of a merge.
type mergeRow struct {
	Offset     uint64    `ch:"offset"`
	Loser      uuid.UUID `ch:"loser"`
	Winner     uuid.UUID `ch:"winner"`
	MessageID  string    `ch:"message_id"`
	ReceivedAt time.Time `ch:"received_at"`
}

// identified makes events and merges of a range, and what splits have said there.
func identified(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	var events []Event
	err := w.Select(ctx, &events, EventColumns+InPlace, p.Args()...)
	if err != nil {
		return nil, err
	}
	var merges []mergeRow
	err = w.Select(ctx, &merges, `SELECT offset, loser, winner, message_id, received_at FROM ${database}.identities`+InPlace+` AND n = 0 AND rule != 'split'`, p.Args()...)
	if err != nil {
		return nil, err
	}
	recs := make([]stream.Record, 0, len(events)+len(merges))
	for i := range events {
		r, err := events[i].Record()
		if err != nil {
			return nil, fmt.Errorf("make offset %d again: %w", events[i].Offset, err)
		}
		recs = append(recs, r)
	}
	for i := range merges {
		m := &merges[i]
		value, err := json.Marshal(map[string]string{"loser": m.Loser.String(), "winner": m.Winner.String()})
		if err != nil {
			return nil, fmt.Errorf("make offset %d again: %w", m.Offset, err)
		}
		r := record(m.Offset, m.Loser.String(), value)
		r.Headers = append(topic.MetaHeaders(event.Meta{MessageID: m.MessageID, ReceivedAt: m.ReceivedAt.UTC()}), kind(topic.KindMerge))
		recs = append(recs, r)
	}
	for _, make := range []Maker{parted, toldEvents, toldDecisions, refolded} {
		more, err := make(ctx, w, p)
		if err != nil {
			return nil, err
		}
		recs = append(recs, more...)
	}
	return p.ordered(recs), nil
}

// Record makes the event of a row again: not its bytes, but what folds read of it.
func (e *Event) Record() (stream.Record, error) {
	when := e.Time
	if e.TimeClamped { // a time that will be clamped again; the sender's own may be none where its clock was corrected
		if late := e.ReceivedAt.Add(event.MaxFuture + time.Second); when.Before(late) {
			when = late
		}
		if e.OriginalTimestamp != nil && e.OriginalTimestamp.After(when) {
			when = *e.OriginalTimestamp
		}
	}
	name := "name"
	if e.Type == string(event.Track) {
		name = "event"
	}
	body := map[string]any{"type": e.Type, "timestamp": when.UTC().Format(time.RFC3339Nano)}
	for field, v := range map[string]string{
		name: e.Name, "userId": e.UserID, "anonymousId": e.AnonymousID, "previousId": e.PreviousID, "groupId": e.GroupID, "messageId": e.MessageID,
	} {
		if v != "" {
			body[field] = v
		}
	}
	for field, raw := range map[string]string{"properties": e.Properties, "traits": e.Traits, "context": e.Context} {
		if raw != "" {
			body[field] = verbatim(raw)
		}
	}
	value, err := encode(body)
	if err != nil {
		return stream.Record{}, err
	}
	m := event.Meta{
		Source: e.Source, Brand: e.Brand, MessageID: e.MessageID, ReceivedAt: e.ReceivedAt.UTC(), Trusted: e.Trusted, Historical: e.Historical,
	}
	if e.SentAt != nil {
		m.SentAt = e.SentAt.UTC()
	}
	for _, f := range e.Flags {
		m.AddFlag(f)
	}
	r := record(e.Offset, e.Profile.String(), value)
	r.Topic, r.Partition = e.Topic, int(e.Partition)
	r.Headers = append(topic.MetaHeaders(m), kind(topic.KindEvent))
	if len(e.SetAside) > 0 {
		r.Headers = append(r.Headers, topic.Header{Key: topic.HeaderSetAside, Value: []byte(strings.Join(e.SetAside, ","))})
	}
	return r, nil
}

// verbatim is JSON that stands as it is.
type verbatim string

// encode writes an object of texts and verbatim JSON. encoding/json would rewrite the latter.
func encode(fields map[string]any) ([]byte, error) {
	b := []byte{'{'}
	for name, v := range fields {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, name), ':')
		if raw, ok := v.(verbatim); ok {
			b = append(b, raw...)
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		b = append(b, text...)
	}
	return append(b, '}'), nil
}

// toldRow is a row that holds its record as it was published.
type toldRow struct {
	Offset  uint64    `ch:"offset"`
	Profile uuid.UUID `ch:"profile_id"`
	Version uint64    `ch:"version"`
	Value   string    `ch:"value"`

	Topic     string `ch:"topic"`
	Partition uint32 `ch:"partition"`
}

func audiences(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	var rows []toldRow
	err := w.Select(ctx, &rows, `SELECT offset, profile_id, version, details AS value FROM ${database}.audience_changes`+InPlace, p.Args()...)
	recs := make([]stream.Record, 0, len(rows))
	for i := range rows {
		r := record(rows[i].Offset, rows[i].Profile.String(), []byte(rows[i].Value))
		pos := topic.Position{Stage: topic.StageBuilder, Partition: p.Partition, Seq: int64(rows[i].Version)} //nolint:gosec // a sequence
		r.Headers = []topic.Header{{Key: topic.HeaderPosition, Value: []byte(pos.String())}}
		recs = append(recs, r)
	}
	return p.ordered(recs), err
}

func requests(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	var rows []toldRow
	err := w.Select(ctx, &rows, `SELECT offset, profile_id, toUInt64(0) AS version, content AS value FROM ${database}.messages_requested`+InPlace, p.Args()...)
	recs := make([]stream.Record, 0, len(rows))
	for i := range rows {
		recs = append(recs, record(rows[i].Offset, rows[i].Profile.String(), []byte(rows[i].Value)))
	}
	return p.ordered(recs), err
}

// receiptRow is what a rebuild reads of a receipt.
type receiptRow struct {
	Offset    uint64     `ch:"offset"`
	Profile   uuid.UUID  `ch:"profile_id"`
	Brand     string     `ch:"brand"`
	Journey   string     `ch:"journey"`
	Outcome   string     `ch:"outcome"`
	Reason    string     `ch:"reason"`
	Receipt   string     `ch:"receipt"`
	Message   string     `ch:"message"`
	CartID    string     `ch:"cart_id"`
	ArmedAt   *time.Time `ch:"armed_at"`
	DueAt     *time.Time `ch:"due_at"`
	SettledAt time.Time  `ch:"settled_at"`

	Topic     string `ch:"topic"`
	Partition uint32 `ch:"partition"`
}

// receiptColumns selects them.
const receiptColumns = `SELECT offset, profile_id, brand, journey, outcome, reason, receipt, message, cart_id, armed_at, due_at, settled_at, topic, partition
FROM ${database}.receipts`

func receipts(ctx context.Context, w Warehouse, p Place) ([]stream.Record, error) {
	recs, err := settled(ctx, w, InPlace, p.Args()...)
	return p.ordered(recs), err
}

// settled makes the receipts again that a condition selects.
func settled(ctx context.Context, w Warehouse, where string, args ...any) ([]stream.Record, error) {
	var rows []receiptRow
	if err := w.Select(ctx, &rows, receiptColumns+where, args...); err != nil {
		return nil, err
	}
	millis := func(t *time.Time) int64 {
		if t == nil {
			return 0
		}
		return t.UnixMilli()
	}
	recs := make([]stream.Record, 0, len(rows))
	for i := range rows {
		x := &rows[i]
		value, err := journey.Encode(journey.Receipt{
			Receipt: x.Receipt, Message: x.Message, Journey: x.Journey, Brand: x.Brand, Profile: x.Profile.String(), Outcome: x.Outcome, Reason: x.Reason,
			Cart: journey.ReceiptCart{ID: x.CartID}, ArmedAt: millis(x.ArmedAt), DueAt: millis(x.DueAt), SettledAt: x.SettledAt.UnixMilli(),
		})
		if err != nil {
			return nil, fmt.Errorf("make offset %d again: %w", x.Offset, err)
		}
		r := record(x.Offset, x.Profile.String(), value)
		r.Topic, r.Partition = x.Topic, int(x.Partition)
		recs = append(recs, r)
	}
	return recs, nil
}

// Decisions makes the requests and receipts again that a condition on profile_id and receipt selects, each as it was
// published, in the order of their places.
func Decisions(ctx context.Context, w Warehouse, where string, args ...any) ([]stream.Record, error) {
	var rows []toldRow
	err := w.Select(ctx, &rows, `SELECT offset, profile_id, toUInt64(0) AS version, content AS value, topic, partition FROM ${database}.messages_requested WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read requested messages: %w", err)
	}
	ended, err := settled(ctx, w, ` WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	recs := make([]stream.Record, 0, len(rows)+len(ended))
	for i := range rows {
		r := record(rows[i].Offset, rows[i].Profile.String(), []byte(rows[i].Value))
		r.Topic, r.Partition = rows[i].Topic, int(rows[i].Partition)
		recs = append(recs, r)
	}
	recs = append(recs, ended...)
	slices.SortFunc(recs, func(a, b stream.Record) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return recs, nil
}

func record(offset uint64, key string, value []byte) stream.Record {
	return stream.Record{Offset: int64(offset), Key: []byte(key), Value: value} //nolint:gosec // offsets are below 2^63
}

// ordered puts records of a place in order and names it.
func (p Place) ordered(recs []stream.Record) []stream.Record {
	slices.SortFunc(recs, func(a, b stream.Record) int { return int(a.Offset - b.Offset) })
	for i := range recs {
		recs[i].Topic, recs[i].Partition = p.Topic, p.Partition
	}
	return recs
}

func kind(k topic.Kind) topic.Header { return topic.Header{Key: topic.HeaderKind, Value: []byte(k)} }
