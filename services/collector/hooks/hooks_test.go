package hooks

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

// now is when the sample deliveries come in.
var now = time.Unix(1795251600, 0)

var secret = []byte("hush")

func header(h http.Header) func(string) string { return h.Get }

func mapping(t testing.TB) func([]byte) ([]byte, error) {
	m, err := event.CompileMapping(map[string]string{
		"event": "$.type", "timestamp": "$.at", "externalIds.email": "$.Recipient",
		"properties.email_id": "$.MessageID", "properties.cost": "$.cost",
	}, nil)
	require.NoError(t, err)
	return func(record []byte) ([]byte, error) { return m.Event(record, nil) }
}

func hook(t testing.TB, provider string) Hook {
	opt := Options{Provider: provider, Secrets: [][]byte{secret}}
	switch provider {
	case SendGrid:
		opt.Secrets = [][]byte{[]byte(sendGridKey)}
	case Generic:
		opt.Generic = GenericOptions{
			Header: "X-Signature", IDHeader: "X-Delivery", Mapping: mapping(t),
			EventNames: map[string]string{"delivered": emailDelivered, "bounced": emailBounced, "queued": ""},
		}
	}
	h, err := New(opt)
	require.NoError(t, err)
	return h
}

// sample reads headers, an empty line, and a body.
func sample(t testing.TB, file string) *Delivery {
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	head, body, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		head, body = nil, raw
	}
	h := http.Header{}
	for _, line := range strings.Split(string(head), "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h.Set(textproto.CanonicalMIMEHeaderKey(name), value)
		}
	}
	return &Delivery{Header: header(h), Body: bytes.TrimSpace(body), Received: now}
}

// TestSamples compares what becomes of the providers' documented payloads with the golden files.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.http")
	require.NoError(t, err)
	require.Greater(t, len(files), 25)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".http")
		t.Run(name, func(t *testing.T) {
			provider, _, _ := strings.Cut(name, "-")
			d := sample(t, file)
			res := hook(t, provider).Events(d)
			var got bytes.Buffer
			for _, e := range res.Events {
				var pretty bytes.Buffer
				require.NoError(t, json.Indent(&pretty, e, "", "  "), "%s", e)
				got.Write(append(pretty.Bytes(), '\n'))
			}
			got.WriteString("ignored: " + strconv.Itoa(res.Ignored) + "\n")
			for _, r := range res.Refused {
				got.WriteString("refused: " + r.Why.Error() + "\n")
			}
			golden := strings.TrimSuffix(file, ".http") + ".golden"
			if *update {
				require.NoError(t, os.WriteFile(golden, got.Bytes(), 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got.String())
			again := hook(t, provider).Events(sample(t, file))
			require.Equal(t, res, again, "a redelivery is the same events")
			for _, e := range res.Events {
				ev, err := event.Decode(e, event.Meta{ReceivedAt: now, Source: "s"})
				require.NoError(t, err)
				if provider != Generic {
					require.NoError(t, ev.Validate())
				}
				require.NotEmpty(t, ev.MessageID)
				require.True(t, provider == Generic || ev.Time.Before(now), "it has a time of its own")
				_, _, err = commerce.OrderOf(ev)
				require.NoError(t, err)
				_, _, err = commerce.ChangeOf(ev)
				require.NoError(t, err)
			}
		})
	}
}

// events reads the events of a sample.
func events(t *testing.T, name string) []*event.Event {
	provider, _, _ := strings.Cut(name, "-")
	var out []*event.Event
	for _, body := range hook(t, provider).Events(sample(t, "testdata/"+name+".http")).Events {
		e, err := event.Decode(body, event.Meta{ReceivedAt: now, Source: "s"})
		require.NoError(t, err)
		out = append(out, e)
	}
	return out
}

