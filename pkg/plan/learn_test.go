package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
)

func learn(t testing.TB, bodies ...string) File {
	t.Helper()
	l := NewLearner()
	for _, b := range bodies {
		l.Add(decode(t, b))
	}
	return l.Plan()
}

func track(name, properties string) string {
	return fmt.Sprintf(`{"type":"track","event":%q,"userId":"u","properties":%s}`, name, properties)
}

func TestLearnWritesWhatCame(t *testing.T) {
	var bodies []string
	for i := range MinSeen {
		bodies = append(bodies, track("Order Completed", fmt.Sprintf(`{"order_id":"%d","total":%d,"products":[{"sku":"a"}]}`, i, i)))
	}
	bodies = append(bodies, track("Order Completed", `{"order_id":"x","total":1.5,"products":[],"coupon":null}`),
		track("Order Completed", `{"order_id":"x","total":2,"products":[],"coupon":"A"}`),
		`{"type":"identify","userId":"u","traits":{"email":"a@b.example","age":3}}`, `{"type":"page","userId":"u"}`)
	text, err := yaml.Marshal(learn(t, bodies...))
	require.NoError(t, err)
	require.Equal(t, `unplanned: allow
violations: flag
additional: allow
rules:
    - event: Order Completed
      schema:
        description: learnt from 22 events
        properties:
            properties:
                properties:
                    coupon:
                        type:
                            - "null"
                            - string
                    order_id:
                        type: string
                    products:
                        items:
                            properties:
                                sku:
                                    type: string
                            required:
                                - sku
                            type: object
                        type: array
                    total:
                        type: number
                required:
                    - order_id
                    - products
                    - total
                type: object
        required:
            - properties
    - call: identify
      schema:
        description: learnt from 1 calls
        properties:
            traits:
                properties:
                    age:
                        type: integer
                    email:
                        type: string
                type: object
    - call: page
      schema:
        description: learnt from 1 calls
`, string(text))
	p, err := Parse(text) // what is learnt can be read
	require.NoError(t, err)
	for _, b := range bodies {
		require.Empty(t, p.Check(decode(t, b)).Violations)
	}
}

// Whatever is learnt from, its plan has nothing against it.
func TestLearntPlansFitWhatTheyWereLearntFrom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SampledFrom([]string{`1`, `1.5`, `"x"`, `null`, `true`, `{}`, `[]`, `{"a":1}`, `{"a":"x","b":{"c":null}}`, `[1,"x"]`, `[{"a":1},{"b":2}]`, `[[1],[]]`})
		object := rapid.Custom(func(t *rapid.T) string {
			var members []string
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c~/%", "properties", ""}), 0, 4, rapid.ID).Draw(t, "names") {
				members = append(members, fmt.Sprintf("%q:%s", name, value.Draw(t, "value")))
			}
			return "{" + strings.Join(members, ",") + "}"
		})
		l := NewLearner()
		var events []*event.Event
		for _, o := range rapid.SliceOfN(object, 1, 60).Draw(t, "objects") {
			body := track(rapid.SampledFrom([]string{"A", "B"}).Draw(t, "event"), o)
			if rapid.Bool().Draw(t, "identify") {
				body = `{"type":"identify","userId":"u","traits":` + o + `}`
			}
			e, err := event.Decode([]byte(body), event.Meta{})
			if err != nil {
				t.Fatal(err)
			}
			l.Add(e)
			events = append(events, e)
		}
		f := l.Plan()
		f.Unplanned, f.Violations, f.Additional = Block, Block, Block
		text, err := yaml.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for _, e := range events {
			if v := p.Check(e); v.Action != Allow {
				t.Fatalf("%s\n%+v\n%s", e.Body, v, text)
			}
		}
		if d := append(Diff(f, p.File()), DiffTraffic(f, l.Plan())...); len(d) > 0 {
			t.Fatalf("%v", d)
		}
	})
}

