package profile

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
)

// CartShownFor is how long before the person's newest event an open cart may have been touched for the
// last time and still count as open. (Braze lets carts expire after 30 days, too; here it is measured by
// the person's own events, since a profile has no clock.)
const CartShownFor = 30 * 24 * time.Hour

// Document is the profile as others read it: the value of a record on profiles.changed, and the body of the
// profile API's answer. Money is text with four places, times are RFC 3339 in UTC with milliseconds.
type Document struct {
	ID     string                     `json:"id"`     // profile id: the topic's key
	Traits map[string]json.RawMessage `json:"traits"` // JSON values as they came; removed ones are absent
	Brands map[string]BrandDocument   `json:"brands"`
	// FirstSeen and LastSeen are the times of the earliest and latest event, whatever it was.
	FirstSeen Time   `json:"firstSeen"`
	LastSeen  Time   `json:"lastSeen"`
	Counts    Counts `json:"counts"`
	// Orders counts orders that were reported as completed or updated and are not cancelled. An order is
	// one by brand and order id, whoever reports it and how often.
	Orders int64 `json:"orders"`
	// Units is how many products those orders have: the sum of their products' quantities, or, of an order
	// whose products are not listed, its quantity. Of two reports the later counts.
	Units Quantity `json:"units"`
	// Revenue is the sum of those orders by currency: of an order its total, else its revenue; of two
	// reports the later. Refunds do not lower it.
	Revenue map[string]Money `json:"revenue"`
	// AverageOrderValue is Revenue divided by the orders in that currency, rounded half to even.
	AverageOrderValue map[string]Money `json:"averageOrderValue"`
	LastOrder         *LastOrder       `json:"lastOrder,omitempty"`
	OpenCarts         []CartDocument   `json:"openCarts"` // by brand and id
	Audiences         []string         `json:"audiences"` // sorted
	// UpdatedAt is when the newest of the events behind this document was received.
	UpdatedAt Time `json:"updatedAt"`
	// Version grows with every change of this profile id.
	Version int64 `json:"version"`
	// Capped names what a limit has left out of the profile itself, ever: see Capped. Absent in all but abused
	// or very old profiles.
	Capped []string `json:"capped,omitempty"`
	// Truncated names what Encode had to leave out to keep a record within MaxDocument; absent in all but
	// abused profiles.
	Truncated []string `json:"truncated,omitempty"`
}

// BrandDocument is the part of a profile that belongs to one brand.
type BrandDocument struct {
	Traits            map[string]json.RawMessage `json:"traits"`
	FirstSeen         Time                       `json:"firstSeen"`
	LastSeen          Time                       `json:"lastSeen"`
	Events            int64                      `json:"events"`
	Orders            int64                      `json:"orders"`
	Units             Quantity                   `json:"units"`
	Revenue           map[string]Money           `json:"revenue"`
	AverageOrderValue map[string]Money           `json:"averageOrderValue"`
	OpenCarts         int                        `json:"openCarts"` // how many of the profile's open carts are this brand's
}

// Counts are numbers of events.
type Counts struct {
	Events     int64            `json:"events"`
	Track      int64            `json:"track"`
	Identify   int64            `json:"identify"`
	Page       int64            `json:"page"`
	Screen     int64            `json:"screen"`
	Group      int64            `json:"group"`
	Alias      int64            `json:"alias"`
	ByName     map[string]int64 `json:"byName"`     // of track events, at most MaxNames
	OtherNames int64            `json:"otherNames"` // track events whose names are not in ByName
}

// LastOrder is the order placed last among those that count.
type LastOrder struct {
	ID       string `json:"id"`
	Brand    string `json:"brand"`
	Time     Time   `json:"time"` // when it was placed: of its reports the earliest
	Total    Money  `json:"total"`
	Currency string `json:"currency"` // "" if no report named an amount
}

// CartDocument is one open cart.
type CartDocument struct {
	Brand         string           `json:"brand"`
	ID            string           `json:"id"` // "" if the source names none
	Lines         []LineDocument   `json:"lines"`
	Items         string           `json:"items"` // sum of the quantities
	Value         map[string]Money `json:"value"`
	Currency      string           `json:"currency"` // the one to show, if there are several
	Checkout      bool             `json:"checkout"` // the checkout was started
	FirstActivity Time             `json:"firstActivity"`
	LastActivity  Time             `json:"lastActivity"`
}

// LineDocument is one product and variant of a cart.
type LineDocument struct {
	ProductID string `json:"productId"`
	Variant   string `json:"variant,omitempty"`
	Name      string `json:"name,omitempty"`
	Category  string `json:"category,omitempty"`
	URL       string `json:"url,omitempty"`
	ImageURL  string `json:"imageUrl,omitempty"`
	Price     Money  `json:"price"`
	Currency  string `json:"currency"`
	Quantity  string `json:"quantity"`
}

// Money is an amount as text with four places: "12.5000".
type Money struct{ decimal.Decimal }

// MarshalJSON writes four places, always.
func (m Money) MarshalJSON() ([]byte, error) {
	return []byte(`"` + m.StringFixedBank(commerce.Places) + `"`), nil
}

