package enrich

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

const (
	safariOnPhone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
	chromeOnPC    = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36"
	androidTablet = "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36"
	googlebot     = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
)

func enricher(t testing.TB, opt Options) *Enricher {
	if opt.IP == "" {
		opt.IP = IPKeep
	}
	e, err := New(opt)
	require.NoError(t, err)
	return e
}

var browser = Options{Client: true, Browser: true, Agents: true, Bots: true}

func TestApply(t *testing.T) {
	v4, v6 := netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("2001:db8:1:2:3::4")
	pc := `"browser":{"name":"Chrome","version":"129.0.0.0"}`
	for name, c := range map[string]struct {
		opt  Options
		req  Request
		body string
		want string
	}{
		"a browser": {browser, Request{v4, safariOnPhone}, `{"type":"page","n":1.00}`,
			`{"context":{"ip":"203.0.113.77","userAgent":"` + safariOnPhone + `","device":{"type":"mobile","model":"iPhone"},"os":{"name":"iOS","version":"17.5"},"browser":{"name":"Safari","version":"17.5"}},"type":"page","n":1.00}`},
		"the sender's word stands": {browser, Request{v4, safariOnPhone}, `{"context":{"ip":"198.51.100.1","userAgent":"` + chromeOnPC + `","os":{"name":"Haiku"},"device":{"id":"d","type":"tv"}}}`,
			`{"context":{` + pc + `,"ip":"198.51.100.1","userAgent":"` + chromeOnPC + `","os":{"name":"Haiku"},"device":{"id":"d","type":"tv"}}}`},
		"absent fields only": {browser, Request{}, `{"context":{"userAgent":"` + androidTablet + `","device":{"id":"d"}}}`,
			`{"context":{"os":{"name":"Android","version":"13"},"browser":{"name":"Chrome","version":"129.0.0.0"},"userAgent":"` + androidTablet + `","device":{"type":"tablet","model":"SM-X700","id":"d"}}}`},
		"history": {browser, Request{v4, chromeOnPC}, `{"context":{"historical":true}}`, `{"context":{"historical":true}}`},
		"an app": {Options{Client: true, Agents: true, Bots: true}, Request{v4, "okhttp/4.9"}, `{"context":{"device":{"type":"android"}}}`,
			`{"context":{"ip":"203.0.113.77","device":{"type":"android"}}}`},
		"a server":               {Options{}, Request{v4, "node-fetch/1.0"}, `{"type":"track"}`, `{"type":"track"}`},
		"a server that says so":  {Options{}, Request{v4, ""}, `{"context":{"direct":true}}`, `{"context":{"ip":"203.0.113.77","direct":true}}`},
		"IPv4 truncated":         {Options{Client: true, IP: IPTruncate}, Request{v4, ""}, `{}`, `{"context":{"ip":"203.0.113.0"}}`},
		"IPv6 truncated":         {Options{Client: true, IP: IPTruncate}, Request{v6, ""}, `{}`, `{"context":{"ip":"2001:db8:1::"}}`},
		"IPv4 in IPv6 truncated": {Options{Client: true, IP: IPTruncate}, Request{netip.MustParseAddr("::ffff:203.0.113.77"), ""}, `{}`, `{"context":{"ip":"203.0.113.0"}}`},
		"dropped":                {Options{Client: true, IP: IPDrop}, Request{v4, ""}, `{}`, `{}`},
		"truncated whoever set":  {Options{IP: IPTruncate}, Request{}, `{"context":{"ip":"203.0.113.77","ip":"203.0.113.78"}}`, `{"context":{"ip":"203.0.113.0","ip":"203.0.113.0"}}`},
		"no address":             {Options{IP: IPTruncate}, Request{}, `{"context":{"ip":"ada@example.com"}}`, `{"context":{"ip":null}}`},
		"dropped whoever set":    {Options{Client: true, IP: IPDrop}, Request{v4, ""}, `{"context":{"ip":"203.0.113.77"}}`, `{"context":{"ip":null}}`},
		"campaign": {Options{Agents: true}, Request{}, `{"context":{"page":{"url":"https://shop.example/?a=1&utm_source=news+letter&utm_medium=e%2Dmail&utm_campaign=%C5%BC&utm_source=x&utm_term=#utm_content=no"}}}`,
			`{"context":{"campaign":{"source":"news letter","medium":"e-mail","name":"ż"},"page":{"url":"https://shop.example/?a=1&utm_source=news+letter&utm_medium=e%2Dmail&utm_campaign=%C5%BC&utm_source=x&utm_term=#utm_content=no"}}}`},
		"campaign of a page call": {Options{Agents: true}, Request{}, `{"properties":{"url":"https://shop.example/?utm_campaign=a"},"context":{"campaign":{"name":"b"}}}`,
			`{"properties":{"url":"https://shop.example/?utm_campaign=a"},"context":{"campaign":{"name":"b"}}}`},
		"campaign, some absent": {Options{Agents: true}, Request{}, `{"properties":{"url":"?utm_campaign=a&utm_source=s&utm_id=7"},"context":{"campaign":{"name":"b"}}}`,
			`{"properties":{"url":"?utm_campaign=a&utm_source=s&utm_id=7"},"context":{"campaign":{"source":"s","id":"7","name":"b"}}}`},
		"broken escapes": {Options{Agents: true}, Request{}, `{"properties":{"url":"?utm_campaign=%zz"}}`, `{"properties":{"url":"?utm_campaign=%zz"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(c.body)
			out, bot, err := enricher(t, c.opt).Apply(new(Work), new(event.Reader), body, c.req)
			require.NoError(t, err)
			require.False(t, bot)
			require.Equal(t, c.want, string(out))
			require.Equal(t, c.body, string(body))
		})
	}
	_, err := New(Options{IP: "hash"})
	require.ErrorContains(t, err, "ip:")
}

func TestBots(t *testing.T) {
	for agent, want := range map[string]bool{
		googlebot: true, "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/116.0": true,
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/129.0.0.0 Safari/537.36": true,
		"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)":                                     true,
		"curl/8.5.0": true, "python-requests/2.31.0": true, "Go-http-client/2.0": true, "Pingdom.com_bot_version_1.4": true,
		"Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)":                        true,
		"Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)":       true,
		"Mozilla/5.0 (Linux; Android 11; moto g power (2022)) AppleWebKit/537.36 Chrome-Lighthouse": true,
		safariOnPhone: false, chromeOnPC: false, androidTablet: false, "": false, "   ": false,
		"Mozilla/5.0 (Linux; Android 12; CUBOT_X30) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Mobile Safari/537.36": false,
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:131.0) Gecko/20100101 Firefox/131.0":                                    false,
		"MyShop/7.2 (iPhone; iOS 17.5; Scale/3.00)":                                                                               false,
	} {
		body, err := json.Marshal(map[string]any{"context": map[string]string{"userAgent": agent}})
		require.NoError(t, err)
		_, bot, err := enricher(t, browser).Apply(new(Work), new(event.Reader), body, Request{})
		require.NoError(t, err)
		require.Equal(t, want, bot, agent)
		_, bot, err = enricher(t, browser).Apply(new(Work), new(event.Reader), []byte(`{}`), Request{UserAgent: agent})
		require.NoError(t, err)
		require.Equal(t, want, bot, "of the request: %s", agent)
		_, bot, err = enricher(t, Options{Client: true, Browser: true, Agents: true}).Apply(new(Work), new(event.Reader), body, Request{})
		require.NoError(t, err)
		require.False(t, bot, "not looked for")
	}
}

func TestClientIP(t *testing.T) {
	ps, err := ParseProxies([]string{"10.0.0.0/8", "192.0.2.1", "fd00::/8"})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		peer string
		xff  []string
		want string
	}{
		"no proxy":                    {"203.0.113.7", nil, "203.0.113.7"},
		"a peer that is not trusted":  {"203.0.113.7", []string{"198.51.100.1"}, "203.0.113.7"},
		"a proxy":                     {"10.1.2.3", []string{"198.51.100.1"}, "198.51.100.1"},
		"two proxies":                 {"10.1.2.3", []string{"198.51.100.1, 192.0.2.1"}, "198.51.100.1"},
		"two headers":                 {"10.1.2.3", []string{"198.51.100.1", "192.0.2.1"}, "198.51.100.1"},
		"what the client made up":     {"10.1.2.3", []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1"},
		"all trusted":                 {"10.1.2.3", []string{"10.0.0.9, 10.0.0.8"}, "10.0.0.9"},
		"with ports":                  {"10.1.2.3", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		"IPv6":                        {"fd00::1", []string{"[2001:db8::1]:80"}, "2001:db8::1"},
		"IPv6 in brackets":            {"fd00::1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		"IPv4 in IPv6":                {"::ffff:10.1.2.3", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"rubbish ends the chain":      {"10.1.2.3", []string{"198.51.100.1, unknown"}, "10.1.2.3"},
		"an empty header":             {"10.1.2.3", []string{""}, "10.1.2.3"},
		"a proxy behind one like us":  {"10.1.2.3", []string{"198.51.100.1, 203.0.113.9, 10.9.9.9"}, "203.0.113.9"},
		"a chain that is much longer": {"10.1.2.3", []string{strings.Repeat("10.0.0.1,", 40) + "10.0.0.1"}, "10.0.0.1"},
	} {
		require.Equal(t, c.want, ps.ClientIP(netip.MustParseAddr(c.peer), c.xff).String(), name)
	}
	for _, bad := range []string{"10.0.0.0/40", "proxy.example", ""} {
		_, err := ParseProxies([]string{"10.0.0.1", bad})
		require.ErrorContains(t, err, "[1]")
	}
}

func TestAgentsAreForgotten(t *testing.T) {
	var a agents
	for i := range 2 * maxAgents {
		a.read(chromeOnPC + strings.Repeat("x", i%100) + string(rune('a'+i%26)) + strings.Repeat("y", i/100))
	}
	require.LessOrEqual(t, len(a.known), maxAgents)
}

// Whatever comes in: what the sender said is still there, and the same again changes nothing.
func FuzzApply(f *testing.F) {
	f.Add([]byte(`{"type":"page","context":{"page":{"url":"https://a.example/?utm_source=x"},"device":{}}}`), chromeOnPC, "203.0.113.7")
	f.Add([]byte(`{"context":null,"properties":{"url":"?utm_id=%"}}`), googlebot, "2001:db8::1")
	f.Add([]byte(`{"context":{"userAgent":"a/1 (b; c) d[e]:f"}}`), "", "")
	f.Fuzz(func(t *testing.T, body []byte, agent, ip string) {
		if event.CheckJSON(body) != nil || bytes.TrimSpace(body)[0] != '{' {
			return
		}
		addr, _ := netip.ParseAddr(ip)
		e := enricher(t, browser)
		before := bytes.Clone(body)
		out, _, err := e.Apply(new(Work), new(event.Reader), body, Request{addr, agent})
		if err != nil || !bytes.Equal(before, body) {
			t.Fatalf("%q: %v", before, err)
		}
		if event.CheckJSON(out) != nil {
			t.Fatalf("%q became %q", body, out)
		}
		again, _, err := e.Apply(new(Work), new(event.Reader), out, Request{addr, agent})
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("twice: %q, then %q (%v)", out, again, err)
		}
		was, err1 := event.Decode(body, event.Meta{})
		now, err2 := event.Decode(out, event.Meta{})
		if event.Reason(err1, "") != event.Reason(err2, "") && event.Reason(err2, "") != event.TooDeep {
			t.Fatalf("%q became %q: %v, %v", body, out, err1, err2)
		}
		if err1 == nil && err2 == nil && (was.UserID != now.UserID || !bytes.Equal(was.RawProperties(), now.RawProperties()) || was.Name != now.Name) {
			t.Fatalf("%q became %q", body, out)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	body := []byte(`{"type":"track","messageId":"ajs-next-1795175569-6f1c6e1e","event":"Product Viewed","anonymousId":"6f1c6e1e-0000-5000-8000-000000000001",` +
		`"properties":{"product_id":"p1","price":19.90,"currency":"EUR"},"context":{"page":{"path":"/p1","referrer":"","title":"P1","url":"https://shop.example/p1"},` +
		`"userAgent":"` + chromeOnPC + `","locale":"de-DE","library":{"name":"analytics.js","version":"npm:next-1.70.0"},"timezone":"Europe/Berlin"},"timestamp":"2026-11-20T11:00:00.000Z"}`)
	e := enricher(b, browser)
	r := Request{netip.MustParseAddr("203.0.113.7"), chromeOnPC}
	var in event.Reader
	var w Work
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, _, err := e.Apply(&w, &in, body, r); err != nil {
			b.Fatal(err)
		}
	}
}
