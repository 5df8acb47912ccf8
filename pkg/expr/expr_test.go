package expr_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
)

func newEnv(t testing.TB) *expr.Env {
	env, err := expr.NewEnv(expr.Options{Variables: []string{"record", "topic"}, Secrets: map[string][]byte{"email": []byte("key")}})
	require.NoError(t, err)
	return env
}

const sale = `{"id":4711,"total":19.90,"big":123456789012345678901234567890,"card":"C-1 ","at":"2026-05-04T10:11:12.345+02:00","unix":1777890672,
"nil":null,"vip":true,"lines":[{"sku":"A","price":1.10,"qty":3},{"sku":"B","price":0.3,"qty":1}],"customer":{"mail":" Ann@Example.COM ","tel":"+48 (22) 123-45"},
"esc":"a\u00e9\/","payload":"{\"n\":1.50}","a":2,"tags":["x","y"],"cents":1999,"nums":[1,2.50]}`

func TestExpressions(t *testing.T) {
	env := newEnv(t)
	for text, want := range map[string]string{
		// copies keep their digits and their text
		`record.total`: `19.90`, `record.big`: `123456789012345678901234567890`, `record["total"]`: `19.90`,
		`record.lines`: `[{"sku":"A","price":1.10,"qty":3},{"sku":"B","price":0.3,"qty":1}]`, `record.esc`: `"aé/"`,
		`{"b": record.total, "a": [record.big, record.nothing]}`: `{"a":[123456789012345678901234567890,null],"b":19.90}`,
		`record.lines.map(l, {"s": l.sku, "p": l.price})`:        `[{"p":1.10,"s":"A"},{"p":0.3,"s":"B"}]`,
		`record.vip ? record.total : 0`:                          `19.90`,
		`[1] + record.nums`:                                      `[1,1,2.50]`,
		`record.nums + [1]`:                                      `[1,2.50,1]`,
		// arithmetic is decimal
		`record.total * 1.1`: `21.89`, `record.total + 1`: `20.9`, `1 + record.total`: `20.9`, `record.lines[0].price * record.lines[0].qty`: `3.3`,
		`0.1 + 0.2`: `0.3`, `record.cents / 100`: `19.99`, `7 / 2`: `3`, `record.a / 3`: `0.6666666666666667`, `-record.total`: `-19.9`, `record.cents % 10`: `9`,
		`round(record.total / 3, 2)`: `6.63`, `record.a - 5`: `-3`, `7u * 2u`: `14`,
		`record.lines.map(l, l.price * l.qty)`: `[3.3,0.3]`,
		`record.big + 1`:                       `123456789012345678901234567891`,
		// what is not there
		`record.customer.nothing.deeper`: ``, `record.nothing`: ``, `record.lines[7].sku`: ``, `record.nil`: `null`, `record.nil.x`: ``,
		`record.total.x`: ``, `record.lines["x"]`: ``, `record[0]`: ``,
		`has(record.nil)`: `true`, `has(record.nothing)`: `false`, `has(record.nothing.x)`: `false`, `has(record.customer.mail)`: `true`,
		`default(record.nothing, "x")`: `"x"`, `default(record.nil, record.total)`: `19.90`, `coalesce(record.x, record.y.z, record.card)`: `"C-1 "`,
		`record.nothing == null`: `true`, `record.nil == null`: `true`, `record.card != null`: `true`, `record.nothing == record.nil`: `true`,
		`record.nothing > 5`: `false`, `record.nothing <= 5`: `false`, `record.nothing.map(x, x)`: `[]`, `record.nothing.exists(x, x == 1)`: `false`,
		`size(record.nothing)`: `0`, `"x" in record.nothing`: `false`, `record.nothing && true`: `false`, `!record.nothing`: `true`, `lower(record.nothing)`: ``,
		`{"a": record.nothing, "b": 1}`:   `{"b":1}`,
		`record.nothing.x.startsWith("")`: `false`, `record.nil.matches(".*")`: `false`, `lower(record.nothing).endsWith("x") || record.card.contains("-1")`: `true`,
		`record.nothing.contains("x") ? 1 : 2`: `2`, `record.tags.exists(x, x.startsWith("y"))`: `true`, `record.lines.filter(l, l.none.startsWith("A"))`: `[]`,
		// comparisons
		`record.id == 4711`: `true`, `4711 == record.id`: `true`, `record.id == 4711.0`: `true`, `record.total == 19.9`: `true`, `[4711] == [record.id]`: `true`,
		`record.id in [1, 4711]`: `true`, `2.5 in record.nums`: `true`, `record.id > 4710.5`: `true`, `record.card >= "C"`: `true`, `"sku" in record.lines[0]`: `true`,
		`{"sku": "A", "price": 1.1, "qty": 3} == record.lines[0]`: `true`, `record.lines[0] == record.lines[1]`: `false`, `record.big == record.big + 1`: `false`,
		`record.tags == ["x", "y"]`: `true`, `record.vip == true`: `true`,
		// CEL's own functions take JSON numbers
		`"abcdef".substring(record.a)`: `"cdef"`, `string(record.total)`: `"19.90"`, `int(record.total)`: `19`, `double(record.total)`: `19.9`,
		`"%d".format([record.id])`: `"4711"`, `record.tags.join("-")`: `"x-y"`, `size(record.lines)`: `2`, `record.lines.size()`: `2`, `record.card.trim()`: `"C-1"`,
		`record.tags[record.a - 1]`: `"y"`, `record.lines.exists(l, l.qty > 2)`: `true`, `record.lines.filter(l, l.qty == 3)[0].sku`: `"A"`,
		`record.customer.map(k, k)`: `["mail","tel"]`, `record.card.matches("^C-")`: `true`,
		// functions of this package
		`email(record.customer.mail)`: `"ann@example.com"`, `phone(record.customer.tel)`: `"+482212345"`, `email("  ")`: ``, `text(record.id)`: `"4711"`,
		`time(record.at)`: `"2026-05-04T08:11:12.345Z"`, `time(record.unix)`: `"2026-05-04T10:31:12.000Z"`, `time(record.at) + duration("1h")`: `"2026-05-04T09:11:12.345Z"`,
		`time(record.at) > time("2026-01-01")`: `true`, `sha256("a")`: `"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"`,
		`hmac("a", "email")`:                        `"780c3db4ce3de5b9e55816fba98f590631d96c075271b26976238d5f4444219b"`,
		`sum(record.lines.map(l, l.price * l.qty))`: `3.6`,
		`json(record.payload).n`:                    `1.50`, `toJson(record.lines[1])`: `"{\"sku\":\"B\",\"price\":0.3,\"qty\":1}"`, `number("19.90")`: `19.90`, `number("007")`: `7`,
		`upper("a") + lower("B") + trim(" c ")`: `"Abc"`, `"Order " + text(record.id)`: `"Order 4711"`, `topic`: `"sales"`,
	} {
		t.Run(text, func(t *testing.T) {
			p, err := env.Compile(text)
			require.NoError(t, err)
			vars := env.NewVars()
			vars.SetJSON("record", []byte(sale))
			vars.SetText("topic", "sales")
			out, ok, err := p.AppendJSON(nil, vars)
			require.NoError(t, err)
			require.Equal(t, want != "", ok)
			require.Equal(t, want, string(out))
		})
	}
}

