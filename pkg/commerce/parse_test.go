package commerce

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

var received = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func track(t testing.TB, name, properties string) *event.Event {
	t.Helper()
	body := fmt.Sprintf(`{"type":"track","event":%q,"userId":"u","timestamp":"2026-03-01T11:00:00.000Z","properties":%s}`, name, properties)
	e, err := event.Decode([]byte(body), event.Meta{Source: "shop", Brand: "main", MessageID: "m1", ReceivedAt: received})
	require.NoError(t, err)
	return e
}

func TestKindOf(t *testing.T) {
	for name, want := range map[string]kind{
		"Product Added": kindAdded, "Added Product": kindAdded, "product_added": kindAdded, "PRODUCT ADDED": kindAdded,
		" Product  Added ": kindAdded, "Product-Removed": kindRemoved, "removed product": kindRemoved,
		"Cart_Viewed": kindCartViewed, "Viewed Cart": kindCartViewed, "Cart Cleared": kindCartCleared,
		"Checkout Started": kindCheckoutStarted, "Started Order": kindCheckoutStarted,
		"Completed Order": kindOrderCompleted, "Order Completed": kindOrderCompleted, "order canceled": kindOrderCancelled,
		"Order Cancelled": kindOrderCancelled, "Order Refunded": kindOrderRefunded, "Order Updated": kindOrderUpdated,
		"Viewed Product": kindActivity, "Coupon Applied": kindActivity, "Wishlist Product Added to Cart": kindActivity,
		"": kindNone, " ": kindNone, "Signed Up": kindNone, strings.Repeat("x", 1000): kindNone, "Product Added!": kindNone,
	} {
		require.Equal(t, want, kindOf(name), name)
	}
}

func TestIsActivity(t *testing.T) {
	require.True(t, IsActivity(track(t, "Product Viewed", `{}`)))
	require.True(t, IsActivity(track(t, "Checkout Started", `{}`)))
	require.False(t, IsActivity(track(t, "Order Completed", `{}`)))
	require.False(t, IsActivity(track(t, "Order Refunded", `{}`)))
	require.False(t, IsActivity(track(t, "Invoice Paid", `{}`)))
	for typ, want := range map[string]bool{"page": true, "screen": true, "identify": false, "group": false} {
		e, err := event.Decode([]byte(`{"type":"`+typ+`","userId":"u","groupId":"g"}`), event.Meta{MessageID: "m", ReceivedAt: received})
		require.NoError(t, err)
		require.Equal(t, want, IsActivity(e), typ)
	}
}

