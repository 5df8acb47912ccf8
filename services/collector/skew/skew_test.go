package skew

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// request is one of a device whose clock shows off more than is true: sent after after, and waiting wait.
type request struct{ after, wait, off time.Duration }

// play returns what each request's event, which happened as it was sent, is moved by.
func play(c *Clocks, device string, reqs ...request) (moved []time.Duration) {
	for _, r := range reqs {
		sent := epoch.Add(r.after + r.off)
		moved = append(moved, c.Skew("s", device, sent, sent, epoch.Add(r.after+r.wait)))
	}
	return moved
}

func TestSkew(t *testing.T) {
	const m = time.Minute
	for name, c := range map[string]struct {
		reqs []request
		want []time.Duration
	}{
		"a clock that is right":             {[]request{{0, time.Second, 0}, {m, 30 * time.Second, 0}}, []time.Duration{0, 0}},
		"a wait moves nothing":              {[]request{{0, 10 * m, 0}, {5 * m, 0, 0}, {30 * m, 25 * m, 0}}, []time.Duration{0, 0, 0}},
		"a queue after an outage":           {[]request{{0, 30 * m, 0}, {time.Second, 30*m - time.Second, 0}, {2 * time.Second, 30*m - 2*time.Second, 0}}, []time.Duration{0, 0, 0}},
		"ahead by an hour":                  {[]request{{0, 0, 60 * m}, {m, 0, 60 * m}}, []time.Duration{-60 * m, -60 * m}},
		"ahead, then a wait":                {[]request{{0, 0, 60 * m}, {m, 20 * m, 60 * m}}, []time.Duration{-60 * m, -60 * m}},
		"ahead, and the first waited":       {[]request{{0, 20 * m, 60 * m}, {21 * m, 0, 60 * m}}, []time.Duration{-40 * m, -60 * m}},
		"ahead, and never before another":   {[]request{{0, 20 * m, 60 * m}, {m, 0, 60 * m}}, []time.Duration{-40 * m, -41 * m}},
		"behind, once proven":               {[]request{{0, 0, -60 * m}, {m / 2, 0, -60 * m}, {2 * m, 0, -60 * m}, {3 * m, 0, -60 * m}}, []time.Duration{0, 0, 60 * m, 60 * m}},
		"behind, two waits do not prove it": {[]request{{0, 5 * m, -60 * m}, {m, 9 * m, -60 * m}, {20 * m, 2 * m, -60 * m}}, []time.Duration{0, 0, 0}},
		"set right":                         {[]request{{0, 0, 60 * m}, {90 * m, 0, 0}}, []time.Duration{-60 * m, 0}},
		"below the threshold":               {[]request{{0, 0, m}, {m, 0, -m}, {3 * m, 0, -m}}, []time.Duration{0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, play(New(time.Minute), "d", c.reqs...))
		})
	}
	off := New(0)
	require.Equal(t, []time.Duration{0}, play(off, "d", request{0, 0, time.Hour}))
	c := New(time.Minute)
	require.Zero(t, c.Skew("s", "", epoch, epoch.Add(time.Hour), epoch))
	require.Zero(t, c.Skew("s", "d", epoch, time.Time{}, epoch))
	require.Zero(t, c.Skew("s", "d", time.Time{}, epoch.Add(time.Hour), epoch))
	require.Equal(t, []time.Duration{-time.Hour}, play(c, "a", request{0, 0, time.Hour}))
	require.Equal(t, []time.Duration{0}, play(c, "b", request{0, 0, 0}), "devices do not know each other")
	require.Zero(t, c.Skew("another", "a", epoch, epoch, epoch), "nor those of another source")
}

// TestOrderIsKept: whatever the clock does wrong by a fixed amount, and however long requests wait, what comes in the
// device's order leaves in it.
func TestOrderIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(from, to int, name string) time.Duration {
			return time.Duration(rapid.IntRange(from, to).Draw(t, name)) * time.Second
		}
		c := New(time.Minute)
		off := seconds(-7200, 7200, "off")
		var at, received, last time.Duration
		tracked := false
		for i := range rapid.IntRange(2, 30).Draw(t, "n") {
			at += seconds(0, 300, "after")
			received = max(received, at) + seconds(0, 1800, "wait")
			sent := epoch.Add(at + off)
			moved := at + off + c.Skew("s", "d", sent, sent, epoch.Add(received))
			wasTracked := tracked
			tracked = tracked || (received-at-off).Abs() > time.Minute
			if i > 0 && wasTracked && moved < last {
				t.Fatalf("event %d at %s comes before one at %s", i, moved, last)
			}
			if i > 0 && moved < last-time.Minute {
				t.Fatalf("event %d at %s comes long before one at %s", i, moved, last)
			}
			last = moved
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	c := New(time.Minute)
	for i := range 2 * MaxDevices {
		play(c, strconv.Itoa(i), request{0, 0, time.Hour})
	}
	require.LessOrEqual(t, len(c.young)+len(c.old), MaxDevices)
	require.Equal(t, []time.Duration{-time.Hour}, play(c, "0", request{0, 0, time.Hour}), "one that was forgotten is found out about again")
}

func BenchmarkSkew(b *testing.B) {
	c := New(time.Minute)
	play(c, "wrong", request{0, 0, time.Hour})
	sent, received := epoch, epoch.Add(time.Second)
	b.ReportAllocs()
	for b.Loop() {
		c.Skew("s", "6f1c6e1e-0000-5000-8000-000000000001", sent, sent, received)
	}
}
