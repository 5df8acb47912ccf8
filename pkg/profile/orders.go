package profile

import (
	"maps"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

// MaxOrders is the most orders of one person in one brand that are kept one by one, about 300 kB. Beyond
// it the oldest are kept as sums only: a later report of such an order (a cancellation, or the shop
// system's report of what the browser told long ago) then counts as an order of its own. Only here can the
// order of arrival matter.
const MaxOrders = 2000

// order is what is known of one order, from any number of reports. Each part goes by the newest event time
// on its own: a cancellation without a total does not take the total away.
type order struct {
	Placed   int64                `json:"p,omitempty"` // earliest report that it was completed, ms; 0: none came
	Status   commerce.OrderStatus `json:"s"`
	StatusT  int64                `json:"t"`
	StatusI  uint64               `json:"i"`
	Amount   int64                `json:"a,omitempty"` // in units of 1/10000
	Currency string               `json:"y,omitempty"` // "": no report named an amount
	AmountT  int64                `json:"u,omitempty"`
	AmountI  uint64               `json:"j,omitempty"`
	Units    *int64               `json:"n,omitempty"` // in units of 1/10000; nil: no report named products or a quantity
	UnitsT   int64                `json:"v,omitempty"`
	UnitsI   uint64               `json:"k,omitempty"`
}

// counts says whether the order counts: it was placed and is not cancelled. A refund leaves it as it is:
// revenue here is what was ordered, and a refund may be partial, of an amount the event need not tell.
func (o order) counts() bool { return o.Placed != 0 && o.Status != commerce.Cancelled }

// merge joins two reports of one order.
func (o order) merge(p order) order {
	if p.Placed != 0 && (o.Placed == 0 || p.Placed < o.Placed) {
		o.Placed = p.Placed
	}
	if later(p.StatusT, p.StatusI, o.StatusT, o.StatusI) {
		o.Status, o.StatusT, o.StatusI = p.Status, p.StatusT, p.StatusI
	}
	if p.Currency != "" && (o.Currency == "" || later(p.AmountT, p.AmountI, o.AmountT, o.AmountI)) {
		o.Amount, o.Currency, o.AmountT, o.AmountI = p.Amount, p.Currency, p.AmountT, p.AmountI
	}
	if p.Units != nil && (o.Units == nil || later(p.UnitsT, p.UnitsI, o.UnitsT, o.UnitsI)) {
		o.Units, o.UnitsT, o.UnitsI = p.Units, p.UnitsT, p.UnitsI
	}
	return o
}

// amount is what the order is worth; zero if no report named an amount.
func (o order) amount() decimal.Decimal { return decimal.New(o.Amount, -commerce.Places) }

// units is how many products the order has; zero if no report named any.
func (o order) units() decimal.Decimal {
	if o.Units == nil {
		return decimal.Decimal{}
	}
	return decimal.New(*o.Units, -commerce.Places)
}

func later(t int64, i uint64, thanT int64, thanI uint64) bool {
	return t > thanT || t == thanT && i > thanI
}

// sum is a number of orders, what they came to, and how many products they had.
type sum struct {
	Orders int64           `json:"n"`
	Amount decimal.Decimal `json:"a"`
	Units  decimal.Decimal `json:"u,omitzero"`
}

func (x sum) add(y sum) sum {
	return sum{Orders: x.Orders + y.Orders, Amount: x.Amount.Add(y.Amount), Units: x.Units.Add(y.Units)}
}

func (b *brand) applyCommerce(e *event.Event) []error {
	if e.Type != event.Track {
		return nil
	}
	var errs []error
	o, ok, err := commerce.OrderOf(e)
	if err != nil {
		errs = append(errs, err)
	}
	if ok {
		b.report(o, hash(e.Source, e.MessageID))
		return errs
	}
	ch, ok, err := commerce.ChangeOf(e)
	if err != nil {
		errs = append(errs, err)
	}
	if ok {
		b.Carts.Apply(ch)
	}
	return errs
}

// report takes one report of an order in.
func (b *brand) report(o commerce.Order, id uint64) {
	t := o.Time.UnixMilli()
	r := order{Status: o.Status, StatusT: t, StatusI: id}
	if o.Status == commerce.Completed || o.Status == commerce.Updated {
		r.Placed = t
		if o.HasTotal || o.HasRevenue {
			r.Amount, r.Currency, r.AmountT, r.AmountI = o.Amount().Shift(commerce.Places).IntPart(), o.Currency, t, id
		}
		if o.HasUnits {
			n := o.Units.Shift(commerce.Places).IntPart()
			r.Units, r.UnitsT, r.UnitsI = &n, t, id
		}
	}
	if o.Status == commerce.Completed {
		b.Carts.Bought(o.At)
	}
	b.put(o.ID, r)
	b.limit()
}

func (b *brand) put(id string, r order) {
	if b.Orders == nil {
		b.Orders = map[string]order{}
	}
	if old, ok := b.Orders[id]; ok {
		r = old.merge(r)
	}
	b.Orders[id] = r
}

func (b *brand) mergeOrders(from *brand) {
	for id, r := range from.Orders {
		b.put(id, r)
	}
	for currency, x := range from.Older {
		b.addOlder(currency, x)
	}
	b.limit()
}

// limit turns the oldest orders into sums while there are too many.
func (b *brand) limit() {
	for len(b.Orders) > MaxOrders {
		oldest, found := "", false
		for id, o := range b.Orders {
			if p := b.Orders[oldest]; !found || o.Placed < p.Placed || o.Placed == p.Placed && id < oldest {
				oldest, found = id, true
			}
		}
		if o := b.Orders[oldest]; o.counts() {
			b.addOlder(o.Currency, o.sum())
		}
		delete(b.Orders, oldest)
	}
}

func (b *brand) addOlder(currency string, x sum) {
	if b.Older == nil {
		b.Older = map[string]sum{}
	}
	b.Older[currency] = b.Older[currency].add(x)
}

// sum is the order as one of a sum.
func (o order) sum() sum { return sum{Orders: 1, Amount: o.amount(), Units: o.units()} }

// sums adds up the orders that count, by currency; those of which no report named an amount stand under "".
func (b *brand) sums() map[string]sum {
	all := map[string]sum{}
	maps.Copy(all, b.Older)
	for _, o := range b.Orders {
		if o.counts() {
			all[o.Currency] = all[o.Currency].add(o.sum())
		}
	}
	return all
}