func TestChangeOf(t *testing.T) {
	for _, tc := range []struct{ name, event, properties, want, err string }{
		{"all fields", "Product Added", `{"cart_id":"c1","product_id":"p1","sku":"s","name":"N","brand":"B","category":"C","variant":"red","price":12.345678,"quantity":2,"url":"https://x/p","image_url":"https://x/i","currency":"pln"}`,
			"add c1 [p1/red s N B C 12.3457 PLN x2.0000 https://x/p https://x/i]", ""},
		{"numbers as text, ids as numbers", "added product", `{"cart_id":7,"product_id":1002,"price":"19.99","quantity":"3"}`, "add 7 [1002/    19.9900 USD x3.0000  ]", ""},
		{"quantity left out", "Product Added", `{"sku":"s","price":1}`, "add  [s/ s   1.0000 USD x1.0000  ]", ""},
		{"nulls are absent", "Product Added", `{"product_id":"p","quantity":null,"price":null,"cart_id":null,"currency":null}`, "add  [p/    0.0000 USD x1.0000  ]", ""},
		{"sku for product_id", "Product Removed", `{"sku":"s","product_id":""}`, "remove  [s/ s   0.0000 USD x1.0000  ]", ""},
		{"products in one addition", "Product Added", `{"cart_id":"c","products":[{"product_id":"a"},{"product_id":"b","currency":"EUR"}],"currency":"CHF"}`, "add c [a/    0.0000 CHF x1.0000  ] [b/    0.0000 EUR x1.0000  ]", ""},
		{"a snapshot", "Cart Viewed", `{"cart_id":"c","products":[{"product_id":"a","price":2,"quantity":2}]}`, "snapshot c [a/    2.0000 USD x2.0000  ]", ""},
		{"an empty snapshot", "Cart Viewed", `{"cart_id":"c","products":[]}`, "snapshot c", ""},
		{"a view", "Cart Viewed", `{"cart_id":"c"}`, "view c", ""},
		{"cleared", "Cart Cleared", `{"cart_id":"c"}`, "snapshot c", ""},
		{"checkout", "Checkout Started", `{"products":[{"product_id":"a"}]}`, "snapshot  checkout [a/    0.0000 USD x1.0000  ]", ""},
		{"checkout without products", "Started Order", `{}`, "view  checkout", ""},
		{"no product", "Product Added", `{"price":1}`, "", "properties.product_id: missing"},
		{"price in words", "Product Added", `{"product_id":"p","price":"cheap"}`, "", `properties.price: "cheap" is not a number`},
		{"exploding price", "Product Added", `{"product_id":"p","price":1e999999}`, "", "properties.price:"},
		{"price as object", "Product Added", `{"product_id":"p","price":{"amount":1}}`, "", "properties.price: a number is wanted, not object"},
		{"negative quantity", "Product Added", `{"product_id":"p","quantity":-1}`, "", "properties.quantity"},
		{"absurd quantity", "Product Added", `{"product_id":"p","quantity":1e10}`, "", "properties.quantity"},
		{"price in products", "Cart Viewed", `{"products":[{"product_id":"p"},{"product_id":"q","price":"1,5"}]}`, "", `properties.products[1].price: "1,5" is not a number`},
		{"products no list", "Cart Viewed", `{"products":{"product_id":"p"}}`, "", "properties.products: a list is wanted, not object"},
		{"product no object", "Cart Viewed", `{"products":["p"]}`, "", "properties.products[0]: an object is wanted, not string"},
		{"currency", "Cart Viewed", `{"products":[],"currency":"zł"}`, "", "properties.currency"},
		{"long id", "Cart Viewed", `{"cart_id":"` + strings.Repeat("c", 300) + `"}`, "", "properties.cart_id: longer than 256 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := track(t, tc.event, tc.properties)
			ch, ok, err := ChangeOf(e)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				require.False(t, ok)
				return
			}
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, e.Time, ch.Time)
			got := string(ch.Kind) + " " + ch.CartID
			if ch.Checkout {
				got += " checkout"
			}
			for _, l := range ch.Lines() {
				got += fmt.Sprintf(" [%s/%s %s %s %s %s %s %s x%s %s %s]", l.ProductID, l.Variant, l.SKU, l.Name, l.Brand, l.Category,
					l.Price.StringFixed(4), l.Currency, l.Quantity.StringFixed(4), l.URL, l.ImageURL)
			}
			require.Equal(t, strings.Fields(tc.want), strings.Fields(got))
		})
	}
	for _, name := range []string{"Product Viewed", "Order Completed", "Signed Up"} {
		_, ok, err := ChangeOf(track(t, name, `{"product_id":"p","price":"cheap"}`))
		require.NoError(t, err)
		require.False(t, ok, name)
	}
}

func TestLimitsOfOneEvent(t *testing.T) {
	var items []string
	for i := range MaxLines + 50 {
		items = append(items, fmt.Sprintf(`{"product_id":"p%d","name":"%s","url":"https://x/%s"}`, i, strings.Repeat("ä", 400), strings.Repeat("u", MaxURL)))
	}
	ch, ok, err := ChangeOf(track(t, "Cart Viewed", `{"products":[`+strings.Join(items, ",")+`]}`))
	require.NoError(t, err)
	require.True(t, ok)
	ls := ch.Lines()
	require.Len(t, ls, MaxLines)
	require.Equal(t, strings.Repeat("ä", MaxText/2), ls[0].Name)
	require.Empty(t, ls[0].URL, "a cut link leads nowhere")
}

func TestUnitsOfAnOrder(t *testing.T) {
	for properties, want := range map[string]string{
		`{}`:                 "",
		`{"quantity":3}`:     "3",
		`{"quantity":"2.5"}`: "2.5",
		`{"quantity":0}`:     "0",
		`{"quantity":null}`:  "",
		`{"products":[]}`:    "0",
		`{"products":[{"product_id":"p","quantity":2},{"product_id":"p","quantity":2},{"product_id":"q"}]}`: "5",
		`{"quantity":9,"products":[{"product_id":"p","quantity":2}]}`:                                       "2",
		`{"quantity":"many","products":[{"product_id":"p"}]}`:                                               "1",
	} {
		o, _, err := OrderOf(track(t, "Order Completed", properties))
		require.NoError(t, err, properties)
		require.Equal(t, want != "", o.HasUnits, properties)
		if o.HasUnits {
			require.Equal(t, want, o.Units.String(), properties)
		}
	}
	for _, quantity := range []string{`"many"`, `{}`, `1e9999`, `1000000001`} {
		o, ok, err := OrderOf(track(t, "Order Completed", `{"total":5,"quantity":`+quantity+`}`))
		require.ErrorContains(t, err, "properties.quantity")
		require.True(t, ok)
		require.False(t, o.HasUnits)
		require.Equal(t, "5", o.Amount().String(), "the money was readable")
	}
	o, _, err := OrderOf(track(t, "Order Completed", `{"quantity":2,"total":"x"}`))
	require.ErrorContains(t, err, "properties.total")
	require.False(t, o.HasUnits)
}

