package transform

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
)

const key = "0123456789abcdef0123"

func keyFile(t testing.TB, text string) string {
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

func compile(t testing.TB, list ...config.Transformation) *Chain {
	t.Helper()
	c, err := Compile(list)
	require.NoError(t, err)
	return c
}

func digest(text string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return `"` + hex.EncodeToString(mac.Sum(nil)) + `"`
}

type set = map[string]string

func TestTransformationsEditTheText(t *testing.T) {
	file := keyFile(t, key+"\n")
	for _, c := range []struct {
		name     string
		rule     config.Transformation
		from, to string
	}{
		{"remove", config.Transformation{Remove: []string{"properties.card", "properties.products[*].email"}},
			`{"z":1.10,"properties":{"card":"4111","n":1e2,"card":"again","products":[{"email":"a"},{"sku":"s","email":"b"}]}}`,
			`{"z":1.10,"properties":{"n":1e2,"products":[{},{"sku":"s"}]}}`},
		{"remove on a condition that is not met", config.Transformation{Remove: []string{"a"}, When: `event.event == "B"`}, `{"event":"A","a":1}`, `{"event":"A","a":1}`},
		{"remove on a condition that is met", config.Transformation{Remove: []string{"a"}, When: `event.event == "A"`}, `{"event":"A","a":1}`, `{"event":"A"}`},
		{"rename in its place", config.Transformation{Rename: set{"properties.mail": "properties.email"}},
			`{"properties":{"mail":"x","b":12345678901234567890}}`, `{"properties":{"email":"x","b":12345678901234567890}}`},
		{"rename keeps what is there", config.Transformation{Rename: set{"properties.mail": "properties.email", "properties.mail2": "traits.mail"}},
			`{"properties":{"mail":"x","email":"y","mail2":"z"},"traits":{"mail":"w"}}`, `{"properties":{"mail":"x","email":"y","mail2":"z"},"traits":{"mail":"w"}}`},
		{"rename to another place", config.Transformation{Rename: set{"properties.mail": "context.traits.email"}},
			`{"properties":{"mail":"x\u0041"},"context":{"ip":"1"}}`, `{"properties":{},"context":{"ip":"1","traits":{"email":"x\u0041"}}}`},
		{"rename in a list", config.Transformation{Rename: set{"properties.products[*].id": "properties.products[*].product_id"}},
			`{"properties":{"products":[{"id":1},{"x":0,"id":2.50}]}}`, `{"properties":{"products":[{"product_id":1},{"x":0,"product_id":2.50}]}}`},
		{"rename an event", config.Transformation{RenameEvent: set{"Bought": "Order Completed", "x": "y"}}, `{"event":"Bought","name":"x"}`, `{"event":"Order Completed","name":"x"}`},
		{"derive", config.Transformation{Derive: set{"properties.net": "event.properties.total - event.properties.tax", "properties.copy": "event.properties.total", "context.x.y": "event.nothing"}},
			`{"properties":{"total":119.90,"tax":19.9}}`, `{"properties":{"total":119.90,"tax":19.9,"copy":119.90,"net":100}}`},
		{"derive reads the event as it was", config.Transformation{Derive: set{"a": "event.b", "b": "event.a"}}, `{"a":1,"b":2}`, `{"a":2,"b":1}`},
		{"hash", config.Transformation{Hash: []string{"traits.email", "traits.n", "traits.none", "traits.nothing"}, KeyFile: file},
			`{"traits":{"email":"a\u0040b","n":1.50,"none":null,"email":"again"}}`,
			`{"traits":{"email":` + digest("a@b") + `,"n":` + digest("1.50") + `,"none":null,"email":` + digest("again") + `}}`},
		{"redact", config.Transformation{Redact: []string{"context.ip", "context.list[*]"}}, `{"context":{"ip":"1.2.3.4","list":[1,{"a":2}]}}`, `{"context":{"ip":"[redacted]","list":["[redacted]","[redacted]"]}}`},
		{"redact with", config.Transformation{Redact: []string{"context.ip"}, With: `"`}, `{"context":{"ip":"1.2.3.4"}}`, `{"context":{"ip":"\""}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := compile(t, c.rule).Apply([]byte(c.from))
			require.NoError(t, err)
			require.Equal(t, c.to, string(r.Body))
			require.False(t, r.Dropped)
		})
	}
}

func TestRulesWorkInOrderAndDropsAreNamed(t *testing.T) {
	c := compile(t,
		config.Transformation{Derive: set{"properties.test": `event.properties.email.endsWith("@shop.example")`}},
		config.Transformation{Name: "tests", When: "event.properties.test", Drop: true},
		config.Transformation{Remove: []string{"properties.test"}})
	require.Equal(t, []string{"1-derive", "tests", "3-remove"}, c.Rules())
	r, err := c.Apply([]byte(`{"properties":{"email":"dev@shop.example"}}`))
	require.NoError(t, err)
	require.True(t, r.Dropped)
	require.Equal(t, 1, r.Rule)
	r, err = c.Apply([]byte(`{"properties":{"email":"ann@mail.example"}}`))
	require.NoError(t, err)
	require.Equal(t, Result{Body: []byte(`{"properties":{"email":"ann@mail.example"}}`), Rule: -1}, r)
}

// What fails is an error with the expression, never a drop, and the rules behind it do not run.
func TestFailuresNameTheExpression(t *testing.T) {
	for _, c := range []struct {
		rule config.Transformation
		body string
		want string
	}{
		{config.Transformation{Name: "net", Derive: set{"net": `event.total / event.zero`}}, `{"total":1,"zero":0}`, `transformation_failed: net: derive: net: 1:13: `},
		{config.Transformation{When: `event.total`, Drop: true}, `{"total":"much"}`, "transformation_failed: 1-drop: when: "},
		{config.Transformation{Derive: set{"a.b": "1"}}, `{"a":7}`, "transformation_failed: 1-derive: derive: "},
		{config.Transformation{Rename: set{"x": "a.b"}}, `{"a":7,"x":1}`, "transformation_failed: 1-rename: rename: "},
	} {
		r, err := compile(t, c.rule, config.Transformation{Remove: []string{"total"}}).Apply([]byte(c.body))
		require.ErrorContains(t, err, c.want)
		for _, text := range c.rule.Derive {
			if strings.Contains(text, "event") {
				require.ErrorContains(t, err, text)
			}
		}
		require.Zero(t, r.Rule)
		require.False(t, r.Dropped)
		require.Equal(t, c.body, string(r.Body))
		e, ok := errors.AsType[*event.Error](err)
		require.True(t, ok)
		require.Equal(t, Failed, e.Reason)
	}
	_, err := compile(t, config.Transformation{Drop: true}).Apply([]byte(`{"a":`))
	require.Equal(t, event.InvalidJSON, event.Reason(err, ""))
}

func TestFaultsAreNamedWithTheirPlace(t *testing.T) {
	dir := t.TempDir()
	nested := filepath.Join(dir, "nested.yaml")
	require.NoError(t, os.WriteFile(nested, []byte("- {file: x}\n- {remove: ['a[0]']}\n"), 0o600))
	for want, rule := range map[string]config.Transformation{
		"transformations[0].when: 1:11: ":                           {When: "event.a ==", Drop: true},
		"transformations[0].derive.a: 1:1: ":                        {Derive: set{"a": "evnt.b"}},
		"transformations[0].remove[1]: path":                        {Remove: []string{"a", "b..c"}},
		`transformations[0].remove[0]: "a[*]" is an element`:        {Remove: []string{"a[*]"}},
		"transformations[0].rename.a[*].b: a path with [*]":         {Rename: set{"a[*].b": "c"}},
		"transformations[0].derive.a[*]: a value is set at one":     {Derive: set{"a[*]": "1"}},
		"transformations[0].key_file: open /none":                   {Hash: []string{"a"}, KeyFile: "/none"},
		"the key has 5 bytes, want at least 16":                     {Hash: []string{"a"}, KeyFile: keyFile(t, "short\n")},
		"transformations[0].file: open /none":                       {File: "/none"},
		"nested.yaml)[0].file: stands in such a file already":       {File: nested},
		`nested.yaml)[1].remove[0]: "a[0]" is an element of a list`: {File: nested},
		"transformations[0]: does 0 things":                         {},
	} {
		_, err := Compile([]config.Transformation{rule})
		require.ErrorContains(t, err, want)
	}
	_, err := Compile([]config.Transformation{{Name: "a", Drop: true}, {Name: "a", Drop: true}})
	require.ErrorContains(t, err, `transformations[1].name: a second rule "a"`)
}

func TestListsInFilesStandInTheirPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pii.yaml")
	require.NoError(t, os.WriteFile(file, []byte("- {redact: [context.ip], name: ip}\n- {remove: [a]}\n"), 0o600))
	c := compile(t, config.Transformation{Remove: []string{"b"}}, config.Transformation{File: file}, config.Transformation{Drop: true, When: "has(event.c)"})
	require.Equal(t, []string{"1-remove", "ip", "3-remove", "4-drop"}, c.Rules())
	var none *Chain
	r, err := none.Apply([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, "x", string(r.Body))
}

// Whatever an event holds, a hidden value is nowhere in what comes out, and what comes out is JSON.
func TestHiddenValuesAreGone(t *testing.T) {
	file := keyFile(t, key)
	c := compile(t,
		config.Transformation{Remove: []string{"a.x", "l[*].x"}},
		config.Transformation{Hash: []string{"h", "a.h"}, KeyFile: file},
		config.Transformation{Redact: []string{"r", "l[*].r"}})
	rapid.Check(t, func(t *rapid.T) {
		const secret = "5ecret"
		names := rapid.SampledFrom([]string{"a", "x", "h", "r", "l", "k", `\u0068`, `\u0072`, `\u0061`})
		var value func(depth int, hidden bool) string
		value = func(depth int, hidden bool) string {
			leaf := rapid.SampledFrom([]string{"1.50", "null", `"t"`, "true"}).Draw(t, "leaf")
			if hidden && leaf != "null" {
				leaf = `"` + secret + `"`
			}
			if depth == 0 {
				return leaf
			}
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				return leaf
			case 1:
				var list []string
				for range rapid.IntRange(0, 3).Draw(t, "n") {
					list = append(list, value(depth-1, hidden))
				}
				return "[" + strings.Join(list, ", ") + "]"
			}
			var members []string
			for range rapid.IntRange(0, 4).Draw(t, "n") {
				members = append(members, `"`+names.Draw(t, "name")+`": `+value(depth-1, hidden))
			}
			return "{" + strings.Join(members, ",") + "}"
		}
		hide := func(name string) string { return `"` + name + `":` + value(2, true) }
		body := `{` + strings.Join([]string{
			hide("h"), `"k":` + value(2, false), hide("r"), hide(`\u0068`), `"a":{` + hide("x") + `,"k":1,` + hide("h") + `,` + hide(`\u0078`) + `}`,
			`"l":[{` + hide("x") + `},7,{"k":2,` + hide("r") + `}]`, hide("r"),
		}, ", ") + `}`
		r, err := c.Apply([]byte(body))
		if err != nil {
			t.Fatalf("%v\n%s", err, body)
		}
		if !json.Valid(r.Body) || strings.Contains(string(r.Body), secret) {
			t.Fatalf("%s\nbecame %s", body, r.Body)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	body := []byte(`{"type":"track","event":"Order Completed","userId":"u-1","anonymousId":"a","messageId":"m","timestamp":"2026-05-01T10:00:00Z",` +
		`"context":{"ip":"203.0.113.7","userAgent":"Mozilla/5.0 (X11; Linux x86_64)","page":{"url":"https://shop.example/checkout","path":"/checkout"},"library":{"name":"analytics.js","version":"5.0"}},` +
		`"properties":{"order_id":"o-1","total":129.90,"tax":20.1,"currency":"EUR","products":[{"sku":"a","price":10.5,"name":"Socks"},{"sku":"b","price":99,"name":"Shoes"}]}}`)
	for name, rule := range map[string]config.Transformation{
		"when not met": {When: `event.event == "Other"`, Drop: true},
		"remove":       {Remove: []string{"properties.tax"}},
		"derive":       {Derive: set{"properties.net": "event.properties.total - event.properties.tax"}},
		"hash":         {Hash: []string{"userId"}, KeyFile: keyFile(b, key)},
	} {
		c := compile(b, rule)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := c.Apply(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