func TestFaultsOfCompiling(t *testing.T) {
	env := newEnv(t)
	for text, want := range map[string]string{
		"record.a +":                 "1:11: ",
		"1 +\n  nosuch":              "2:3: undeclared reference to 'nosuch'",
		`nosuch(record)`:             "1:7: undeclared reference to 'nosuch'",
		`"a" - 1`:                    "1:5: found no matching overload",
		`hmac(record.a, record.b)`:   "1:5: hmac: the name of the key is a literal",
		`hmac(record.a, "other")`:    `1:5: hmac: there is no key "other"`,
		`record.a.matches("[")`:      "1:18: invalid matches argument",
		strings.Repeat("1+", 3000):   "expression code point size exceeds limit",
		strings.Repeat("(", 300):     "",
		`record.map(x, y)`:           "1:15: undeclared reference to 'y'",
		`duration("nonsense")`:       "1:10: invalid duration argument",
		`record.a` + "\n\n\t + zz()": "3:7: undeclared reference to 'zz'",
	} {
		_, err := env.Compile(text)
		require.ErrorContains(t, err, want, text)
		fault, ok := errors.AsType[*expr.Error](err)
		require.True(t, ok, text)
		require.Equal(t, text, fault.Expression)
	}
}

func TestFaultsOfEvaluating(t *testing.T) {
	env := newEnv(t)
	for text, want := range map[string]string{
		`record.total + "a"`:                "1:14: cannot add a number and a text",
		`record.nothing + 1`:                "1:16: cannot add a value that is not there and a number",
		"1 == 1 &&\n time(record.card) > 5": `2:6: time: "C-1 " is none`,
		`record.total / 0`:                  "1:14: division by zero",
		`record.card > 5`:                   "1:13: cannot compare a text with a number",
		`round(record.card, 2)`:             "1:6: round: a number is wanted, this is a text",
		`number(record.card)`:               `1:7: number: "C-1 " is none`,
		`json(record.card)`:                 "1:5: json: invalid_json",
		`record.card ? 1 : 2`:               "no such overload",
		`-record.card`:                      "1:1: cannot negate a text",
		`number("1e999999999") + 1`:         "beyond 152 digits or 1e308",
	} {
		p, err := env.Compile(text)
		require.NoError(t, err, text)
		vars := env.NewVars()
		vars.SetJSON("record", []byte(sale))
		_, err = p.Eval(vars)
		require.ErrorContains(t, err, want, text)
		_, again := p.Eval(vars)
		require.Equal(t, err, again)
	}
}

