package profile

import (
	"cmp"
	"slices"
	"strings"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

// MaxOrders is the most orders of one person in one brand that are kept one by one, about 300 kB. Beyond
// it the oldest are kept as sums only: a later report of such an order (a cancellation, or the shop
// system's report of what the browser told long ago) then counts as an order of its own. Only here can the
// order of arrival matter.
const MaxOrders = 2000

// MaxCurrencies is the most currencies in which orders beyond MaxOrders are summed, of one person in one
// brand: more than there are in a person's life, fewer than a broken sender makes up. An order in one more is
// counted, without its amount.
const MaxCurrencies = 50

// order is what is known of one order, from any number of reports. Each part goes by the newest event time
// on its own: a cancellation without a total does not take the total away. The names in JSON are those of
// version 1 of a stored state.
type order struct {
	ID       string               `json:"-"`
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
func (o *order) counts() bool { return o.Placed != 0 && o.Status != commerce.Cancelled }

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
func (o *order) amount() commerce.Amount { return commerce.Units(o.Amount) }

// units is how many products the order has; zero if no report named any.
func (o *order) units() commerce.Amount {
	if o.Units == nil {
		return commerce.Amount{}
	}
	return commerce.Units(*o.Units)
}

func later(t int64, i uint64, thanT int64, thanI uint64) bool {
	return t > thanT || t == thanT && i > thanI
}

// sum is a number of orders in one currency, what they came to, and how many products they had.
type sum struct {
	currency string // "": of which no report named an amount
	orders   int64
	amount   commerce.Amount
	units    commerce.Amount
}

// addSum adds x to the sum of its currency.
func addSum(sums []sum, x sum) []sum {
	i, found := slices.BinarySearchFunc(sums, x.currency, func(y sum, currency string) int { return strings.Compare(y.currency, currency) })
	if !found {
		return slices.Insert(sums, i, x)
	}
	y := &sums[i]
	y.orders, y.amount, y.units = y.orders+x.orders, y.amount.Add(x.amount), y.units.Add(x.units)
	return sums
}

// orders are one person's in one brand. What follows from them is kept beside them, so that only an event
// about an order reads the list: most people have none, and one of two thousand would pay for them with every
// page view.
type orders struct {
	list  []order // by id; empty while stock is not
	stock stock   // the list as it was stored, if nobody has asked for it yet
	older []sum   // orders beyond MaxOrders, by currency
	sums  []sum   // all that count, those of older, too
	cut   bool    // an amount was left out of older: MaxCurrencies
	last  order   // of those that count in the list the one placed last; Placed 0: there is none
}

// all reads the list, if that was not done yet.
func (os *orders) all() []order {
	if os.stock.n > 0 {
		os.list, os.stock = os.stock.read(), stock{}
	}
	return os.list
}

func (os *orders) len() int { return len(os.list) + os.stock.n }

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
		b.carts.Apply(ch)
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
		b.carts.Bought(o.At)
	}
	r.ID = o.ID
	b.orders.put(r)
	b.orders.settle()
}

func (os *orders) put(r order) {
	os.all()
	i, found := slices.BinarySearchFunc(os.list, r.ID, func(o order, id string) int { return strings.Compare(o.ID, id) })
	if found {
		os.list[i] = os.list[i].merge(r)
		return
	}
	os.list = slices.Insert(os.list, i, r)
}

func (os *orders) merge(from *orders) {
	if from.len() == 0 && len(from.older) == 0 {
		return
	}
	same := *from // reading its list is no change of from
	for _, r := range same.all() {
		os.put(r)
	}
	for _, x := range from.older {
		os.addOlder(x)
	}
	os.cut = os.cut || from.cut
	os.settle()
}

// settle turns the oldest orders into sums while there are too many, and finds anew what follows from them.
func (os *orders) settle() {
	for len(os.list) > MaxOrders {
		os.sumOldest(len(os.list) - MaxOrders)
	}
	os.sums, os.last = slices.Clone(os.older), order{}
	for i := range os.list {
		o := &os.list[i]
		if !o.counts() {
			continue
		}
		os.sums = addSum(os.sums, o.sum())
		if os.last.Placed == 0 || o.Placed >= os.last.Placed { // of one time the last id
			os.last = *o
		}
	}
}

// sumOldest turns the n orders that were placed first into sums.
func (os *orders) sumOldest(n int) {
	byAge := make([]int, len(os.list))
	for i := range byAge {
		byAge[i] = i
	}
	slices.SortFunc(byAge, func(i, j int) int {
		return cmp.Or(cmp.Compare(os.list[i].Placed, os.list[j].Placed), cmp.Compare(i, j))
	})
	gone := byAge[:n]
	slices.Sort(gone)
	kept := os.list[:0]
	for i, o := range os.list {
		if len(gone) == 0 || i != gone[0] {
			kept = append(kept, o)
			continue
		}
		gone = gone[1:]
		if o.counts() {
			os.addOlder(o.sum())
		}
	}
	clear(os.list[len(kept):])
	os.list = kept
}

func (os *orders) addOlder(x sum) {
	known := slices.ContainsFunc(os.older, func(y sum) bool { return y.currency == x.currency })
	if !known && x.currency != "" && len(os.older) >= MaxCurrencies {
		x.currency, x.amount, os.cut = "", commerce.Amount{}, true
	}
	os.older = addSum(os.older, x)
}

// sum is the order as one of a sum.
func (o *order) sum() sum {
	return sum{currency: o.Currency, orders: 1, amount: o.amount(), units: o.units()}
}

// totals are the orders that count, by currency, over all brands.
func (s *State) totals() []sum {
	if len(s.brands) == 1 {
		return s.brands[0].orders.sums
	}
	var all []sum
	for _, b := range s.brands {
		for _, x := range b.orders.sums {
			all = addSum(all, x)
		}
	}
	return all
}
