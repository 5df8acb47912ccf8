package profile

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
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
		ID: id, Traits: s.Traits.values(), Brands: make(map[string]BrandDocument, len(s.Brands)),
		FirstSeen: Time{millis(s.First)}, LastSeen: Time{millis(s.Last)},
		Counts:    s.counts(),
		OpenCarts: s.openCarts(),
		Audiences: append([]string{}, s.Audiences...),
		UpdatedAt: Time{s.AsOf()}, Version: s.Version(),
	}
	total := map[string]sum{}
	for _, name := range slices.Sorted(maps.Keys(s.Brands)) {
		b := s.Brands[name]
		sums := b.sums()
		for currency, x := range sums {
			total[currency] = total[currency].add(x)
		}
		bd := BrandDocument{
			Traits: b.Traits.values(), FirstSeen: Time{millis(b.First)}, LastSeen: Time{millis(b.Last)}, Events: b.Events,
		}
		bd.Orders, bd.Units, bd.Revenue, bd.AverageOrderValue = totals(sums)
		for _, c := range d.OpenCarts {
			if c.Brand == name {
				bd.OpenCarts++
			}
		}
		d.Brands[name] = bd
	}
	d.Orders, d.Units, d.Revenue, d.AverageOrderValue = totals(total)
	d.LastOrder = s.lastOrder()
	return d
}

func (ts traits) values() map[string]json.RawMessage {
	m := make(map[string]json.RawMessage, len(ts))
	for name, t := range ts {
		if t.V != nil {
			m[name] = t.V
		}
	}
	return m
}

func (s *State) counts() Counts {
	byName := make(map[string]int64, len(s.Names))
	maps.Copy(byName, s.Names)
	of := func(t event.Type) int64 { return s.Types[string(t)] }
	return Counts{
		Events: s.Events, Track: of(event.Track), Identify: of(event.Identify), Page: of(event.Page),
		Screen: of(event.Screen), Group: of(event.Group), Alias: of(event.Alias), ByName: byName, OtherNames: s.Others,
	}
}

func totals(sums map[string]sum) (orders int64, units Quantity, revenue, average map[string]Money) {
	revenue, average = map[string]Money{}, map[string]Money{}
	for currency, x := range sums {
		orders += x.Orders
		units.Decimal = units.Add(x.Units)
		if currency == "" {
			continue
		}
		revenue[currency] = Money{x.Amount}
		average[currency] = Money{divide(x.Amount, x.Orders)}
	}
	return orders, units, revenue, average
}

// divide rounds half to even at commerce.Places. The remainder decides, so no digit is lost on the way.
func divide(amount decimal.Decimal, n int64) decimal.Decimal {
	by := decimal.NewFromInt(n)
	q, r := amount.QuoRem(by, commerce.Places)
	unit := decimal.New(int64(amount.Sign()), -commerce.Places)
	switch r.Abs().Mul(decimal.NewFromInt(2)).Cmp(by.Mul(unit.Abs())) {
	case 1:
		return q.Add(unit)
	case 0:
		if q.Shift(commerce.Places).IntPart()%2 != 0 {
			return q.Add(unit)
		}
	}
	return q
}

func (s *State) lastOrder() *LastOrder {
	var last *LastOrder
	for _, name := range slices.Sorted(maps.Keys(s.Brands)) {
		for id, o := range s.Brands[name].Orders {
			if !o.counts() {
				continue
			}
			at := millis(o.Placed)
			if last != nil && (at.Before(last.Time.Time) || at.Equal(last.Time.Time) && (name < last.Brand || name == last.Brand && id < last.ID)) {
				continue
			}
			last = &LastOrder{ID: id, Brand: name, Time: Time{at}, Total: Money{o.amount()}, Currency: o.Currency}
		}
	}
	return last
}

func (s *State) openCarts() []CartDocument {
	open := []CartDocument{}
	oldest := millis(s.Last).Add(-CartShownFor)
	for _, name := range slices.Sorted(maps.Keys(s.Brands)) {
		for _, c := range s.Brands[name].Carts.Open() {
			if c.LastActivity.Before(oldest) {
				continue
			}
			d := CartDocument{
				Brand: name, ID: c.ID, Items: c.Items().String(), Currency: c.Currency, Checkout: c.Checkout,
				Value: make(map[string]Money, len(c.Value)), Lines: make([]LineDocument, 0, len(c.Lines)),
				FirstActivity: Time{c.FirstActivity}, LastActivity: Time{c.LastActivity},
			}
			for currency, v := range c.Value {
				d.Value[currency] = Money{v}
			}
			for _, l := range c.Lines {
				d.Lines = append(d.Lines, LineDocument{
					ProductID: l.ProductID, Variant: l.Variant, Name: l.Name, Category: l.Category, URL: l.URL, ImageURL: l.ImageURL,
					Price: Money{l.Price}, Currency: l.Currency, Quantity: l.Quantity.String(),
				})
			}
			open = append(open, d)
		}
	}
	return open
}
