package event

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

var till = map[string]string{
	"type":                             "'track'",
	"event":                            "'Order Completed'",
	"messageId":                        "$.sale.id",
	"timestamp":                        "$.sale.at",
	"externalIds.loyalty_id":           "$.customer.card",
	"externalIds.till_customer":        "$['customer']['odd name']",
	"traits.email":                     "$.customer.email",
	"traits.address.city":              "$.customer.city",
	"context.till.shop":                "$.shop",
	"properties.order_id":              "$.sale.id",
	"properties.total":                 "$.sale.total",
	"properties.currency":              `"PLN"`,
	"properties.first_sku":             "$.sale.lines[0].sku",
	"properties.skus":                  "$.sale.lines[*].sku",
	"properties.raw_lines":             "$.sale.lines[*]",
	"properties.products[].product_id": "$.sale.lines[*].sku",
	"properties.products[].price":      "$.sale.lines[*].unit.price",
	"properties.products[].currency":   "'PLN'",
	"properties.products[].sale":       "$.sale.id",
}

func TestMappingOfATillSale(t *testing.T) {
	m, err := CompileMapping(till, nil)
	require.NoError(t, err)
	record := []byte(` {"shop":"Kraków \u0031","sale":{"id":900719925474099312345678,"at":1795330754,"total":12.3400,
		"lines":[{"sku":"A\/1","unit":{"price":1.10}},{"unit":{}},{"sku":null}]},"customer":{"card":"L-7","email":null,"odd name":5}} `)
	body, err := m.Event(record, nil)
	require.NoError(t, err)
	require.Equal(t, `{"context":{"till":{"shop":"Kraków \u0031"},"externalIds":[{"id":"L-7","type":"loyalty_id"},{"id":5,"type":"till_customer"}]},`+
		`"event":"Order Completed","messageId":900719925474099312345678,`+
		`"properties":{"currency":"PLN","first_sku":"A\/1","order_id":900719925474099312345678,`+
		`"products":[{"currency":"PLN","price":1.10,"product_id":"A\/1","sale":900719925474099312345678},{"currency":"PLN","sale":900719925474099312345678},{"currency":"PLN","product_id":null,"sale":900719925474099312345678}],`+
		`"raw_lines":[{"sku":"A\/1","unit":{"price":1.10}},{"unit":{}},{"sku":null}],"skus":["A\/1",null,null],"total":12.3400},`+
		`"timestamp":1795330754,"traits":{"email":null},"type":"track"}`, string(body))
	e := decode(t, string(body))
	require.NoError(t, e.Validate())
	require.Equal(t, "L-7", string(e.Key()))
	require.Equal(t, "2026-11-22T06:59:14Z", e.Time.Format("2006-01-02T15:04:05Z07:00"))

	body, err = m.Event([]byte(`{"sale":{"lines":7}}`), nil)
	require.NoError(t, err)
	require.Equal(t, `{"event":"Order Completed","properties":{"currency":"PLN"},"type":"track"}`, string(body))
	require.Equal(t, NoUserAnonID, Reason(decode(t, string(body)).Validate(), ""))
}

func TestMappingOfAWholeRecord(t *testing.T) {
	m, err := CompileMapping(map[string]string{"userId": "$.id", "traits": "$"}, nil)
	require.NoError(t, err)
	body, err := m.Event([]byte(`{"id":"00012","vip":true}`), nil)
	require.NoError(t, err)
	require.Equal(t, `{"traits":{"id":"00012","vip":true},"userId":"00012","type":"identify"}`, string(body))

	m, err = CompileMapping(map[string]string{"userId": "$.customer", "timestamp": "$.date", "event": "'Order Completed'", "properties.revenue": "$.dollars"}, nil)
	require.NoError(t, err)
	body, err = m.Event([]byte(`{"customer":"00001","date":"19970101","dollars":"11.77"}`), nil)
	require.NoError(t, err)
	e := decode(t, string(body))
	require.Equal(t, Track, e.Type)
	require.Equal(t, "1997-01-01", e.Time.Format("2006-01-02"))
}

func TestMappingErrorsNameTheField(t *testing.T) {
	for _, c := range []struct{ field, source, want string }{
		{"user", "$.a", "user: is no field of an event"},
		{"userId", "a.b", `userId: "a.b" is neither a path such as $.sale.id nor a literal`},
		{"userId", "", "neither a path"},
		{"userId", "$..a", "a dot without a name"},
		{"userId", "$.a[", "[ without ]"},
		{"userId", "$.a[-1]", `"[-1]" is neither an index nor *`},
		{"userId", "$['a", "does not end"},
		{"userId", "$a", "expected a dot or a bracket"},
		{"userId", "$.a[*].b[*]", "[*] may stand once"},
		{"externalIds.", "$.a", "names no type"},
		{"context.externalIds.0", "$.a", "want externalIds.TYPE"},
		{"properties..x", "$.a", "empty name"},
		{"properties.p[]", "$.a[*]", "want a member behind []"},
		{"properties.p[].q[].r", "$.a[*].b", "[] may stand once"},
		{"properties.p[*].q", "$.a[*].b", `"p[*]": on this side a list is written NAME[]`},
		{"properties.p[].q", "'x'", "p[]: no member has a path with [*]"},
	} {
		_, err := CompileMapping(map[string]string{c.field: c.source}, nil)
		require.ErrorContains(t, err, c.want, "%s: %s", c.field, c.source)
	}
	_, err := CompileMapping(map[string]string{"properties.a": "$.a", "properties.a.b": "$.b", "zz": "$", "properties.p[].q": "$.l[*].q", "properties.p[].r": "$.m[*].r"}, nil)
	require.ErrorContains(t, err, `properties.a.b: "a" is mapped both as a whole and by its members`)
	require.ErrorContains(t, err, "zz: is no field")
	require.ErrorContains(t, err, "properties.p[].r: walks another list")
	_, err = CompileMapping(nil, nil)
	require.Error(t, err)
}

func FuzzMapping(f *testing.F) {
	m, err := CompileMapping(till, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"shop":1,"sale":{"id":"x","lines":[{"sku":"a"},3,[]]},"customer":{"card":null,"odd name":"\u0000"}}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		body, err := m.Event(record, nil)
		if err != nil {
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q became %q", record, body)
		}
		again, err := m.Event(record, nil)
		if err != nil || string(again) != string(body) {
			t.Fatalf("not the same twice: %q, %q", body, again)
		}
	})
}
