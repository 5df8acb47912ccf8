package hooks

import (
	"strings"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// Identifier types of Shopify's that join what names nobody else: a cart knows no customer, a refund only its
// order.
const (
	shopifyCart  = "shopify_cart_token"
	shopifyOrder = "shopify_order_id"
)

// shopify reads webhooks of Shopify (shopify.dev/docs/api/webhooks): the HMAC of the body in base64, the topic in
// a header.
type shopify struct {
	secrets  [][]byte
	customer string
}

func (s *shopify) Verify(d *Delivery) error {
	return base64Signed(s.secrets, d.Header("X-Shopify-Hmac-Sha256"), d.Body)
}

// Headers implements Hook.
func (s *shopify) Headers() []string {
	return []string{"X-Shopify-Topic", "X-Shopify-Event-Id", "X-Shopify-Webhook-Id", "X-Shopify-Shop-Domain", "X-Shopify-API-Version"}
}

func (s *shopify) Events(d *Delivery) Result {
	var res Result
	topic := strings.ToLower(strings.TrimSpace(d.Header("X-Shopify-Topic")))
	write := map[string]func(*shopifyEvent){
		"orders/create":    (*shopifyEvent).completed,
		"orders/paid":      (*shopifyEvent).completed,
		"orders/updated":   (*shopifyEvent).updated,
		"orders/cancelled": (*shopifyEvent).cancelled,
		"refunds/create":   (*shopifyEvent).refunded,
		"carts/create":     (*shopifyEvent).cart,
		"carts/update":     (*shopifyEvent).cart,
		"checkouts/create": (*shopifyEvent).checkout,
		"checkouts/update": (*shopifyEvent).checkout,
		"customers/create": (*shopifyEvent).identify,
		"customers/update": (*shopifyEvent).identify,
	}[topic]
	if write == nil {
		res.refuse(d.Body, UnknownTopic, "X-Shopify-Topic", "%.80q is not read; unsubscribe from it, or take it in by a generic webhook", topic)
		return res
	}
	v := object(d.Body, &res)
	if v == nil {
		return res
	}
	write(&shopifyEvent{shopify: s, d: d, v: v, topic: topic, res: &res})
	return res
}

// shopifyEvent is one delivery on its way to an event.
type shopifyEvent struct {
	*shopify
	d     *Delivery
	v     *fastjson.Value
	topic string
	res   *Result
}

// messageID is the same for every delivery of one event, also over several subscriptions. One event may have
// several topics, each with another payload.
func (s *shopifyEvent) messageID() string {
	id := first(s.d.Header("X-Shopify-Event-Id"), s.d.Header("X-Shopify-Webhook-Id"))
	if id == "" {
		id = digest(s.d.Body)
	}
	return "shopify:" + s.topic + ":" + id
}

// once is the message id of what happens to an order once, whichever topics tell it: a shop that subscribes to
// orders/create and orders/paid has sold once, and a second Order Completed, days later, would empty the cart
// that the person fills by then.
func (s *shopifyEvent) once(what string) string {
	if id := idOf(s.v.Get("id")); id != "" {
		return "shopify:order:" + id + ":" + what
	}
	return s.messageID()
}

func (s *shopifyEvent) completed() {
	s.order("Order Completed", s.once("completed"), text(s.v, "processed_at"), text(s.v, "created_at"))
}

// updated tells a cancellation as such: Shopify sends both topics for it, and the last word counts.
func (s *shopifyEvent) updated() {
	if text(s.v, "cancelled_at") != "" {
		s.cancelled()
		return
	}
	s.order("Order Updated", s.messageID(), text(s.v, "updated_at"))
}

func (s *shopifyEvent) cancelled() {
	s.order("Order Cancelled", s.once("cancelled"), text(s.v, "cancelled_at"), text(s.v, "updated_at"))
}

func (s *shopifyEvent) order(name, id string, times ...string) {
	e, v := newTrack(name, id), s.v
	e.at("timestamp", times...)
	s.person(e)
	e.identifier(shopifyOrder, idOf(v.Get("id")))
	e.open("properties")
	e.id("order_id", v.Get("id"))
	e.id("checkout_id", v.Get("checkout_id"))
	e.id("cart_id", v.Get("cart_token"))
	e.text("order_name", text(v, "name"))
	e.text("affiliation", s.d.Header("X-Shopify-Shop-Domain"))
	s.money(e, v.Get("shipping_lines"))
	e.text("financial_status", text(v, "financial_status"))
	e.text("fulfillment_status", text(v, "fulfillment_status"))
	e.text("cancel_reason", text(v, "cancel_reason"))
	e.flag("test", v.GetBool("test"))
	s.products(e, v.GetArray("line_items"))
	e.close('}')
	s.finish(e)
}

// money writes what an order or checkout comes to. Revenue is without shipping and tax: where prices include tax,
// the subtotal does, and the tax of the shipping is a part of the whole tax.
func (s *shopifyEvent) money(e *built, shipping *fastjson.Value) {
	v := s.v
	e.number("total", v.Get("total_price"))
	e.number("subtotal", v.Get("subtotal_price"))
	if !v.GetBool("taxes_included") {
		e.number("revenue", v.Get("subtotal_price"))
	} else {
		tax := text(v, "total_tax")
		for _, line := range shipping.GetArray() {
			for _, t := range line.GetArray("tax_lines") {
				tax = less(tax, text(t, "price"))
			}
		}
		e.digits("revenue", less(text(v, "subtotal_price"), tax))
	}
	if set := v.Get("total_shipping_price_set", "shop_money", "amount"); set != nil {
		e.number("shipping", set)
	} else if lines := shipping.GetArray(); len(lines) == 1 {
		e.number("shipping", lines[0].Get("price"))
	}
	e.number("tax", v.Get("total_tax"))
	e.number("discount", v.Get("total_discounts"))
	if codes := v.GetArray("discount_codes"); len(codes) > 0 {
		e.text("coupon", text(codes[0], "code"))
	}
	e.text("currency", text(v, "currency"))
}

func (s *shopifyEvent) products(e *built, lines []*fastjson.Value) {
	e.list("products")
	for _, l := range lines {
		s.product(e, l, l.Get("quantity"))
	}
	e.closeEmpty()
}

// product writes one line. Variant is the variant's number, the one name of it that carts, checkouts and orders
// share.
func (s *shopifyEvent) product(e *built, l, quantity *fastjson.Value) {
	e.open("")
	e.id("product_id", l.Get("product_id"))
	e.id("variant", l.Get("variant_id"))
	e.text("sku", text(l, "sku"))
	e.text("name", first(text(l, "title"), text(l, "presentment_title"), text(l, "name")))
	e.text("variant_name", text(l, "variant_title"))
	e.text("brand", text(l, "vendor"))
	e.text("category", text(l, "product_type"))
	e.number("price", l.Get("price"))
	e.number("quantity", quantity)
	e.text("url", text(l, "url"))
	e.text("image_url", text(l, "image"))
	e.close('}')
}

// cart is a snapshot: products, none if the cart was emptied.
func (s *shopifyEvent) cart() {
	e, v := newTrack("Cart Viewed", s.messageID()), s.v
	token := first(idOf(v.Get("token")), idOf(v.Get("id")))
	e.at("timestamp", text(v, "updated_at"), text(v, "created_at"))
	e.identifier(shopifyCart, token)
	lines := v.GetArray("line_items")
	e.open("properties")
	e.text("cart_id", token)
	e.text("affiliation", s.d.Header("X-Shopify-Shop-Domain"))
	if len(lines) > 0 {
		e.text("currency", text(lines[0], "price_set", "shop_money", "currency_code"))
	}
	s.products(e, lines)
	e.close('}')
	s.finish(e)
}

// checkout says nothing of one that is completed: it is told again when its order is placed, and would look like
// a new cart.
func (s *shopifyEvent) checkout() {
	if text(s.v, "completed_at") != "" {
		s.res.Ignored++
		return
	}
	e, v := newTrack("Checkout Started", s.messageID()), s.v
	e.at("timestamp", text(v, "updated_at"), text(v, "created_at"))
	s.person(e)
	e.open("properties")
	e.id("checkout_id", v.Get("id"))
	e.id("cart_id", v.Get("cart_token"))
	e.text("affiliation", s.d.Header("X-Shopify-Shop-Domain"))
	e.number("value", v.Get("total_price"))
	s.money(e, v.Get("shipping_lines"))
	e.text("url", text(v, "abandoned_checkout_url"))
	s.products(e, v.GetArray("line_items"))
	e.close('}')
	s.finish(e)
}

// refunded names the order only, by which it finds its person. Its total is what was paid back.
func (s *shopifyEvent) refunded() {
	e, v := newTrack("Order Refunded", s.messageID()), s.v
	e.at("timestamp", text(v, "processed_at"), text(v, "created_at"))
	e.identifier(shopifyOrder, idOf(v.Get("order_id")))
	total, currency := refund(v.GetArray("transactions"))
	e.open("properties")
	e.id("order_id", v.Get("order_id"))
	e.id("refund_id", v.Get("id"))
	e.text("affiliation", s.d.Header("X-Shopify-Shop-Domain"))
	e.digits("total", total)
	e.text("currency", currency)
	e.text("reason", text(v, "note"))
	e.list("products")
	for _, l := range v.GetArray("refund_line_items") {
		s.product(e, l.Get("line_item"), l.Get("quantity"))
	}
	e.close(']')
	e.close('}')
	s.finish(e)
}

// refund sums what was really paid back; nothing if the currencies differ.
func refund(transactions []*fastjson.Value) (total, currency string) {
	for _, t := range transactions {
		if text(t, "kind") != "refund" || text(t, "status") != "success" {
			continue
		}
		a, c := text(t, "amount"), text(t, "currency")
		switch {
		case total == "":
			total, currency = a, c
		case c != currency:
			return "", ""
		default:
			total = less(total, "-"+a)
		}
	}
	return total, currency
}

// person writes who ordered: the customer's number, the cart, and in context.traits where they are reached.
func (s *shopifyEvent) person(e *built) {
	e.customer(s.customer, idOf(s.v.Get("customer", "id")))
	e.identifier(shopifyCart, idOf(s.v.Get("cart_token")))
}

func (s *shopifyEvent) finish(e *built) {
	v, c := s.v, s.v.Get("customer")
	e.context(Shopify, s.d.Header("X-Shopify-API-Version"), func() {
		e.open("traits")
		e.text("email", first(text(v, "email"), text(v, "contact_email"), text(c, "email")))
		e.text("phone", first(text(v, "phone"), text(c, "phone")))
		e.text("firstName", text(c, "first_name"))
		e.text("lastName", text(c, "last_name"))
		e.close('}')
		e.text("ip", first(text(v, "browser_ip"), text(v, "client_details", "browser_ip")))
		e.text("userAgent", text(v, "client_details", "user_agent"))
		e.text("locale", text(v, "customer_locale"))
	})
	s.res.add(e)
}

func (s *shopifyEvent) identify() {
	e, v := newEvent(event.Identify, s.messageID()), s.v
	e.at("timestamp", text(v, "updated_at"), text(v, "created_at"))
	e.customer(s.customer, idOf(v.Get("id")))
	e.open("traits")
	e.text("email", text(v, "email"))
	e.text("phone", text(v, "phone"))
	e.text("firstName", text(v, "first_name"))
	e.text("lastName", text(v, "last_name"))
	e.at("createdAt", text(v, "created_at"))
	a := v.Get("default_address")
	e.open("address")
	e.text("street", strings.TrimSpace(text(a, "address1")+" "+text(a, "address2")))
	e.text("city", text(a, "city"))
	e.text("state", text(a, "province"))
	e.text("postalCode", text(a, "zip"))
	e.text("country", first(text(a, "country_code"), text(a, "country")))
	e.close('}')
	e.open("consent")
	for _, channel := range []string{"email", "sms"} {
		state := text(v, channel+"_marketing_consent", "state")
		if channel == "email" && state == "" && v.GetBool("accepts_marketing") { // API versions before 2022-04
			state = "subscribed"
		}
		e.open(channel)
		e.text("marketing", map[string]string{"subscribed": "granted", "unsubscribed": "denied", "redacted": "denied"}[state])
		e.close('}')
	}
	e.close('}')
	e.close('}')
	e.context(Shopify, s.d.Header("X-Shopify-API-Version"), nil)
	s.res.add(e)
}
