package collector

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		serveRole(role)
		return
	}
	goleak.VerifyTestMain(m)
}

var now = time.Date(2026, 11, 22, 7, 0, 0, 123456789, time.UTC)

// memory is a Kafka that keeps what it is sent.
type memory struct {
	mu   sync.Mutex
	recs []stream.Record
	fail func(recs []stream.Record) error
}

func (m *memory) SendAll(ctx context.Context, recs []stream.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(recs); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.recs = append(m.recs, recs...)
	return nil
}

func (m *memory) take() []stream.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	recs := m.recs
	m.recs = nil
	return recs
}

type fixture struct {
	*door
	collected, rejected *memory
	registry            *prometheus.Registry
}

func settings(t testing.TB) config.Config {
	cfg := config.Defaults()
	cfg.Collector.UnsubscribeSecret = filepath.Join(t.TempDir(), "unsubscribe.key")
	cfg.Collector.Listen = "127.0.0.1:0"
	cfg.Collector.ProduceTimeout, cfg.Collector.DrainDelay = patience, 0
	cfg.Collector.Sources = []config.Source{ // of servers, so that bodies can be compared with what was sent
		{Name: "web", Kind: config.KindServer, WriteKey: "wk_demo", Brand: "shop"},
		{Name: "server", WriteKey: "wk_server", Trusted: true},
		{Name: "old", Kind: config.KindServer, WriteKey: "wk_old", Historical: true},
	}
	return cfg
}

func newFixture(t testing.TB, change ...func(*config.Collector)) *fixture {
	return newFixtureErasing(t, nil, change...)
}

// newFixtureErasing is newFixture with people who were erased.
func newFixtureErasing(t testing.TB, erased *suppression.Erased, change ...func(*config.Collector)) *fixture {
	cfg := settings(t).Collector
	for _, f := range change {
		f(&cfg)
	}
	f := &fixture{collected: &memory{}, rejected: &memory{}, registry: prometheus.NewRegistry()}
	m, err := newMetrics(f.registry)
	require.NoError(t, err)
	in, err := newIntake(cfg, func() time.Time { return now }, m)
	require.NoError(t, err)
	in.erased = erased
	f.door, err = newDoor(cfg, in, f.collected, f.rejected, m, zap.NewNop())
	require.NoError(t, err)
	return f
}

func basic(key string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(key+":"))
}

