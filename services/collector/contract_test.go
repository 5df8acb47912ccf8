package collector

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// verdict is a cell of the table "Answers by mode": "400 `too_large`", "200 names 0 1".
type verdict struct {
	status int
	code   string
	names  []int
}

// rule is a row of that table.
type rule struct {
	name               string
	compatible, strict verdict
	kept               []string
}

var (
	verdictPattern = regexp.MustCompile("^([0-9]{3})(?: `([a-z_]+)`)?(?: names((?: [0-9]+)+))?$")
	spanPattern    = regexp.MustCompile("`([a-z_]+)`")
)

func parseVerdict(t *testing.T, cell string) verdict {
	m := verdictPattern.FindStringSubmatch(cell)
	require.NotNil(t, m, "docs/http.md: %q is no answer", cell)
	status, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	v := verdict{status: status, code: m[2]}
	for _, n := range strings.Fields(m[3]) {
		i, err := strconv.Atoi(n)
		require.NoError(t, err)
		v.names = append(v.names, i)
	}
	return v
}

// rules reads the table of docs/http.md.
func rules(t *testing.T) []rule {
	text, err := os.ReadFile("../../docs/http.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "### Answers by mode\n")
	require.True(t, found)
	var list []rule
	for line := range strings.SplitSeq(table, "\n") {
		switch {
		case strings.HasPrefix(line, "#"), line == "" && len(list) > 0:
			return list
		case !strings.HasPrefix(line, "| "), strings.HasPrefix(line, "| case |"):
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		require.Len(t, cells, 4, line)
		r := rule{name: strings.TrimSpace(cells[0]), compatible: parseVerdict(t, strings.TrimSpace(cells[1])), strict: parseVerdict(t, strings.TrimSpace(cells[2]))}
		for _, m := range spanPattern.FindAllStringSubmatch(cells[3], -1) {
			r.kept = append(r.kept, m[1])
		}
		list = append(list, r)
	}
	return list
}

// sent is one request of a case.
type sent struct {
	method, path, key, body string
	headers                 []string
	broken                  bool // the body ends early
}

const validPage = `{"type":"page","userId":"u","messageId":"m"}`

func postOf(path, body string) sent { return sent{method: "POST", path: path, key: "wk", body: body} }

func pixelOfData(body string) sent {
	return sent{method: "GET", path: "/v1/pixel/page?data=" + base64.URLEncoding.EncodeToString([]byte(body))}
}

// cases plays the rows of the table, by their names. The source of key wk has a limit of 4000 bytes a request, 1500
// an event and 5 events a batch; before is done before the request.
func cases(t *testing.T) map[string]struct {
	sent
	before func(f *fixture, send func(sent) (int, http.Header, []byte))
} {
	type before = func(f *fixture, send func(sent) (int, http.Header, []byte))
	type c = struct {
		sent
		before before
	}
	long := strings.Repeat("x", 1600)
	batch := func(items ...string) sent { return postOf("/v1/batch", `{"batch":[`+strings.Join(items, ",")+`]}`) }
	of := func(s sent) c { return c{sent: s} }
	return map[string]c{
		"all events are valid":                           of(batch(validPage, validPage)),
		"one event of a batch is invalid":                of(batch(validPage, `{"type":"page"}`)),
		"no event of a batch is valid":                   of(batch(`{"type":"page"}`, `{"type":"track","userId":"u"}`)),
		"a single call is invalid":                       of(postOf("/v1/page", `{}`)),
		"a field has a JSON type that can not be read":   of(postOf("/v1/page", `{"userId":["u"]}`)),
		"an event is nested too deep":                    of(postOf("/v1/page", `{"userId":"u","x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`}`)),
		"an event has too many members":                  of(sent{method: "POST", path: "/v1/page", key: "large", body: `{"userId":"u","properties":{` + strings.TrimSuffix(strings.Repeat(`"a":1,`, 10_001), ",") + `}}`}),
		"an event of a batch is too large":               of(batch(validPage, `{"type":"page","userId":"`+long+`"}`)),
		"a single event is too large":                    of(postOf("/v1/page", `{"userId":"`+long+`"}`)),
		"the request is too large":                       of(sent{method: "POST", path: "/v1/page", key: "large", body: `{"userId":"` + strings.Repeat("x", 200_000) + `"}`}),
		"the request is too large once decompressed":     of(postOf("/v1/page", zipped(t, strings.Repeat(" ", 5000)))),
		"the request is larger than its source may send": of(sent{method: "POST", path: "/v1/page", body: `{"writeKey":"wk","userId":"` + strings.Repeat("x", 4100) + `"}`}),
		"the gzip data are damaged":                      of(postOf("/v1/page", "\x1f\x8b\x08rest")),
		"the body is no JSON":                            of(postOf("/v1/page", `{"userId":`)),
		"the body is no JSON and the key would be in it": of(sent{method: "POST", path: "/v1/page", body: `{"writeKey":"wk",`}),
		"the body is no JSON object":                     of(postOf("/v1/page", `["u"]`)),
		"the batch is empty":                             of(batch()),
		"the batch has too many events":                  of(batch("1", "2", "3", "4", "5", "6")),
		"there is no write key":                          of(sent{method: "POST", path: "/v1/page", body: validPage}),
		"no source has the write key":                    of(sent{method: "POST", path: "/v1/page", key: "nope", body: validPage}),
		"the source is disabled":                         of(sent{method: "POST", path: "/v1/page", key: "off", body: validPage}),
		"the page's origin is not among the source's":    of(sent{method: "POST", path: "/v1/page", key: "wk", body: validPage, headers: []string{"Origin", "https://other.example"}}),
		"the body ends early":                            of(sent{method: "POST", path: "/v1/page", key: "wk", body: `{"userId":`, broken: true}),
		"there is nothing at the path":                   of(postOf("/v1/nothing", validPage)),
		"the path takes another method":                  of(sent{method: "GET", path: "/v1/page", key: "wk"}),
		"a pixel's event is valid":                       of(pixelOfData(`{"writeKey":"wk","userId":"u"}`)),
		"a pixel's event is invalid":                     of(pixelOfData(`{"writeKey":"wk"}`)),
		"a pixel's data can not be read":                 of(sent{method: "GET", path: "/v1/pixel/page?writeKey=wk&data=%25%25"}),
		"no source has a pixel's key":                    of(pixelOfData(`{"writeKey":"nope","userId":"u"}`)),
		"the source sends faster than it may": {sent{method: "POST", path: "/v1/page", key: "slow", body: validPage}, func(_ *fixture, send func(sent) (int, http.Header, []byte)) {
			send(sent{method: "POST", path: "/v1/page", key: "slow", body: validPage})
			send(sent{method: "POST", path: "/v1/page", key: "slow", body: validPage})
		}},
		"Kafka does not confirm in time": {postOf("/v1/page", validPage), func(f *fixture, _ func(sent) (int, http.Header, []byte)) {
			f.collected.fail = func([]stream.Record) error { return errors.New("no broker") }
		}},
		"too many bytes are in memory": {postOf("/v1/page", validPage), func(f *fixture, _ func(sent) (int, http.Header, []byte)) {
			f.budget.used.Store(f.budget.max)
		}},
	}
}

// Every row of the table in docs/http.md, over a real connection, in both modes.
func TestAnswersByMode(t *testing.T) {
	all := cases(t)
	table := rules(t)
	require.Len(t, table, len(all), "the table and the cases of this test are the same")
	for _, r := range table {
		play, known := all[r.name]
		require.True(t, known, "docs/http.md: no case for %q", r.name)
		for mode, want := range map[string]verdict{config.ModeCompatible: r.compatible, config.ModeStrict: r.strict} {
			t.Run(r.name+"/"+mode, func(t *testing.T) {
				f := newFixture(t, func(c *config.Collector) {
					c.MaxRequestBytes, c.MaxBatchEvents = 100_000, 5
					c.Sources = []config.Source{
						{Name: "web", WriteKey: "wk", Mode: mode, MaxRequestBytes: 4000, MaxEventBytes: 1500, Origins: []string{"https://shop.example"}},
						{Name: "large", WriteKey: "large", Mode: mode},
						{Name: "off", WriteKey: "off", Mode: mode, Disabled: true},
						{Name: "slow", WriteKey: "slow", Mode: mode, Rate: config.SourceRate{EventsPerSecond: 2}},
					}
				})
				server := httptest.NewServer(f.door)
				defer server.Close()
				send := func(s sent) (int, http.Header, []byte) { return exchange(t, server.URL, s) }
				if play.before != nil {
					play.before(f, send)
				}
				f.collected.take()
				status, h, body := send(play.sent)
				require.Equal(t, want.status, status, string(body))
				checkAnswer(t, want, play.sent, h, body)
				var kept []string
				for _, rec := range f.rejected.take() {
					kept = append(kept, header(t, rec, topic.HeaderReason))
				}
				require.Equal(t, r.kept, kept)
			})
		}
	}
}

func checkAnswer(t *testing.T, want verdict, s sent, h http.Header, body []byte) {
	t.Helper()
	origin := "*"
	if len(s.headers) > 0 {
		origin = s.headers[1]
	}
	require.Equal(t, origin, h.Get("Access-Control-Allow-Origin"), "on every answer")
	if strings.HasPrefix(s.path, "/v1/pixel/") {
		require.Equal(t, "image/gif", h.Get("Content-Type"))
		require.Equal(t, pixelImage, string(body))
		if want.code != "" {
			require.Equal(t, want.code, h.Get(headerPixelError))
		}
		return
	}
	var got struct {
		Success       bool
		Code, Message string
		Rejected      []rejectedItem
	}
	require.NoError(t, json.Unmarshal(body, &got), string(body))
	require.Equal(t, want.code, got.Code)
	require.Equal(t, want.code == "", got.Success)
	require.Equal(t, want.code != "", got.Message != "", "SDKs want both")
	var names []int
	for _, x := range got.Rejected {
		names = append(names, x.Index)
		require.NotEmpty(t, x.Code)
		require.NotEmpty(t, x.Message)
		require.NotEmpty(t, x.MessageID)
	}
	require.Equal(t, want.names, names)
	if want.status == 429 || want.status == 503 {
		require.Regexp(t, `^[1-9]$`, h.Get("Retry-After"))
	}
	if want.status == 429 {
		require.Equal(t, h.Get("Retry-After"), h.Get("X-RateLimit-Reset"))
		require.Equal(t, "2", h.Get("X-RateLimit-Limit"))
	}
}

// exchange sends one request over a connection of its own. A broken one announces more than it sends.
func exchange(t *testing.T, server string, s sent) (int, http.Header, []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	req, err := http.NewRequestWithContext(t.Context(), s.method, server+s.path, strings.NewReader(s.body))
	require.NoError(t, err)
	if s.key != "" {
		req.Header.Set("Authorization", basic(s.key))
	}
	for h := s.headers; len(h) >= 2; h = h[2:] {
		req.Header.Set(h[0], h[1])
	}
	var text bytes.Buffer
	require.NoError(t, req.Write(&text))
	if s.broken {
		text.Truncate(text.Len() - 1)
	}
	_, err = conn.Write(text.Bytes())
	require.NoError(t, err)
	if s.broken {
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, body
}
