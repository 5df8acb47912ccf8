package hooks

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGenericSignatures(t *testing.T) {
	body := `{"a":1}`
	at := "1795251600"
	sum512 := hmac.New(sha512.New, secret)
	sum512.Write([]byte(body))
	for name, c := range map[string]struct {
		opt     GenericOptions
		headers map[string]string
	}{
		"hex of the body": {GenericOptions{Header: "X-Sig"}, map[string]string{"X-Sig": hex.EncodeToString(mac(secret, body))}},
		"GitHub":          {GenericOptions{Header: "X-Sig", Prefix: "sha256="}, map[string]string{"X-Sig": "sha256=" + hex.EncodeToString(mac(secret, body))}},
		"SHA-512":         {GenericOptions{Header: "X-Sig", Algorithm: "sha512", Encoding: "base64"}, map[string]string{"X-Sig": base64.StdEncoding.EncodeToString(sum512.Sum(nil))}},
		"with a time":     {GenericOptions{Header: "X-Sig", Signed: "{timestamp}.{body}", TimestampHeader: "X-At"}, map[string]string{"X-At": at, "X-Sig": hex.EncodeToString(mac(secret, at+"."+body))}},
		"Standard Webhooks, two keys": {
			GenericOptions{Header: "webhook-signature", Encoding: "base64", Signed: "{id}.{timestamp}.{body}", TimestampHeader: "webhook-timestamp", IDHeader: "webhook-id"},
			map[string]string{"webhook-id": "m1", "webhook-timestamp": at, "webhook-signature": "v1,AAAA v1," + base64.StdEncoding.EncodeToString(mac(secret, "m1."+at+"."+body))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.opt.Mapping = mapping(t)
			h, err := New(Options{Provider: Generic, Secrets: [][]byte{secret}, Generic: c.opt})
			require.NoError(t, err)
			verify := func(change func(http.Header), body string, received time.Time) error {
				hs := http.Header{}
				for k, v := range c.headers {
					hs.Set(k, v)
				}
				change(hs)
				return h.Verify(&Delivery{Header: header(hs), Body: []byte(body), Received: received})
			}
			same := func(http.Header) {}
			require.NoError(t, verify(same, body, now))
			require.ErrorIs(t, verify(same, body+" ", now), ErrUnsigned)
			for k := range c.headers {
				require.ErrorIs(t, verify(func(hs http.Header) { hs.Set(k, "00") }, body, now), ErrUnsigned, k)
				require.ErrorIs(t, verify(func(hs http.Header) { hs.Del(k) }, body, now), ErrUnsigned, k)
			}
			if c.opt.TimestampHeader != "" {
				require.ErrorIs(t, verify(same, body, now.Add(GenericTolerance+time.Second)), ErrUnsigned)
				require.ErrorIs(t, verify(same, body, now.Add(-GenericTolerance-time.Second)), ErrUnsigned)
				require.NoError(t, verify(same, body, now.Add(GenericTolerance)))
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	secrets := [][]byte{secret}
	for want, opt := range map[string]Options{
		"secret_file":              {Provider: Shopify},
		"provider":                 {Provider: "magento", Secrets: secrets},
		"neither PEM nor base64":   {Provider: SendGrid, Secrets: [][]byte{[]byte("?")}},
		"read the public key":      {Provider: SendGrid, Secrets: [][]byte{[]byte("aHVzaA==")}},
		"header:":                  {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Mapping: mapping(t)}},
		"mapping:":                 {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Header: "x"}},
		"algorithm:":               {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Header: "x", Mapping: mapping(t), Algorithm: "md5"}},
		"encoding:":                {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Header: "x", Mapping: mapping(t), Encoding: "rot13"}},
		"leaves the {body} out":    {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Header: "x", Mapping: mapping(t), Signed: "{id}"}},
		"timestamp_header: empty":  {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Header: "x", Mapping: mapping(t), Signed: "{timestamp}{body}"}},
		"id_header: empty":         {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Header: "x", Mapping: mapping(t), Signed: "{id}{body}"}},
		"timestamp_header: signed": {Provider: Generic, Secrets: secrets, Generic: GenericOptions{Header: "x", Mapping: mapping(t), TimestampHeader: "t"}},
	} {
		_, err := New(opt)
		require.ErrorContains(t, err, want)
	}
}

func TestCustomersOfTwoShopsAreTwo(t *testing.T) {
	d := sample(t, "testdata/woocommerce-customer-updated.http")
	for typ, want := range map[string]string{"": `{"id":"25","type":"woocommerce_customer_id"}`, "shop_b_customer_id": `{"id":"25","type":"shop_b_customer_id"}`, "user_id": `"userId":"25"`} {
		h, err := New(Options{Provider: WooCommerce, Secrets: [][]byte{secret}, CustomerType: typ})
		require.NoError(t, err)
		require.Contains(t, string(h.Events(d).Events[0]), want)
	}
}
