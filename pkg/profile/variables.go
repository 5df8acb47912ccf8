package profile

import (
	"encoding/json"
	"maps"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"

	"github.com/weft-cdp/weft/pkg/commerce"
)

// Variable is a name that audience expressions may use.
type Variable struct {
	Name string
	Type string // in CEL's notation
	Doc  string

	typ    *cel.Type
	scalar bool
}

// Variables are all names that audience expressions may use. They are those of Document; amounts and
// quantities are doubles here, which is exact enough to compare them with what a person writes into a file.
func Variables() []Variable {
	dyn, amounts, numbers := cel.MapType(cel.StringType, cel.DynType), cel.MapType(cel.StringType, cel.DoubleType), cel.MapType(cel.StringType, cel.IntType)
	vs := []Variable{
		{Name: "profile.traits", Doc: "traits by name, as sent; numbers are doubles", typ: dyn},
		{Name: "profile.firstSeen", Doc: "time of the earliest event", typ: cel.TimestampType, scalar: true},
		{Name: "profile.lastSeen", Doc: "time of the latest event", typ: cel.TimestampType, scalar: true},
		{Name: "profile.counts.events", Doc: "number of events", typ: cel.IntType, scalar: true},
		{Name: "profile.counts.track", Doc: "number of track calls", typ: cel.IntType, scalar: true},
		{Name: "profile.counts.identify", Doc: "number of identify calls", typ: cel.IntType, scalar: true},
		{Name: "profile.counts.page", Doc: "number of page calls", typ: cel.IntType, scalar: true},
		{Name: "profile.counts.screen", Doc: "number of screen calls", typ: cel.IntType, scalar: true},
		{Name: "profile.counts.byName", Doc: "number of track calls by event name", typ: numbers},
		{Name: "profile.orders", Doc: "number of orders that are not cancelled", typ: cel.IntType, scalar: true},
		{Name: "profile.units", Doc: "number of products in these orders", typ: cel.DoubleType, scalar: true},
		{Name: "profile.revenue", Doc: "sum of the orders by currency", typ: amounts},
		{Name: "profile.averageOrderValue", Doc: "revenue per order by currency", typ: amounts},
		{Name: "profile.lastOrder", Doc: "id, brand, time, total, currency; empty if there is none", typ: dyn},
		{Name: "profile.openCarts", Doc: "list of carts with brand, id, items, value (of its currency), currency, checkout, firstActivity, lastActivity", typ: cel.ListType(dyn)},
		{Name: "profile.brands", Doc: "by brand: traits, firstSeen, lastSeen, events, orders, units, revenue, averageOrderValue, openCarts", typ: dyn},
	}
	for i := range vs {
		vs[i].Type = vs[i].typ.String()
	}
	return vs
}

// variables resolves the names of Variables from a state, each when it is first asked for. It is used for one
// state, which does not change meanwhile, by one goroutine.
type variables struct {
	s      *State
	d      *Document // for what is rarely asked for
	cached []variable
}

type variable struct {
	name  string
	value any
}

// Parent is part of cel.Activation: there is none.
func (v *variables) Parent() cel.Activation { return nil }

// ResolveName is part of cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	for i := range v.cached {
		if v.cached[i].name == name {
			return v.cached[i].value, true
		}
	}
	x, ok := v.resolve(name)
	if ok {
		v.cached = append(v.cached, variable{name, x})
	}
	return x, ok
}

// document is the whole of the state as others read it.
func (v *variables) document() *Document {
	if v.d == nil {
		d := v.s.Document("")
		v.d = &d
	}
	return v.d
}

func (v *variables) resolve(name string) (any, bool) {
	s := v.s
	switch name {
	case "profile.traits":
		return s.traits.decoded(), true
	case "profile.firstSeen":
		return millis(s.First), true
	case "profile.lastSeen":
		return millis(s.Last), true
	case "profile.counts.events":
		return s.Events, true
	case "profile.counts.track":
		return s.types[0], true
	case "profile.counts.identify":
		return s.types[1], true
	case "profile.counts.page":
		return s.types[2], true
	case "profile.counts.screen":
		return s.types[3], true
	case "profile.counts.byName":
		return s.counts().ByName, true
	case "profile.orders":
		n := int64(0)
		for _, x := range s.totals() {
			n += x.orders
		}
		return n, true
	case "profile.units":
		var n commerce.Amount
		for _, x := range s.totals() {
			n = n.Add(x.units)
		}
		return n.Float64(), true
	case "profile.revenue":
		return doubles(s.totals(), func(x *sum) commerce.Amount { return x.amount }), true
	case "profile.averageOrderValue":
		return doubles(s.totals(), (*sum).average), true
	case "profile.lastOrder":
		return lastOrderVariable(s.lastOrder()), true
	case "profile.openCarts":
		return cartVariables(v.document().OpenCarts), true
	case "profile.brands":
		return s.brandVariables(), true
	}
	return nil, false
}

