package profile

import (
	"strconv"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

// Encode writes the value of profiles.changed, at most MaxDocument long: the JSON of Document, without making
// one, since a profile is told with every batch that has an event of it.
func (s *State) Encode(id string) ([]byte, error) {
	w := writer{b: make([]byte, 0, 1024+s.size)}
	w.document(s, id)
	if len(w.b) <= MaxDocument {
		return w.b, nil
	}
	d := s.Document(id)
	return d.Encode()
}

// writer writes a Document's JSON: the same members in the same order (a test compares the two).
type writer struct{ b []byte }

// name begins a member, whose name needs no escapes; open is what stands before it.
func (w *writer) name(open byte, name string) {
	w.b = append(w.b, open, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *writer) text(s string) { w.b = event.AppendJSONString(w.b, s) }

func (w *writer) number(n int64) { w.b = strconv.AppendInt(w.b, n, 10) }

func (w *writer) time(t int64) {
	w.b = append(w.b, '"')
	w.b = millis(t).AppendFormat(w.b, timeLayout)
	w.b = append(w.b, '"')
}

func (w *writer) money(a commerce.Amount) {
	w.b = append(a.AppendMoney(append(w.b, '"')), '"')
}

func (w *writer) quantity(a commerce.Amount) {
	w.b = append(a.AppendQuantity(append(w.b, '"')), '"')
}

// list writes the elements of a list or object between its brackets.
func (w *writer) list(brackets string, n int, element func(i int)) {
	w.b = append(w.b, brackets[0])
	for i := range n {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		element(i)
	}
	w.b = append(w.b, brackets[1])
}

func (w *writer) texts(list []string) {
	w.list("[]", len(list), func(i int) { w.text(list[i]) })
}

func (w *writer) document(s *State, id string) {
	w.name('{', "id")
	w.text(id)
	w.name(',', "traits")
	w.traits(s.traits)
	open := make([][]commerce.OpenCart, len(s.brands))
	w.name(',', "brands")
	w.list("{}", len(s.brands), func(i int) {
		open[i] = s.open(s.brands[i])
		w.brand(s.brands[i], len(open[i]))
	})
	w.name(',', "firstSeen")
	w.time(s.First)
	w.name(',', "lastSeen")
	w.time(s.Last)
	w.name(',', "counts")
	w.counts(s)
	w.totals(s.totals())
	if b := s.latest(); b != nil {
		w.name(',', "lastOrder")
		w.lastOrder(b)
	}
	w.name(',', "openCarts")
	w.b = append(w.b, '[')
	first := true
	for i, carts := range open {
		for j := range carts {
			if !first {
				w.b = append(w.b, ',')
			}
			first = false
			w.cart(s.brands[i].name, &carts[j])
		}
	}
	w.b = append(w.b, ']')
	w.name(',', "audiences")
	w.texts(s.Audiences)
	w.name(',', "updatedAt")
	if s.Received == 0 {
		w.b = append(w.b, '"')
		w.b = append(s.AsOf().AppendFormat(w.b, timeLayout), '"')
	} else {
		w.time(s.Received)
	}
	w.name(',', "version")
	w.number(s.Version())
	if c := s.Capped(); c != 0 {
		w.name(',', "capped")
		w.texts(c.Names())
	}
	w.b = append(w.b, '}')
}

func (w *writer) traits(ts traits) {
	w.b = append(w.b, '{')
	first := true
	for i := range ts {
		if ts[i].value == "" {
			continue
		}
		if !first {
			w.b = append(w.b, ',')
		}
		first = false
		w.text(ts[i].name)
		w.b = append(append(w.b, ':'), ts[i].value...)
	}
	w.b = append(w.b, '}')
}

func (w *writer) brand(b *brand, open int) {
	w.text(b.name)
	w.b = append(w.b, ':')
	w.name('{', "traits")
	w.traits(b.traits)
	w.name(',', "firstSeen")
	w.time(b.first)
	w.name(',', "lastSeen")
	w.time(b.last)
	w.name(',', "events")
	w.number(b.events)
	w.totals(b.orders.sums)
	w.name(',', "openCarts")
	w.number(int64(open))
	w.b = append(w.b, '}')
}

func (w *writer) counts(s *State) {
	w.name('{', "events")
	w.number(s.Events)
	for i, typ := range eventTypes {
		w.name(',', string(typ))
		w.number(s.types[i])
	}
	w.name(',', "byName")
	w.list("{}", len(s.names), func(i int) {
		w.text(s.names[i].name)
		w.b = append(w.b, ':')
		w.number(s.names[i].n)
	})
	w.name(',', "otherNames")
	w.number(s.Others)
	w.b = append(w.b, '}')
}

// totals writes orders, units, revenue and averageOrderValue.
func (w *writer) totals(sums []sum) {
	n, units := int64(0), commerce.Amount{}
	for i := range sums {
		n, units = n+sums[i].orders, units.Add(sums[i].units)
	}
	w.name(',', "orders")
	w.number(n)
	w.name(',', "units")
	w.quantity(units)
	if len(sums) > 0 && sums[0].currency == "" { // it sorts first, and is no currency
		sums = sums[1:]
	}
	w.name(',', "revenue")
	w.list("{}", len(sums), func(i int) {
		w.text(sums[i].currency)
		w.b = append(w.b, ':')
		w.money(sums[i].amount)
	})
	w.name(',', "averageOrderValue")
	w.list("{}", len(sums), func(i int) {
		w.text(sums[i].currency)
		w.b = append(w.b, ':')
		w.money(sums[i].average())
	})
}

func (w *writer) lastOrder(b *brand) {
	o := &b.orders.last
	w.name('{', "id")
	w.text(o.ID)
	w.name(',', "brand")
	w.text(b.name)
	w.name(',', "time")
	w.time(o.Placed)
	w.name(',', "total")
	w.money(o.amount())
	w.name(',', "currency")
	w.text(o.Currency)
	w.b = append(w.b, '}')
}

func (w *writer) cart(brand string, c *commerce.OpenCart) {
	w.name('{', "brand")
	w.text(brand)
	w.name(',', "id")
	w.text(c.ID)
	w.name(',', "lines")
	w.list("[]", len(c.Items), func(i int) { w.line(&c.Items[i]) })
	w.name(',', "items")
	w.quantity(c.Pieces())
	value := c.Value()
	w.name(',', "value")
	w.list("{}", len(value), func(i int) {
		w.text(value[i].Currency)
		w.b = append(w.b, ':')
		w.money(value[i].Amount)
	})
	w.name(',', "currency")
	w.text(c.Currency)
	w.name(',', "checkout")
	w.b = strconv.AppendBool(w.b, c.Checkout)
	w.name(',', "firstActivity")
	w.time(c.FirstActivity)
	w.name(',', "lastActivity")
	w.time(c.LastActivity)
	w.b = append(w.b, '}')
}

func (w *writer) line(l *commerce.Item) {
	w.name('{', "productId")
	w.text(l.ProductID)
	for _, x := range [...]struct{ name, value string }{
		{"variant", l.Variant}, {"name", l.Name}, {"category", l.Category}, {"url", l.URL}, {"imageUrl", l.ImageURL},
	} {
		if x.value != "" {
			w.name(',', x.name)
			w.text(x.value)
		}
	}
	w.name(',', "price")
	w.money(commerce.Units(l.Price))
	w.name(',', "currency")
	w.text(l.Currency)
	w.name(',', "quantity")
	w.quantity(commerce.Units(l.Quantity))
	w.b = append(w.b, '}')
}