func (f *fixture) do(method, path, auth, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	for len(headers) >= 2 {
		r.Header.Set(headers[0], headers[1])
		headers = headers[2:]
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func header(t testing.TB, r stream.Record, key string) string {
	t.Helper()
	v, _ := topic.Get(r.Headers, key)
	return v
}

// one returns the only record and fails if there are more or less.
func one(t testing.TB, recs []stream.Record) stream.Record {
	t.Helper()
	require.Len(t, recs, 1)
	return recs[0]
}

func code(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var x struct{ Code, Message string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &x), w.Body.String())
	require.NotEmpty(t, x.Message)
	return x.Code
}

func TestEveryEndpointAndSpelling(t *testing.T) {
	f := newFixture(t)
	bodies := map[event.Type]string{
		event.Track: `{"event":"E","userId":"u"}`, event.Identify: `{"userId":"u","traits":{"email":"e@x"}}`, event.Page: `{"userId":"u"}`,
		event.Screen: `{"userId":"u"}`, event.Group: `{"userId":"u","groupId":"g"}`, event.Alias: `{"userId":"u","previousId":"p"}`,
	}
	for name, ep := range endpoints {
		body := `{"batch":[{"type":"page","userId":"u"}]}`
		if ep.typ != "" {
			body = bodies[ep.typ]
		}
		for _, path := range []string{"/v1/" + name, "/v1/" + name + "/", "//v1//" + name + "//"} {
			w := f.do("POST", "http://h"+path, basic("wk_demo"), body)
			require.Equal(t, 200, w.Code, "%s: %s", path, w.Body)
			require.JSONEq(t, `{"success":true}`, w.Body.String())
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			rec := one(t, f.collected.take())
			m, err := topic.ParseMeta(rec.Headers)
			require.NoError(t, err)
			e, err := event.Decode(rec.Value, event.Meta{})
			require.NoError(t, err)
			if ep.typ != "" {
				require.Equal(t, ep.typ, e.Type)
			}
			require.Equal(t, "u", string(rec.Key))
			require.Equal(t, e.MessageID, m.MessageID)
			require.Len(t, m.MessageID, 36)
			require.Equal(t, byte('7'), m.MessageID[14], "a UUIDv7")
			require.Equal(t, event.Meta{Source: "web", Brand: "shop", MessageID: m.MessageID, ReceivedAt: now.Truncate(time.Millisecond)}, m)
		}
		w := f.do("GET", "/v1/"+name, basic("wk_demo"), "")
		require.Equal(t, 405, w.Code)
		require.Equal(t, codeMethod, code(t, w))
	}
	require.Empty(t, f.rejected.take())
	for _, path := range []string{"/", "/v1", "/v1/x", "/v2/track", "/v1/track/x", "/v1/projects//x"} {
		w := f.do("POST", path, basic("wk_demo"), "{}")
		require.Equal(t, 404, w.Code, path)
		require.Equal(t, codeNotFound, code(t, w))
	}
	require.Equal(t, 200, f.do("GET", "/health", "", "").Code)
	require.Equal(t, 200, f.do("POST", "/v1/m", "", `{"series":[]}`).Code)
	require.Equal(t, 200, f.do("POST", "/v1/m/", "", `{"series":[]}`).Code)
}

func TestWriteKeys(t *testing.T) {
	f := newFixture(t)
	body := `{"userId":"u"}`
	with := func(key string) string { return `{"userId":"u","writeKey":"` + key + `"}` }
	for name, c := range map[string]struct {
		auth, body string
		status     int
		source     string
	}{
		"basic":                      {basic("wk_demo"), body, 200, "web"},
		"basic without colon":        {"Basic " + base64.StdEncoding.EncodeToString([]byte("wk_server")), body, 200, "server"},
		"basic without padding":      {"basic " + strings.TrimRight(basic("wk_server")[6:], "="), body, 200, "server"},
		"basic with password":        {"Basic " + base64.StdEncoding.EncodeToString([]byte("wk_demo:secret")), body, 200, "web"},
		"bearer":                     {"Bearer wk_old", body, 200, "old"},
		"body":                       {"", with("wk_demo"), 200, "web"},
		"both":                       {basic("wk_demo"), with("wk_demo"), 200, "web"},
		"oauth token and body":       {"Bearer eyJhbGciOi", with("wk_server"), 200, "server"},
		"empty user and body":        {"Basic Og==", with("wk_server"), 200, "server"},
		"none":                       {"", body, 401, ""},
		"unknown basic":              {basic("nope"), body, 401, ""},
		"unknown basic, known body":  {basic("nope"), with("wk_demo"), 401, ""},
		"unknown body":               {"", with("nope"), 401, ""},
		"empty body key":             {"", with(""), 401, ""},
		"unknown bearer":             {"Bearer nope", body, 401, ""},
		"part of a key":              {basic("wk_dem"), body, 401, ""},
		"unknown and no JSON at all": {basic("nope"), "{", 401, ""},
		"no key and no JSON":         {"", "{", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := f.do("POST", "/v1/page", c.auth, c.body)
			require.Equal(t, c.status, w.Code, w.Body)
			require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
			if c.status == 200 {
				require.Equal(t, c.source, header(t, one(t, f.collected.take()), topic.HeaderSource))
				return
			}
			require.NotEmpty(t, code(t, w))
			require.Empty(t, f.collected.take())
			require.Empty(t, f.rejected.take())
		})
	}
}

func TestStamps(t *testing.T) {
	f := newFixture(t)
	meta := func(key, body string) event.Meta {
		t.Helper()
		require.Equal(t, 200, f.do("POST", "/v1/batch", basic(key), body).Code)
		m, err := topic.ParseMeta(one(t, f.collected.take()).Headers)
		require.NoError(t, err)
		return m
	}
	m := meta("wk_server", `{"sentAt":"2026-11-22T06:59:59.5+00:00","batch":[{"type":"page","userId":"u","messageId":"m1","timestamp":"2026-11-22T06:00:00Z"}]}`)
	require.Equal(t, event.Meta{Source: "server", Brand: "main", MessageID: "m1", Trusted: true,
		ReceivedAt: now.Truncate(time.Millisecond), SentAt: time.Date(2026, 11, 22, 6, 59, 59, 5e8, time.UTC)}, m)
	require.True(t, meta("wk_old", `{"batch":[{"type":"page","userId":"u"}]}`).Historical)
	require.True(t, meta("wk_demo", `{"batch":[{"type":"page","userId":"u","timestamp":"2026-11-19T06:59:00Z"}]}`).Historical)
	require.False(t, meta("wk_demo", `{"batch":[{"type":"page","userId":"u","timestamp":"2026-11-19T07:01:00Z"}]}`).Historical)
	require.True(t, meta("wk_demo", `{"batch":[{"type":"page","userId":"u","context":{"historical":true}}]}`).Historical)
	require.False(t, meta("wk_demo", `{"batch":[{"type":"page","userId":"u","context":{"historical":"true"}}]}`).Historical)
}

