package collector

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"

// browserFixture has a browser's source called web, and an app's called app.
func browserFixture(t *testing.T, change ...func(*config.Collector)) *fixture {
	return newFixture(t, append([]func(*config.Collector){func(c *config.Collector) {
		c.Sources[0].Kind = config.KindBrowser
		c.Sources[2] = config.Source{Name: "app", Kind: config.KindApp, WriteKey: "wk_app"}
		c.TrustedProxies = []string{"192.0.2.0/24"} // where httptest's requests come from
	}}, change...)...)
}

// send makes a request with a user agent and, through a proxy, an address.
func (f *fixture) post(t *testing.T, key, agent, body string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/batch", strings.NewReader(body))
	r.Header.Set("Authorization", basic(key))
	r.Header.Set("User-Agent", agent)
	r.Header.Set("X-Forwarded-For", "1.1.1.1, 203.0.113.77")
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
}

// all are the records, which stay.
func (m *memory) all() []stream.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.recs)
}

func metaOf(t *testing.T, hs []topic.Header) event.Meta {
	t.Helper()
	m, err := topic.ParseMeta(hs)
	require.NoError(t, err)
	return m
}

func TestEnrichmentByKind(t *testing.T) {
	f := browserFixture(t)
	const item = `{"batch":[{"type":"page","messageId":"1","anonymousId":"a","n":1.00}]}`
	f.post(t, "wk_demo", phone, item)
	f.post(t, "wk_app", "okhttp/4.9", item)
	f.post(t, "wk_server", "node-fetch/1.0", item)
	got := f.collected.all()
	require.Len(t, got, 3)
	require.Equal(t, `{"context":{"ip":"203.0.113.77","userAgent":"`+phone+`","device":{"type":"mobile","model":"iPhone"},`+
		`"os":{"name":"iOS","version":"17.5"},"browser":{"name":"Safari","version":"17.5"}},"type":"page","messageId":"1","anonymousId":"a","n":1.00}`, string(got[0].Value))
	require.Equal(t, `{"context":{"ip":"203.0.113.77"},"type":"page","messageId":"1","anonymousId":"a","n":1.00}`, string(got[1].Value))
	require.Equal(t, `{"type":"page","messageId":"1","anonymousId":"a","n":1.00}`, string(got[2].Value))
}

func TestAddressesAndBots(t *testing.T) {
	const item = `{"batch":[{"type":"page","messageId":"1","anonymousId":"a"}]}`
	bot := "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
	f := browserFixture(t, func(c *config.Collector) { c.Sources[0].IP = config.IPTruncate })
	f.post(t, "wk_demo", bot, item)
	rec := f.collected.all()[0]
	require.Contains(t, string(rec.Value), `"ip":"203.0.113.0"`)
	require.Equal(t, event.FlagBot, metaOf(t, rec.Headers).Flags)

	f = browserFixture(t, func(c *config.Collector) { c.Sources[0].Bots, c.Sources[0].IP = config.BotsRefuse, config.IPDrop })
	f.post(t, "wk_demo", bot, item)
	require.Empty(t, f.collected.all())
	reason, _ := topic.Get(f.rejected.all()[0].Headers, topic.HeaderReason)
	require.Equal(t, reasonBot, reason)
	f.post(t, "wk_demo", phone, item)
	require.NotContains(t, string(f.collected.all()[0].Value), "203.0.113")

	f = browserFixture(t, func(c *config.Collector) { c.Sources[0].Bots = config.BotsIgnore })
	f.post(t, "wk_demo", bot, item)
	require.Empty(t, metaOf(t, f.collected.all()[0].Headers).Flags)
}

