package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
)

func TestBucket(t *testing.T) {
	var none *bucket
	require.Zero(t, none.take(1_000_000, now))
	b := newBucket(config.SourceRate{EventsPerSecond: 10})
	require.Zero(t, b.take(10, now), "as many at once as in a second")
	require.Equal(t, 100*time.Millisecond, b.take(1, now))
	require.Zero(t, b.take(1, now.Add(100*time.Millisecond)))
	require.Zero(t, b.take(500, now.Add(time.Second)), "a large batch passes")
	require.Equal(t, 49200*time.Millisecond, b.take(1, now.Add(time.Second)).Round(time.Millisecond), "and is paid for")
	require.Zero(t, b.take(0, now.Add(time.Hour)))
	require.InDelta(t, 10, b.tokens, 0, "rest saves no more than the burst")
	require.Zero(t, b.take(1, now), "a clock that goes back gives and takes nothing")
}

// Over any time the events let in are at most burst + rate x time + one request.
func TestBucketBoundsTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := config.SourceRate{EventsPerSecond: rapid.IntRange(1, 1000).Draw(t, "rate"), Burst: rapid.IntRange(0, 5000).Draw(t, "burst")}
		b := newBucket(rate)
		at, taken, largest := now, 0, 0
		for range rapid.IntRange(1, 50).Draw(t, "requests") {
			at = at.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "pause")) * time.Millisecond)
			n := rapid.IntRange(1, 2500).Draw(t, "events")
			if wait := b.take(n, at); wait == 0 {
				taken += n
				largest = max(largest, n)
				continue
			} else if ahead := (&bucket{perSecond: b.perSecond, burst: b.burst, tokens: b.tokens, at: b.at}); ahead.take(0, at.Add(wait+time.Millisecond)) != 0 {
				t.Fatalf("after the wait of %v it is told to wait again", wait)
			}
		}
		most := b.burst + b.perSecond*at.Sub(now).Seconds() + float64(largest)
		if float64(taken) > most {
			t.Fatalf("%d events in %v", taken, at.Sub(now))
		}
	})
}

func TestRateOfASource(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.Sources[0].Rate = config.SourceRate{EventsPerSecond: 4, Burst: 8} })
	clock := now
	f.intake.now = func() time.Time { return clock }
	page := `{"type":"page","userId":"u"}`
	batch := `{"batch":[` + strings.Repeat(page+",", 9) + page + `]}`
	require.Equal(t, 200, f.do("POST", "/v1/b", basic("wk_demo"), batch).Code)
	for _, auth := range []string{basic("wk_demo"), ""} { // told before the body is read, and after
		w := f.do("POST", "/v1/p", auth, `{"userId":"u","writeKey":"wk_demo"}`, "Origin", "https://a.example")
		require.Equal(t, 429, w.Code)
		require.Equal(t, codeRateLimited, code(t, w))
		require.Equal(t, "1", w.Header().Get("Retry-After"), "three tokens missing, four a second")
		require.Equal(t, "https://a.example", w.Header().Get("Access-Control-Allow-Origin"))
	}
	require.Equal(t, 200, f.do("POST", "/v1/p", basic("wk_server"), page).Code, "the others go on")
	require.InDelta(t, 2, f.counter(t, "weft_collector_refused_requests_total", "web", codeRateLimited), 0)
	require.Len(t, f.collected.take(), 11)
	require.Empty(t, f.rejected.take(), "they will come again")
	clock = clock.Add(time.Second)
	require.Equal(t, 200, f.do("POST", "/v1/p", basic("wk_demo"), page).Code)
}

// What could not be stored has not been sent, as the rate has it: the sender was asked to come again.
func TestEventsThatCannotBeStoredCostNoRate(t *testing.T) {
	f := hookFixture(t, func(c *config.Collector) {
		for i := range c.Sources {
			c.Sources[i].Rate = config.SourceRate{EventsPerSecond: 1, Burst: 2}
		}
	})
	batch := `{"batch":[` + strings.Repeat(`{"type":"page","userId":"u"},`, 9) + `{"type":"page","userId":"u"}]}`
	f.collected.fail = func([]stream.Record) error { return errors.New("no broker") }
	for range 3 {
		require.Equal(t, 503, f.do("POST", "/v1/b", basic("wk_demo"), batch).Code)
		require.Equal(t, 503, f.shopify("orders/updated", "w", shopifyOrder))
	}
	f.collected.fail = nil
	require.Equal(t, 200, f.do("POST", "/v1/b", basic("wk_demo"), batch).Code)
	require.Equal(t, 429, f.do("POST", "/v1/b", basic("wk_demo"), batch).Code)
	require.Equal(t, 200, f.shopify("orders/updated", "w", shopifyOrder))
	b := newBucket(config.SourceRate{EventsPerSecond: 1, Burst: 2})
	b.give(5)
	require.InDelta(t, 2, b.tokens, 0, "no more than the burst")
}