func lastOrderVariable(o *LastOrder) map[string]any {
	if o == nil {
		return map[string]any{}
	}
	return map[string]any{"id": o.ID, "brand": o.Brand, "time": o.Time.Time, "total": o.Total.InexactFloat64(), "currency": o.Currency}
}

func cartVariables(carts []CartDocument) []any {
	list := make([]any, 0, len(carts))
	for i := range carts {
		c := &carts[i]
		items := 0.0
		for _, l := range c.Lines {
			items += number(l.Quantity)
		}
		list = append(list, map[string]any{
			"brand": c.Brand, "id": c.ID, "items": items, "value": c.Value[c.Currency].InexactFloat64(), "currency": c.Currency,
			"checkout": c.Checkout, "firstActivity": c.FirstActivity.Time, "lastActivity": c.LastActivity.Time,
		})
	}
	return list
}

func (s *State) brandVariables() map[string]any {
	m := make(map[string]any, len(s.brands))
	for _, b := range s.brands {
		one := State{brands: []*brand{b}}
		orders, units := int64(0), commerce.Amount{}
		for _, x := range one.totals() {
			orders, units = orders+x.orders, units.Add(x.units)
		}
		m[b.name] = map[string]any{
			"traits": b.traits.decoded(), "firstSeen": millis(b.first), "lastSeen": millis(b.last), "events": b.events,
			"orders": orders, "units": units.Float64(), "revenue": doubles(b.orders.sums, func(x *sum) commerce.Amount { return x.amount }),
			"averageOrderValue": doubles(b.orders.sums, (*sum).average), "openCarts": int64(len(s.open(b))),
		}
	}
	return m
}

// decoded turns JSON values into what CEL knows. They were valid JSON when they were taken in.
func (ts traits) decoded() map[string]any {
	m := make(map[string]any, len(ts))
	for _, t := range ts {
		if t.value == "" {
			continue
		}
		var x any
		if plain, ok := plainText(t.value); ok {
			m[t.name] = plain
		} else if json.Unmarshal([]byte(t.value), &x) == nil {
			m[t.name] = x
		}
	}
	return m
}

// plainText is the text of a JSON string in which nothing is escaped, as most are.
func plainText(value string) (string, bool) {
	if len(value) < 2 || value[0] != '"' || strings.IndexByte(value, '\\') >= 0 || !utf8.ValidString(value) {
		return "", false
	}
	return value[1 : len(value)-1], true
}

func doubles(sums []sum, of func(*sum) commerce.Amount) map[string]float64 {
	out := make(map[string]float64, len(sums))
	for i := range sums {
		if x := &sums[i]; x.currency != "" {
			out[x.currency] = of(x).Float64()
		}
	}
	return out
}

func number(s string) float64 {
	var f float64
	if json.Unmarshal([]byte(s), &f) != nil {
		return 0
	}
	return f
}

// exact is the value of a reading as it stands in the document: amounts and quantities as text, not as doubles. False: it
// is absent.
func (v *variables) exact(r reading) (any, bool) {
	switch d := v.document(); r.variable {
	case "profile.units":
		return d.Units, true
	case "profile.revenue":
		m, ok := d.Revenue[r.key]
		return m, ok
	case "profile.averageOrderValue":
		m, ok := d.AverageOrderValue[r.key]
		return m, ok
	case "profile.traits":
		m, ok := d.Traits[r.key]
		return m, ok
	case "profile.firstSeen":
		return d.FirstSeen, true
	case "profile.lastSeen":
		return d.LastSeen, true
	case "profile.lastOrder":
		return v.exactLastOrder(r.key)
	}
	x, ok := v.ResolveName(r.variable)
	if !ok || r.key == "" {
		return x, ok
	}
	if counts, isCounts := x.(map[string]int64); isCounts {
		n, ok := counts[r.key]
		return n, ok
	}
	return nil, false // a brand as a whole is no reason that fits a line
}

func (v *variables) exactLastOrder(key string) (any, bool) {
	o := v.document().LastOrder
	if o == nil {
		return nil, false
	}
	m := lastOrderVariable(o)
	maps.Copy(m, map[string]any{"time": o.Time, "total": o.Total})
	x, ok := m[key]
	return x, ok
}
