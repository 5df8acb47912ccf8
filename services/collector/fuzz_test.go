package collector

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/unsubscribe"
)

// fuzzRoom is the budget of a fuzzed body, and fuzzMost its limit: small, so that inputs reach both.
const (
	fuzzRoom = 64 << 10
	fuzzMost = 8 << 10
)

// Whatever a body holds, it is what encoding's own gzip reads of it, or an error that says why; it takes no more bytes than
// its limit and gives all of them back.
func FuzzBody(f *testing.F) {
	const page = `{"type":"page","userId":"u"}`
	for _, text := range []string{page, zipped(f, page), zipped(f, "a") + zipped(f, "b"), zipped(f, strings.Repeat("x", 2*fuzzMost)), "\x1f\x8b", ""} {
		f.Add([]byte(text), true)
		f.Add([]byte(text), false)
		f.Add([]byte(text[:len(text)/2]), false)
	}
	f.Fuzz(func(t *testing.T, sent []byte, told bool) {
		var r reader
		room := &lease{b: &budget{max: fuzzRoom}}
		length := int64(-1)
		if told {
			length = int64(len(sent))
		}
		got, err := r.read(bytes.NewReader(sent), length, fuzzMost, room)
		if len(got) > fuzzMost || room.held > fuzzRoom {
			t.Fatalf("%d bytes of at most %d, %d held", len(got), fuzzMost, room.held)
		}
		room.release()
		if used := room.b.used.Load(); used != 0 {
			t.Fatalf("%d bytes are not given back", used)
		}
		want := sent
		if bytes.HasPrefix(sent, []byte{0x1f, 0x8b}) {
			var wrong error
			if want, wrong = unzipped(sent); wrong != nil {
				if err == nil {
					t.Fatalf("%x is taken, though %v", sent, wrong)
				}
				return
			}
		}
		switch {
		case len(sent) > fuzzMost || len(want) > fuzzMost:
			if !errors.Is(err, errBodyTooLarge) {
				t.Fatalf("%d bytes that are %d: %v", len(sent), len(want), err)
			}
		case err != nil || !bytes.Equal(got, want):
			t.Fatalf("%x is %x, not %x (%v)", sent, want, got, err)
		}
	})
}

func unzipped(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, 16*fuzzMost))
}

// Whoever asks for whatever: an answer of the contract, no panic, and each event that a 200 stands for is on one of the two
// topics with headers that the next stage can read.
func FuzzRequest(f *testing.F) {
	claim := unsubscribe.Claim{Brand: "main", Channel: "email", Address: "a@b.example"}
	add := func(method, target, auth, agent, body string) {
		f.Add(method, target, auth, agent, "203.0.113.7", []byte(body))
	}
	add("POST", "/v1/batch", basic("wk_demo"), "Mozilla/5.0", `{"batch":[{"type":"track","event":"E","userId":"u"},{"type":"x"},3],"sentAt":"2026-11-22T07:00:00Z","context":{"a":1}}`)
	add("POST", "//v1//t/", "Bearer x", "", `{"writeKey":"wk_demo","event":"E","anonymousId":"a","timestamp":1777890672}`)
	add("POST", "/v1/identify", basic("wk_server"), "curl/8", `{"traits":{"email":"e@x.example","consent":{"email":{"marketing":true}}}}`)
	add("GET", "/v1/pixel/track?data="+base64.RawURLEncoding.EncodeToString([]byte(`{"event":"E","userId":"u","writeKey":"wk_demo"}`)), "", "", "")
	add("GET", "/pixel/v1/page?writeKey=wk_demo&userId=u&properties.a.b=1", "", "Googlebot/2.1", "")
	add("POST", "/beacon/v1/batch?writeKey=wk_demo", "", "", `{"batch":[]}`)
	add("GET", "/v1/projects/wk_demo/settings", "", "", "")
	add("OPTIONS", "/v1/t", "", "", "")
	add("POST", "/v1/hooks/none", "", "", "{}")
	add("POST", "/v1/m", "", "", "{")
	add("POST", unsubscribe.Path+"?"+unsubscribe.Parameter+"="+unsubscribe.Sign([]byte("secret"), claim), "", "", "List-Unsubscribe=One-Click")
	door := newFixture(f, func(c *config.Collector) { c.TrustedProxies = []string{"192.0.2.0/24"} }) // httptest's client
	door.secret = []byte("secret")
	known := map[int]bool{200: true, 204: true, 400: true, 401: true, 403: true, 404: true, 405: true, 408: true, 413: true, 429: true, 503: true}
	f.Fuzz(func(t *testing.T, method, target, auth, agent, forwarded string, body []byte) {
		r, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
		if err != nil || !strings.HasPrefix(target, "/") {
			return // net/http does not hand it on either
		}
		r.RemoteAddr = "192.0.2.1:1234"
		r.Header.Set("Authorization", auth)
		r.Header.Set("User-Agent", agent)
		r.Header.Set("X-Forwarded-For", forwarded)
		r.Header.Set("Origin", forwarded)
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		if !known[w.Code] {
			t.Fatalf("%s %q is answered %d", method, target, w.Code)
		}
		for _, rec := range append(door.collected.take(), door.rejected.take()...) {
			m, err := topic.ParseMeta(rec.Headers)
			if err != nil || m.MessageID == "" {
				t.Fatalf("headers %q: %v", rec.Headers, err)
			}
			if _, refused := topic.Get(rec.Headers, topic.HeaderReason); refused {
				continue
			}
			e, err := event.Decode(rec.Value, m)
			if err == nil {
				err = e.Validate()
			}
			if err != nil || !bytes.Equal(e.Key(), rec.Key) {
				t.Fatalf("%q was stored with key %q: %v", rec.Value, rec.Key, err)
			}
		}
		if used := door.budget.used.Load(); used != 0 {
			t.Fatalf("%d bytes are not given back", used)
		}
	})
}
