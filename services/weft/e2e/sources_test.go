//go:build integration

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	hookSecret = "hush"
	keyArchive = "wk_archive"
)

// webhookSources are the sources of TestWebhooks and TestHistoricalSource.
func webhookSources(d *deployment) map[string]string {
	secret := filepath.Join(d.dir, "hook.secret")
	require.NoError(d.t, os.WriteFile(secret, []byte(hookSecret), 0o600))
	files := map[string]string{
		"archive.yaml": "name: archive\nkind: server\ntrusted: true\nhistorical: true\nwrite_key: " + keyArchive + "\n",
		"postal.yaml": fmt.Sprintf(`
name: postal
kind: webhook
trusted: true
webhook:
  provider: generic
  secret_file: %s
  header: x-signature
  id_header: x-id
  mapping: {event: $.type, userId: $.customer, properties.total: = record.total + 0, properties.order_id: $.order}
`, secret),
	}
	for _, provider := range []string{"shopify", "woocommerce", "mailgun"} {
		files[provider+".yaml"] = fmt.Sprintf("name: %s\nkind: webhook\ntrusted: true\nwebhook: {provider: %[1]s, secret_file: %s}\n", provider, secret)
	}
	return files
}

// sendGrid is a provider that signs with a key whose public half the source knows.
type sendGrid struct{ key *ecdsa.PrivateKey }

func newSendGrid(t *testing.T) sendGrid {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return sendGrid{key}
}

// source is its file, beside which lies the key.
func (s sendGrid) source(d *deployment) string {
	d.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	require.NoError(d.t, err)
	file := filepath.Join(d.dir, "sendgrid.key")
	require.NoError(d.t, os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(der)+"\n"), 0o600)) // as SendGrid shows it
	return fmt.Sprintf("name: sendgrid\nkind: webhook\ntrusted: true\nwebhook: {provider: sendgrid, secret_file: %s}\n", file)
}

// headers are those of a delivery.
func (s sendGrid) headers(t *testing.T, at, body string) []string {
	t.Helper()
	sum := sha256.Sum256([]byte(at + body))
	signature, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	require.NoError(t, err)
	return []string{"X-Twilio-Email-Event-Webhook-Timestamp", at, "X-Twilio-Email-Event-Webhook-Signature", base64.StdEncoding.EncodeToString(signature)}
}

func hookMAC(parts ...string) []byte {
	h := hmac.New(sha256.New, []byte(hookSecret))
	for _, p := range parts {
		_, _ = h.Write([]byte(p)) // never fails
	}
	return h.Sum(nil)
}

// deliver sends a webhook, which must be taken.
func (d *deployment) deliver(source, body string, headers ...string) {
	d.t.Helper()
	a := d.post("", "/v1/hooks/"+source, body, headers...)
	require.Equal(d.t, http.StatusOK, a.status, a.body)
}

// toolWithSources runs a weft command that knows the sources, too.
func (d *deployment) toolWithSources(args ...string) string {
	d.t.Helper()
	cmd := d.command(d.t.Context(), args...)
	cmd.Env = append(cmd.Env, "WEFT_COLLECTOR_SOURCES_DIR="+filepath.Join(d.dir, "sources"))
	out, err := cmd.CombinedOutput()
	require.NoError(d.t, err, "weft %v:\n%s", args, out)
	return string(out)
}

