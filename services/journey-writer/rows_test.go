package writer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// list gathers rows.
type list[R any] []R

func (l *list[R]) Add(r *R) { *l = append(*l, *r) }

var received = time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC)

const person = "0f8fad5b-d9cb-869f-a165-70867728950e"

// record is one with the headers that the collector gives an event.
func record(key, value string, hs ...topic.Header) *stream.Record {
	m := event.Meta{Source: "web", Brand: "main", MessageID: "m1", ReceivedAt: received, Trusted: true}
	return &stream.Record{Topic: "weft.events.identified", Partition: 4, Offset: 17, Key: []byte(key), Value: []byte(value),
		Headers: append(topic.MetaHeaders(m), hs...)}
}

func readOne(t *testing.T, value string, hs ...topic.Header) warehouse.Event {
	t.Helper()
	var events list[warehouse.Event]
	f := eventRows{events: &events}
	r := record(person, value, hs...)
	m, err := topic.ParseMeta(r.Headers)
	require.NoError(t, err)
	require.NoError(t, f.read(r, m))
	require.Len(t, events, 1)
	return events[0]
}

func TestEventBecomesARow(t *testing.T) {
	e := readOne(t, `{"type":"track","event":"Order Completed","userId":"u1","anonymousId":"a1","timestamp":"2026-03-04T05:00:00.123Z",
		"originalTimestamp":"2026-03-04T04:59:00Z","sentAt":"2026-03-04T05:00:01Z",
		"properties":{"order_id":12345678901234567890,"checkout_id":"c1","total":"27.50","revenue":25,"price":1e30,"quantity":{},"value":null,"currency":"eur ","products":[]},
		"traits":{"address":{"city":"Gdańsk"}},
		"context":{"ip":"10.0.0.1","userAgent":"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0) Mobile","library":{"name":"analytics.js","version":"2"},
		 "page":{"url":"https://shop.example/a?utm_source=mail&utm_campaign=spring","path":"/a","referrer":"https://r.example"},
		 "campaign":{"source":"newsletter"},"locale":"pl-PL","os":{"name":"iOS"}}}`)
	require.Equal(t, warehouse.Origin{Topic: "weft.events.identified", Partition: 4, Offset: 17}, e.Origin)
	require.Equal(t, []string{"main", "web", "track", "Order Completed", "u1", "a1", "m1"},
		[]string{e.Brand, e.Source, e.Type, e.Name, e.UserID, e.AnonymousID, e.MessageID})
	require.Equal(t, person, e.Profile.String())
	require.Equal(t, "2026-03-04 05:00:00.123 +0000 UTC", e.Time.String())
	require.Equal(t, "2026-03-04 04:59:00 +0000 UTC", e.OriginalTimestamp.String())
	require.Equal(t, received, e.ReceivedAt)
	require.Equal(t, "12345678901234567890", e.OrderID, "digits as they came")
	require.Equal(t, "27.5", e.Total.String())
	require.Equal(t, "25", e.Revenue.String())
	require.False(t, e.Price.Some, "does not fit the column")
	require.False(t, e.Quantity.Some)
	require.False(t, e.Value.Some)
	require.Equal(t, []string{"price", "quantity"}, e.Faults, "null is no fault")
	require.Equal(t, "EUR", e.Currency)
	require.Equal(t, "mobile", e.DeviceType)
	require.Equal(t, "newsletter", e.UTMSource, "context.campaign before the address")
	require.Equal(t, "spring", e.UTMCampaign)
	require.Equal(t, []string{"10.0.0.1", "analytics.js/2", "pl-PL", "iOS", "/a"}, []string{e.IP, e.Library, e.Locale, e.OS, e.Path})
	require.JSONEq(t, `{"city":"Gdańsk"}`, string(e.Address))
	require.Contains(t, string(e.Properties), `"price":1e30`, "as it came")
	require.True(t, e.Trusted)
	require.False(t, e.TimeClamped)
}

