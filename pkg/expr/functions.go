package expr

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/event"
)

// maxPlaces is how many decimals round() leaves at most.
const maxPlaces = quotientDigits

// Function is one function that expressions may call beside those of CEL.
type Function struct{ Name, Doc string }

// Functions are the functions of this package, for the documentation.
func Functions() []Function {
	return []Function{
		{"default(x, y)", "x, or y if x is absent or null"},
		{"coalesce(a, b, ...)", "the first of up to six that is neither absent nor null"},
		{"text(x)", "a text, number or truth value as text"},
		{"number(x)", "a number from a text such as \"19.90\", with its digits; a number as it is"},
		{"round(x, n)", "x rounded to n decimals, half away from zero"},
		{"sum(list)", "the sum of a list of numbers"},
		{"time(x)", "a time from a text or number, read as events' times are: RFC 3339, dates, Unix seconds, milliseconds, microseconds"},
		{"lower(x), upper(x), trim(x)", "the text in small letters, in capitals, without white space around it"},
		{"email(x)", "trimmed and in small letters; absent if nothing is left"},
		{"phone(x)", "digits, with a leading + if there is one; absent if nothing is left"},
		{"sha256(x)", "hexadecimal SHA-256 of the text"},
		{"hmac(x, \"NAME\")", "hexadecimal HMAC-SHA256 of the text with the key of that name"},
		{"json(x)", "the value that a JSON text holds"},
		{"toJson(x)", "the value as JSON text"},
	}
}

// functions declares them. All but default, coalesce and toJson give absent for what is absent or null.
func functions(secrets map[string][]byte) []cel.EnvOption {
	dyn := cel.DynType
	one := func(name string, f func(ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(name+"_dyn", []*cel.Type{dyn}, dyn, cel.UnaryBinding(func(v ref.Val) ref.Val {
			if isNothing(v) {
				return absent
			}
			return f(v)
		})))
	}
	texts := func(name string, f func(string) ref.Val) cel.EnvOption {
		return one(name, func(v ref.Val) ref.Val {
			s, ok := textOf(v)
			if !ok {
				return types.NewErr("%s: a text is wanted, this is a %s", name, nameOf(v))
			}
			return f(s)
		})
	}
	text := func(f func(string) string) func(string) ref.Val {
		return func(s string) ref.Val { return types.String(f(s)) }
	}
	first := func(vs ...ref.Val) ref.Val {
		for _, v := range vs {
			if !isNothing(v) {
				return v
			}
		}
		return vs[len(vs)-1]
	}
	var coalesce []cel.FunctionOpt
	for n := 2; n <= 6; n++ {
		coalesce = append(coalesce, cel.Overload("coalesce_"+strconv.Itoa(n), slices.Repeat([]*cel.Type{dyn}, n), dyn))
	}
	return []cel.EnvOption{
		cel.Function("default", cel.Overload("default_dyn", []*cel.Type{dyn, dyn}, dyn), cel.SingletonBinaryBinding(func(a, b ref.Val) ref.Val { return first(a, b) })),
		cel.Function("coalesce", append(coalesce, cel.SingletonFunctionBinding(first))...),
		texts("text", text(func(s string) string { return s })),
		texts("lower", text(strings.ToLower)),
		texts("upper", text(strings.ToUpper)),
		texts("trim", text(strings.TrimSpace)),
		texts("email", func(s string) ref.Val { return orAbsent(strings.ToLower(strings.TrimSpace(s))) }),
		texts("phone", func(s string) ref.Val { return orAbsent(phone(s)) }),
		texts("sha256", func(s string) ref.Val { return digest(sha256.New(), s) }),
		texts("json", parseJSON),
		one("number", toNumber),
		one("sum", sum),
		one("time", toTime),
		cel.Function("toJson", cel.Overload("to_json_dyn", []*cel.Type{dyn}, dyn), cel.SingletonUnaryBinding(func(v ref.Val) ref.Val {
			b, err := appendJSON(nil, v)
			if err != nil {
				return types.WrapErr(err)
			}
			return types.String(b)
		})),
		cel.Function("round", cel.Overload("round_dyn_int", []*cel.Type{dyn, cel.IntType}, dyn), cel.SingletonBinaryBinding(round)),
		cel.Function("hmac", cel.Overload("hmac_dyn_string", []*cel.Type{dyn, cel.StringType}, dyn), cel.SingletonBinaryBinding(func(v, name ref.Val) ref.Val {
			if isNothing(v) {
				return absent
			}
			s, ok := textOf(v)
			key, isName := name.(types.String)
			if !ok || !isName {
				return types.NewErr("hmac: a text is wanted, this is a %s", nameOf(v))
			}
			return digest(hmac.New(sha256.New, secrets[string(key)]), s) // Compile has seen that there is one
		})),
	}
}