// Quantity is a number of products as text, without zeros at the end: "2", "0.5".
type Quantity struct{ decimal.Decimal }

// MarshalJSON writes text, always.
func (q Quantity) MarshalJSON() ([]byte, error) { return []byte(`"` + q.String() + `"`), nil }

// timeLayout is RFC 3339 with exactly three digits of a second, in UTC.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Time is written as RFC 3339 in UTC with milliseconds.
type Time struct{ time.Time }

// MarshalJSON writes timeLayout.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(`"` + t.UTC().Format(timeLayout) + `"`), nil
}

// Document renders the state under its profile id.
func (s *State) Document(id string) Document {
	d := Document{
		ID: id, Traits: s.traits.values(), Brands: make(map[string]BrandDocument, len(s.brands)),
		FirstSeen: Time{millis(s.First)}, LastSeen: Time{millis(s.Last)},
		Counts:    s.counts(),
		OpenCarts: s.openCarts(),
		LastOrder: s.lastOrder(),
		Audiences: append([]string{}, s.Audiences...),
		UpdatedAt: Time{s.AsOf()}, Version: s.Version(), Capped: s.Capped().Names(),
	}
	for _, b := range s.brands {
		bd := BrandDocument{
			Traits: b.traits.values(), FirstSeen: Time{millis(b.first)}, LastSeen: Time{millis(b.last)}, Events: b.events,
		}
		bd.Orders, bd.Units, bd.Revenue, bd.AverageOrderValue = totals(b.orders.sums)
		for _, c := range d.OpenCarts {
			if c.Brand == b.name {
				bd.OpenCarts++
			}
		}
		d.Brands[b.name] = bd
	}
	d.Orders, d.Units, d.Revenue, d.AverageOrderValue = totals(s.totals())
	return d
}

func (ts traits) values() map[string]json.RawMessage {
	m := make(map[string]json.RawMessage, len(ts))
	for _, t := range ts {
		if t.value != "" {
			m[t.name] = json.RawMessage(t.value)
		}
	}
	return m
}

func (s *State) counts() Counts {
	c := Counts{
		Events: s.Events, Track: s.types[0], Identify: s.types[1], Page: s.types[2], Screen: s.types[3], Group: s.types[4], Alias: s.types[5],
		ByName: make(map[string]int64, len(s.names)), OtherNames: s.Others,
	}
	for _, x := range s.names {
		c.ByName[x.name] = x.n
	}
	return c
}

func totals(sums []sum) (orders int64, units Quantity, revenue, average map[string]Money) {
	revenue, average = map[string]Money{}, map[string]Money{}
	var pieces commerce.Amount
	for _, x := range sums {
		orders += x.orders
		pieces = pieces.Add(x.units)
		if x.currency == "" {
			continue
		}
		revenue[x.currency] = Money{x.amount.Decimal()}
		average[x.currency] = Money{x.average().Decimal()}
	}
	return orders, Quantity{pieces.Decimal()}, revenue, average
}

// average is what one order came to, rounded half to even.
func (x *sum) average() commerce.Amount { return x.amount.Over(max(1, x.orders)) }

// latest is the brand whose last order is that of the person; nil if there is none.
func (s *State) latest() *brand {
	var last *brand
	for _, b := range s.brands {
		if o := &b.orders.last; o.Placed != 0 && (last == nil || o.Placed >= last.orders.last.Placed) { // of one time the last brand
			last = b
		}
	}
	return last
}

func (s *State) lastOrder() *LastOrder {
	b := s.latest()
	if b == nil {
		return nil
	}
	o := &b.orders.last
	return &LastOrder{ID: o.ID, Brand: b.name, Time: Time{millis(o.Placed)}, Total: Money{o.amount().Decimal()}, Currency: o.Currency}
}

// open are the carts of a brand that count as open.
func (s *State) open(b *brand) []commerce.OpenCart {
	oldest := s.Last - CartShownFor.Milliseconds()
	return slices.DeleteFunc(b.carts.Open(), func(c commerce.OpenCart) bool { return c.LastActivity < oldest })
}

func (s *State) openCarts() []CartDocument {
	open := []CartDocument{}
	for _, b := range s.brands {
		for _, c := range s.open(b) {
			value := c.Value()
			d := CartDocument{
				Brand: b.name, ID: c.ID, Items: c.Pieces().Decimal().String(), Currency: c.Currency, Checkout: c.Checkout,
				Value: make(map[string]Money, len(value)), Lines: make([]LineDocument, 0, len(c.Items)),
				FirstActivity: Time{millis(c.FirstActivity)}, LastActivity: Time{millis(c.LastActivity)},
			}
			for _, v := range value {
				d.Value[v.Currency] = Money{v.Amount.Decimal()}
			}
			for i := range c.Items {
				l := &c.Items[i]
				d.Lines = append(d.Lines, LineDocument{
					ProductID: l.ProductID, Variant: l.Variant, Name: l.Name, Category: l.Category, URL: l.URL, ImageURL: l.ImageURL,
					Price: Money{commerce.Units(l.Price).Decimal()}, Currency: l.Currency, Quantity: commerce.Units(l.Quantity).Decimal().String(),
				})
			}
			open = append(open, d)
		}
	}
	return open
}
