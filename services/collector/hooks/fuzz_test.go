package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// fuzz feeds a provider's parser. Whatever comes in: every item is accounted for, what comes out is JSON with a
// message id, and the same again.
func fuzz(f *testing.F, provider, topicHeader string, topics ...string) {
	files, err := filepath.Glob("testdata/" + provider + "-*.http")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		d := sample(f, file)
		which := 0
		for i, topic := range topics {
			if topic == d.Header(topicHeader) {
				which = i
			}
		}
		f.Add(d.Body, uint8(which)) //nolint:gosec // there are not so many topics
	}
	h := hook(f, provider)
	f.Fuzz(func(t *testing.T, body []byte, which uint8) {
		hs := http.Header{}
		if len(topics) > 0 {
			hs.Set(topicHeader, topics[int(which)%len(topics)])
		}
		before := bytes.Clone(body)
		d := &Delivery{Header: header(hs), Body: body, Received: now}
		if err := h.Verify(d); !errors.Is(err, ErrUnsigned) && (provider != WooCommerce || !isPing(d)) {
			t.Fatalf("%q is let in: %v", body, err) // nothing here is signed
		}
		res := h.Events(d)
		if len(res.Events)+res.Ignored+len(res.Refused) == 0 && string(bytes.TrimSpace(body)) != "[]" && len(strings.Trim(string(body), "[] \n\t\r")) > 0 {
			t.Fatalf("nothing is said of %q", body)
		}
		for _, e := range res.Events {
			if !json.Valid(e) {
				t.Fatalf("%q became %q", body, e)
			}
			if v, err := event.Decode(e, event.Meta{ReceivedAt: now}); err == nil && v.MessageID == "" {
				t.Fatalf("%q has no message id", e)
			}
		}
		again := h.Events(&Delivery{Header: header(hs), Body: before, Received: now})
		require.Equal(t, res, again)
		require.Equal(t, before, body)
	})
}

func FuzzShopify(f *testing.F) {
	fuzz(f, Shopify, "X-Shopify-Topic", "orders/create", "orders/paid", "orders/updated", "orders/cancelled", "refunds/create", "carts/create",
		"carts/update", "checkouts/create", "checkouts/update", "customers/create", "customers/update", "products/update")
}

func FuzzWooCommerce(f *testing.F) {
	fuzz(f, WooCommerce, "X-Wc-Webhook-Topic", "order.created", "order.updated", "customer.created", "customer.updated", "order.deleted", "action.x")
}

func FuzzSendGrid(f *testing.F) { fuzz(f, SendGrid, "") }

func FuzzMailgun(f *testing.F) { fuzz(f, Mailgun, "") }

func FuzzGeneric(f *testing.F) { fuzz(f, Generic, "") }

// A stranger's delivery: whatever stands in the headers, and in the body of a provider that signs there, nothing is let
// in that is not signed. The parsers behind it are fuzzed by themselves, as if the proof had been given.
func FuzzSignature(f *testing.F) {
	files, err := filepath.Glob("testdata/*.http")
	require.NoError(f, err)
	names := []string{"X-Shopify-Hmac-Sha256", "X-Wc-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Signature", "X-Signature"}
	for _, file := range files {
		d := sample(f, file)
		for _, name := range names {
			if signature := d.Header(name); signature != "" {
				f.Add(signature, d.Header("X-Twilio-Email-Event-Webhook-Timestamp"), append(d.Body, ' '))
			}
		}
	}
	at := strconv.FormatInt(now.Unix(), 10)
	f.Add("MEUCIQDx", at, []byte(`{"signature":{"timestamp":"`+at+`","token":"t","signature":"00","parent-signature":7}}`))
	f.Add("00,, sha256=00", at, []byte("[]"))
	var all []Hook
	for _, p := range Providers() {
		all = append(all, hook(f, p))
	}
	f.Fuzz(func(t *testing.T, signature, at string, body []byte) {
		hs := http.Header{}
		for _, name := range names {
			hs.Set(name, signature)
		}
		hs.Set("X-Twilio-Email-Event-Webhook-Timestamp", at)
		before := bytes.Clone(body)
		for i, h := range all {
			d := &Delivery{Header: header(hs), Body: body, Received: now}
			if err := h.Verify(d); !errors.Is(err, ErrUnsigned) && (Providers()[i] != WooCommerce || !isPing(d)) {
				t.Fatalf("%s: %q with %q of %q is let in: %v", Providers()[i], body, signature, at, err)
			}
		}
		require.Equal(t, before, body)
	})
}