// TestWebhooks: deliveries of shop and mail systems go through to ClickHouse, once however often they come, with their digits
// and as one person; what could not be read goes in by a replay, once; and a plan learnt from what is stored fits it.
func TestWebhooks(t *testing.T) {
	grid := newSendGrid(t)
	d := deploy(t, options{sources: func(d *deployment) map[string]string {
		files := webhookSources(d)
		files["sendgrid.yaml"] = grid.source(d)
		return files
	}})
	at := strconv.FormatInt(time.Now().Unix(), 10)
	now := stamp(time.Now())
	shopify := `{"id":820982911946154508,"email":"jon@example.com","created_at":"` + now + `","total_price":"403.10","subtotal_price":"393.10","currency":"USD","customer":{"id":207119551},` +
		`"line_items":[{"product_id":632910392,"variant_id":1,"title":"IPod","price":"199.50","quantity":2}]}`
	woo := `{"id":727,"status":"processing","currency":"EUR","total":"29.35","customer_id":26,"date_created_gmt":"2026-11-20T22:04:06","date_paid_gmt":"2026-11-20T22:04:10",` +
		`"billing":{"email":"Jon@Example.com","first_name":"Jon"},"line_items":[{"product_id":93,"name":"Mug","quantity":2,"price":3.50}]}`
	mail := `{"signature":{"timestamp":"` + at + `","token":"t1","signature":"` + hex.EncodeToString(hookMAC(at, "t1")) + `"},` +
		`"event-data":{"event":"clicked","id":"c1","timestamp":` + at + `.5,"recipient":"jon@example.com","url":"https://shop.example/"}}`
	sent := `[{"email":"Jon@example.com","event":"open","sg_event_id":"g1","sg_machine_open":true,"timestamp":` + at + `,"smtp-id":"<9f9a1c0e-2f4b-4f6e-8f50-0d2b6c1e7a11@shop.example>"},` +
		`{"email":"jon@example.com","event":"processed","sg_event_id":"g0","timestamp":` + at + `},` +
		`{"email":"jon@example.com","event":"click","sg_event_id":"g2","timestamp":` + at + `,"url":"https://shop.example/?a=1","weft_message_id":"9f9a1c0e-2f4b-4f6e-8f50-0d2b6c1e7a11"}]` + "\r\n"
	sold := `[{"type":"Order Completed","customer":"u-7","order":"p-1","total":1.50},{"type":"Order Completed","customer":"u-7","order":"p-2","total":"x"}]`
	sign := func(body string) string { return base64.StdEncoding.EncodeToString(hookMAC(body)) }
	for range 2 { // providers deliver again
		d.deliver("shopify", shopify, "X-Shopify-Topic", "orders/create", "X-Shopify-Webhook-Id", "w1", "X-Shopify-Hmac-Sha256", sign(shopify))
		d.deliver("shopify", shopify, "X-Shopify-Topic", "orders/paid", "X-Shopify-Webhook-Id", "w2", "X-Shopify-Hmac-Sha256", sign(shopify))
		d.deliver("woocommerce", woo, "X-WC-Webhook-Topic", "order.created", "X-WC-Webhook-Signature", sign(woo))
		d.deliver("mailgun", mail)
		d.deliver("sendgrid", sent, grid.headers(t, at, sent)...)
	}
	d.deliver("shopify", "{}", "X-Shopify-Topic", "themes/publish", "X-Shopify-Hmac-Sha256", sign("{}"))
	d.deliver("postal", sold, "X-Id", "d1", "X-Signature", hex.EncodeToString(hookMAC(sold)))
	require.Equal(t, http.StatusUnauthorized, d.post("", "/v1/hooks/shopify", shopify, "X-Shopify-Hmac-Sha256", sign("x")).status)
	require.Equal(t, http.StatusUnauthorized, d.post("", "/v1/hooks/mailgun", edit(t, mail, `"clicked","id":"c1"`, `"unsubscribed","id":"c2"`)).status, "another event under a token that was used")
	require.Equal(t, http.StatusUnauthorized, d.post("", "/v1/hooks/sendgrid", sent, grid.headers(t, at, sent+" ")...).status)

	hooked := `source IN ('shopify', 'woocommerce', 'mailgun', 'sendgrid', 'postal')`
	eventually(t, drainLimit, "the events are in ClickHouse", func() error {
		return errors.Join(want("events", 6, d.number("SELECT count() FROM events WHERE %s", hooked)),
			want("duplicates", 6+1, d.number("SELECT count() FROM events_rejected WHERE reason = 'duplicate'")),
			want("refused", 2, d.number("SELECT count() FROM events_rejected WHERE reason IN ('unknown_topic', 'expression_failed')")))
	})
	require.Equal(t, [][]string{
		{"mailgun", "Email Link Clicked", "", ""}, {"postal", "Order Completed", "p-1", "1.5"},
		{"sendgrid", "Email Link Clicked", "", ""}, {"sendgrid", "Email Opened", "", ""}, {"shopify", "Order Completed", "820982911946154508", "403.10"}, {"woocommerce", "Order Completed", "727", "29.35"},
	}, d.rows(`SELECT source, name, order_id, extract(properties, '"total":([0-9.]+)') FROM events WHERE %s ORDER BY source, name`, hooked))
	require.Equal(t, [][]string{{"2", "1", "1"}}, d.rows(`SELECT toString(countIf(JSONExtractString(properties, 'message') = '9f9a1c0e-2f4b-4f6e-8f50-0d2b6c1e7a11')),
		toString(countIf(JSONExtractBool(properties, 'machine_open'))), toString(countIf(JSONExtractString(properties, 'link_url') = 'https://shop.example/?a=1')) FROM events WHERE source = 'sendgrid'`))
	eventually(t, drainLimit, "they are one person's", func() error {
		return want("people", 1, d.number("SELECT uniqExact(person_id) FROM events_by_person WHERE source IN ('shopify', 'woocommerce', 'mailgun', 'sendgrid')"))
	})

	t.Log(d.toolWithSources("rejected", "list"))
	said := d.toolWithSources("rejected", "replay", "--reason", "expression_failed", "--set", "total=2.50")
	require.Contains(t, said, "1 items: 1 events sent")
	eventually(t, drainLimit, "the replayed event is in ClickHouse", func() error {
		return want("orders", 2, d.number("SELECT uniqExact(order_id) FROM events WHERE source = 'postal'"))
	})
	mended := edit(t, sold, `"x"`, `2.50`) // the sender has mended it, too
	d.deliver("postal", mended, "X-Id", "d1", "X-Signature", hex.EncodeToString(hookMAC(mended)))
	eventually(t, drainLimit, "its repetition is a duplicate", func() error {
		return want("duplicates", 6+1+2, d.number("SELECT count() FROM events_rejected WHERE reason = 'duplicate'"))
	})
	require.Equal(t, 2, d.number("SELECT count() FROM events WHERE source = 'postal'"))

	learnt := filepath.Join(d.dir, "plan.yaml")
	require.NoError(t, os.WriteFile(learnt, []byte(d.run("plan", "infer", "--stored", "--since", "24h", "--source", "shopify,postal")), 0o600))
	require.Equal(t, "3 events\nno differences\n", d.run("plan", "diff", learnt, "--stored", "--since", "24h", "--source", "shopify,postal"))
	require.Contains(t, d.run("plan", "diff", learnt, "--stored", "--since", "24h"), "additive  Email Link Clicked: came and is not in the plan")
	t.Logf("weft audit says:\n%s", d.run("audit", "--wait", "60s"))
	d.healthy()
}

