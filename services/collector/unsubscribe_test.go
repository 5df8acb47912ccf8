package collector

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/unsubscribe"
)

func TestUnsubscribe(t *testing.T) {
	f := newFixture(t)
	claim := unsubscribe.Claim{Brand: "shop", Channel: "email", Profile: "p-1", Address: `ann+"<b>"@example.com`, Receipt: "r-1", IssuedAt: now}
	link := unsubscribe.URL("http://127.0.0.1", f.secret, claim)

	// Mail scanners follow links: asking changes nothing.
	for _, method := range []string{"GET", "HEAD"} {
		w := f.do(method, link, "", "")
		require.Equal(t, 200, w.Code)
		require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
		require.NotContains(t, w.Body.String(), "<b>")
	}
	page := f.do("GET", link, "", "").Body.String()
	require.Contains(t, page, `<form method="post">`)
	require.Contains(t, page, "@example.com")
	require.Empty(t, f.collected.take())

	post := func(body, kind string) *httptest.ResponseRecorder {
		return f.do("POST", link, "", body, "Content-Type", kind)
	}
	w := post("List-Unsubscribe=One-Click", "application/x-www-form-urlencoded")
	require.Equal(t, 200, w.Code)
	rec := one(t, f.collected.take())
	m, err := topic.ParseMeta(rec.Headers)
	require.NoError(t, err)
	require.Equal(t, event.Meta{Source: "unsubscribe", Brand: "shop", MessageID: m.MessageID, ReceivedAt: m.ReceivedAt, Trusted: true}, m)
	e, err := event.Decode(rec.Value, m)
	require.NoError(t, err)
	require.NoError(t, e.Validate())
	require.Equal(t, event.Track, e.Type)
	require.Equal(t, UnsubscribedEvent, e.Name)
	require.Equal(t, []event.Identifier{{Type: event.Email, Value: claim.Address}}, e.Identifiers())
	require.Equal(t, claim.Address, string(rec.Key))
	require.Equal(t, "email", event.Text(e.Property("channel")))
	require.Equal(t, "shop", event.Text(e.Property("brand")))
	require.Equal(t, "r-1", event.Text(e.Property("receipt")))

	// Again, without a form, or as multipart: the same event, which the stitcher drops.
	require.Equal(t, 200, post("", "").Code)
	again := one(t, f.collected.take())
	require.Equal(t, string(rec.Value), string(again.Value))
	require.True(t, strings.HasPrefix(m.MessageID, "unsubscribe-"))

	f.collected.fail = func([]stream.Record) error { return errors.New("no broker") }
	w = post("List-Unsubscribe=One-Click", "")
	require.Equal(t, 503, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	require.Equal(t, 405, f.do("DELETE", link, "", "").Code)
	for _, bad := range []string{"/v1/unsubscribe", "/v1/unsubscribe?t=", link[:len(link)-2]} {
		require.Equal(t, 400, f.do("POST", bad, "", "").Code)
	}
}

func TestUnsubscribeOfOtherChannels(t *testing.T) {
	f := newFixture(t)
	for channel, want := range map[string]string{"sms": event.Phone, "email": event.Email, "webhook": "webhook"} {
		token := unsubscribe.Sign(f.secret, unsubscribe.Claim{Channel: channel, Address: "+48123"})
		require.Equal(t, 200, f.do("POST", "/v1/unsubscribe?t="+token, "", "").Code)
		rec := one(t, f.collected.take())
		e, err := event.Decode(rec.Value, event.Meta{})
		require.NoError(t, err)
		require.Equal(t, []event.Identifier{{Type: want, Value: "+48123"}}, e.Identifiers())
		require.Equal(t, "main", header(t, rec, topic.HeaderBrand))
	}
}