func TestEventTimes(t *testing.T) {
	e := readOne(t, `{"type":"page","timestamp":"2126-03-04T05:00:00Z"}`)
	require.True(t, e.TimeClamped)
	require.Equal(t, received, e.Time)
	require.Equal(t, "2126-03-04 05:00:00 +0000 UTC", e.OriginalTimestamp.String(), "what was clamped is kept")
	e = readOne(t, `{"type":"page"}`)
	require.Equal(t, received, e.Time)
	require.True(t, e.OriginalTimestamp.IsZero())
	require.Equal(t, lastTime, inRange(time.Date(5138, 1, 1, 0, 0, 0, 0, time.UTC)))
	require.Equal(t, int64(0), inRange(time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC)).Unix())
}

// TestFourTimes: what the sender claimed, when it sent, when it came, and when it happened.
func TestFourTimes(t *testing.T) {
	body := `{"type":"page","anonymousId":"a","messageId":"m","timestamp":"2026-03-04T05:00:00Z","sentAt":"2026-03-04T05:00:05Z"}`
	e := readOne(t, body, topic.Header{Key: topic.HeaderSkew, Value: []byte("-3600000")})
	require.Equal(t, "2026-03-04 04:00:00 +0000 UTC", e.Time.String())
	require.Equal(t, "2026-03-04 05:00:00 +0000 UTC", e.OriginalTimestamp.String())
	require.Equal(t, "2026-03-04 05:00:05 +0000 UTC", e.SentAt.String())
	require.Equal(t, received, e.ReceivedAt)
	require.False(t, e.TimeClamped)
}

func TestDeviceOf(t *testing.T) {
	for ua, want := range map[string]string{
		"": "", "curl/8": "", "Mozilla/5.0 (X11; Linux x86_64) Firefox/130": "desktop",
		"Mozilla/5.0 (Linux; Android 14; Pixel) Chrome/1 Mobile Safari": "mobile", "Mozilla/5.0 (Linux; Android 14; SM-X200) Chrome/1 Safari": "tablet",
		"Mozilla/5.0 (iPad; CPU OS 17)": "tablet", "Mozilla/5.0 (compatible; Googlebot/2.1)": "",
	} {
		require.Equal(t, want, deviceOf(ua), ua)
	}
}

func TestMergeBecomesEvidenceAndRedirects(t *testing.T) {
	// ids in the order that identity wants: the winner before the loser
	const winner, loser, member = "00000000-0000-8000-8000-000000000001", "30000000-0000-8000-8000-000000000002", "30000000-0000-8000-8000-000000000003"
	var identities list[warehouse.Identity]
	var redirects list[warehouse.Redirect]
	var moves list[warehouse.Move]
	f := eventRows{identities: &identities, redirects: &redirects, moves: &moves}
	body := fmt.Sprintf(`{"loser":%q,"winner":%q,"members":[%q,%q],"version":3,"cause":{"source":"collector:1:5","messageId":"m9","rule":"same_event","time":"2026-03-04T05:06:07.008Z"},
		"evidence":[{"type":"user_id","value":"u1","node":%q},{"type":"anonymous_id","value":"a1","node":%q}]}`, loser, winner, loser, member, winner, loser)
	r := record(loser, body, topic.Header{Key: topic.HeaderKind, Value: []byte(topic.KindMerge)})
	r.Time = time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)
	m, err := topic.ParseMeta(r.Headers)
	require.NoError(t, err)
	require.NoError(t, f.read(r, m))
	require.Len(t, identities, 2)
	require.Equal(t, uint16(1), identities[1].N)
	require.Equal(t, "a1", identities[1].Value)
	require.Equal(t, uint32(2), identities[0].Members)
	require.Equal(t, "collector:1:5", identities[0].Cause)
	require.Len(t, redirects, 2)
	for i, from := range []string{loser, member} {
		require.Equal(t, from, redirects[i].Profile.String())
		require.Equal(t, winner, redirects[i].Current.String())
		require.Equal(t, uint64(3), redirects[i].Version)
		require.Equal(t, warehouse.Move{Origin: originOf(r), Node: redirects[i].Profile, Person: redirects[i].Current, Version: 3,
			ValidFrom: identities[0].Time, KnownFrom: r.Time}, moves[i])
	}
	r.Time = r.Time.Add(-time.Hour) // clocks that differ
	require.NoError(t, f.read(r, m))
	require.Equal(t, identities[0].Time, moves[3].KnownFrom, "not before it was received")
}

