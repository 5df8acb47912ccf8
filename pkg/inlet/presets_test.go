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