// A record made to be slow ends the evaluation, soon.
func TestCostIsBounded(t *testing.T) {
	env := newEnv(t)
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 20_000), ",") + "]"
	for text, record := range map[string]string{
		`record.exists(a, record.exists(b, a + b == 7))`:             list,
		`record.map(a, record.map(b, record.map(c, a)))`:             list,
		`record.map(a, [a, a]).map(b, b.map(c, record.map(d, d)))`:   list,
		`[1,2,3,4,5,6,7,8].map(a, [1,2,3,4,5,6,7,8].map(b, record))`: `"` + strings.Repeat("x", 900_000) + `"`,
	} {
		p, err := env.Compile(text)
		require.NoError(t, err)
		vars := env.NewVars()
		vars.SetJSON("record", []byte(record))
		_, _, err = p.AppendJSON(nil, vars)
		fault, ok := errors.AsType[*expr.Error](err)
		require.True(t, ok, "%s: %v", text, err)
		require.Regexp(t, "cost limit exceeded|longer than", fault.Text)
	}
}

func TestConditions(t *testing.T) {
	env := newEnv(t)
	for text, want := range map[string]bool{`record.vip`: true, `record.nothing`: false, `record.nil`: false, `record.id == 4711 && record.vip`: true} {
		p, err := env.Compile(text)
		require.NoError(t, err)
		vars := env.NewVars()
		vars.SetJSON("record", []byte(sale))
		got, err := p.Bool(vars)
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
	p, err := env.Compile(`record.id`)
	require.NoError(t, err)
	vars := env.NewVars()
	vars.SetJSON("record", []byte(sale))
	_, err = p.Bool(vars)
	require.ErrorContains(t, err, "true or false is wanted, this is a number")
}

// Any number that JSON can write is copied with its digits, however deep it stands and whatever is built around it.
func TestNumbersKeepTheirDigits(t *testing.T) {
	env := newEnv(t)
	p, err := env.Compile(`{"a": [default(record.n, 0)], "b": record.l.map(x, x), "c": true ? record.n : 1}`)
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.StringMatching(`-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,9})?`).Draw(t, "n")
		raw := []byte(`{"n":` + n + `,"l":[` + n + `]}`)
		if err := event.CheckJSON(raw); err != nil {
			t.Fatal(err)
		}
		vars := env.NewVars()
		vars.SetJSON("record", raw)
		out, _, err := p.AppendJSON(nil, vars)
		if want := `{"a":[` + n + `],"b":[` + n + `],"c":` + n + `}`; err != nil || string(out) != want {
			t.Fatalf("%s, want %s (%v)", out, want, err)
		}
	})
}

// Whatever stands in an expression and a record: no panic, JSON or an *Error, and the same twice.
func FuzzExpression(f *testing.F) {
	for _, x := range []string{`record.total * 1.2`, `record.lines.map(l, l.price * l.qty)`, `coalesce(record.a, record["b"], 3)`, `time(record.at) - duration("1s")`,
		`has(record.a) && record.a in [1, "x"] ? json(record.b).c : {"x": [record]}`, `number(text(record.n)) % 3`, `record.a.b[2].c == null`, `-record.a < 3 || !record.b`} {
		f.Add(x, []byte(sale))
		f.Add(x, []byte(`[1,{"a":"\ud800","a":2}]`))
	}
	env := newEnv(f)
	f.Fuzz(func(t *testing.T, text string, record []byte) {
		if event.CheckJSON(record) != nil || len(text) > 200 {
			return
		}
		p, err := env.Compile(text)
		if err != nil {
			return
		}
		vars := env.NewVars()
		vars.SetJSON("record", record)
		out, ok, err := p.AppendJSON(nil, vars)
		if err != nil {
			if _, known := errors.AsType[*expr.Error](err); !known {
				t.Fatalf("%q: %v", text, err)
			}
			if strings.Contains(err.Error(), "internal error") {
				t.Fatalf("%q of %q panicked: %v", text, record, err)
			}
			return
		}
		if ok && event.CheckJSON(out) != nil && !errors.Is(event.CheckJSON(out), nil) && event.Reason(event.CheckJSON(out), "") != event.TooDeep {
			t.Fatalf("%q of %q gave %q", text, record, out)
		}
		again, _, _ := p.AppendJSON(nil, vars)
		if string(again) != string(out) {
			t.Fatalf("%q of %q gave %q, then %q", text, record, out, again)
		}
	})
}