// nowhere stores nothing.
type nowhere struct{ inserted []string }

func (n *nowhere) Insert(_ context.Context, b warehouse.Rows, t warehouse.Token, _ func() time.Time) error {
	if b.Rows() > 0 {
		n.inserted = append(n.inserted, t.Text)
	}
	return nil
}

func (n *nowhere) StoredOffsets(context.Context, string, string, int, int64, int64, time.Time) (map[uint64]bool, error) {
	return map[uint64]bool{17: true}, nil
}

// newRows is the rows of partition 0.
func newRows(k kind, topicName string, to inserter, now func() time.Time, stored func(table), poisoned func()) *tableRows {
	t := rowsOf(k)
	t.topic, t.to, t.now, t.stored, t.poisoned = topicName, to, now, stored, poisoned
	return t
}

func TestPoisonBecomesARejectedRow(t *testing.T) {
	header := func(k, v string) topic.Header { return topic.Header{Key: k, Value: []byte(v)} }
	for name, c := range map[string]struct {
		kind   kind
		r      *stream.Record
		reason string
	}{
		"no JSON":        {kindEvents, record(person, `{"type":`), event.InvalidJSON},
		"no UUID":        {kindEvents, record("x", `{"type":"page"}`), reasonKey},
		"no key":         {kindEvents, record("", `{"type":"page"}`), reasonKey},
		"kind":           {kindEvents, record(person, `{}`, header(topic.HeaderKind, "marriage")), reasonKind},
		"merge":          {kindEvents, record(person, `{}`, header(topic.HeaderKind, "merge")), reasonMerge},
		"header":         {kindEvents, record(person, `{"type":"page"}`, header(topic.HeaderReceivedAt, "yesterday")), reasonHeaders},
		"no profile":     {kindProfiles, record(person, `[]`), reasonRecord},
		"no audience":    {kindAudiences, record(person, `{}`), reasonRecord},
		"no message":     {kindRequested, record(person, `{"receipt":"r"}`), reasonRecord},
		"no receipt":     {kindSettled, record(person, `{"outcome":"delivered"}`), reasonRecord},
		"receipt's time": {kindSettled, record(person, `{"receipt":"r","outcome":"delivered"}`), reasonRecord},
	} {
		t.Run(name, func(t *testing.T) {
			var rejected list[warehouse.Rejected]
			to := &nowhere{}
			rows := newRows(c.kind, "t", to, time.Now, func(table) {}, func() {})
			block := rows.rejected
			rows.rejected = &rejected
			require.NoError(t, rows.add(c.r))
			require.Zero(t, rows.count(), "no row but the rejected one")
			require.Len(t, rejected, 1)
			row := rejected[0]
			require.Equal(t, c.reason, row.Reason)
			require.Equal(t, topic.StageWriter, row.Service)
			require.Equal(t, "weft.events.identified:4:17", row.From)
			require.Equal(t, []string{"main", "web", "m1", string(c.r.Value)}, []string{row.Brand, row.Source, row.MessageID, string(row.Body)})
			require.NotEmpty(t, row.Error)
			rows.rejected = block
			require.NoError(t, rows.add(c.r))
			require.NoError(t, rows.store(t.Context(), warehouse.Token{Text: "t:0:17-18"}))
			require.Equal(t, []string{"t:0:17-18:events_rejected"}, to.inserted)
		})
	}
}

