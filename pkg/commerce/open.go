package commerce

import (
	"maps"
	"slices"
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

// Open returns the carts that hold at least one line, by id.
//
// A Checkout Started without cart id belongs to the person's cart if there is just one it can be: the only
// cart that has lines, or had a change after the checkout. Otherwise it makes or replaces the cart without
// id. This is decided here, at reading, and not when the event comes, so that it does not depend on the
// order in which events come.
func (c *Carts) Open() []Cart {
	target, over := c.unnamedTarget()
	ids := slices.Sorted(maps.Keys(c.ByID))
	if over && c.ByID[target] == nil {
		ids = slices.Insert(ids, 0, target) // target is then "", which sorts first
	}
	var open []Cart
	for _, id := range ids {
		k := c.ByID[id]
		if k == nil {
			k = &cart{}
		}
		snap, checkout := k.Snap, k.Checkout
		if over && id == target {
			snap, checkout = later(snap, c.Unnamed), max(checkout, c.Checkout)
		}
		if v, ok := k.view(snap); ok {
			v.ID, v.Checkout = id, checkout > 0
			v.LastActivity = millis(max(v.LastActivity.UnixMilli(), k.Viewed, checkout))
			open = append(open, v)
		}
	}
	return open
}

// unnamedTarget is the cart that checkouts without cart id belong to; false if there were none.
func (c *Carts) unnamedTarget() (string, bool) {
	if c.Checkout == 0 {
		return "", false
	}
	target, n := "", 0
	for id, k := range c.ByID {
		if k.last() <= c.Checkout {
			if _, ok := k.view(k.Snap); !ok {
				continue
			}
		}
		target, n = id, n+1
	}
	if n != 1 {
		return "", true
	}
	return target, true
}

// view folds the operations after snap onto it. Quantities are summed and floored at zero at the end, not
// on the way: two devices' clocks may put a removal before its addition. False: no line is left.
func (k *cart) view(snap *snapshot) (Cart, bool) {
	var f fold
	first, floor := int64(0), int64(0)
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
	v := Cart{FirstActivity: millis(first), LastActivity: millis(last), Currency: f.currency}
	for _, l := range f.lines {
		if l.Quantity <= 0 {
			continue
		}
		p := l.public()
		v.Lines = append(v.Lines, p)
		if v.Value == nil {
			v.Value = map[string]decimal.Decimal{}
		}
		v.Value[p.Currency] = v.Value[p.Currency].Add(p.Value())
	}
	if len(v.Lines) == 0 {
		return Cart{}, false
	}
	if _, ok := v.Value[v.Currency]; !ok {
		v.Currency = v.Lines[len(v.Lines)-1].Currency
	}
	return v, true
}

// fold sums lines by product and variant; the last addition of a product gives its price and texts.
type fold struct {
	lines    []line
	at       map[[2]string]int
	currency string
}

func (f *fold) place(l *line) *line {
	key := [2]string{l.ProductID, l.Variant}
	i, ok := f.at[key]
	if !ok {
		if f.at == nil {
			f.at = map[[2]string]int{}
		}
		i = len(f.lines)
		f.at[key] = i
		f.lines = append(f.lines, line{ProductID: l.ProductID, Variant: l.Variant, Currency: l.Currency})
	}
	return &f.lines[i]
}

func (f *fold) add(l *line, quantity int64) {
	have := f.place(l)
	total := have.Quantity + quantity
	*have = *l
	have.Quantity = total
	f.currency = l.Currency
}

func (f *fold) remove(l *line, quantity int64) { f.place(l).Quantity -= quantity }

func millis(t int64) time.Time { return time.UnixMilli(t).UTC() }