func TestBatchContextIsMergedAndNothingElse(t *testing.T) {
	f := newFixture(t)
	w := f.do("POST", "/v1/batch", "", `{"writeKey":"wk_demo","messageId":"of the batch","timestamp":"1999-01-01","sequence":4,"integrations":{"All":true},
		"context":{"library":{"name":"x","version":"1.10"},"locale":"pl"},
		"batch":[{"type":"page","userId":"u","messageId":"1"},{"type":"track","event":"E","anonymousId":"a","messageId":"2","context":{"locale":"de","n":900719925474099312345}}]}`)
	require.Equal(t, 200, w.Code, w.Body)
	recs := f.collected.take()
	require.Len(t, recs, 2)
	require.Equal(t, `{"integrations":{"All":true},"context":{"library":{"name":"x","version":"1.10"},"locale":"pl"},"type":"page","userId":"u","messageId":"1"}`, string(recs[0].Value))
	require.Equal(t, `{"integrations":{"All":true},"type":"track","event":"E","anonymousId":"a","messageId":"2","context":{"locale":"de","n":900719925474099312345,"library":{"name":"x","version":"1.10"}}}`, string(recs[1].Value))
}

func TestInvalidEventsAreKeptWithTheReason(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.MaxEventBytes = 2000 })
	big := `{"type":"page","userId":"u","x":"` + strings.Repeat("x", 2000) + `"}`
	w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[
		{"type":"page","userId":"ok"}, {"type":"page","messageId":"m7"}, {"type":"track","userId":"u"}, {"type":"nope","userId":"u"},
		17, {"type":"page","userId":{}}, `+big+`, {"type":"alias","userId":"u"}]}`)
	require.Equal(t, 200, w.Code, w.Body)
	require.Len(t, f.collected.take(), 1)
	recs := f.rejected.take()
	want := []struct{ reason, text, body string }{
		{event.NoUserAnonID, "batch[1]: no_user_anon_id: userId", `{"type":"page","messageId":"m7"}`},
		{event.MissingEvent, "batch[2]: missing_event: event", `{"type":"track","userId":"u"}`},
		{event.UnknownType, "batch[3]: unknown_type: type", `{"type":"nope","userId":"u"}`},
		{event.InvalidType, "batch[4]: invalid_type", `17`},
		{event.InvalidType, "batch[5]: invalid_type: userId", `{"type":"page","userId":{}}`},
		{event.TooLarge, "batch[6]: too_large: the event has 2035 bytes, at most 2000", big[:2000]},
		{event.MissingPreviousID, "batch[7]: missing_previous_id", `{"type":"alias","userId":"u"}`},
	}
	require.Len(t, recs, len(want))
	for i, x := range want {
		require.Equal(t, x.reason, header(t, recs[i], topic.HeaderReason))
		require.Contains(t, header(t, recs[i], topic.HeaderError), x.text)
		require.Equal(t, x.body, string(recs[i].Value))
		require.Equal(t, "/v1/batch", header(t, recs[i], topic.HeaderOrigin))
		require.Equal(t, "collector", header(t, recs[i], topic.HeaderService))
		require.Equal(t, "web", header(t, recs[i], topic.HeaderSource))
		require.NotEmpty(t, header(t, recs[i], topic.HeaderMessageID))
	}
	require.Equal(t, "m7", header(t, recs[0], topic.HeaderMessageID))

	w = f.do("POST", "/v1/track", basic("wk_demo"), `{"event":"E"}`)
	require.Equal(t, 200, w.Code)
	require.Equal(t, event.NoUserAnonID, header(t, one(t, f.rejected.take()), topic.HeaderReason))
	require.Empty(t, f.collected.take())
}

func TestRequestsThatCannotBeRead(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.MaxRequestBytes = 100_000; c.MaxBatchEvents = 3 })
	for name, c := range map[string]struct {
		body, code string
		kept       int // bytes on events.rejected; -1: nothing
	}{
		"broken JSON":      {`{"batch":[{"type":"page","userId":"u"},]}`, event.InvalidJSON, 41},
		"no JSON":          {"hello", event.InvalidJSON, 5},
		"empty":            {"", event.InvalidJSON, 0},
		"not an object":    {"[]", event.InvalidType, 2},
		"too large":        {`{"x":"` + strings.Repeat("y", 100_000) + `"}`, event.TooLarge, maxKeptBytes},
		"too many":         {`{"batch":[{},{},{},{}]}`, event.TooManyEvents, 23},
		"empty batch":      {`{"batch":[]}`, codeEmptyBatch, -1},
		"damaged gzip":     {"\x1f\x8b\x08rest", reasonInvalidGzip, 0},
		"faulty context":   {`{"batch":[{}],"context":"x"}`, event.InvalidType, 28},
		"a deep hole":      {`{"x":` + strings.Repeat("[", 50_000), event.InvalidJSON, 50_005},
		"context explodes": {`{"context":{"x":"` + strings.Repeat("y", 60_000) + `"},"batch":[{"userId":"u","event":"E"},{"userId":"u","event":"E"},{"userId":"u","event":"E"}]}`, "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			w := f.do("POST", "/v1/batch", basic("wk_demo"), c.body)
			if c.code == "" {
				require.Equal(t, 200, w.Code)
				require.Len(t, f.collected.take(), 3)
				return
			}
			require.Equal(t, 400, w.Code, w.Body)
			require.Equal(t, c.code, code(t, w))
			require.Less(t, w.Body.Len(), 500)
			require.Empty(t, f.collected.take())
			if c.kept < 0 {
				require.Empty(t, f.rejected.take())
				return
			}
			rec := one(t, f.rejected.take())
			require.Len(t, rec.Value, c.kept)
			require.Equal(t, c.code, header(t, rec, topic.HeaderReason))
			require.Equal(t, "web", header(t, rec, topic.HeaderSource))
		})
	}
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.String()
}

func TestGzipIsToldByTheBytes(t *testing.T) {
	f := newFixture(t)
	plain := `{"userId":"u","name":"` + strings.Repeat("a long name ", 2000) + `"}`
	for _, kind := range []string{"application/json", "text/plain", "application/x-www-form-urlencoded", "", "image/png"} {
		for _, encoding := range []string{"", "gzip", "identity", "br"} {
			for _, body := range []string{plain, zipped(t, plain), "\uFEFF" + plain} {
				w := f.do("POST", "/v1/page", basic("wk_demo"), body, "Content-Type", kind, "Content-Encoding", encoding)
				require.Equal(t, 200, w.Code, w.Body)
				e, err := event.Decode(one(t, f.collected.take()).Value, event.Meta{})
				require.NoError(t, err)
				require.Len(t, e.Name, 24000)
			}
		}
	}
}

// bomb is gzip of size spaces, as members of one file (each of memberSize), or as a single one.
func bomb(t testing.TB, memberSize, size int) string {
	t.Helper()
	return strings.Repeat(zipped(t, strings.Repeat(" ", memberSize)), size/memberSize)
}

func TestGzipBombCostsBoundedMemory(t *testing.T) {
	f := newFixture(t) // 4 MiB a request
	for name, body := range map[string]string{"a gigabyte": bomb(t, 1<<20, 1<<30), "one member": bomb(t, 16<<20, 16<<20)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := f.do("POST", "/v1/batch", basic("wk_demo"), body)
		runtime.ReadMemStats(&after)
		require.Equal(t, 400, w.Code, name)
		require.Equal(t, event.TooLarge, code(t, w))
		require.Len(t, one(t, f.rejected.take()).Value, maxKeptBytes)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(20<<20), "buffers double up to the limit: "+name)
		require.Zero(t, f.budget.used.Load())
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.MaxInFlightBytes = 50_000; c.MaxRequestBytes = 40_000 })
	body := `{"userId":"u","name":"` + strings.Repeat("x", 30_000) + `"}`
	require.Equal(t, 200, f.do("POST", "/v1/page", basic("wk_demo"), body).Code)
	hold := &lease{b: f.budget}
	require.True(t, hold.grow(30_000))
	for _, b := range []string{body, zipped(t, body)} {
		w := f.do("POST", "/v1/page", basic("wk_demo"), b, "Origin", "https://shop.example")
		require.Equal(t, 503, w.Code)
		require.Equal(t, codeOverloaded, code(t, w))
		require.NotEmpty(t, w.Header().Get("Retry-After"))
		require.Equal(t, "https://shop.example", w.Header().Get("Access-Control-Allow-Origin"))
	}
	require.Equal(t, 503, f.do("POST", "/v1/page", "", body).Code, "a key that may stand in the body")
	require.InDelta(t, 2, f.counter(t, "weft_collector_refused_requests_total", "web", codeOverloaded), 0)
	require.InDelta(t, 1, f.counter(t, "weft_collector_refused_requests_total", "", codeOverloaded), 0)
	hold.release()
	require.Equal(t, 200, f.do("POST", "/v1/page", basic("wk_demo"), zipped(t, body)).Code)
	require.Zero(t, f.budget.used.Load())
}

func TestAnAnnouncedLengthReservesLittle(t *testing.T) {
	f := newFixture(t)
	var held int64
	read := readFunc(func([]byte) (int, error) {
		held = f.budget.used.Load()
		return 0, io.ErrUnexpectedEOF
	})
	body := io.MultiReader(strings.NewReader(`{"x":1`), read)
	_, err := f.reader.read(body, 4<<20, f.cfg.MaxRequestBytes, &lease{b: f.budget})
	require.ErrorIs(t, err, errIncomplete)
	require.LessOrEqual(t, held, int64(maxFirstBuffer))
	for _, n := range []int{0, 1, 2, 4095, 4096, 65535, 65536, 65537, 200_000, f.cfg.MaxRequestBytes - 1, f.cfg.MaxRequestBytes} {
		for _, length := range []int64{int64(n), -1} {
			room := &lease{b: &budget{max: 1 << 30}}
			got, err := f.reader.read(strings.NewReader(strings.Repeat(" ", n)), length, f.cfg.MaxRequestBytes, room)
			require.NoError(t, err)
			require.Len(t, got, n)
			require.Equal(t, int64(cap(got)), room.held)
		}
	}
	_, err = f.reader.read(strings.NewReader(strings.Repeat(" ", f.cfg.MaxRequestBytes+1)), -1, f.cfg.MaxRequestBytes, &lease{b: &budget{max: 1 << 30}})
	require.ErrorIs(t, err, errBodyTooLarge)
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestKafkaAwayIs503(t *testing.T) {
	f := newFixture(t)
	away := func([]stream.Record) error { return errors.New("no broker") }
	valid, invalid := `{"userId":"u"}`, `{}`
	both := `{"batch":[{"type":"page","userId":"u"},{"type":"page"}]}`
	for _, c := range []struct {
		collected, rejected bool
		body                string
		status              int
	}{
		{true, false, valid, 503}, {false, true, invalid, 503}, {true, false, both, 503}, {false, true, both, 503},
		{false, true, valid, 200}, {true, false, invalid, 200}, {false, true, "{", 503}, {true, false, "{", 400},
	} {
		f.collected.fail, f.rejected.fail = nil, nil
		if c.collected {
			f.collected.fail = away
		}
		if c.rejected {
			f.rejected.fail = away
		}
		path := "/v1/page"
		if c.body == both {
			path = "/v1/batch"
		}
		w := f.do("POST", path, basic("wk_demo"), c.body)
		require.Equal(t, c.status, w.Code, "%+v: %s", c, w.Body)
		if c.status == 503 {
			require.Equal(t, codeUnavailable, code(t, w))
			require.NotEmpty(t, w.Header().Get("Retry-After"))
			require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
		}
	}
}

func TestWhatKafkaRefusesForGoodIsRejected(t *testing.T) {
	f := newFixture(t)
	f.collected.fail = func(recs []stream.Record) error {
		for i, r := range recs {
			if len(r.Value) > 200_000 {
				return &stream.RecordError{Index: i, Bytes: len(r.Value), Err: errors.New("message too large")}
			}
		}
		return nil
	}
	w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[{"type":"page","userId":"1"},{"type":"page","userId":"2","x":"`+strings.Repeat("x", 300_000)+`"},{"type":"page","userId":"3"}]}`)
	require.Equal(t, 200, w.Code, w.Body)
	require.Len(t, f.collected.take(), 2)
	rec := one(t, f.rejected.take())
	require.Equal(t, reasonRefused, header(t, rec, topic.HeaderReason))
	require.Len(t, rec.Value, maxKeptBytes)
	require.Equal(t, "2", string(rec.Key))
}

