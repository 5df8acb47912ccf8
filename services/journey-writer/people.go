package writer

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// document parses a record's JSON object.
func document(r *stream.Record) (*fastjson.Value, error) {
	v, err := fastjson.ParseBytes(r.Value)
	if err == nil && v.Type() != fastjson.TypeObject {
		err = errors.New("value is not a JSON object")
	}
	if err != nil {
		return nil, &poison{reasonRecord, fmt.Errorf("read value: %w", err)}
	}
	return v, nil
}

// version is the record's place among all records of its key: the sequence of its source position. A
// record that nobody gave one, such as a foreign one, counts by its offset.
func version(r *stream.Record) uint64 {
	if p, ok := position(r); ok {
		return uint64(p.Seq) //nolint:gosec // not negative
	}
	return uint64(r.Offset) //nolint:gosec // not negative
}

// readProfile takes a record of profiles.changed: pkg/profile's Document, or its end.
func readProfile(b adder[warehouse.Profile], r *stream.Record) error {
	id, err := profileID(r)
	if err != nil {
		return err
	}
	row := warehouse.Profile{Origin: originOf(r), ID: id, Version: version(r)}
	if len(r.Value) == 0 {
		row.Tombstone = true
		b.Add(&row)
		return nil
	}
	v, err := document(r)
	if err != nil {
		return err
	}
	row.Document = r.Value
	row.FirstSeen, row.LastSeen, row.AsOf = timeOf(v, "firstSeen"), timeOf(v, "lastSeen"), timeOf(v, "updatedAt")
	row.Orders = v.GetUint64("orders")
	row.Units = moneyIn(v, "units", &row.Faults)
	if t := v.Get("traits"); t != nil {
		row.Traits = t.MarshalTo(nil)
	}
	for _, a := range v.GetArray("audiences") {
		row.Audiences = append(row.Audiences, event.Text(a))
	}
	if revenue := v.GetObject("revenue"); revenue != nil {
		revenue.Visit(func(key []byte, amount *fastjson.Value) {
			units, err := commerce.ParseUnits(event.Text(amount))
			if err != nil {
				row.Faults = append(row.Faults, "revenue."+string(key))
				return
			}
			row.Revenue = append(row.Revenue, warehouse.Money{Currency: string(key), Amount: warehouse.Amount{Units: units, Some: true}})
		})
	}
	b.Add(&row)
	return nil
}

// readAudience takes a record of audiences.changed: pkg/profile's AudienceChange.
func readAudience(b adder[warehouse.AudienceChange], r *stream.Record, m event.Meta) error {
	id, err := profileID(r)
	if err != nil {
		return err
	}
	v, err := document(r)
	if err != nil {
		return err
	}
	row := warehouse.AudienceChange{
		Origin: originOf(r), Brand: m.Brand, Audience: text(v, "audience"), Change: text(v, "change"), Reason: text(v, "reason"),
		Profile: id, Time: timeOf(v, "at"), ReceivedAt: inRange(m.ReceivedAt), Version: version(r), Details: r.Value,
	}
	if row.Audience == "" || row.Time.IsZero() {
		return &poison{reasonRecord, errors.New("audience and at are wanted")}
	}
	if m.ReceivedAt.IsZero() {
		row.ReceivedAt = row.Time
	}
	b.Add(&row)
	return nil
}

// readMessage takes a record of activations.requested: pkg/journey's Request.
func readMessage(b adder[warehouse.Message], r *stream.Record) error {
	v, id, err := activation(r)
	if err != nil {
		return err
	}
	row := warehouse.Message{
		Origin: originOf(r), Brand: text(v, "brand"), Journey: text(v, "journey"), Version: text(v, "version"),
		Channel: text(v, "channel"), ID: text(v, "id"), Receipt: text(v, "receipt"), Profile: id,
		CartID: text(v, "cart", "id"), Currency: currency(text(v, "cart", "currency")),
		DecidedAt: millis(v, "decidedAt"), Address: text(v, "to"), Content: r.Value,
	}
	if cart := v.Get("cart"); cart != nil {
		row.CartValue = moneyIn(cart, "value", &row.Faults)
	}
	if row.DecidedAt.IsZero() {
		return &poison{reasonRecord, errors.New("decidedAt is wanted")}
	}
	b.Add(&row)
	return nil
}

// readReceipt takes a record of activations.settled: pkg/journey's Receipt.
func readReceipt(b adder[warehouse.Receipt], r *stream.Record) error {
	v, id, err := activation(r)
	if err != nil {
		return err
	}
	row := warehouse.Receipt{
		Origin: originOf(r), Brand: text(v, "brand"), Journey: text(v, "journey"), Version: text(v, "version"),
		Channel: text(v, "channel"), Outcome: text(v, "outcome"), Reason: text(v, "reason"), Detail: text(v, "detail"),
		ID: text(v, "receipt"), Message: text(v, "message"), Profile: id,
		CartID: text(v, "cart", "id"), Currency: currency(text(v, "cart", "currency")),
		ArmedAt: millis(v, "armedAt"), DueAt: millis(v, "dueAt"), SettledAt: millis(v, "settledAt"),
	}
	if cart := v.Get("cart"); cart != nil {
		row.CartValue = moneyIn(cart, "value", &row.Faults)
		row.CartItems = moneyIn(cart, "items", &row.Faults)
	}
	if row.Outcome == "" || row.SettledAt.IsZero() {
		return &poison{reasonRecord, errors.New("outcome and settledAt are wanted")}
	}
	b.Add(&row)
	return nil
}

// activation reads what both activation topics have: a receipt and a profile.
func activation(r *stream.Record) (*fastjson.Value, uuid.UUID, error) {
	id, err := profileID(r)
	if err != nil {
		return nil, id, err
	}
	v, err := document(r)
	if err != nil {
		return nil, id, err
	}
	if text(v, "receipt") == "" {
		return nil, id, &poison{reasonRecord, errors.New("receipt is wanted")}
	}
	return v, id, nil
}

func text(v *fastjson.Value, path ...string) string { return event.Text(v.Get(path...)) }

// timeOf reads an RFC 3339 time; zero if there is none.
func timeOf(v *fastjson.Value, path ...string) time.Time {
	t, ok := event.ParseTime(text(v, path...))
	if !ok {
		return time.Time{}
	}
	return inRange(t)
}

// millis reads Unix milliseconds; zero if there is none.
func millis(v *fastjson.Value, path ...string) time.Time {
	n := v.GetInt64(path...)
	if n <= 0 {
		return time.Time{}
	}
	return inRange(time.UnixMilli(n).UTC())
}
