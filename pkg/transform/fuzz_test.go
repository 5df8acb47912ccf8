package transform

import (
	"bytes"
	"testing"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
)

// Any event through every kind of transformation: an error with its reason, or JSON, the same each time, and nothing left of
// what is to be removed.
func FuzzTransform(f *testing.F) {
	for _, s := range []string{
		`{"event":"E","properties":{"card":"4111","mail":"a@b.example","n":1.10,"products":[{"email":"x"},7]},"userId":"u"}`,
		`{"properties":{"card":1,"c\u0061rd":2},"properties":{"card":3}}`, `{"properties":null,"traits":[]}`, `{}`, `[]`, `{"event":"Bought","properties":{"n":1e999}}`,
	} {
		f.Add([]byte(s))
	}
	file := keyFile(f, key)
	c := compile(f,
		config.Transformation{Remove: []string{"properties.card", "properties.products[*].email"}},
		config.Transformation{Rename: set{"properties.mail": "traits.email"}, When: `event.event != "x"`},
		config.Transformation{RenameEvent: map[string]string{"Bought": "Order Completed"}},
		config.Transformation{Derive: map[string]string{"properties.double": "event.properties.n * 2"}, When: "has(event.properties) && has(event.properties.n)"},
		config.Transformation{Hash: []string{"userId"}, KeyFile: file},
		config.Transformation{Redact: []string{"traits.phone"}},
	)
	card, err := event.ParsePath("properties.card")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		r, err := c.Apply(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			if event.Reason(err, "") == "" {
				t.Fatalf("%q: no reason: %v", body, err)
			}
			return
		}
		if err := event.CheckJSON(r.Body); err != nil && event.Reason(err, "") != event.TooDeep {
			t.Fatalf("%q became %q", body, r.Body)
		}
		card.Replace(r.Body, func([]byte) []byte {
			t.Fatalf("%q became %q", body, r.Body)
			return nil
		})
		again, err := c.Apply(before)
		if err != nil || !bytes.Equal(again.Body, r.Body) {
			t.Fatalf("%q became %q, then %q (%v)", body, r.Body, again.Body, err)
		}
	})
}
