package commerce

import (
	"time"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/event"
)

// OrderStatus is the last thing that is known of an order.
type OrderStatus string

// The states of an order, from the event that reported it.
const (
	Completed OrderStatus = "completed" // Order Completed
	Updated   OrderStatus = "updated"   // Order Updated
	Cancelled OrderStatus = "cancelled" // Order Cancelled
	Refunded  OrderStatus = "refunded"  // Order Refunded, in full or in part
)

// Order is what one event says of an order. Orders are keyed by brand and ID: the browser's and the shop
// system's reports are one order.
type Order struct {
	ID         string          // order_id, else checkout_id, else the message id
	Time       time.Time       // when it happened, by the event
	At         time.Time       // up to when it empties carts: the later of Time and ReceivedAt; Time if the event is historical
	Total      decimal.Decimal // with shipping and tax
	Revenue    decimal.Decimal // without
	HasTotal   bool            // total was given
	HasRevenue bool            // revenue was given
	Currency   string          // upper case; DefaultCurrency if none was given
	CartID     string
	CheckoutID string
	Lines      []Line
	Units      decimal.Decimal // of the products, the sum of their quantities; without products properties.quantity
	HasUnits   bool            // products or a quantity were given
	Status     OrderStatus
}

// Amount is what the order is worth: total if given, else revenue, else zero.
func (o Order) Amount() decimal.Decimal {
	if o.HasTotal {
		return o.Total
	}
	return o.Revenue
}

// OrderOf reads e as an order event. False: it is none. An error names the field that cannot be read; the
// Order then still has its ID, times and status if those could be read, so that a purchase with a broken
// price still empties carts; its money, lines and units are zero. A broken properties.quantity costs only
// the units.
func OrderOf(e *event.Event) (Order, bool, error) {
	if e.Type != event.Track {
		return Order{}, false, nil
	}
	var status OrderStatus
	switch kindOf(e.Name) {
	case kindOrderCompleted:
		status = Completed
	case kindOrderUpdated:
		status = Updated
	case kindOrderCancelled:
		status = Cancelled
	case kindOrderRefunded:
		status = Refunded
	default:
		return Order{}, false, nil
	}
	o := Order{
		ID: e.MessageID, Time: e.Time, At: e.Time, Status: status, Currency: DefaultCurrency,
		Total: fromUnits(0), Revenue: fromUnits(0), Units: fromUnits(0),
	}
	if !e.Historical && e.ReceivedAt.After(o.At) {
		o.At = e.ReceivedAt
	}
	err := o.readKeys(e)
	if err == nil {
		err = o.readMoney(e)
	}
	if err == nil {
		err = o.readUnits(e)
	}
	return o, true, err
}

func (o *Order) readKeys(e *event.Event) error {
	props := e.Property()
	order, err := key(props, field{-1, "order_id"})
	if err != nil {
		return err
	}
	if o.CheckoutID, err = key(props, field{-1, "checkout_id"}); err != nil {
		return err
	}
	if o.CartID, err = key(props, field{-1, "cart_id"}); err != nil {
		return err
	}
	if o.CheckoutID != "" {
		o.ID = o.CheckoutID
	}
	if order != "" {
		o.ID = order
	}
	return nil
}

// readMoney changes o only if everything could be read.
func (o *Order) readMoney(e *event.Event) error {
	props := e.Property()
	currency, err := eventCurrency(e)
	if err != nil {
		return err
	}
	total, hasTotal, err := number(props, field{-1, "total"})
	if err != nil {
		return err
	}
	revenue, hasRevenue, err := number(props, field{-1, "revenue"})
	if err != nil {
		return err
	}
	ls, given, err := parseLines(e, currency)
	if err != nil {
		return err
	}
	o.Currency = currency
	o.Total, o.HasTotal = fromUnits(total), hasTotal
	o.Revenue, o.HasRevenue = fromUnits(revenue), hasRevenue
	for i := range ls {
		o.Lines = append(o.Lines, ls[i].public())
		o.Units = o.Units.Add(fromUnits(ls[i].Quantity))
	}
	o.HasUnits = given
	return nil
}

// readUnits takes the quantity of a whole order, as till and history files have it, where no products are
// listed.
func (o *Order) readUnits(e *event.Event) error {
	if o.HasUnits {
		return nil
	}
	q, given, err := quantity(e.Property(), field{-1, "quantity"})
	if err != nil {
		return err
	}
	o.Units, o.HasUnits = fromUnits(q), given
	return nil
}
