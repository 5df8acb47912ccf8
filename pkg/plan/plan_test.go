package plan

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

const shopPlan = `
unplanned: flag
violations: block
rules:
  - event: Order Completed
    schema:
      type: object
      required: [properties]
      properties:
        properties:
          type: object
          required: [order_id, total]
          properties:
            order_id: {type: string, minLength: 1}
            total: {type: number, minimum: 0}
            currency: {enum: [EUR, PLN]}
            products:
              type: array
              items: {type: object, required: [sku], properties: {sku: {type: string}, price: {type: number}}}
  - event: Product Added
    violations: flag
    additional: block
    schema:
      properties:
        properties:
          properties:
            sku: {type: string}
            "odd/na~me %": {type: object, properties: {x: true}}
  - call: identify
    violations: allow
    additional: flag
    schema:
      properties:
        traits:
          allOf: [{properties: {email: {type: string, format: email}}}]
          properties: {name: {type: string}}
`

func parse(t testing.TB, text string) *Plan {
	t.Helper()
	p, err := Parse([]byte(text))
	require.NoError(t, err)
	return p
}

func decode(t testing.TB, body string) *event.Event {
	t.Helper()
	e, err := event.Decode([]byte(body), event.Meta{})
	require.NoError(t, err)
	return e
}

func TestCheckJudgesByRule(t *testing.T) {
	p := parse(t, shopPlan)
	order := func(properties string) string {
		return `{"type":"track","event":"Order Completed","userId":"u","properties":` + properties + `}`
	}
	for _, c := range []struct {
		name, body string
		action     Action
		want       []string // rule path detail
	}{
		{"as planned", order(`{"order_id":"1","total":10.50,"currency":"EUR"}`), Allow, nil},
		{"new fields break nothing", order(`{"order_id":"1","total":10.50,"coupon":{"a":1}}`), Allow, nil},
		{"wrong type", order(`{"order_id":7,"total":1}`), Block, []string{"Order Completed|properties.order_id|got number, want string"}},
		{"missing", order(`{"order_id":"1"}`), Block, []string{"Order Completed|properties.total|is missing"}},
		{"no properties", `{"type":"track","event":"Order Completed","userId":"u"}`, Block, []string{"Order Completed|properties|is missing"}},
		{"enum", order(`{"order_id":"1","total":1,"currency":"USD"}`), Block, []string{"Order Completed|properties.currency|value must be one of 'EUR', 'PLN'"}},
		{"in a list", order(`{"order_id":"1","total":1,"products":[{"sku":"a"},{"price":"x","sku":"b"}]}`), Block,
			[]string{"Order Completed|properties.products.1.price|got string, want number"}},
		{"the first of equal names counts", order(`{"order_id":"1","order_id":7,"total":1}`), Allow, nil},
		{"a number that costs too much", order(`{"order_id":"1","total":1e999999999}`), Block,
			[]string{"Order Completed||the number 1e999999999... is out of any range"}},
		{"unplanned", `{"type":"track","event":"Novelty","userId":"u"}`, Flag, []string{`(unplanned)|event|the plan has no event "Novelty"`}},
		{"a call without a rule", `{"type":"page","userId":"u"}`, Allow, nil},
		{"additional", `{"type":"track","event":"Product Added","userId":"u","properties":{"sku":"1","more":1}}`, Block,
			[]string{"Product Added|properties.more|is not in the plan"}},
		{"additional below an odd name", `{"type":"track","event":"Product Added","userId":"u","properties":{"odd/na~me %":{"y":1}}}`, Block,
			[]string{"Product Added|properties.odd/na~me %.y|is not in the plan"}},
		{"both", `{"type":"track","event":"Product Added","userId":"u","properties":{"sku":1,"more":1}}`, Block,
			[]string{"Product Added|properties.more|is not in the plan", "Product Added|properties.sku|got number, want string"}},
		{"the envelope is free", `{"type":"track","event":"Product Added","userId":"u","context":{"x":1},"y":2,"properties":{}}`, Allow, nil},
		{"additional with allOf", `{"type":"identify","userId":"u","traits":{"email":"a@b.example","name":"x","more":1}}`, Flag,
			[]string{"identify|traits.more|is not in the plan"}},
		{"format, only counted", `{"type":"identify","userId":"u","traits":{"email":"nobody"}}`, Allow,
			[]string{"identify|traits.email|'nobody' is not valid email: missing @"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := p.Check(decode(t, c.body))
			require.Equal(t, c.action, v.Action)
			var got []string
			for _, x := range v.Violations {
				got = append(got, x.Rule+"|"+x.Path+"|"+x.Detail)
			}
			require.ElementsMatch(t, c.want, got)
			if c.action != Allow {
				require.Equal(t, c.action, v.Worst().Action)
			}
		})
	}
}

func TestManyViolationsAreCutAndTheWorstIsKept(t *testing.T) {
	p := parse(t, `
rules:
  - event: E
    violations: flag
    additional: block
    schema: {properties: {properties: {properties: {list: {type: array, items: {type: string}}, z: {type: object, properties: {a: true}}}}}}
`)
	body := `{"type":"track","event":"E","userId":"u","properties":{"z":{"b":1},"list":[`
	for i := range 50 {
		body += fmt.Sprintf("%d,", i)
	}
	v := p.Check(decode(t, body+`0]}}`))
	require.Equal(t, Block, v.Action)
	require.Len(t, v.Violations, maxViolations)
	require.Equal(t, "properties.z.b", v.Worst().Path)
}

func TestFaultyPlansAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		``: "rules: a plan has at least one",
		`{rules: [{event: A, schema: {}}], more: 1}`:                                       "line 1: field more not found",
		`{unplanned: drop, rules: [{event: A, schema: {}}]}`:                               `unplanned: want allow, flag or block, found "drop"`,
		`{rules: [{event: A}]}`:                                                            "rules[0] (A): schema: is missing",
		`{rules: [{schema: {}}]}`:                                                          "rules[0]: want either event, the name of a track, or call",
		`{rules: [{event: A, schema: {}}, {event: A, schema: {}}]}`:                        `rules[1]: event: a second rule for "A"`,
		`{rules: [{call: identify, schema: {}}, {call: Identify, schema: {}}]}`:            "rules[1]: call: a second rule for identify",
		`{rules: [{call: track, schema: {}}]}`:                                             `rules[0]: call: want identify, page, screen, group or alias, found "track"`,
		`{rules: [{event: A, violations: no, schema: {}}]}`:                                `rules[0].violations: want allow, flag or block, found "no"`,
		`{rules: [{event: A, schema: {type: strin}}]}`:                                     "rules[0] (A): schema: ",
		`{rules: [{event: A, schema: {pattern: "("}}]}`:                                    "rules[0] (A): schema: ",
		`{rules: [{event: A, schema: {"$ref": "https://example.com/order.schema.json"}}]}`: "a plan's schemas refer to nothing outside of themselves",
	} {
		_, err := Parse([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestRulesAreAClosedSet(t *testing.T) {
	require.Equal(t, []string{Unplanned, "Order Completed", "Product Added", "identify"}, parse(t, shopPlan).Rules())
}