// textOf is a scalar as text.
func textOf(v ref.Val) (string, bool) {
	switch x := v.(type) {
	case types.String:
		return string(x), true
	case *number:
		return x.String(), true
	case types.Int, types.Uint, types.Bool, types.Timestamp, types.Double:
		b, err := appendJSON(nil, v)
		return strings.Trim(string(b), `"`), err == nil
	}
	return "", false
}

func orAbsent(s string) ref.Val {
	if s == "" {
		return absent
	}
	return types.String(s)
}

func digest(h hash.Hash, s string) ref.Val {
	h.Write([]byte(s))
	return types.String(hex.EncodeToString(h.Sum(nil)))
}

// phone keeps what a number is dialled by.
func phone(s string) string {
	s = strings.TrimSpace(s)
	kept := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
	if kept != "" && s[0] == '+' {
		return "+" + kept
	}
	return kept
}

func parseJSON(s string) ref.Val {
	raw := trimSpace([]byte(s))
	if err := event.CheckJSON(raw); err != nil {
		return types.NewErr("json: %s", err)
	}
	return fromJSON(raw)
}

func toNumber(v ref.Val) ref.Val {
	switch x := v.(type) {
	case *number, types.Int, types.Uint, types.Double:
		return v
	case types.String:
		raw := trimSpace([]byte(x))
		if len(raw) > 0 && raw[0] == '+' {
			raw = raw[1:]
		}
		if event.CheckJSON(raw) == nil && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9') {
			return &number{text: string(raw)}
		}
		d, err := decimal.NewFromString(string(raw)) // such as 007 or .5
		if err != nil || bounded(d) != nil {
			return types.NewErr("number: %q is none", string(x))
		}
		return computed(d)
	}
	return types.NewErr("number: a text or number is wanted, this is a %s", nameOf(v))
}

func sum(v ref.Val) ref.Val {
	list, ok := v.(traits.Lister)
	if !ok {
		return types.NewErr("sum: a list is wanted, this is a %s", nameOf(v))
	}
	total := decimal.Zero
	for it := list.Iterator(); it.HasNext() == types.True; {
		x := it.Next()
		d, ok, err := decimalOf(x)
		if !ok {
			return types.NewErr("sum: a list of numbers is wanted, this has a %s", nameOf(x))
		}
		if err != nil {
			return types.WrapErr(err)
		}
		total = total.Add(d)
	}
	return computed(total)
}

func toTime(v ref.Val) ref.Val {
	if _, ok := v.(types.Timestamp); ok {
		return v
	}
	s, ok := textOf(v)
	if !ok {
		return types.NewErr("time: a text or number is wanted, this is a %s", nameOf(v))
	}
	t, ok := event.ParseTime(s)
	if !ok {
		return types.NewErr("time: %q is none", s)
	}
	return types.Timestamp{Time: t}
}

func round(v, places ref.Val) ref.Val {
	if isNothing(v) {
		return absent
	}
	d, ok, err := decimalOf(v)
	n, isInt := plain(places).(types.Int)
	switch {
	case !ok:
		return types.NewErr("round: a number is wanted, this is a %s", nameOf(v))
	case err != nil:
		return types.WrapErr(err)
	case !isInt || n < 0 || n > maxPlaces:
		return types.NewErr("round: 0 to %d decimals", maxPlaces)
	}
	return computed(d.Round(int32(n)))
}
