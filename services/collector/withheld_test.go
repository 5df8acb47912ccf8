package collector

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
)

// refusing makes a source refuse events for every reason that it can have.
func refusing(c *config.Collector) {
	c.Sources[0].Kind, c.Sources[0].Bots = config.KindBrowser, config.BotsRefuse
	c.Sources[0].MaxEventBytes = 600
	c.Sources[0].Transformations = []config.Transformation{
		{Derive: map[string]string{"properties.net": "event.properties.total - 1"}, When: `event.event == "Failing"`},
		{Remove: []string{"traits.email"}},
		{Rename: map[string]string{"properties.customer": "userId"}},
	}
}

// refusedItems are what a source of that kind refuses, and what it does not, with WHO in the place of the person and
// CONSENT in that of the context's consent.
var refusedItems = map[string]string{
	"a transformation fails":  `{"type":"track","event":"Failing","userId":"WHO","properties":{"total":"x"},"context":{CONSENT}}`,
	"too large":               `{"type":"track","event":"A","userId":"WHO","x":"` + strings.Repeat("x", 700) + `","context":{CONSENT}}`,
	"too large in the end":    `{"type":"track","event":"A","userId":"WHO","x":"` + strings.Repeat("x", 450) + `","context":{CONSENT}}`,
	"no type":                 `{"userId":"WHO","context":{CONSENT}}`,
	"a type that is none":     `{"type":"nope","userId":"WHO","context":{CONSENT}}`,
	"an id that is none":      `{"type":"track","event":"A","userId":"WHO","messageId":[],"context":{CONSENT}}`,
	"no name":                 `{"type":"track","userId":"WHO","context":{CONSENT}}`,
	"a faulty context":        `{"type":"identify","userId":"WHO","context":{"traits":7,CONSENT}}`,
	"the e-mail goes":         `{"type":"identify","anonymousId":"a","traits":{"email":"WHO"},"context":{CONSENT}}`,
	"named by transformation": `{"type":"track","event":"A","anonymousId":"a","properties":{"customer":"WHO"},"context":{CONSENT}}`,
}

const bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"

// TestSuppressedPeopleAreNotStoredWhateverIsWrong: neither a step that refuses an event nor one that hides the person
// comes before the list.
func TestSuppressedPeopleAreNotStoredWhateverIsWrong(t *testing.T) {
	for name, item := range refusedItems {
		for agent, context := range map[string]string{phone: "", bot: `,"context":{"library":{"name":"` + strings.Repeat("y", 200) + `"}}`} {
			f := newFixture(t, refusing, func(c *config.Collector) { c.SuppressionFile = fileWith(t, "suppressed", "bob\n") })
			item := strings.Replace(item, "CONSENT", `"a":1`, 1)
			f.post(t, "wk_demo", agent, `{"batch":[`+strings.Replace(item, "WHO", "Bob", 1)+`]`+context+`}`)
			require.Empty(t, f.collected.take(), name)
			require.Empty(t, values(f.rejected.take()), name)
			require.InDelta(t, 1, f.counter(t, "weft_collector_events_total", "web", "suppressed"), 0, name)
			f.post(t, "wk_demo", agent, `{"batch":[`+strings.Replace(item, "WHO", "ann", 1)+`]`+context+`}`)
			require.Equal(t, 1, len(f.collected.take())+len(f.rejected.take()), "of others it is kept: "+name)
		}
	}
	f := newFixture(t, refusing, func(c *config.Collector) { c.SuppressionFile = fileWith(t, "suppressed", "bob\n") })
	f.post(t, "wk_demo", phone, `{"context":{"traits":{"email":"bob"}},"batch":[{"type":"nope","userId":"u"}]}`)
	require.Empty(t, f.rejected.take(), "named by the batch")
	f.do("POST", "/v1/track", basic("wk_server"), `{"userId":"bob","x":"`+strings.Repeat("x", 1<<20)+`"}`)
	require.Empty(t, f.rejected.take(), "a request of one event")
}