// TestAnOrderIsCompletedOnce: whichever topics tell of it.
func TestAnOrderIsCompletedOnce(t *testing.T) {
	pending, paid := events(t, "woocommerce-order-created-pending"), events(t, "woocommerce-order-updated-processing")
	require.Len(t, pending, 1)
	require.Equal(t, "Checkout Started", pending[0].Name)
	require.Len(t, paid, 2)
	require.Equal(t, []string{"Order Completed", "Order Updated"}, []string{paid[0].Name, paid[1].Name})
	onHold := events(t, "woocommerce-order-created-on-hold")
	require.Equal(t, onHold[0].MessageID, paid[0].MessageID)
	require.NotEqual(t, paid[0].MessageID, paid[1].MessageID)

	cancelled, updated := events(t, "shopify-orders-cancelled"), events(t, "shopify-orders-updated-cancelled")
	require.Equal(t, cancelled[0].MessageID, updated[0].MessageID)
	require.Equal(t, "Order Cancelled", updated[0].Name)

	d := sample(t, "testdata/shopify-orders-create.http")
	first := hook(t, Shopify).Events(d).Events[0]
	topic := d.Header
	d.Header = func(name string) string {
		switch name {
		case "X-Shopify-Topic":
			return "orders/paid"
		case "X-Shopify-Webhook-Id", "X-Shopify-Event-Id":
			return "another"
		}
		return topic(name)
	}
	require.Equal(t, string(first), string(hook(t, Shopify).Events(d).Events[0]))
}

// TestACompletedCheckoutIsNoNewCart: Shopify sends checkouts/update when the order is placed.
func TestACompletedCheckoutIsNoNewCart(t *testing.T) {
	d := sample(t, "testdata/shopify-checkouts-create.http")
	d.Body = bytes.Replace(d.Body, []byte(`"completed_at":null`), []byte(`"completed_at":"2026-11-20T12:00:00-05:00"`), 1)
	require.Equal(t, Result{Ignored: 1}, hook(t, Shopify).Events(d))
}

// TestDigitsOfMoneyAreKept: also such as no float has.
func TestDigitsOfMoneyAreKept(t *testing.T) {
	body := []byte(`{"id":1,"created_at":"2026-11-20T12:00:00Z","total_price":"12345678901234567890.1200","subtotal_price":100.10,"taxes_included":true,` +
		`"total_tax":"15.982","email":"a@example.com","line_items":[{"product_id":7,"price":0.10,"quantity":"3"}]}`)
	d := &Delivery{Header: header(http.Header{"X-Shopify-Topic": {"orders/create"}}), Body: body, Received: now}
	e := string(hook(t, Shopify).Events(d).Events[0])
	for _, want := range []string{`"total":12345678901234567890.1200`, `"subtotal":100.10`, `"revenue":84.118`, `"price":0.10`, `"quantity":3`} {
		require.Contains(t, e, want)
	}
	for _, odd := range []string{`"1e5"`, `"x"`, `{}`, `null`, `"-"`, `" "`, `"1e999999999"`} {
		d.Body = []byte(`{"id":1,"total_price":` + odd + `,"subtotal_price":` + odd + `,"taxes_included":true,"total_tax":"1","email":"a@example.com"}`)
		require.True(t, json.Valid(hook(t, Shopify).Events(d).Events[0]), odd)
	}
}