func TestConsentAtTheDoor(t *testing.T) {
	type events map[string]bool // context.consent of an event: is it stored
	for name, c := range map[string]struct {
		consent config.SourceConsent
		want    events
	}{
		"nothing is asked": {config.SourceConsent{}, events{`{}`: true, `{"categoryPreferences":{"Analytics":false}}`: true}},
		"denied": {config.SourceConsent{Categories: []string{"Analytics"}}, events{
			`{}`: true, `null`: true, `{"categoryPreferences":{"Analytics":false}}`: false, `{"categoryPreferences":{"Analytics":true}}`: true,
			`{"categoryPreferences":{"Advertising":false}}`: true,
		}},
		"unknown, too": {config.SourceConsent{Categories: []string{"Analytics"}, Suppress: []string{config.ConsentDenied, config.ConsentUnknown}}, events{
			`{}`: false, `{"categoryPreferences":{"Analytics":true}}`: true, `{"categoryPreferences":{"Analytics":"perhaps"}}`: false,
		}},
		"granted unless said": {config.SourceConsent{Categories: []string{"Analytics"}, Default: config.ConsentGranted, Suppress: []string{config.ConsentUnknown}}, events{
			`{}`: true, `{"categoryPreferences":{"Analytics":false}}`: true,
		}},
		"all categories": {config.SourceConsent{Categories: []string{"A", "B"}, Default: config.ConsentDenied}, events{
			`{"categoryPreferences":{"A":true}}`: false, `{"categoryPreferences":{"A":true,"B":true}}`: true,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(cfg *config.Collector) { cfg.Sources[0].Consent = c.consent })
			stored, suppressed := 0, 0
			for consent, keep := range c.want {
				before := len(f.collected.all())
				f.post(t, "wk_demo", "", `{"batch":[{"type":"page","messageId":"1","anonymousId":"a","context":{"consent":`+consent+`}}]}`)
				require.Equal(t, keep, len(f.collected.all()) > before, consent)
				if keep {
					stored++
				} else {
					suppressed++
				}
			}
			require.Empty(t, f.rejected.all())
			f.post(t, "wk_demo", "", `{"batch":[{"event":"Segment Consent Preference Updated","messageId":"1","anonymousId":"a","context":{"consent":{"categoryPreferences":{"Analytics":false}}}}]}`)
			require.Len(t, f.collected.all(), stored+1, "a refusal itself is kept")
			require.InDelta(t, suppressed, f.counter(t, "weft_collector_events_total", "web", "suppressed"), 0)
		})
	}
}

// TestClocksAtTheDoor: a device whose clock is wrong is corrected, and an SDK's old sentAt moves nothing.
func TestClocksAtTheDoor(t *testing.T) {
	f := browserFixture(t)
	stamp := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339Nano) }
	one := func(key, device string, at, sent time.Duration) event.Meta {
		f.post(t, key, "", `{"sentAt":"`+stamp(sent)+`","batch":[{"type":"page","messageId":"1","anonymousId":"`+device+`","timestamp":"`+stamp(at)+`"}]}`)
		recs := f.collected.all()
		return metaOf(t, recs[len(recs)-1].Headers)
	}
	ahead := one("wk_demo", "ahead", time.Hour-time.Second, time.Hour)
	require.Equal(t, -time.Hour, ahead.Skew)
	require.Equal(t, event.FlagSkewCorrected, ahead.Flags)
	require.False(t, ahead.Historical)
	require.Zero(t, one("wk_demo", "waited", -time.Hour, -time.Hour+time.Second).Skew)
	require.Zero(t, one("wk_demo", "right", -time.Second, 0).Skew)
	require.Zero(t, one("wk_server", "ahead", time.Hour, time.Hour).Skew, "a server is no device")
	late := one("wk_server", "ahead", time.Hour, time.Hour)
	require.Equal(t, event.FlagLateClamped, late.Flags)

	days := one("wk_app", "years ahead", 3*365*24*time.Hour, 3*365*24*time.Hour)
	require.Equal(t, -3*365*24*time.Hour, days.Skew)
	f = browserFixture(t, func(c *config.Collector) { c.SkewThreshold = 0 })
	require.Zero(t, one("wk_demo", "ahead", time.Hour, time.Hour).Skew, "switched off")
}
