package journey

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

// Check reads a journey file and checks it. A file that cannot be read is one fault without a line. The
// journey is nil if there is any fault.
func Check(path string) (*Journey, []Fault) {
	b, err := os.ReadFile(path) //nolint:gosec // the user's own file
	if err != nil {
		return nil, []Fault{{File: path, Message: err.Error()}}
	}
	return Parse(path, b)
}

// Faults is all that is wrong with a journey file, as one error: a line per fault.
type Faults []Fault

// Error lists the faults, a line each.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// ErrEmptyCart means that the cart of a preview has no line, so that no mail would be sent.
var ErrEmptyCart = errors.New("the cart is empty: no message would be sent")

// previewURL stands where a signed link will be: a preview has no secret and no person.
const previewURL = "https://example.com/v1/unsubscribe?t=preview"

// Preview renders the mail of a journey file. cartJSON is the properties of a Cart Viewed event of the
// Segment spec (cart_id, currency, products), and may have first_name and brand beside them; empty: a
// sample cart. A faulty file gives Faults.
func Preview(path string, cartJSON []byte, now time.Time) (Mail, error) {
	j, faults := Check(path)
	if len(faults) > 0 {
		return Mail{}, Faults(faults)
	}
	in := samples()[0]
	if len(cartJSON) > 0 {
		var err error
		if in, err = previewInput(cartJSON, now); err != nil {
			return Mail{}, err
		}
	}
	in.UnsubscribeURL = previewURL
	return Render(j, in)
}

// previewInput reads a cart the way a running service would.
func previewInput(cartJSON []byte, now time.Time) (MessageInput, error) {
	var person struct {
		FirstName string `json:"first_name"`
		Brand     string `json:"brand"`
	}
	if err := json.Unmarshal(cartJSON, &person); err != nil {
		return MessageInput{}, fmt.Errorf("read cart: %w", err)
	}
	body := fmt.Sprintf(`{"type":"track","messageId":"preview","event":"Cart Viewed","properties":%s}`, cartJSON)
	e, err := event.Decode([]byte(body), event.Meta{MessageID: "preview", ReceivedAt: now})
	if err != nil {
		return MessageInput{}, fmt.Errorf("read cart: %w", err)
	}
	ch, ok, err := commerce.ChangeOf(e)
	if err != nil {
		return MessageInput{}, fmt.Errorf("read cart: %w", err)
	}
	var carts commerce.Carts
	if ok {
		carts.Apply(ch)
	}
	open := carts.Open()
	if len(open) == 0 {
		return MessageInput{}, ErrEmptyCart
	}
	if person.Brand == "" {
		person.Brand = "main"
	}
	return NewInput(person.Brand, Person{FirstName: person.FirstName}, open[0].Cart(), ""), nil
}

// samples are the carts that templates are tried with: a full one, which is also the preview's, and one
// in which everything that may be missing is missing.
func samples() []MessageInput {
	d := decimal.RequireFromString
	full := commerce.Cart{
		ID: "cart-1001", Currency: "EUR", Checkout: true,
		Value: map[string]decimal.Decimal{"EUR": d("84.7000")},
		Lines: []commerce.Line{
			{
				ProductID: "tea-204", SKU: "TEA-204-100", Name: "First Flush Darjeeling", Variant: "100 g", Brand: "Hill & Vale",
				Category: "Tea", URL: "https://shop.example.com/p/tea-204", ImageURL: "https://shop.example.com/i/tea-204.jpg",
				Currency: "EUR", Price: d("12.9000"), Quantity: d("3"),
			},
			{
				ProductID: "pot-17", SKU: "POT-17", Name: "Stoneware teapot", Category: "Kitchen",
				URL: "https://shop.example.com/p/pot-17", Currency: "EUR", Price: d("46.0000"), Quantity: d("1"),
			},
		},
	}
	bare := commerce.Cart{
		Currency: "USD", Value: map[string]decimal.Decimal{"USD": {}},
		Lines: []commerce.Line{{ProductID: "1", Currency: "USD", Quantity: d("1")}},
	}
	return []MessageInput{
		NewInput("main", Person{FirstName: "Ada", Email: "ada@example.com"}, full, previewURL),
		NewInput("", Person{}, bare, ""),
	}
}