func mac(secret []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, secret)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func TestShopsSignTheBody(t *testing.T) {
	body := []byte(`{"id":1}`)
	for provider, name := range map[string]string{Shopify: "X-Shopify-Hmac-Sha256", WooCommerce: "X-Wc-Webhook-Signature"} {
		both, err := New(Options{Provider: provider, Secrets: [][]byte{[]byte("new"), secret}})
		require.NoError(t, err)
		for _, h := range []Hook{hook(t, provider), both} {
			with := func(signature string, body []byte) error {
				hs := http.Header{}
				hs.Set(name, signature)
				return h.Verify(&Delivery{Header: header(hs), Body: body, Received: now})
			}
			good := base64.StdEncoding.EncodeToString(mac(secret, string(body)))
			require.NoError(t, with(good, body))
			require.ErrorIs(t, with(good, []byte(`{"id":2}`)), ErrUnsigned)
			require.ErrorIs(t, with("", body), ErrUnsigned)
			require.ErrorIs(t, with("AAAA", body), ErrUnsigned)
			require.ErrorIs(t, with("not base64!", body), ErrUnsigned)
			require.ErrorIs(t, with(base64.StdEncoding.EncodeToString(mac([]byte("other"), string(body))), body), ErrUnsigned)
		}
	}
	require.NoError(t, hook(t, WooCommerce).Verify(&Delivery{Header: header(nil), Body: []byte("webhook_id=7"), Received: now}))
	require.Error(t, hook(t, WooCommerce).Verify(&Delivery{Header: header(nil), Body: []byte("webhook_id=7&x=1"), Received: now}))
	require.Error(t, hook(t, Shopify).Verify(&Delivery{Header: header(nil), Body: []byte("webhook_id=7"), Received: now}))
}

// The delivery that SendGrid's own libraries are tested with.
const (
	sendGridKey       = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
	sendGridSignature = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
	sendGridTimestamp = "1600112502"
	sendGridBody      = `[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address","sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA","sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0","smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]` + "\r\n"
)

