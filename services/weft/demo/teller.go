package demo

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// teller writes one visitor's story, action by action.
type teller struct {
	*rand.Rand
	plan        Plan
	shelf       []Product
	v           *Visitor
	user, email string
	devices     int
	at          time.Duration // of the next action, since the beginning of the part
	n           int           // actions so far
	order       int
	carts       map[string][]Line
	known       map[string]bool // devices that have said who they belong to
}

func lower(s string) string { return strings.ToLower(s) }

// pause lets time go by: between lo and hi milliseconds.
func (t *teller) pause(lo, hi int) { t.at += time.Duration(lo+t.IntN(hi-lo+1)) * time.Millisecond }

// afterMail begins a part that waits for the visitor's next mail.
func (t *teller) afterMail() {
	t.v.Parts = append(t.v.Parts, Part{AfterMail: true})
	t.at = 0
}

// device is a new browser or app.
func (t *teller) device(ch Channel) Device {
	t.devices++
	d := Device{ID: fmt.Sprintf("%s-a%d-%d", t.plan.Run, t.v.N, t.devices), Channel: ch}
	switch {
	case ch == App:
		os := pickOne(t.Rand, []string{"iOS", "Android"})
		d.Context = map[string]any{
			"library": map[string]any{"name": "analytics-kotlin", "version": "1.19.2"}, "device": map[string]any{"type": "mobile"},
			"os": map[string]any{"name": os}, "app": map[string]any{"name": "Shop", "version": "4.2.0"}, "locale": "pl-PL",
		}
	case t.IntN(3) == 0:
		d.Context = browser("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1")
	default:
		d.Context = browser("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36")
	}
	return d
}

func browser(agent string) map[string]any {
	return map[string]any{"library": map[string]any{"name": "analytics.js", "version": "next-1.76.0"}, "userAgent": agent, "locale": "pl-PL"}
}

// act adds an action at the present moment. Once a device is known its events carry the user id.
func (t *teller) act(d Device, a Action) {
	t.n++
	a.At, a.Channel, a.Device = t.at, d.Channel, d.ID
	a.ID = fmt.Sprintf("%s-m%d-%d", t.plan.Run, t.v.N, t.n)
	if d.ID != "" {
		a.Body["anonymousId"] = d.ID
		a.Identifiers = append(a.Identifiers, "anonymous_id:"+d.ID)
	}
	if t.known[d.ID] {
		a.Body["userId"] = t.user
		a.Identifiers = append(a.Identifiers, "user_id:"+t.user)
	}
	if d.Context != nil {
		a.Body["context"] = d.Context
	}
	last := &t.v.Parts[len(t.v.Parts)-1]
	last.Actions = append(last.Actions, a)
}

func track(name string, properties map[string]any) map[string]any {
	return map[string]any{"type": "track", "event": name, "properties": properties}
}

// looks visits a page (on a phone: a screen).
func (t *teller) looks(d Device, name string) {
	kind := "page"
	if d.Channel == App {
		kind = "screen"
	}
	path := "/" + strings.ReplaceAll(lower(name), " ", "-")
	t.act(d, Action{Activity: true, Body: map[string]any{
		"type": kind, "name": name, "properties": map[string]any{"path": path, "url": "https://shop.example.com" + path, "title": name},
	}})
	t.pause(200, 700)
}

// views looks at a product.
func (t *teller) views(d Device, p Product) {
	t.act(d, Action{Activity: true, Viewed: true, Body: track("Product Viewed", Line{p, 1}.properties(""))})
	t.pause(200, 700)
}

// strolls is some browsing.
func (t *teller) strolls(d Device) {
	t.looks(d, "Home")
	if t.IntN(2) == 0 {
		t.looks(d, pickOne(t.Rand, []string{"Tea", "Coffee", "Kitchen", "Books"}))
	}
	for range 1 + t.IntN(2) {
		t.views(d, pickOne(t.Rand, t.shelf))
	}
}

// cart is a new cart's id.
func (t *teller) cart(want Ending) *Cart {
	t.v.Carts = append(t.v.Carts, Cart{ID: fmt.Sprintf("%s-c%d-%d", t.plan.Run, t.v.N, len(t.v.Carts)+1), Want: want})
	return &t.v.Carts[len(t.v.Carts)-1]
}

// adds puts something into a cart; the same product twice adds up.
func (t *teller) adds(d Device, c *Cart, p Product) {
	l := Line{p, int64(1 + t.IntN(2))}
	t.act(d, Action{Activity: true, Cart: c.ID, Body: track("Product Added", l.properties(c.ID))})
	t.put(c, l)
	t.pause(300, 900)
}

func (t *teller) put(c *Cart, l Line) {
	for i := range c.Lines {
		if c.Lines[i].Product == l.Product {
			c.Lines[i].Quantity += l.Quantity
			return
		}
	}
	c.Lines = append(c.Lines, l)
}