func TestOrderOf(t *testing.T) {
	full := `{"order_id":"o1","checkout_id":"k1","cart_id":"c1","total":27.5,"revenue":"25.00","currency":"eur","products":[{"product_id":"p","price":12.5,"quantity":2}]}`
	o, ok, err := OrderOf(track(t, "Order Completed", full))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "o1", o.ID)
	require.Equal(t, Completed, o.Status)
	require.Equal(t, "27.5000", o.Amount().StringFixed(Places))
	require.Equal(t, "25.0000", o.Revenue.StringFixed(Places))
	require.Equal(t, []string{"EUR", "c1", "k1"}, []string{o.Currency, o.CartID, o.CheckoutID})
	require.Equal(t, "25.0000", o.Lines[0].Value().StringFixed(Places))
	require.True(t, o.HasUnits)
	require.Equal(t, "2", o.Units.String())
	require.Equal(t, received.Add(-time.Hour), o.Time)
	require.Equal(t, received, o.At, "what came into the cart before the order reached us is bought")

	e := track(t, "Completed Order", `{"revenue":25}`)
	e.Historical = true
	o, ok, err = OrderOf(e)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "m1", o.ID, "no id: the message's")
	require.Equal(t, "25.0000", o.Amount().StringFixed(Places))
	require.Equal(t, DefaultCurrency, o.Currency)
	require.Equal(t, o.Time, o.At, "history empties only what was there then")

	o, _, err = OrderOf(track(t, "Order Refunded", `{"checkout_id":"k1","total":0}`))
	require.NoError(t, err)
	require.Equal(t, "k1", o.ID)
	require.Equal(t, Refunded, o.Status)
	require.True(t, o.HasTotal)

	for properties, want := range map[string]string{
		`{"order_id":"o","total":"12,50"}`:                                 "properties.total",
		`{"order_id":"o","revenue":[]}`:                                    "properties.revenue",
		`{"order_id":"o","products":[{"price":1}]}`:                        "properties.products[0].product_id",
		`{"order_id":"o","total":1,"currency":"much too long a currency"}`: "properties.currency",
	} {
		o, ok, err = OrderOf(track(t, "Order Completed", properties))
		require.ErrorContains(t, err, want)
		require.True(t, ok, "it is still an order")
		require.Equal(t, "o", o.ID)
		require.Equal(t, received, o.At)
		require.True(t, o.Amount().IsZero())
	}
	_, ok, err = OrderOf(track(t, "Product Added", full))
	require.NoError(t, err)
	require.False(t, ok)
}

// FuzzEvent feeds any properties to both readers: they must return, and what they accept must be usable.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{`{}`, `{"products":[{"product_id":1,"price":"1e3"}]}`, `{"product_id":"p","price":-0.5,"quantity":1e-9}`, `{"total":1e999999}`} {
		f.Add("Cart Viewed", s)
		f.Add("Product Added", s)
		f.Add("order_completed", s)
	}
	f.Fuzz(func(t *testing.T, name, properties string) {
		body := fmt.Sprintf(`{"type":"track","event":%q,"properties":%s}`, name, properties)
		e, err := event.Decode([]byte(body), event.Meta{MessageID: "m", ReceivedAt: received})
		if err != nil {
			return
		}
		var c Carts
		if ch, ok, err := ChangeOf(e); ok && err == nil {
			c.Apply(ch)
			for _, o := range c.Open() {
				require.NotEmpty(t, o.Items)
				require.True(t, Amount{}.Less(o.Pieces()))
			}
		}
		if o, ok, err := OrderOf(e); ok {
			require.NotEmpty(t, o.ID)
			if err == nil {
				c.Bought(o.At)
			}
		}
	})
}

func BenchmarkCartEvent(b *testing.B) {
	e := track(b, "Product Added", `{"cart_id":"c1","product_id":"p1","sku":"s","name":"A shirt","brand":"B","category":"shirts","variant":"red","price":12.34,"quantity":2,"url":"https://shop.example/p1","image_url":"https://shop.example/p1.jpg","currency":"EUR"}`)
	var c Carts
	b.ReportAllocs()
	for i := range b.N {
		ch, _, err := ChangeOf(e)
		if err != nil {
			b.Fatal(err)
		}
		ch.Time = ch.Time.Add(time.Duration(i%20) * time.Second)
		c.Apply(ch)
	}
}
