package topic

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
)

// The vectors are those of Kafka's own UtilsTest.testMurmur2.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		require.Equal(t, want, int32(murmur2([]byte(key))), key) //nolint:gosec // bits
	}
}

func TestPartition(t *testing.T) {
	// As Java has it: toPositive(murmur2(key)) % n.
	require.Equal(t, int(-973932308&0x7fffffff)%12, Partition([]byte("21"), 12))
	require.Equal(t, 479470107%12, Partition([]byte("abc"), 12))
	rapid.Check(t, func(t *rapid.T) {
		key, n := rapid.SliceOf(rapid.Byte()).Draw(t, "key"), rapid.IntRange(1, 1000).Draw(t, "n")
		p := Partition(key, n)
		require.True(t, p >= 0 && p < n)
		require.Equal(t, p, Partition(slices.Clone(key), n))
	})
}

func millis(label string) *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMilli(rapid.Int64Range(1, 1<<42).Draw(t, label)).UTC()
	})
}

func TestMetaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := event.Meta{
			Source: rapid.String().Draw(t, "source"), Brand: rapid.String().Draw(t, "brand"),
			MessageID: rapid.String().Draw(t, "message id"), ReceivedAt: millis("received").Draw(t, "received at"),
			Trusted: rapid.Bool().Draw(t, "trusted"), Historical: rapid.Bool().Draw(t, "historical"),
			Flags: rapid.StringMatching(`([a-z_]{1,9}(,[a-z_]{1,9}){0,2})?`).Draw(t, "flags"),
		}
		m.Skew = time.Duration(rapid.Int64Range(-maxSkew, maxSkew).Draw(t, "skew")) * time.Millisecond
		if rapid.Bool().Draw(t, "has sent at") {
			m.SentAt = millis("sent").Draw(t, "sent at")
		}
		got, err := ParseMeta(MetaHeaders(m))
		require.NoError(t, err)
		require.Equal(t, m, got)
	})
}

func TestParseMeta(t *testing.T) {
	m, err := ParseMeta(nil)
	require.NoError(t, err, "a foreign producer needs none")
	require.Equal(t, event.Meta{}, m)

	_, err = ParseMeta([]Header{{HeaderSchema, []byte("2")}})
	require.ErrorIs(t, err, ErrNewerSchema)
	_, err = ParseMeta([]Header{{HeaderSchema, []byte("x")}, {HeaderReceivedAt, []byte("now")}, {HeaderSentAt, nil}})
	require.ErrorContains(t, err, HeaderSchema)
	require.ErrorContains(t, err, HeaderReceivedAt)
	require.ErrorContains(t, err, HeaderSentAt, "all faults at once")
	for _, bad := range []string{"", "1.5", "9223372036854775807", "-9223372036854775808"} {
		_, err = ParseMeta([]Header{{HeaderSkew, []byte(bad)}})
		require.ErrorContains(t, err, HeaderSkew)
	}
}

func TestPositionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Position{
			Stage:     rapid.StringMatching(`[a-z./:-]{1,30}`).Draw(t, "stage"),
			Partition: rapid.IntRange(0, math.MaxInt32).Draw(t, "partition"),
			Seq:       rapid.Int64Min(0).Draw(t, "sequence"),
		}
		got, err := ParsePosition(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
		require.Equal(t, p.String()[:len(p.Source())], p.Source())
	})
	for _, s := range []string{"", "a", "a:1", ":1:2", "a:x:1", "a:1:x", "1:2"} {
		_, err := ParsePosition(s)
		require.ErrorContains(t, err, HeaderPosition, s)
	}
}

func TestGet(t *testing.T) {
	hs := []Header{{"a", []byte("1")}, {"a", []byte("2")}, {"b", nil}}
	v, ok := Get(hs, "a")
	require.True(t, ok)
	require.Equal(t, "1", v)
	v, ok = Get(hs, "b")
	require.True(t, ok)
	require.Empty(t, v)
	_, ok = Get(hs, "c")
	require.False(t, ok)
}

func TestSpecs(t *testing.T) {
	s := Set{Prefix: "p.", Partitions: 5}
	seen, compact := map[string]bool{}, 0
	for _, spec := range s.Specs() {
		require.False(t, seen[spec.Name], spec.Name)
		seen[spec.Name] = true
		require.Equal(t, 5, spec.Partitions)
		require.Equal(t, "p.", spec.Name[:2])
		if spec.Compact {
			compact++
		}
	}
	require.Len(t, seen, 10, "the table of architecture section 3")
	require.Equal(t, 2, compact)
	require.Equal(t, "p.identity-stitcher.p.events.collected", s.Group(StageStitcher, s.EventsCollected()))
}
