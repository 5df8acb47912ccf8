package topic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
)

// What a MetaWriter writes is what MetaHeaders writes, whatever came before it, and stays so whatever comes behind it.
func TestMetaWriterWritesWhatMetaHeadersDoes(t *testing.T) {
	text := rapid.SampledFrom([]string{"", "a", "web", "shop", "größer"})
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		at := time.UnixMilli(rapid.Int64Range(0, 3).Draw(t, "ms")) // few, so that they often agree
		if rapid.Bool().Draw(t, "utc") {
			at = at.UTC()
		}
		return at
	})
	meta := rapid.Custom(func(t *rapid.T) event.Meta {
		m := event.Meta{
			Source: text.Draw(t, "source"), Brand: text.Draw(t, "brand"), ReceivedAt: moment.Draw(t, "received"),
			Skew:    time.Duration(rapid.IntRange(-1, 1).Draw(t, "skew")) * time.Millisecond,
			Trusted: rapid.Bool().Draw(t, "trusted"), Historical: rapid.Bool().Draw(t, "historical"), Flags: text.Draw(t, "flags"),
		}
		if rapid.Bool().Draw(t, "sent") {
			m.SentAt = moment.Draw(t, "sent at")
		}
		return m
	})
	rapid.Check(t, func(t *rapid.T) {
		var w MetaWriter
		var m event.Meta
		var want, got [][]Header
		for range rapid.IntRange(1, 2*metaRoom).Draw(t, "records") {
			if len(want) == 0 || rapid.IntRange(0, 3).Draw(t, "another") == 0 {
				m = meta.Draw(t, "meta") // else it differs in nothing but the id
			}
			m.MessageID = rapid.SampledFrom([]string{"", "1", "2", "a longer id"}).Draw(t, "id")
			want, got = append(want, MetaHeaders(m)), append(got, w.Headers(m))
		}
		require.Equal(t, want, got)
		for _, hs := range got {
			_ = append(hs, Header{Key: "more"}) // as who passes a record on does: it must not reach into the next one's
		}
		require.Equal(t, want, got)
	})
}