// TestHistoricalSource: events of a source that is historical count in ClickHouse and in the profile as all others do,
// and trigger no message, and say so, although they happened just now and a live cart beside them brings its reminder.
func TestHistoricalSource(t *testing.T) {
	t.Parallel()
	d := deploy(t, options{delay: "2s", sources: webhookSources})
	old, live := newShopper("archived"), newShopper("live")
	bought := ordered(event{"userId": old.user}, "cart-before", "o-before")
	bought["timestamp"] = stamp(time.Now().Add(-time.Hour)) // before the cart, which it does not buy
	filled := added(event{"anonymousId": old.phone}, "cart-archived", "p1")
	filled["timestamp"] = stamp(time.Now())
	body, err := json.Marshal(map[string]any{"batch": []event{identify(old.phone, old.user, old.email), bought, filled}})
	require.NoError(t, err)
	a := d.post(keyArchive, "/v1/import", string(body))
	require.Equal(t, http.StatusOK, a.status, a.body)
	d.mailAbout(live, "cart-live") // armed later, and due later

	eventually(t, drainLimit, "history is in ClickHouse", func() error {
		return want("events", 3, d.number("SELECT count() FROM events WHERE source = 'archive' AND historical"))
	})
	eventually(t, drainLimit, "and in the profile", func() error {
		p, err := d.profile("email", old.email)
		if err != nil {
			return err
		}
		counts, _ := p["counts"].(map[string]any)
		return errors.Join(want("events", "3", fmt.Sprint(counts["events"])), want("orders", "1", fmt.Sprint(p["orders"])))
	})
	eventually(t, settleLimit, "a receipt says why no message was sent", func() error {
		return want("receipts", "[cart-archived suppressed/historical]", fmt.Sprint(d.receipts("cart-archived")))
	})
	require.Empty(t, d.mail.to(old.email))
	require.Len(t, d.mail.to(live.email), 1)
	d.healthy()
}
