package commerce

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/shopspring/decimal"
	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// Limits of what one event may put into a cart or order. They bound the state of a person, not what is
// stored: the event's body keeps everything.
const (
	// MaxLines is the most lines read from one event's products; the first ones are kept. Larger than any
	// real basket seen, and about 100 kB of state.
	MaxLines = 200
	// MaxText bounds names, categories and the like in bytes; longer ones are cut at a character.
	MaxText = 512
	// MaxURL bounds links in bytes; a longer one is left out, since a cut link leads nowhere.
	MaxURL = 2048
	// MaxKey bounds identifiers (cart, order, product, variant) in bytes; a longer one is an error.
	MaxKey = 256
	// maxCurrency allows for tokens and points beside ISO 4217's three letters.
	maxCurrency = 12
	// maxQuantity keeps sums of quantities far from an overflow.
	maxQuantity = 1_000_000_000
)

// Line is one product and variant of a cart or order.
type Line struct {
	ProductID string          `json:"productId,omitempty"` // product_id, else sku, else name: with Variant the key of the line
	Variant   string          `json:"variant,omitempty"`
	SKU       string          `json:"sku,omitempty"`
	Name      string          `json:"name,omitempty"`
	Brand     string          `json:"brand,omitempty"` // of the product, not of the deployment
	Category  string          `json:"category,omitempty"`
	URL       string          `json:"url,omitempty"`
	ImageURL  string          `json:"imageUrl,omitempty"`
	Currency  string          `json:"currency,omitempty"` // upper case; the event's, else DefaultCurrency
	Price     decimal.Decimal `json:"price"`              // of one, four places
	Quantity  decimal.Decimal `json:"quantity"`           // four places; 1 unless given
}

// Value is price times quantity, rounded to four places.
func (l Line) Value() decimal.Decimal { return l.Price.Mul(l.Quantity).RoundBank(Places) }

// Item is a Line as it is stored: numbers in units of 1/10000. The names are those of version 1.
type Item struct {
	ProductID string `json:"p,omitempty"`
	Variant   string `json:"v,omitempty"`
	SKU       string `json:"s,omitempty"`
	Name      string `json:"n,omitempty"`
	Brand     string `json:"b,omitempty"`
	Category  string `json:"c,omitempty"`
	URL       string `json:"u,omitempty"`
	ImageURL  string `json:"i,omitempty"`
	Currency  string `json:"y,omitempty"`
	Price     int64  `json:"r,omitempty"`
	Quantity  int64  `json:"q,omitempty"`
}

// Value is price times quantity, rounded half to even.
func (l *Item) Value() Amount { return times(l.Price, l.Quantity) }

func (l *Item) public() Line {
	return Line{
		ProductID: l.ProductID, Variant: l.Variant, SKU: l.SKU, Name: l.Name, Brand: l.Brand, Category: l.Category,
		URL: l.URL, ImageURL: l.ImageURL, Currency: l.Currency, Price: fromUnits(l.Price), Quantity: fromUnits(l.Quantity),
	}
}

// field is a place in an event, for errors: "properties.products[3]" and the name below it.
type field struct {
	index int // of products; -1: properties itself
	name  string
}

func (f field) String() string {
	if f.index < 0 {
		return "properties." + f.name
	}
	return fmt.Sprintf("properties.products[%d].%s", f.index, f.name)
}

// parseLine reads the product fields of v: properties, or an item of products.
func parseLine(v *fastjson.Value, index int, currency string) (Item, error) {
	l := Item{
		Name: text(v.Get("name")), Brand: text(v.Get("brand")), Category: text(v.Get("category")),
		URL: link(v.Get("url")), ImageURL: link(v.Get("image_url")), Currency: currency,
	}
	var err error
	if l.ProductID, err = key(v, field{index, "product_id"}); err != nil {
		return Item{}, err
	}
	if l.SKU, err = key(v, field{index, "sku"}); err != nil {
		return Item{}, err
	}
	if l.Variant, err = key(v, field{index, "variant"}); err != nil {
		return Item{}, err
	}
	if l.ProductID == "" {
		l.ProductID = l.SKU
	}
	if l.ProductID == "" {
		l.ProductID = cut(l.Name, MaxKey)
	}
	if l.ProductID == "" {
		return Item{}, fmt.Errorf("%s: missing, and neither sku nor name stands for it", field{index, "product_id"})
	}
	own, err := currencyOf(v, field{index, "currency"})
	if err != nil {
		return Item{}, err
	}
	if own != "" {
		l.Currency = own
	}
	if l.Price, _, err = number(v, field{index, "price"}); err != nil {
		return Item{}, err
	}
	q, given, err := quantity(v, field{index, "quantity"})
	if err != nil {
		return Item{}, err
	}
	if !given {
		q = 10_000
	}
	l.Quantity = q
	return l, nil
}

