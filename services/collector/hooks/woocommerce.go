package hooks

import (
	"bytes"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// wooCommerce reads webhooks of WooCommerce (developer.woocommerce.com, REST API, webhooks): the HMAC of the body
// in base64, the topic in a header. Its delivery ids are made anew for each delivery, so message ids are made of
// the content.
type wooCommerce struct {
	secrets  [][]byte
	customer string
}

// Verify lets the ping pass that WooCommerce sends, unsigned, when a webhook is saved: it says "webhook_id=1"
// and nothing else, and becomes no event.
func (w *wooCommerce) Verify(d *Delivery) error {
	if isPing(d) {
		return nil
	}
	return base64Signed(w.secrets, d.Header("X-WC-Webhook-Signature"), d.Body)
}

// maxPing is longer than every ping: "webhook_id=" and a number.
const maxPing = 64

func isPing(d *Delivery) bool {
	id, ok := bytes.CutPrefix(bytes.TrimSpace(d.Body), []byte("webhook_id="))
	return ok && len(id) < maxPing && len(bytes.Trim(id, "0123456789")) == 0
}

// Headers implements Hook.
func (w *wooCommerce) Headers() []string {
	return []string{"X-WC-Webhook-Topic", "X-WC-Webhook-Source"}
}

func (w *wooCommerce) Events(d *Delivery) Result {
	var res Result
	if isPing(d) {
		res.Ignored++
		return res
	}
	topic := strings.ToLower(strings.TrimSpace(d.Header("X-WC-Webhook-Topic")))
	resource, action, _ := strings.Cut(topic, ".")
	known := action == "created" || action == "updated" || action == "deleted" || action == "restored"
	switch {
	case known && (resource == "product" || resource == "coupon"), known && action != "created" && action != "updated" && (resource == "order" || resource == "customer"):
		res.Ignored++
		return res
	case !known || resource != "order" && resource != "customer":
		res.refuse(d.Body, UnknownTopic, "X-WC-Webhook-Topic", "%.80q is not read; switch it off, or take it in by a generic webhook", topic)
		return res
	}
	v := object(d.Body, &res)
	if v == nil {
		return res
	}
	x := &wooEvent{wooCommerce: w, d: d, v: v, id: "woocommerce:" + topic + ":" + digest([]byte(topic), d.Body), res: &res}
	if resource == "customer" {
		x.identify()
	} else {
		x.order(action == "updated")
	}
	return res
}

type wooEvent struct {
	*wooCommerce
	d   *Delivery
	v   *fastjson.Value
	id  string
	res *Result
}

// order tells what the order's status means. An order is completed when it is paid, or to be paid on delivery or
// by transfer; before, it is a checkout that may be left. Since WooCommerce makes an order before it is paid, the
// update that tells of the payment is what completes it: then Order Completed comes beside Order Updated, always
// with the same message id, so that it counts once.
func (w *wooEvent) order(update bool) {
	v := w.v
	created := text(v, "date_created_gmt")
	modified := first(text(v, "date_modified_gmt"), created)
	switch text(v, "status") {
	case "checkout-draft", "pending", "auto-draft":
		w.track("Checkout Started", w.id, modified)
	case "cancelled", "failed", "trash":
		w.track("Order Cancelled", w.id, modified)
	case "refunded":
		w.track("Order Refunded", w.id, modified)
	default: // processing, on-hold, completed, and what plug-ins add
		id := w.id
		if n := idOf(v.Get("id")); n != "" {
			id = "woocommerce:order:" + n + ":completed"
		}
		w.track("Order Completed", id, first(text(v, "date_paid_gmt"), created))
		if update {
			w.track("Order Updated", w.id, modified)
		}
	}
}

func (w *wooEvent) track(name, id, at string) {
	e, v := newTrack(name, id), w.v
	b := v.Get("billing")
	e.at("timestamp", at)
	e.customer(w.customer, idOf(v.Get("customer_id")))
	e.open("properties")
	e.id("order_id", v.Get("id"))
	e.text("order_name", text(v, "number"))
	e.text("affiliation", w.d.Header("X-WC-Webhook-Source"))
	e.text("status", text(v, "status"))
	if name == "Checkout Started" {
		e.number("value", v.Get("total"))
	}
	e.number("total", v.Get("total"))
	e.digits("revenue", less(text(v, "total"), text(v, "total_tax"), text(v, "shipping_total")))
	e.number("shipping", v.Get("shipping_total"))
	e.number("tax", v.Get("total_tax"))
	e.number("discount", v.Get("discount_total"))
	if coupons := v.GetArray("coupon_lines"); len(coupons) > 0 {
		e.text("coupon", text(coupons[0], "code"))
	}
	e.text("currency", text(v, "currency"))
	e.text("payment_method", text(v, "payment_method"))
	e.list("products")
	for _, l := range v.GetArray("line_items") {
		e.open("")
		e.id("product_id", l.Get("product_id"))
		e.id("variant", l.Get("variation_id"))
		e.text("sku", text(l, "sku"))
		e.text("name", text(l, "name"))
		e.number("price", l.Get("price"))
		e.number("quantity", l.Get("quantity"))
		e.text("image_url", text(l, "image", "src"))
		e.close('}')
	}
	e.closeEmpty()
	e.close('}')
	e.context(WooCommerce, text(v, "version"), func() {
		e.open("traits")
		e.text("email", text(b, "email"))
		e.text("phone", text(b, "phone"))
		e.text("firstName", text(b, "first_name"))
		e.text("lastName", text(b, "last_name"))
		e.close('}')
		e.text("ip", text(v, "customer_ip_address"))
		e.text("userAgent", text(v, "customer_user_agent"))
	})
	w.res.add(e)
}

func (w *wooEvent) identify() {
	e, v := newEvent(event.Identify, w.id), w.v
	b := v.Get("billing")
	e.at("timestamp", text(v, "date_modified_gmt"), text(v, "date_created_gmt"))
	e.customer(w.customer, idOf(v.Get("id")))
	e.open("traits")
	e.text("email", first(text(v, "email"), text(b, "email")))
	e.text("phone", text(b, "phone"))
	e.text("firstName", first(text(v, "first_name"), text(b, "first_name")))
	e.text("lastName", first(text(v, "last_name"), text(b, "last_name")))
	e.text("username", text(v, "username"))
	e.at("createdAt", text(v, "date_created_gmt"))
	e.open("address")
	e.text("street", strings.TrimSpace(text(b, "address_1")+" "+text(b, "address_2")))
	e.text("city", text(b, "city"))
	e.text("state", text(b, "state"))
	e.text("postalCode", text(b, "postcode"))
	e.text("country", text(b, "country"))
	e.close('}')
	e.close('}')
	e.context(WooCommerce, "", nil)
	w.res.add(e)
}
