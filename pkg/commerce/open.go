package commerce

import (
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// Cart is a cart as it stands after everything that is known.
type Cart struct {
	ID       string                     // "" if the source sends none
	Lines    []Line                     // in the order they came in, one per product and variant
	Value    map[string]decimal.Decimal // sum of the lines per currency, four places
	Currency string                     // of the last line that changed; the one to show if there are several
	// FirstActivity is the earliest operation that the cart as it stands is made of: its snapshot, or the
	// first change after the last purchase.
	FirstActivity time.Time
	LastActivity  time.Time // latest operation on this cart, views included
	Checkout      bool      // Checkout Started came since the last purchase
}

// Items is the number of pieces in the cart.
func (c Cart) Items() decimal.Decimal {
	n := fromUnits(0)
	for _, l := range c.Lines {
		n = n.Add(l.Quantity)
	}
	return n
}

// OpenCart is a Cart in stored numbers, which cost nothing to make. It shares the memory of the Carts it is
// of: to be read before they change.
type OpenCart struct {
	ID            string
	Items         []Item // those of which there is something, in the order they came in
	Currency      string // of the last line that changed; the one to show if there are several
	FirstActivity int64  // ms
	LastActivity  int64  // ms
	Checkout      bool
}

// Cart is c in the numbers that people compute with.
func (c *OpenCart) Cart() Cart {
	v := Cart{
		ID: c.ID, Lines: make([]Line, len(c.Items)), Value: map[string]decimal.Decimal{}, Currency: c.Currency,
		FirstActivity: millis(c.FirstActivity), LastActivity: millis(c.LastActivity), Checkout: c.Checkout,
	}
	for i := range c.Items {
		v.Lines[i] = c.Items[i].public()
	}
	for _, x := range c.Value() {
		v.Value[x.Currency] = x.Amount.Decimal()
	}
	return v
}

// InCurrency is an amount of money.
type InCurrency struct {
	Currency string
	Amount   Amount
}

// Value is the sum of the lines, by currency.
func (c *OpenCart) Value() []InCurrency {
	var sums []InCurrency
	for i := range c.Items {
		l := &c.Items[i]
		at, found := slices.BinarySearchFunc(sums, l.Currency, func(x InCurrency, currency string) int { return strings.Compare(x.Currency, currency) })
		if !found {
			sums = slices.Insert(sums, at, InCurrency{Currency: l.Currency})
		}
		sums[at].Amount = sums[at].Amount.Add(l.Value())
	}
	return sums
}

// Pieces is how many are in the cart.
func (c *OpenCart) Pieces() Amount {
	var n Amount
	for i := range c.Items {
		n = n.Add(Units(c.Items[i].Quantity))
	}
	return n
}

// Open returns the carts that hold at least one line, by id.
//
// A Checkout Started without cart id belongs to the person's cart if there is just one it can be: the only
// cart that has lines, or had a change after the checkout. Otherwise it makes or replaces the cart without
// id. This is decided here, at reading, and not when the event comes, so that it does not depend on the
// order in which events come.
func (c *Carts) Open() []OpenCart {
	target, over := c.unnamedTarget()
	var open []OpenCart
	add := func(id string, k *cart) {
		snap, checkout := k.Snap, k.Checkout
		if over && id == target {
			snap, checkout = later(snap, c.Unnamed), max(checkout, c.Checkout)
		}
		if v, ok := k.view(snap); ok {
			v.ID, v.Checkout = id, checkout > 0
			v.LastActivity = max(v.LastActivity, k.Viewed, checkout)
			open = append(open, v)
		}
	}
	if over {
		if _, found := c.find(target); !found {
			add(target, &cart{}) // target is then "", which sorts first
		}
	}
	for i := range c.byID {
		add(c.byID[i].ID, &c.byID[i])
	}
	return open
}

// unnamedTarget is the cart that checkouts without cart id belong to; false if there were none.
func (c *Carts) unnamedTarget() (string, bool) {
	if c.Checkout == 0 {
		return "", false
	}
	target, n := "", 0
	for i := range c.byID {
		k := &c.byID[i]
		if k.last() <= c.Checkout {
			if _, ok := k.view(k.Snap); !ok {
				continue
			}
		}
		target, n = k.ID, n+1
	}
	if n != 1 {
		return "", true
	}
	return target, true
}

// view folds the operations after snap onto it. Quantities are summed and floored at zero at the end, not
// on the way: two devices' clocks may put a removal before its addition. False: no line is left.
func (k *cart) view(snap *snapshot) (OpenCart, bool) {
	var f fold
	first, floor, size := int64(0), int64(0), 0
	if snap != nil {
		size = len(snap.Lines)
	}
	for i := range k.Ops {
		size += len(k.Ops[i].Lines)
	}
	if size == 0 {
		return OpenCart{}, false
	}
	f.room(size)
	if snap != nil {
		first, floor = snap.T, snap.T
		for i := range snap.Lines {
			f.add(&snap.Lines[i], snap.Lines[i].Quantity)
		}
	}
	last := first
	for i := range k.Ops {
		p := &k.Ops[i]
		if snap != nil && p.T <= floor {
			continue
		}
		if first == 0 {
			first = p.T
		}
		last = p.T
		for j := range p.Lines {
			if p.Remove {
				f.remove(&p.Lines[j], p.Lines[j].Quantity)
			} else {
				f.add(&p.Lines[j], p.Lines[j].Quantity)
			}
		}
	}
	v := OpenCart{FirstActivity: first, LastActivity: last, Currency: f.currency}
	v.Items = slices.DeleteFunc(f.lines, func(l Item) bool { return l.Quantity <= 0 })
	if len(v.Items) == 0 {
		return OpenCart{}, false
	}
	if !slices.ContainsFunc(v.Items, func(l Item) bool { return l.Currency == v.Currency }) {
		v.Currency = v.Items[len(v.Items)-1].Currency
	}
	return v, true
}

// fold sums lines by product and variant; the last addition of a product gives its price and texts.
type fold struct {
	lines    []Item
	at       map[[2]string]int // nil for a few lines, which are found by looking at each
	currency string
}

// fewLines is how many lines are found faster one by one than in a map.
const fewLines = 24

func (f *fold) room(n int) {
	f.lines = make([]Item, 0, n)
	if n > fewLines {
		f.at = make(map[[2]string]int, n)
	}
}

func (f *fold) find(l *Item) (int, bool) {
	if f.at != nil {
		i, ok := f.at[[2]string{l.ProductID, l.Variant}]
		return i, ok
	}
	for i := range f.lines {
		if f.lines[i].ProductID == l.ProductID && f.lines[i].Variant == l.Variant {
			return i, true
		}
	}
	return 0, false
}

func (f *fold) place(l *Item) *Item {
	i, ok := f.find(l)
	if !ok {
		i = len(f.lines)
		if f.at != nil {
			f.at[[2]string{l.ProductID, l.Variant}] = i
		}
		f.lines = append(f.lines, Item{ProductID: l.ProductID, Variant: l.Variant, Currency: l.Currency})
	}
	return &f.lines[i]
}

func (f *fold) add(l *Item, quantity int64) {
	have := f.place(l)
	total := have.Quantity + quantity
	*have = *l
	have.Quantity = total
	f.currency = l.Currency
}

func (f *fold) remove(l *Item, quantity int64) { f.place(l).Quantity -= quantity }

func millis(t int64) time.Time { return time.UnixMilli(t).UTC() }
