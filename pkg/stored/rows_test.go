package stored

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAnEventOfARow: what is folded of a record made again is what was folded of the first.
func TestAnEventOfARow(t *testing.T) {
	received := time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)
	for name, body := range map[string]string{
		"track":                         `{"type":"track","event":"Order Completed","messageId":"m","userId":"u","timestamp":"2026-03-01T11:59:00.5Z","properties":{"order_id":"o","total":12.90,"currency":"EUR","products":[{"product_id":"p","quantity":2}]},"context":{"traits":{"city":"Ulm"}}}`,
		"identify":                      `{"type":"identify","messageId":"m","anonymousId":"a","traits":{"email":"x@example.com","n":1e3,"big":123456789012345678901234567890,"quote":"\"<&>\""}}`,
		"clock is ahead":                `{"type":"page","name":"Home","messageId":"m","anonymousId":"a","timestamp":"2026-03-02T12:00:00Z"}`,
		"group":                         `{"type":"group","groupId":"g","userId":"u","messageId":"m","traits":{"name":"Acme"},"context":{"traits":{"city":"Ulm"}}}`,
		"alias":                         `{"type":"alias","userId":"u","previousId":"old","messageId":"m"}`,
		"clock was behind":              `{"type":"page","name":"Home","messageId":"m","anonymousId":"a","timestamp":"2026-03-01T11:50:00Z"}`,
		"clock was behind, yet clamped": `{"type":"page","name":"Home","messageId":"m","anonymousId":"a","timestamp":"2026-03-01T12:01:00Z"}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := event.Meta{Source: "shop", Brand: "main", MessageID: "m", ReceivedAt: received, SentAt: received.Add(time.Second), Trusted: true, Historical: name == "group"}
			m.AddFlag(event.FlagBot)
			m.AddFlag(event.FlagLateClamped)
			if strings.HasPrefix(name, "clock was behind") {
				m.Skew = 10 * time.Minute
			}
			first, err := event.Decode([]byte(body), m)
			require.NoError(t, err)
			m.Skew = 0 // the row's time is the corrected one
			row := Event{
				Offset: 7, Brand: m.Brand, Source: m.Source, Type: string(first.Type), Name: first.Name, Profile: uuid.New(),
				UserID: first.UserID, AnonymousID: first.AnonymousID, PreviousID: first.PreviousID, GroupID: first.GroupID, MessageID: first.MessageID,
				Time: first.Time, TimeClamped: first.TimeClamped, SentAt: &m.SentAt, ReceivedAt: received, Trusted: m.Trusted, Historical: m.Historical,
				Flags: m.AppendFlags(nil), SetAside: []string{"email:limit", "phone:cut"},
				Properties: string(first.RawProperties()), Traits: string(first.RawTraits()), Context: string(first.RawContext()),
			}
			if at := first.OwnTime(); !at.IsZero() {
				row.OriginalTimestamp = &at
			}
			r, err := row.Record()
			require.NoError(t, err)
			require.Equal(t, row.Profile.String(), string(r.Key))
			meta, err := topic.ParseMeta(r.Headers)
			require.NoError(t, err)
			require.Equal(t, m, meta)
			aside, _ := topic.Get(r.Headers, topic.HeaderSetAside)
			require.Equal(t, "email:limit,phone:cut", aside)
			again, err := event.Decode(r.Value, meta)
			require.NoError(t, err)
			require.Equal(t, first.Time, again.Time)
			require.Equal(t, first.TimeClamped, again.TimeClamped)
			var a, b profile.State
			require.Empty(t, a.Apply(first, &profile.Rules{}))
			require.Empty(t, b.Apply(again, &profile.Rules{}))
			one, err := a.AppendBinary(nil)
			require.NoError(t, err)
			two, err := b.AppendBinary(nil)
			require.NoError(t, err)
			require.Equal(t, one, two)
			require.Equal(t, first.Identifiers(), again.Identifiers())
		})
	}
}

// TestOrderOfARange: events and merges come in the order of their offsets.
func TestOrderOfARange(t *testing.T) {
	p := Place{Topic: "t", Partition: 3, From: 0, To: 10}
	recs := p.ordered(append(p.ordered(nil), record(5, "b", nil), record(2, "a", nil)))
	require.Equal(t, []int64{2, 5}, []int64{recs[0].Offset, recs[1].Offset})
	require.Equal(t, 3, recs[1].Partition)
	require.Equal(t, "t", recs[0].Topic)
}
