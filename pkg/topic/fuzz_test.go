package topic

import (
	"reflect"
	"testing"
)

// Headers of others' records: an error or a Meta, which then is written and read again as it is, and the same by view.
func FuzzParseMeta(f *testing.F) {
	f.Add("1", "till", "m-1", "1777890672123", "1777890670000", "-5000", "trusted", "1", "bot,late_clamped")
	f.Add("2", "", "", "x", "", "", "", "", "")
	f.Add("1", "\xff", "ü", "-1", "9223372036854775807", "9223372036854775807", "untrusted", "0", ",")
	f.Fuzz(func(t *testing.T, schema, source, id, received, sent, skew, trust, historical, flags string) {
		hs := []Header{
			{HeaderSchema, []byte(schema)}, {HeaderSource, []byte(source)}, {HeaderMessageID, []byte(id)}, {HeaderReceivedAt, []byte(received)},
			{HeaderSentAt, []byte(sent)}, {HeaderSkew, []byte(skew)}, {HeaderTrust, []byte(trust)}, {HeaderHistorical, []byte(historical)}, {HeaderFlags, []byte(flags)},
		}
		m, err := ParseMeta(hs)
		view, viewErr := ViewMeta(hs)
		if (err == nil) != (viewErr == nil) || err == nil && !reflect.DeepEqual(m, view) {
			t.Fatalf("%+v (%v), by view %+v (%v)", m, err, view, viewErr)
		}
		if err != nil {
			return
		}
		again, err := ParseMeta(MetaHeaders(m))
		if err != nil || !again.ReceivedAt.Equal(m.ReceivedAt) || !again.SentAt.Equal(m.SentAt) || again.Skew != m.Skew || again.Flags != m.Flags || again.Source != m.Source {
			t.Fatalf("%+v is written and read as %+v (%v)", m, again, err)
		}
		var w MetaWriter
		for range 2 {
			if got := w.Headers(m); !reflect.DeepEqual(got, MetaHeaders(m)) {
				t.Fatalf("%q by the writer, want %q", got, MetaHeaders(m))
			}
		}
	})
}

// A position is what its text says, and nothing else is one.
func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"collector/till.sales:0:17", "decide:3:-1", "a:b:1:2", ":::", "x:1:9223372036854775808", "x:+1:01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePosition(text)
		if err != nil {
			return
		}
		again, err := ParsePosition(p.String())
		if err != nil || again != p {
			t.Fatalf("%q is %+v, and then %+v (%v)", text, p, again, err)
		}
	})
}
