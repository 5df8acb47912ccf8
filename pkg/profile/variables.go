package profile

import (
	"encoding/json"
	"maps"

	"cel.dev/cel-go/cel"
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

// variables resolves the names of Variables from a document, each when it is first asked for. It is used
// for one document by one goroutine.
type variables struct {
	d      *Document
	cached map[string]any
}

// Parent is part of cel.Activation: there is none.
func (v *variables) Parent() cel.Activation { return nil }

// ResolveName is part of cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	if x, ok := v.cached[name]; ok {
		return x, true
	}
	x, ok := v.resolve(name)
	if ok {
		if v.cached == nil {
			v.cached = map[string]any{}
		}
		v.cached[name] = x
	}
	return x, ok
}

func (v *variables) resolve(name string) (any, bool) {
	d := v.d
	switch name {
	case "profile.traits":
		return decoded(d.Traits), true
	case "profile.firstSeen":
		return d.FirstSeen.Time, true
	case "profile.lastSeen":
		return d.LastSeen.Time, true
	case "profile.counts.events":
		return d.Counts.Events, true
	case "profile.counts.track":
		return d.Counts.Track, true
	case "profile.counts.identify":
		return d.Counts.Identify, true
	case "profile.counts.page":
		return d.Counts.Page, true
	case "profile.counts.screen":
		return d.Counts.Screen, true
	case "profile.counts.byName":
		return d.Counts.ByName, true
	case "profile.orders":
		return d.Orders, true
	case "profile.units":
		return d.Units.InexactFloat64(), true
	case "profile.revenue":
		return doubles(d.Revenue), true
	case "profile.averageOrderValue":
		return doubles(d.AverageOrderValue), true
	case "profile.lastOrder":
		return lastOrderVariable(d.LastOrder), true
	case "profile.openCarts":
		return cartVariables(d.OpenCarts), true
	case "profile.brands":
		return brandVariables(d.Brands), true
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

func brandVariables(brands map[string]BrandDocument) map[string]any {
	m := make(map[string]any, len(brands))
	for name, b := range brands {
		m[name] = map[string]any{
			"traits": decoded(b.Traits), "firstSeen": b.FirstSeen.Time, "lastSeen": b.LastSeen.Time, "events": b.Events,
			"orders": b.Orders, "units": b.Units.InexactFloat64(), "revenue": doubles(b.Revenue), "averageOrderValue": doubles(b.AverageOrderValue), "openCarts": int64(b.OpenCarts),
		}
	}
	return m
}

// decoded turns JSON values into what CEL knows. They were valid JSON when they were taken in.
func decoded(raw map[string]json.RawMessage) map[string]any {
	m := make(map[string]any, len(raw))
	for name, b := range raw {
		var x any
		if json.Unmarshal(b, &x) == nil {
			m[name] = x
		}
	}
	return m
}

func doubles(m map[string]Money) map[string]float64 {
	out := make(map[string]float64, len(m))
	for k, v := range m {
		out[k] = v.InexactFloat64()
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
	switch r.variable {
	case "profile.units":
		return v.d.Units, true
	case "profile.revenue":
		m, ok := v.d.Revenue[r.key]
		return m, ok
	case "profile.averageOrderValue":
		m, ok := v.d.AverageOrderValue[r.key]
		return m, ok
	case "profile.traits":
		m, ok := v.d.Traits[r.key]
		return m, ok
	case "profile.firstSeen":
		return v.d.FirstSeen, true
	case "profile.lastSeen":
		return v.d.LastSeen, true
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
	o := v.d.LastOrder
	if o == nil {
		return nil, false
	}
	m := lastOrderVariable(o)
	maps.Copy(m, map[string]any{"time": o.Time, "total": o.Total})
	x, ok := m[key]
	return x, ok
}