func TestOrigins(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) {
		c.Sources[0].Origins = []string{"https://shop.example", "https://*.brand.example", "http://localhost:3000"}
	})
	for origin, status := range map[string]int{
		"": 200, "https://shop.example": 200, "https://SHOP.example": 200, "https://www.brand.example": 200, "https://a.b.brand.example": 200, "http://localhost:3000": 200,
		"http://shop.example": 403, "https://shop.example:8443": 403, "https://brand.example": 403, "https://.brand.example": 403, "https://evilbrand.example": 403, "null": 403, "https://shop.example.evil.example": 403,
		"http://localhost:3001": 403,
	} {
		for _, auth := range []string{basic("wk_demo"), ""} {
			w := f.do("POST", "/v1/p", auth, `{"userId":"u","writeKey":"wk_demo"}`, "Origin", origin)
			require.Equal(t, status, w.Code, origin)
			if origin != "" {
				require.Equal(t, origin, w.Header().Get("Access-Control-Allow-Origin"), "so that the page can read what is wrong")
			}
		}
	}
	require.Equal(t, 200, f.do("POST", "/v1/p", basic("wk_server"), `{"userId":"u"}`, "Origin", "null").Code)
	require.Equal(t, 204, f.do("OPTIONS", "/v1/p", "", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST").Code)
}

func TestADisabledSource(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.Sources[0].Disabled = true })
	for _, path := range []string{"/v1/p", "/v1/b", "/v1/projects/wk_demo/settings", "/v1/pixel/page?writeKey=wk_demo&userId=u"} {
		method := "POST"
		if strings.HasPrefix(path, "/v1/p") && path != "/v1/p" {
			method = "GET"
		}
		require.Equal(t, 404, f.do(method, path, basic("wk_demo"), `{"userId":"u"}`).Code, path)
	}
	require.Empty(t, f.collected.take())
	require.Empty(t, f.rejected.take())
}

func TestLimitsOfASource(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.Sources[0].MaxRequestBytes, c.Sources[0].MaxEventBytes = 500, 140 })
	body := func(n int) string { return `{"userId":"u","writeKey":"wk_demo","x":"` + strings.Repeat("x", n) + `"}` }
	for _, auth := range []string{basic("wk_demo"), ""} {
		w := f.do("POST", "/v1/p", auth, body(500))
		require.Equal(t, 400, w.Code)
		require.Contains(t, w.Body.String(), "a request may have 500 bytes")
		require.NotEmpty(t, one(t, f.rejected.take()).Value)
		w = f.do("POST", "/v1/p", auth, body(100))
		require.Equal(t, 400, w.Code)
		require.Contains(t, w.Body.String(), "at most 140")
		require.Equal(t, event.TooLarge, code(t, w))
		require.Len(t, f.rejected.take(), 1)
		require.Equal(t, 200, f.do("POST", "/v1/p", auth, body(10)).Code)
	}
	require.Equal(t, 200, f.do("POST", "/v1/p", basic("wk_server"), body(2000)).Code)
}

// The words of an answer are bounded, the indexes are not.
func TestAnAnswerNamesEveryRejectedItem(t *testing.T) {
	f := newFixture(t)
	w := f.do("POST", "/v1/b", basic("wk_demo"), `{"batch":[{"type":"page","userId":"u"},`+strings.TrimSuffix(strings.Repeat("7,", 2499), ",")+`]}`)
	require.Equal(t, 200, w.Code)
	require.Less(t, w.Body.Len(), 150_000)
	var got struct{ Rejected []rejectedItem }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Len(t, got.Rejected, 2499)
	for i, x := range got.Rejected {
		require.Equal(t, i+1, x.Index)
		require.Equal(t, event.InvalidType, x.Code)
		require.Equal(t, i < maxExplained, x.Message != "", fmt.Sprint(i))
	}
	require.Len(t, f.rejected.take(), 2499)
	require.Len(t, f.collected.take(), 1)
}
