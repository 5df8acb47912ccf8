package collector

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func macOf(secret string, parts ...string) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// hookFixture has one source of each kind of webhook that an HMAC proves.
func hookFixture(t *testing.T, change ...func(*config.Collector)) *fixture {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("old\n\n hush \n"), 0o600))
	return newFixture(t, append([]func(*config.Collector){func(c *config.Collector) {
		for _, w := range []config.SourceWebhook{
			{Provider: config.ProviderShopify}, {Provider: config.ProviderWooCommerce}, {Provider: config.ProviderMailgun},
			{Provider: config.ProviderGeneric, Header: "X-Sig", Mapping: map[string]string{"event": "$.kind", "userId": "$.who", "properties.total": "$.total"}},
		} {
			w.SecretFile = file
			c.Sources = append(c.Sources, config.Source{Name: w.Provider, Kind: config.KindWebhook, Trusted: true, Brand: "shop", Webhook: w})
		}
	}}, change...)...)
}

const shopifyOrder = `{"id":820982911946154508,"email":"jon@example.com","created_at":"2026-11-21T12:00:00-05:00","total_price":"403.00","currency":"USD","line_items":[]}`

func (f *fixture) shopify(topic, id, body string) int {
	signature := base64.StdEncoding.EncodeToString(macOf("hush", body))
	return f.do("POST", "/v1/hooks/shopify", "", body, "X-Shopify-Hmac-Sha256", signature, "X-Shopify-Topic", topic, "X-Shopify-Webhook-Id", id).Code
}

func TestWebhooksAtTheDoor(t *testing.T) {
	f := hookFixture(t)
	require.Equal(t, http.StatusOK, f.shopify("orders/updated", "w1", shopifyOrder))
	require.Equal(t, http.StatusOK, f.shopify("orders/updated", "w1", shopifyOrder), "a redelivery")
	recs := f.collected.all()
	require.Len(t, recs, 2)
	m := metaOf(t, recs[0].Headers)
	require.Equal(t, m.MessageID, metaOf(t, recs[1].Headers).MessageID, "has the same message id, by which one of them is dropped")
	require.Equal(t, []string{"shopify", "shop", "shopify:orders/updated:w1"}, []string{m.Source, m.Brand, m.MessageID})
	require.True(t, m.Trusted)
	require.Contains(t, string(recs[0].Value), `"total":403.00`)

	require.Equal(t, http.StatusOK, f.shopify("products/update", "w2", `{"id":1}`), "an unknown topic is not sent again for ever")
	kept := f.rejected.all()
	require.Len(t, kept, 1)
	reason, _ := topic.Get(kept[0].Headers, topic.HeaderReason)
	require.Equal(t, "unknown_topic", reason)
	require.Equal(t, `{"id":1}`, string(kept[0].Value))
	require.Equal(t, http.StatusOK, f.shopify("orders/paid", "w3", `{`), "nor is what can not be read")
	require.Len(t, f.rejected.all(), 2)

	body := `{"kind":"Order Completed","who":"u","total":9.90}`
	w := f.do("POST", "/v1/hooks/generic/", "", body, "X-Sig", hex.EncodeToString(macOf("old", body)))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Contains(t, string(f.collected.all()[2].Value), `"total":9.90`)

	require.Equal(t, http.StatusOK, f.do("POST", "/v1/hooks/woocommerce", "", "webhook_id=7").Code, "WooCommerce's ping")
	at := strconv.FormatInt(now.Unix(), 10)
	body = `{"signature":{"timestamp":"` + at + `","token":"t","signature":"` + hex.EncodeToString(macOf("hush", at, "t")) + `"},` +
		`"event-data":{"event":"clicked","id":"e","timestamp":` + at + `.5,"recipient":"a@example.com","url":"https://shop.example/"}}`
	require.Equal(t, http.StatusOK, f.do("POST", "/v1/hooks/mailgun", "", body).Code)
	require.Contains(t, string(f.collected.all()[3].Value), `"event":"Email Link Clicked"`)
	require.InDelta(t, 2, f.counter(t, "weft_collector_hooks_total", "shopify", "event"), 0)
	require.InDelta(t, 2, f.counter(t, "weft_collector_hooks_total", "shopify", "refused"), 0)
	require.InDelta(t, 1, f.counter(t, "weft_collector_hooks_total", "woocommerce", "ignored"), 0)
}

func TestNothingUnprovenIsTaken(t *testing.T) {
	f := hookFixture(t, func(c *config.Collector) { c.MaxRequestBytes = 1000 })
	good := base64.StdEncoding.EncodeToString(macOf("hush", shopifyOrder))
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		want               int
	}{
		"no signature":    {"POST", "/v1/hooks/shopify", shopifyOrder, nil, http.StatusUnauthorized},
		"wrong signature": {"POST", "/v1/hooks/shopify", shopifyOrder + " ", []string{"X-Shopify-Hmac-Sha256", good}, http.StatusUnauthorized},
		"another source":  {"POST", "/v1/hooks/generic", shopifyOrder, []string{"X-Shopify-Hmac-Sha256", good}, http.StatusUnauthorized},
		"no such source":  {"POST", "/v1/hooks/nobody", shopifyOrder, []string{"X-Shopify-Hmac-Sha256", good}, http.StatusNotFound},
		"a source of SDK": {"POST", "/v1/hooks/web", shopifyOrder, nil, http.StatusNotFound},
		"GET":             {"GET", "/v1/hooks/shopify", "", nil, http.StatusMethodNotAllowed},
		"too large":       {"POST", "/v1/hooks/shopify", string(make([]byte, 1001)), nil, http.StatusBadRequest},
	} {
		w := f.do(c.method, c.path, "", c.body, c.headers...)
		require.Equal(t, c.want, w.Code, name)
	}
	require.Empty(t, f.collected.all())
	require.Empty(t, f.rejected.all(), "nor kept")
	require.InDelta(t, 2, f.counter(t, "weft_collector_hooks_total", "shopify", "unsigned"), 0)
}

// TestAWebhookIsAnsweredOnceKafkaHasIt: before, the provider must come again.
func TestAWebhookIsAnsweredOnceKafkaHasIt(t *testing.T) {
	f := hookFixture(t)
	f.collected.fail = func([]stream.Record) error { return errors.New("kafka is away") }
	require.Equal(t, http.StatusServiceUnavailable, f.shopify("orders/create", "w", shopifyOrder))
	f.collected.fail = nil
	require.Equal(t, http.StatusOK, f.shopify("orders/create", "w", shopifyOrder))
	require.Len(t, f.collected.all(), 1)
}

func TestWebhookSettingsAreChecked(t *testing.T) {
	for want, change := range map[string]func(*config.SourceWebhook){
		"source generic: webhook.secret_file:": func(w *config.SourceWebhook) { w.SecretFile = "/none" },
		"source generic: webhook.algorithm:":   func(w *config.SourceWebhook) { w.Algorithm = "md5" },
		"source generic: webhook.mapping:":     func(w *config.SourceWebhook) { w.Mapping = map[string]string{"nowhere": "$.a"} },
	} {
		cfg := settings(t).Collector
		m, err := newMetrics(prometheus.NewRegistry())
		require.NoError(t, err)
		hookFixture(t, func(c *config.Collector) { cfg.Sources = c.Sources })
		change(&cfg.Sources[len(cfg.Sources)-1].Webhook)
		in, err := newIntake(cfg, nil, m)
		require.NoError(t, err)
		_, err = newHooks(in)
		require.ErrorContains(t, err, want)
	}
}
