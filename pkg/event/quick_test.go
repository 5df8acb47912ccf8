package event

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What is read in a quick way is what the slow way reads.

func TestAUsualTimeIsReadAsAnyOther(t *testing.T) {
	for text, want := range map[string]int64{
		"2026-11-22T06:59:14.325Z": 1795330754325, "1970-01-01T00:00:00.000Z": 0, "2024-02-29T23:59:59.999Z": 1709251199999,
		"9999-12-31T23:59:59.999Z": 253402300799999,
	} {
		got, ok := parseUsual(text)
		if !ok || got.UnixMilli() != want {
			t.Fatal(text, got, ok)
		}
	}
	digit := rapid.SampledFrom([]byte("0123456789"))
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(rapid.Custom(func(t *rapid.T) time.Time {
			return time.UnixMilli(rapid.Int64Range(-1e12, 5e13).Draw(t, "ms")).UTC()
		}).Draw(t, "time").Format("2006-01-02T15:04:05.000Z"))
		for range rapid.IntRange(0, 4).Draw(t, "changes") { // leap days, hours above 23 and letters among them
			i := rapid.IntRange(0, len(text)-1).Draw(t, "at")
			text[i] = rapid.OneOf(digit, rapid.Byte()).Draw(t, "byte")
		}
		quick, ok := parseUsual(string(text))
		if !ok {
			return // the slow way reads it
		}
		slow, ok := parseText(string(text))
		if slow = slow.UTC().Truncate(time.Millisecond); !ok || quick != slow || slow.Unix() < 0 {
			t.Fatalf("%q: %v, but %v", text, quick, slow)
		}
	})
	for _, text := range []string{"2026-02-29T00:00:00.000Z", "2026-04-31T00:00:00.000Z", "2026-13-01T00:00:00.000Z", "2026-01-01T24:00:00.000Z", "1969-12-31T23:59:59.999Z"} {
		if got, ok := ParseTime(text); ok {
			t.Fatal(text, got)
		}
	}
}

func TestPlainStopsWhereAPlainLoopDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom([]byte(" !\"#\\[]~\x1f\x00\x7f\x80\xa2\xdc\xff")), rapid.Byte()), 0, 40).Draw(t, "text")
		from := rapid.IntRange(0, len(b)).Draw(t, "from")
		want := from
		for want < len(b) && b[want] != '"' && b[want] != '\\' && b[want] >= 0x20 {
			want++
		}
		if got := plain(b, from); got != want {
			t.Fatalf("%q from %d: %d, not %d", b, from, got, want)
		}
	})
}
