package profile

import (
	"cmp"
	"slices"

	"github.com/weft-cdp/weft/pkg/commerce"
)

// OrderDocument is one order as the profile API tells it.
type OrderDocument struct {
	ID       string `json:"id"`
	Brand    string `json:"brand"`
	Time     Time   `json:"time"`     // when it was placed; if nobody reported that: when Status was
	Amount   Money  `json:"amount"`   // total, else revenue; of two reports the later
	Currency string `json:"currency"` // "" if no report named an amount
	// Units is how many products it has; absent if no report named any.
	Units  *Quantity            `json:"units,omitempty"`
	Status commerce.OrderStatus `json:"status"` // of two reports the later
}

// Orders are all orders that are known one by one, cancelled and refunded ones too, newest first; of one
// time by brand and id. Older is how many more count, which are beyond MaxOrders.
func (s *State) Orders() (list []OrderDocument, older int64) {
	list = []OrderDocument{}
	for _, b := range s.brands {
		for _, o := range b.orders.all() {
			d := OrderDocument{ID: o.ID, Brand: b.name, Time: Time{millis(cmp.Or(o.Placed, o.StatusT))}, Amount: Money{o.amount().Decimal()}, Currency: o.Currency, Status: o.Status}
			if o.Units != nil {
				d.Units = &Quantity{o.units().Decimal()}
			}
			list = append(list, d)
		}
		for _, x := range b.orders.older {
			older += x.orders
		}
	}
	slices.SortFunc(list, func(a, b OrderDocument) int {
		return cmp.Or(b.Time.Compare(a.Time.Time), cmp.Compare(a.Brand, b.Brand), cmp.Compare(a.ID, b.ID))
	})
	return list, older
}