// quantity is a number within maxQuantity.
func quantity(v *fastjson.Value, f field) (int64, bool, error) {
	q, given, err := number(v, f)
	if err != nil {
		return 0, false, err
	}
	if q > maxQuantity*10_000 || q < -maxQuantity*10_000 {
		return 0, false, fmt.Errorf("%s: more than %d", f, maxQuantity)
	}
	return q, given, nil
}

// parseLines reads properties.products; nil and false if there is no such array.
func parseLines(e *event.Event, currency string) ([]Item, bool, error) {
	v := e.Property("products")
	if v == nil || v.Type() == fastjson.TypeNull {
		return nil, false, nil
	}
	items, err := v.Array()
	if err != nil {
		return nil, false, fmt.Errorf("properties.products: a list is wanted, not %s", v.Type())
	}
	if len(items) > MaxLines {
		items = items[:MaxLines]
	}
	ls := make([]Item, 0, len(items))
	for i, it := range items {
		if it.Type() != fastjson.TypeObject {
			return nil, false, fmt.Errorf("properties.products[%d]: an object is wanted, not %s", i, it.Type())
		}
		l, err := parseLine(it, i, currency)
		if err != nil {
			return nil, false, err
		}
		ls = append(ls, l)
	}
	return ls, true, nil
}

// eventCurrency is properties.currency, else DefaultCurrency.
func eventCurrency(e *event.Event) (string, error) {
	c, err := currencyOf(e.Property(), field{-1, "currency"})
	if err == nil && c == "" {
		c = DefaultCurrency
	}
	return c, err
}

func currencyOf(v *fastjson.Value, f field) (string, error) {
	if v == nil {
		return "", nil
	}
	c := strings.ToUpper(strings.TrimSpace(event.Text(v.Get(f.name))))
	if len(c) > maxCurrency {
		return "", fmt.Errorf("%s: %q is not a currency", f, clip(c))
	}
	for i := 0; i < len(c); i++ {
		if b := c[i]; (b < 'A' || b > 'Z') && (b < '0' || b > '9') {
			return "", fmt.Errorf("%s: %q is not a currency", f, c)
		}
	}
	return c, nil
}

// number reads a number or a numeric string in units of 1/10000; false if absent, null or blank.
func number(v *fastjson.Value, f field) (int64, bool, error) {
	if v == nil {
		return 0, false, nil
	}
	v = v.Get(f.name)
	if v == nil || v.Type() == fastjson.TypeNull {
		return 0, false, nil
	}
	if t := v.Type(); t != fastjson.TypeNumber && t != fastjson.TypeString {
		return 0, false, fmt.Errorf("%s: a number is wanted, not %s", f, t)
	}
	s := event.Text(v)
	if strings.TrimSpace(s) == "" {
		return 0, false, nil
	}
	n, err := parseUnits(s)
	if err != nil {
		return 0, false, fmt.Errorf("%s: %q %w", f, clip(s), err)
	}
	return n, true, nil
}

// key reads an identifier: a string, or the digits of a number.
func key(v *fastjson.Value, f field) (string, error) {
	if v == nil {
		return "", nil
	}
	s := strings.TrimSpace(event.Text(v.Get(f.name)))
	if len(s) > MaxKey {
		return "", fmt.Errorf("%s: longer than %d bytes", f, MaxKey)
	}
	return s, nil
}

func text(v *fastjson.Value) string { return cut(strings.TrimSpace(event.Text(v)), MaxText) }

func link(v *fastjson.Value) string {
	if s := strings.TrimSpace(event.Text(v)); len(s) <= MaxURL {
		return s
	}
	return ""
}

// cut shortens s to at most n bytes, at a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