func TestASenderThatHungUpHasItsEventsStored(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "POST", "/v1/page", strings.NewReader(`{"userId":"u","writeKey":"wk_demo"}`))
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
	require.Len(t, f.collected.take(), 1)
}

func TestAnIncompleteRequestIsToBeSentAgain(t *testing.T) {
	f := newFixture(t)
	for _, body := range []string{`{"userId":`, zipped(t, `{"userId":"u"}`)[:20]} {
		r := httptest.NewRequest(http.MethodPost, "/v1/page", io.MultiReader(strings.NewReader(body), broken{}))
		r.Header.Set("Authorization", basic("wk_demo"))
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		require.Equal(t, 408, w.Code, w.Body)
		require.Equal(t, codeIncomplete, code(t, w))
	}
	require.Empty(t, f.rejected.take())
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestPreflight(t *testing.T) {
	f := newFixture(t)
	w := f.do("OPTIONS", "/v1/t", "", "", "Origin", "https://shop.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization,x-retry-count,x-of-tomorrow")
	require.Equal(t, 204, w.Code)
	h := w.Header()
	require.Equal(t, "https://shop.example", h.Get("Access-Control-Allow-Origin"))
	for _, name := range []string{"Authorization", "Content-Type", "X-Retry-Count", "x-of-tomorrow"} {
		require.Contains(t, h.Get("Access-Control-Allow-Headers"), name)
	}
	require.Contains(t, h.Get("Access-Control-Allow-Methods"), "POST")
	require.Equal(t, "86400", h.Get("Access-Control-Max-Age"))
	require.Contains(t, h.Values("Vary"), "Origin")
	w = f.do("OPTIONS", "/v1/t", "", "", "Origin", "https://shop.example", "Access-Control-Request-Headers", "a\r\nSet-Cookie: x")
	require.NotContains(t, w.Header().Get("Access-Control-Allow-Headers"), "Cookie")

	for _, c := range []struct {
		method, path, auth, body string
		status                   int
	}{
		{"POST", "/v1/t", basic("wk_demo"), `{"event":"E","userId":"u"}`, 200}, {"POST", "/v1/t", basic("nope"), `{}`, 401},
		{"POST", "/v1/t", basic("wk_demo"), `{`, 400}, {"GET", "/v1/t", "", "", 405}, {"GET", "/nothing", "", "", 404},
	} {
		w := f.do(c.method, c.path, c.auth, c.body, "Origin", "null")
		require.Equal(t, c.status, w.Code)
		require.Equal(t, "null", w.Header().Get("Access-Control-Allow-Origin"))
		require.Contains(t, w.Header().Get("Access-Control-Expose-Headers"), "Retry-After")
	}
}

func TestSettings(t *testing.T) {
	f := newFixture(t)
	w := f.do("GET", "http://collect.shop.example:8080/v1/projects/wk_demo/settings", "", "")
	require.Equal(t, 200, w.Code)
	var s struct {
		Integrations map[string]struct{ APIKey, APIHost, Protocol string }
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &s))
	require.Equal(t, struct{ APIKey, APIHost, Protocol string }{"wk_demo", "collect.shop.example:8080/v1", "http"}, s.Integrations["Segment.io"])
	require.Equal(t, 401, f.do("GET", "/v1/projects/nope/settings", "", "").Code)
	require.Equal(t, 405, f.do("POST", "/v1/projects/wk_demo/settings", "", "").Code)
}

func TestReservedNamesAndMissingKeys(t *testing.T) {
	_, err := newKeys(&intake{cfg: config.Collector{Sources: []config.Source{{Name: "a"}, {Name: UnsubscribeSource, WriteKey: "k"}}}})
	require.ErrorContains(t, err, "collector.sources[0].write_key")
	require.ErrorContains(t, err, "collector.sources[1].name")
}

func TestMetrics(t *testing.T) {
	f := newFixture(t)
	f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[{"type":"page","userId":"u"},{"type":"page"}]}`)
	f.do("POST", "/v1/batch", basic("nope"), `{}`)
	got, err := f.registry.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, family := range got {
		for _, m := range family.Metric {
			name := family.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			if m.Counter != nil {
				values[name] = m.Counter.GetValue()
			}
		}
	}
	require.Equal(t, map[string]float64{
		"weft_collector_requests_total 200 batch": 1, "weft_collector_requests_total 401 batch": 1,
		"weft_collector_events_total stored web": 1, "weft_collector_events_total rejected web": 1,
		"weft_collector_rejected_total no_user_anon_id web": 1,
	}, values)
}

var _ http.Handler = (*door)(nil)