func TestLearningIsBounded(t *testing.T) {
	l := NewLearner()
	for i := range maxLearntEvents + 7 {
		l.Add(decode(t, track(fmt.Sprintf("Event %d", i), `{}`)))
	}
	require.Equal(t, 7, l.Left)
	require.Len(t, l.Plan().Rules, maxLearntEvents)

	many := make([]string, maxLearntMembers+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"id%d":1`, i)
	}
	f := learn(t, track("A", `{"stock":{`+strings.Join(many, ",")+`}}`), track("A", `{"stock":{"x":1}}`))
	require.Equal(t, map[string]any{"type": "object"}, f.Rules[0].Schema["properties"].(map[string]any)["properties"].(map[string]any)["properties"].(map[string]any)["stock"])
}

func lines(ds []Difference) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.String())
	}
	return out
}

func TestDiffOfPlansSaysWhatBreaks(t *testing.T) {
	older := parse(t, `
rules:
  - event: A
    schema: {properties: {properties: {required: [x], properties: {x: {type: string}, y: {type: integer}, gone: {type: string}, list: {items: {type: string}}}}}}
  - {event: B, schema: {}}
`).File()
	newer := parse(t, `
unplanned: block
rules:
  - event: A
    violations: block
    schema: {properties: {properties: {required: [y, z], properties: {x: {type: [string, "null"]}, y: {type: number}, z: {}, w: {type: boolean}, list: {items: {type: integer}}}}}}
  - {call: page, schema: {}}
`).File()
	require.Equal(t, []string{
		"breaking  unplanned: was allow, is block",
		"breaking  A: violations: was as the plan has it, is block",
		"additive  A: properties.gone: is not in the newer plan: additional fields are as the plan has it",
		"breaking  A: properties.list[]: was string, is integer",
		"additive  A: properties.w: is new: boolean",
		"additive  A: properties.x: is not required any more",
		"additive  A: properties.x: was string, is null or string",
		"breaking  A: properties.y: is required now",
		"additive  A: properties.y: was integer, is number",
		"breaking  A: properties.z: is new, and required: any type",
		"breaking  B: is not in the newer plan",
		"additive  page (call): is new",
	}, lines(Diff(older, newer)))
	require.Empty(t, Diff(newer, newer))
}

func TestDiffWithTrafficSaysWhatCame(t *testing.T) {
	p := parse(t, `
rules:
  - event: A
    schema: {properties: {properties: {required: [x, q], properties: {x: {type: string}, n: {type: number}, never: {type: string}}}}}
  - {event: B, schema: {}}
`).File()
	require.Equal(t, []string{
		"additive  A: properties.more: came and is not in the plan: boolean",
		"additive  A: properties.never: is planned, in no event",
		"breaking  A: properties.q: is planned, in no event",
		"breaking  A: properties.x: planned as string, came as integer, too",
		"additive  B: is planned, none came",
		"additive  C: came and is not in the plan",
	}, lines(DiffTraffic(p, learn(t, track("A", `{"x":1,"n":2,"more":true}`), track("A", `{"x":"1","n":2.5}`), track("C", `{}`)))))
}

func TestFaultlessEventsCostNoViolation(t *testing.T) {
	p := parse(t, shopPlan)
	e := decode(t, `{"type":"page","userId":"u","properties":{"a":1}}`)
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = p.Check(e) }), "a call that the plan does not speak of is not decoded")
}

func BenchmarkCheck(b *testing.B) {
	p := parse(b, shopPlan)
	for name, body := range map[string]string{
		"planned": `{"type":"track","event":"Order Completed","userId":"u-1","anonymousId":"a","messageId":"m","timestamp":"2026-05-01T10:00:00Z",` +
			`"context":{"ip":"203.0.113.7","userAgent":"Mozilla/5.0 (X11; Linux x86_64)","page":{"url":"https://shop.example/checkout","path":"/checkout"},"library":{"name":"analytics.js","version":"5.0"}},` +
			`"properties":{"order_id":"o-1","total":129.90,"currency":"EUR","products":[{"sku":"a","price":10.5,"name":"Socks"},{"sku":"b","price":99,"name":"Shoes"}]}}`,
		"unplanned": `{"type":"track","event":"Novelty","userId":"u-1","properties":{"order_id":"o-1","total":129.90}}`,
		"no rule":   `{"type":"page","userId":"u-1","properties":{"order_id":"o-1","total":129.90}}`,
	} {
		e := decode(b, body)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				_ = p.Check(e)
			}
		})
	}
}