func TestNewerSchemaStopsTheWriter(t *testing.T) {
	rows := newRows(kindEvents, "t", &nowhere{}, time.Now, func(table) {}, func() {})
	r := record(person, `{"type":"page"}`)
	r.Headers[0].Value = []byte("2")
	require.ErrorIs(t, rows.add(r), topic.ErrNewerSchema)
}

func TestKnownRowsAreLeftOut(t *testing.T) {
	rows := newRows(kindEvents, "t", &nowhere{}, time.Now, func(table) {}, func() {})
	require.NoError(t, rows.known(t.Context(), 0, 100, received))
	require.NoError(t, rows.add(record(person, `{"type":"page"}`)))
	require.Zero(t, rows.count())
	rows.reset()
	require.NoError(t, rows.add(record(person, `{"type":"page"}`)))
	require.Equal(t, 1, rows.count())
}

func TestPeopleAndMessages(t *testing.T) {
	pos := topic.Header{Key: topic.HeaderPosition, Value: []byte("profile-builder:3:41")}
	var profiles list[warehouse.Profile]
	require.NoError(t, readProfile(&profiles, record(person, `{"id":"x","traits":{"email":"a@b"},"firstSeen":"2026-01-01T00:00:00.000Z","lastSeen":"2026-01-02T00:00:00.000Z",
		"orders":2,"units":"3.5","revenue":{"EUR":"12.3400","XXX":"1e99"},"audiences":["vip"],"updatedAt":"2026-01-03T00:00:00.000Z"}`, pos)))
	p := profiles[0]
	require.Equal(t, uint64(41), p.Version)
	require.Equal(t, "12.34", p.Revenue[0].Amount.String())
	require.Equal(t, []string{"revenue.XXX"}, p.Faults)
	require.Equal(t, []string{"vip"}, p.Audiences)
	require.Equal(t, uint64(2), p.Orders)
	require.Equal(t, "3.5", p.Units.String())
	end := record(person, "", pos)
	end.Value = nil
	require.NoError(t, readProfile(&profiles, end))
	require.True(t, profiles[1].Tombstone)

	var receipts list[warehouse.Receipt]
	require.NoError(t, readReceipt(&receipts, record(person, `{"receipt":"r1","journey":"cart","version":"v","brand":"main","profile":"`+person+`","channel":"email",
		"outcome":"suppressed","reason":"purchased","cart":{"id":"c","value":"10.5","currency":"eur","items":"2"},"armedAt":1700000000000,"dueAt":0,"settledAt":1700000001000}`)))
	rc := receipts[0]
	require.Equal(t, []string{"suppressed", "purchased", "10.5", "2", "EUR"}, []string{rc.Outcome, rc.Reason, rc.CartValue.String(), rc.CartItems.String(), rc.Currency})
	require.True(t, rc.DueAt.IsZero())
	require.Equal(t, int64(1700000001), rc.SettledAt.Unix())

	var changes list[warehouse.AudienceChange]
	require.NoError(t, readAudience(&changes, record(person, `{"audience":"vip","change":"entered","at":"2026-01-01T00:00:00.000Z","reason":"condition"}`, pos), event.Meta{}))
	require.Equal(t, "entered", changes[0].Change)
	require.Equal(t, changes[0].Time, changes[0].ReceivedAt)

	var messages list[warehouse.Message]
	require.NoError(t, readMessage(&messages, record(person, `{"id":"m","receipt":"r1","journey":"cart","channel":"email","to":"a@b","cart":{"value":"x"},"decidedAt":1700000000000}`)))
	require.Equal(t, []string{"value"}, messages[0].Faults)
	require.Equal(t, "a@b", messages[0].Address)
}

func TestPoisonSaysWhy(t *testing.T) {
	cause := errors.New("cause")
	p := &poison{"r", cause}
	require.EqualError(t, p, "r: cause")
	require.ErrorIs(t, p, cause)
}
