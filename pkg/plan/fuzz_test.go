package plan

import (
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/event"
)

// Any file, and any event held against it: an error, or a plan that says the same each time, and that reads itself back.
func FuzzPlanFile(f *testing.F) {
	const shop = "unplanned: flag\nrules:\n  - event: Order Completed\n    violations: block\n    schema: {type: object, required: [total], properties: {total: {type: number}}}\n  - type: identify\n    additional: flag\n    schema: {type: object, properties: {email: {type: string, format: email}}}\n"
	const order = `{"type":"track","event":"Order Completed","userId":"u","properties":{"total":"x","y":[1]}}`
	f.Add(shop, order)
	f.Add(`{"rules":[{"event":"E","schema":{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}}]}`, `{"type":"track","event":"E","userId":"u"}`)
	f.Add("rules: &a [*a]", order)
	f.Add("rules: [{event: E, schema: {pattern: '('}}]", order)
	f.Add("", "")
	received := time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, file, body string) {
		p, err := Parse([]byte(file))
		if err != nil {
			return
		}
		e, err := event.Decode([]byte(body), event.Meta{ReceivedAt: received})
		if err != nil {
			return
		}
		first, second := p.Check(e), p.Check(e)
		a, err1 := yaml.Marshal(first)
		b, err2 := yaml.Marshal(second)
		if err1 != nil || err2 != nil || string(a) != string(b) {
			t.Fatalf("%q by %q: %s, then %s (%v %v)", body, file, a, b, err1, err2)
		}
	})
}
