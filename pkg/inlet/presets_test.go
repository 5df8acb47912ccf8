package inlet

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
)

// Every preset gives for its example what its file says, and that is a valid event.
func TestPresets(t *testing.T) {
	files, err := os.ReadDir("presets")
	require.NoError(t, err)
	require.Len(t, files, len(config.Presets))
	for _, name := range config.Presets {
		p, err := PresetNamed(name)
		require.NoError(t, err)
		require.NotEmpty(t, p.Description)
		r, err := New(config.KafkaInlet{Preset: name}, nil)
		require.NoError(t, err)
		got, err := r.Read(t.Context(), Record{Value: []byte(p.Example)})
		require.NoError(t, err, name)
		require.JSONEq(t, p.Gives, string(got.Body), name)
		for _, number := range []string{"24.90", "2.45", "119.00", "12.345678"} { // JSONEq reads them as floats
			require.Equal(t, strings.Count(p.Gives, number), strings.Count(string(got.Body), number), "%s: %s", name, number)
		}
		e, err := event.Decode(got.Body, event.Meta{MessageID: "m"})
		require.NoError(t, err)
		require.NoError(t, e.Validate(), name)
	}
	_, err = PresetNamed("nosuch")
	require.ErrorContains(t, err, "till_sale")
}

// Rows of the CDNOW master file, as a till would write them to a topic.
func TestTillPresetOfCDNOW(t *testing.T) {
	r, err := New(config.KafkaInlet{Format: config.FormatCSV, CSV: config.CSVLines{Columns: []string{"customer_id", "date", "cds", "dollars"}, Separator: " ", Numbers: []string{"dollars"}},
		Preset: "till_sale", Mapping: map[string]string{"properties.currency": "'USD'", "properties.quantity": "= number(record.cds)"}}, nil)
	require.NoError(t, err)
	got, err := r.Read(t.Context(), Record{Value: []byte("00001 19970101 1 11.77")})
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"track","event":"Order Completed","userId":"00001","timestamp":"1997-01-01T00:00:00.000Z","properties":{"total":11.77,"currency":"USD","quantity":1,"products":[]}}`, string(got.Body))
}

// What a sender writes once more has the message id of the first time, and no other has it: those of shops that count
// their receipts anew each day, of costs of a day that were corrected since, of orders that have changed, and of
// bookings that look alike.
func TestMessageIDsOfPresets(t *testing.T) {
	for preset, records := range map[string][]string{
		"till_sale": {
			`{"receipt":"17","store":"Vienna 3","sold_at":"2026-05-04T10:11:12Z","card":"1","total":2}`,
			`{"receipt":"17","store":"Graz 1","sold_at":"2026-05-04T10:11:12Z","card":"1","total":2}`,
			`{"receipt":"17","store":"Vienna 3","sold_at":"2026-05-05T09:00:00Z","card":"1","total":2}`,
			`{"receipt":"18","store":"Vienna 3","sold_at":"2026-05-04T10:11:12Z","card":"1","total":2}`,
			`{"receipt":18,"card":"1","total":2}`,
		},
		"ad_cost": {
			`{"network":"google","date":"2026-05-04","campaign_id":123,"cost":1}`,
			`{"network":"google","date":"2026-05-04","campaign_id":123,"cost":2,"version":2}`,
			`{"network":"google","date":"2026-05-05","campaign_id":123,"cost":1}`,
			`{"network":"google","date":"2026-05-04","campaign_id":123,"ad_id":7,"cost":1}`,
		},
		"erp_order": {
			`{"order_no":"A-77","status":"paid","customer_no":1,"order_date":"2026-05-04","total":2}`,
			`{"order_no":"A-77","status":"shipped","customer_no":1,"order_date":"2026-05-04","total":2}`,
			`{"order_no":"A-77","status":"updated","customer_no":1,"order_date":"2026-05-04","total":2}`,
			`{"order_no":"A-77","status":"updated","customer_no":1,"order_date":"2026-05-04","total":3}`,
			`{"order_no":"A-77","status":"updated","customer_no":1,"order_date":"2026-05-04","total":3,"updated_at":"2026-05-05"}`,
			`{"order_no":"A-77","status":"updated","customer_no":1,"order_date":"2026-05-04","total":3,"updated_at":"2026-05-06"}`,
			`{"order_no":"A-77","status":"Cancelled","customer_no":1,"version":4}`,
			`{"order_no":"A-78","status":"Cancelled","customer_no":1,"version":4}`,
		},
		"loyalty_points": {
			`{"card":"9001","points":10,"balance":10,"booked_at":"2026-05-04"}`,
			`{"card":"9001","points":10,"balance":20,"booked_at":"2026-05-04"}`,
			`{"card":"9002","points":10,"balance":10,"booked_at":"2026-05-04"}`,
			`{"card":"9001","points":10,"balance":10,"booked_at":"2026-05-05"}`,
			`{"card":"9001","points":10,"booked_at":"2026-05-04","booking_id":5}`,
			`{"card":"9001","points":10,"booked_at":"2026-05-04","booking_id":6}`,
		},
	} {
		r, err := New(config.KafkaInlet{Preset: preset}, nil)
		require.NoError(t, err)
		id := func(text string) string {
			got, err := r.Read(t.Context(), Record{Value: []byte(text)})
			require.NoError(t, err, text)
			e, err := event.Decode(got.Body, event.Meta{})
			require.NoError(t, err, text)
			require.NotEmpty(t, e.MessageID, text)
			return e.MessageID
		}
		of := map[string]string{}
		for _, text := range records {
			require.Equal(t, id(text), id(text))
			require.Empty(t, of[id(text)], "%s and %s are two", text, of[id(text)])
			of[id(text)] = text
		}
	}
}

// Two bookings that nothing tells apart may be two: they are told by their place on the topic.
func TestAlikeBookingsAreNotTakenForOne(t *testing.T) {
	r, err := New(config.KafkaInlet{Preset: "loyalty_points"}, nil)
	require.NoError(t, err)
	got, err := r.Read(t.Context(), Record{Value: []byte(`{"card":"9001","points":10,"booked_at":"2026-05-04"}`)})
	require.NoError(t, err)
	e, err := event.Decode(got.Body, event.Meta{})
	require.NoError(t, err)
	require.Empty(t, e.MessageID)
}
