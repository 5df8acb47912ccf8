package hooks

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
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
		_ = h.Verify(d) // must not panic; nothing here is signed
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