// TestNothingIsKeptWithoutConsentWhateverIsWrong: an event that may not be stored may not be kept as a rejected one either.
func TestNothingIsKeptWithoutConsentWhateverIsWrong(t *testing.T) {
	for name, item := range refusedItems {
		for _, agent := range []string{phone, bot} {
			f := newFixture(t, refusing, func(c *config.Collector) {
				c.Sources[0].Consent = config.SourceConsent{Categories: []string{"Analytics"}}
			})
			with := func(state string) string {
				return `{"batch":[` + strings.NewReplacer("WHO", "u", "CONSENT", `"consent":{"categoryPreferences":{"Analytics":`+state+`}}`).Replace(item) + `]}`
			}
			f.post(t, "wk_demo", agent, with("false"))
			require.Empty(t, f.collected.take(), name)
			require.Empty(t, values(f.rejected.take()), name)
			require.InDelta(t, 1, f.counter(t, "weft_collector_events_total", "web", "suppressed"), 0, name)
			f.post(t, "wk_demo", agent, with("true"))
			require.Equal(t, 1, len(f.collected.take())+len(f.rejected.take()), name)
		}
	}
}

// A record of a topic that is no event is not kept either.
func TestSuppressedPeopleOfTopics(t *testing.T) {
	cfg := settings(t).Collector
	cfg.SuppressionFile = fileWith(t, "suppressed", "bob\n")
	p, err := NewPreview(cfg, config.Source{Name: "till", Kind: config.KindKafka, Kafka: config.KafkaInlet{Topic: "t"}}, time.Now)
	require.NoError(t, err)
	for _, value := range []string{`{"userId":"bob"}`, `{"type":"track","userId":"bob"}`, `{"type":"page","userId":"bob"}`} {
		o, err := p.Record(context.Background(), stream.Record{Value: []byte(value)})
		require.NoError(t, err)
		require.Equal(t, leftSuppressed, o.Result, value)
	}
	o, err := p.Record(context.Background(), stream.Record{Value: []byte(`{"userId":"ann"}`)})
	require.NoError(t, err)
	require.Equal(t, event.MissingType, o.Reason)
}

// TestWriteKeysAreNotKept: whoever reads the topics, or ClickHouse, could send in the name of the source.
func TestWriteKeysAreNotKept(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.Sources[0].MaxRequestBytes = 2000 })
	const key = `"writeKey":"wk_demo"`
	for body, kept := range map[string]int{
		`{` + key + `,"type":"page","userId":"u"}`:                                                     1,
		`{` + key + `,"batch":[{"type":"page","userId":"u",` + key + `},{` + key + `,"type":"page"}]}`: 2,
		`{` + key + `,"type":"page"}`:                                                                  1,
		`{` + key + `,`:                                                                                0,
		`{` + key + `,"batch":[` + strings.TrimSuffix(strings.Repeat("7,", 2600), ",") + `]}`:          1,
		`{` + key + `,"x":"` + strings.Repeat("x", 2100) + `"}`:                                        1,
	} {
		for _, auth := range []string{"", basic("wk_demo")} {
			f.do("POST", "/v1/batch", auth, body)
			recs := append(f.collected.take(), f.rejected.take()...)
			require.GreaterOrEqual(t, len(recs), kept, body)
			for _, rec := range recs {
				require.NotContains(t, string(rec.Value), "wk_demo")
			}
		}
	}
	for _, query := range []string{"userId=u&writeKey=wk_demo", "%77riteKey=wk_demo&a=1&a.b=2", "writeKey=wk_demo&data=%25%25", "writeKey=wk_demo&data={" + url.QueryEscape(key)} {
		f.do("GET", "/v1/pixel/page?"+query, "", "")
		rec := one(t, append(f.collected.take(), f.rejected.take()...))
		require.NotContains(t, string(rec.Value), "wk_demo", query)
	}
}