func TestSendGridSignsWithItsTime(t *testing.T) {
	h := hook(t, SendGrid)
	delivery := func(at, signature, body string, received int64) *Delivery {
		hs := http.Header{}
		hs.Set("X-Twilio-Email-Event-Webhook-Signature", signature)
		hs.Set("X-Twilio-Email-Event-Webhook-Timestamp", at)
		return &Delivery{Header: header(hs), Body: []byte(body), Received: time.Unix(received, 0)}
	}
	require.NoError(t, h.Verify(delivery(sendGridTimestamp, sendGridSignature, sendGridBody, 1600112600)))
	for name, d := range map[string]*Delivery{
		"another body":  delivery(sendGridTimestamp, sendGridSignature, sendGridBody+" ", 1600112600),
		"another time":  delivery("1600112503", sendGridSignature, sendGridBody, 1600112600),
		"no time":       delivery("", sendGridSignature, sendGridBody, 1600112600),
		"no signature":  delivery(sendGridTimestamp, "", sendGridBody, 1600112600),
		"no base64":     delivery(sendGridTimestamp, "%", sendGridBody, 1600112600),
		"two days late": delivery(sendGridTimestamp, sendGridSignature, sendGridBody, 1600112600+48*3600),
	} {
		require.ErrorIs(t, h.Verify(d), ErrUnsigned, name)
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	own, err := New(Options{Provider: SendGrid, Secrets: [][]byte{[]byte(sendGridKey), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}})
	require.NoError(t, err)
	sum := sha256.Sum256([]byte("1795251600[]"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	require.NoError(t, err)
	require.NoError(t, own.Verify(delivery("1795251600", base64.StdEncoding.EncodeToString(signature), "[]", now.Unix())))
	require.ErrorIs(t, h.Verify(delivery("1795251600", base64.StdEncoding.EncodeToString(signature), "[]", now.Unix())), ErrUnsigned)
}

func TestMailgunSignsTimeAndToken(t *testing.T) {
	h := hook(t, Mailgun)
	body := func(at, token, name string, mac []byte) *Delivery {
		return &Delivery{Received: now, Body: []byte(`{"signature":{"timestamp":"` + at + `","token":"` + token + `","` + name + `":"` + hex.EncodeToString(mac) + `"},"event-data":{}}`)}
	}
	require.NoError(t, h.Verify(body("1795251600", "tok", "signature", mac(secret, "1795251600", "tok"))))
	require.NoError(t, h.Verify(body("1795251600", "tok", "parent-signature", mac(secret, "1795251600", "tok"))))
	for name, d := range map[string]*Delivery{
		"another token": body("1795251600", "kot", "signature", mac(secret, "1795251600", "tok")),
		"no token":      body("1795251600", "", "signature", mac(secret, "1795251600")),
		"another key":   body("1795251600", "tok", "signature", mac([]byte("x"), "1795251600", "tok")),
		"too old":       body("1795000000", "tok", "signature", mac(secret, "1795000000", "tok")),
		"none":          body("1795251600", "tok", "signature", nil),
		"no JSON":       {Received: now, Body: []byte("signature=1")},
		"a list":        {Received: now, Body: []byte("[]")},
	} {
		require.ErrorIs(t, h.Verify(d), ErrUnsigned, name)
	}
}

// TestMailgunTokenStandsForOneEvent: its signature does not cover the event, so whoever has seen one delivery could send
// any other with it.
func TestMailgunTokenStandsForOneEvent(t *testing.T) {
	h := hook(t, Mailgun)
	verify := func(h Hook, at time.Time, token, data string) error {
		seconds := strconv.FormatInt(at.Unix(), 10)
		return h.Verify(&Delivery{Received: now, Body: []byte(`{"signature":{"timestamp":"` + seconds + `","token":"` + token + `","signature":"` +
			hex.EncodeToString(mac(secret, seconds, token)) + `"},"event-data":` + data + `}`)})
	}
	const delivered, forged = `{"event":"delivered","id":"1"}`, `{"event":"unsubscribed","id":"2","recipient":"ann@example.com"}`
	require.NoError(t, verify(h, now, "a", delivered))
	require.NoError(t, verify(h, now, "a", delivered), "sent again, as after a 503")
	require.ErrorIs(t, verify(h, now, "a", forged), ErrUnsigned)
	require.ErrorIs(t, verify(h, now, "a", forged), ErrTokenUsed)
	require.ErrorIs(t, verify(h, now.Add(-time.Hour), "a", forged), ErrUnsigned, "the same token of another time is no other")
	require.NoError(t, verify(h, now, "a", delivered), "the right one still counts")
	require.NoError(t, verify(h, now, "b", forged), "a token of its own")
}

// TestTokensAreBounded: the newest are known, whatever comes; what is too old for its time is forgotten.
func TestTokensAreBounded(t *testing.T) {
	k := tokens{most: 10}
	for i := range 1000 {
		require.True(t, k.fits(hashed([]byte(strconv.Itoa(i))), hashed([]byte("x")), now, time.Hour))
		require.LessOrEqual(t, len(k.young)+len(k.old), 20)
		require.False(t, k.fits(hashed([]byte(strconv.Itoa(max(0, i-9)))), hashed([]byte("y")), now, time.Hour), "the last ten are known")
	}
	require.False(t, k.fits(hashed([]byte("999")), hashed([]byte("y")), now.Add(2*time.Hour), time.Hour), "its signature is good for an hour, and may be an hour ahead")
	for late := 3 * time.Hour; late < 12*time.Hour; late += 3 * time.Hour {
		require.True(t, k.fits(hashed([]byte(late.String())), hashed([]byte("x")), now.Add(late), time.Hour))
	}
	require.LessOrEqual(t, len(k.young)+len(k.old), 2, "forgotten with the time")
}

// TestStrangersCostNoMemory: before the signature is proven, a body takes no more than its own bytes.
func TestStrangersCostNoMemory(t *testing.T) {
	zeros := "[" + strings.Repeat("0,", 2<<20) + "0]"
	for _, body := range []string{`{"a":` + zeros + `}`, `{"signature":` + zeros + `}`, `{"signature":{"token":` + zeros + `}}`, zeros} {
		for _, provider := range []string{Shopify, WooCommerce, SendGrid, Mailgun, Generic} {
			h := hook(t, provider)
			d := &Delivery{Received: now, Header: func(string) string { return "" }, Body: []byte(body)}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			require.ErrorIs(t, h.Verify(d), ErrUnsigned, provider)
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(len(body)), provider)
		}
	}
}
