package journey

import (
	"strings"
	"testing"
)

// Any file: a journey, or faults that name the file; the same file gives the same version however its lines end.
func FuzzJourneyFile(f *testing.F) {
	const cart = "name: abandoned-cart\narms: cart\ndelay: 1h\ncancel: order\nchannel: email\npurpose: marketing\nfrom: Your shop <shop@example.com>\nsubject: Your cart is waiting\ntext: |\n  {{range .Lines}}{{.Name}} {{end}}\n"
	for _, s := range []string{cart, strings.ReplaceAll(cart, "\n", "\r\n"), cart + "html: '{{template \"x\"}}'\n", cart + "minimum_value: {EUR: 1e9}\n", "name: &a [*a]", "text: '{{range .}}'\n", "", "\xef\xbb\xbfname: x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		j, faults := Parse("cart.yaml", text)
		if (j == nil) != (len(faults) > 0) {
			t.Fatalf("%q: %v with faults %v", text, j, faults)
		}
		for _, x := range faults {
			if x.File != "cart.yaml" || x.Message == "" {
				t.Fatalf("%q: fault %+v", text, x)
			}
		}
		if j == nil {
			return
		}
		again, faults := Parse("cart.yaml", Canonical(text))
		if again == nil || again.Version != j.Version {
			t.Fatalf("%q is of version %s, and then %v %v", text, j.Version, again, faults)
		}
	})
}

// A record of activations.requested that somebody else may have written.
func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"id":"r","receipt":"x","cart":{"id":"c"},"dueAt":1,"decidedAt":2}`))
	f.Add([]byte(`{"v":99}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if (r == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", b, r, err)
		}
		if err != nil {
			return
		}
		out, err := Encode(r)
		if err != nil {
			t.Fatalf("%q is not written again: %v", b, err)
		}
		if _, err := DecodeRequest(out); err != nil {
			t.Fatalf("%q became %q: %v", b, out, err)
		}
	})
}