// fills puts one to three things into a cart.
func (t *teller) fills(d Device, c *Cart) {
	for range 1 + t.IntN(3) {
		p := pickOne(t.Rand, t.shelf)
		if t.IntN(3) > 0 {
			t.views(d, p)
		}
		t.adds(d, c, p)
	}
}

// removes takes a line out again.
func (t *teller) removes(d Device, c *Cart, i int) {
	t.act(d, Action{Activity: true, Cart: c.ID, Body: track("Product Removed", c.Lines[i].properties(c.ID))})
	c.Lines = append(c.Lines[:i:i], c.Lines[i+1:]...)
	t.pause(200, 600)
}

// clears empties a cart at once.
func (t *teller) clears(d Device, c *Cart) {
	t.act(d, Action{Activity: true, Cart: c.ID, Body: track("Cart Cleared", map[string]any{"cart_id": c.ID})})
	c.Lines = nil
	t.pause(200, 600)
}

// checks out: a snapshot of the cart. The spec has no cart id here; some shops send it all the same.
func (t *teller) checksOut(d Device, c *Cart) {
	p := map[string]any{"value": amount(total(c.Lines)), "currency": Currency, "products": products(c.Lines)}
	if t.IntN(2) == 0 {
		p["cart_id"] = c.ID
	}
	t.act(d, Action{Activity: true, Cart: c.ID, Body: track("Checkout Started", p)})
	t.pause(400, 900)
}

// says who the visitor is, and what may be sent: consent is nil for nothing said.
func (t *teller) says(d Device, consent any) {
	traits := map[string]any{"email": t.email, "firstName": t.v.First}
	if consent != nil {
		traits["consent"] = map[string]any{"email": map[string]any{"marketing": consent}}
	}
	t.logs(d, traits, "email:"+t.email)
}

// logs in on a device: from here on its events carry the user id.
func (t *teller) logs(d Device, traits map[string]any, more ...string) {
	if t.known == nil {
		t.known = map[string]bool{}
	}
	t.known[d.ID] = true
	t.v.UserID = t.user
	if _, ok := traits["email"]; ok {
		t.v.Email = t.email
	}
	t.act(d, Action{Body: map[string]any{"type": "identify", "traits": traits}, Identifiers: more})
	t.pause(200, 500)
}

// nextOrder is a new order's id.
func (t *teller) nextOrder() string {
	t.order++
	return fmt.Sprintf("%s-o%d-%d", t.plan.Run, t.v.N, t.order)
}

// buys reports an order from a device, or, with an empty one, from the shop system.
func (t *teller) buys(d Device, id string, lines []Line) {
	a := Action{Order: id, Cents: total(lines), Body: track("Order Completed", map[string]any{
		"order_id": id, "total": amount(total(lines)), "revenue": amount(total(lines)), "currency": Currency, "products": products(lines),
	})}
	if d.Channel == Shop {
		a.Body["userId"] = t.user
		a.Identifiers = []string{"user_id:" + t.user}
	}
	t.act(d, a)
}

// pays at a till. The customer shows a card, or says an address, or neither.
func (t *teller) pays(lines []Line, card, address bool) {
	id := t.nextOrder()
	customer := map[string]any{}
	a := Action{Order: id, Cents: total(lines)}
	if card {
		customer["id"] = t.user
		a.Identifiers = append(a.Identifiers, "user_id:"+t.user)
	}
	if address {
		customer["email"] = strings.ToUpper(t.email[:1]) + t.email[1:] // as people write it
		a.Identifiers = append(a.Identifiers, "email:"+t.email)
	}
	items := make([]map[string]any, len(lines))
	for i, l := range lines {
		items[i] = map[string]any{"sku": l.ID, "name": l.Name, "quantity": l.Quantity, "price": amount(l.Cents)}
	}
	a.Body = map[string]any{
		"receipt": id, "till": pickOne(t.Rand, tills()), "customer": customer, "items": items,
		"total": amount(total(lines)), "currency": Currency,
	}
	if len(a.Identifiers) == 0 { // a sale to nobody: Weft cannot keep it as an event
		a.Order, a.Cents, a.Broken = "", 0, true
	}
	t.act(Device{Channel: Till}, a)
}

// resendSome marks actions that are sent twice.
func (t *teller) resendSome() {
	const oneIn = 50
	for i := range t.v.Parts {
		for j := range t.v.Parts[i].Actions {
			a := &t.v.Parts[i].Actions[j]
			a.Resend = a.Channel != Till && !a.Link && !a.Broken && t.IntN(oneIn) == 0
		}
	}
}

// encode is the body as it is sent: of HTTP an event, at the till the till's own record.
func (a *Action) encode(at time.Time) ([]byte, error) {
	const layout = "2006-01-02T15:04:05.000Z"
	body := make(map[string]any, len(a.Body)+2)
	for k, v := range a.Body {
		body[k] = v
	}
	if a.Channel == Till {
		body["soldAt"] = at.UTC().Format(layout)
	} else {
		body["messageId"] = a.ID
		body["timestamp"] = at.Add(-a.Ago).UTC().Format(layout)
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode action %s: %w", a.ID, err)
	}
	return b, nil
}
