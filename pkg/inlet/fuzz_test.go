package inlet

import (
	"testing"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/inlet/registry"
	"github.com/weft-cdp/weft/pkg/inlet/registry/registrytest"
)

// A record that is JSON, by paths and expressions, a condition and a key.
func FuzzJSON(f *testing.F) {
	for _, x := range []string{
		`{"id":17,"lines":[{"sku":"A","price":1.10},{}],"mail":"A@b.example","at":1777890672,"cents":1999}`, `{"id":null,"lines":{}}`, `[]`, `"x"`, "null", "",
		`{"id":1e400,"cents":-0,"mail":"\ud800"}`, `{"cents":1,"cents":2}`,
	} {
		f.Add([]byte(x))
	}
	r := newReader(f, config.KafkaInlet{
		Mapping: map[string]string{
			"userId": "$.id", "event": "'Order Completed'", "context.raw": "$", "properties.products[].sku": "$.lines[*].sku", "traits.email": "= email(record.mail)",
			"properties.total": "= record.cents / 100", "timestamp": "$.at",
		},
		When: "!has(record.cents) || record.cents != 7", Key: "record.id",
	})
	f.Fuzz(func(t *testing.T, value []byte) { fuzzed(t, r, value) })
}

// Any schema that a registry may have, and any value that claims to be of it: what passes is JSON, as it came.
func FuzzJSONSchema(f *testing.F) {
	f.Add(`{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"tags":{"type":"array","uniqueItems":true}}}`, `{"id":7,"tags":[1,2]}`)
	f.Add(`{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/a"}]}}}`, `null`)
	f.Add(`{"$ref":"file:///etc/passwd"}`, `{}`)
	f.Add(`{"pattern":"(a+)+$","multipleOf":1e-300}`, `"aaaa"`)
	f.Add(`true`, `[`)
	f.Fuzz(func(t *testing.T, schema, value string) {
		d, err := compileJSONSchema(registry.Schema{Type: registry.JSON, Text: schema})
		if err != nil {
			return
		}
		out, err := d.json([]byte(value))
		if err == nil && (string(out) != value || event.CheckJSON(out) != nil) {
			t.Fatalf("%q by %q is %q", value, schema, out)
		}
	})
}

// The wire format itself: any bytes where the zero byte, the schema's id and the value should be.
func FuzzWireFormat(f *testing.F) {
	s := startRegistry(f)
	r, id := avroReader(f, s)
	f.Add(registrytest.Frame(id, encodeOrder(f)))
	f.Add(registrytest.Frame(id+1, nil))
	f.Add([]byte{0, 0, 0})
	f.Add([]byte(`{"id":7}`))
	f.Fuzz(func(t *testing.T, value []byte) { fuzzed(t, r, value) })
}
