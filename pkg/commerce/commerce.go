// Package commerce reads the e-commerce events of the Segment spec (V2, and the V1 names) and keeps a
// person's carts in one brand.
//
// It owns: which events are orders, cart changes and shopping activity; how money and quantities are read
// from the text of a number; and Carts, the state of a person's carts. It guarantees that Carts converges:
// the same operations, in any order, any number of times and over any tree of merges, give the same carts
// (the exception is MaxCarts, see there). A malformed price is an error that names its field; the event
// itself is the caller's to keep. It does no I/O, reads no clock, and must not know profiles, journeys or
// topics.
//
// Times are UTC milliseconds. Money and quantities are decimals with four places, rounded half to even,
// read from the digits as they came and never through a float.
package commerce

import "github.com/weft-cdp/weft/pkg/event"

// DefaultCurrency is that of an event which names none: the Segment spec says "assumed to be USD".
const DefaultCurrency = "USD"

// kind is what a track event means to commerce.
type kind uint8

const (
	kindNone     kind = iota
	kindActivity      // shopping, without a change of cart
	kindAdded
	kindRemoved
	kindCartViewed
	kindCartCleared
	kindCheckoutStarted
	kindOrderCompleted
	kindOrderUpdated
	kindOrderCancelled
	kindOrderRefunded
)

// maxName is longer than every name that kindOf knows.
const maxName = 40

// kindOf classifies a track event by name, in any letter case, with spaces, underscores or hyphens
// between the words ("Product Added", "product_added"). V1 names are aliases (spec: ecommerce/v1).
func kindOf(name string) kind {
	var room [maxName]byte // on the stack: kindOf runs for every event
	buf := room[:0]
	for i := range len(name) {
		c := name[i]
		switch {
		case c == ' ' || c == '_' || c == '-' || c == '\t':
			if len(buf) == 0 || buf[len(buf)-1] == ' ' {
				continue
			}
			c = ' '
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		if len(buf) == maxName {
			return kindNone
		}
		buf = append(buf, c)
	}
	if len(buf) > 0 && buf[len(buf)-1] == ' ' {
		buf = buf[:len(buf)-1]
	}
	return lookup(buf)
}

func lookup(name []byte) kind {
	switch string(name) { // does not allocate
	case "product added", "added product":
		return kindAdded
	case "product removed", "removed product":
		return kindRemoved
	case "cart viewed", "viewed cart":
		return kindCartViewed
	case "cart cleared", "cleared cart":
		return kindCartCleared
	case "checkout started", "started checkout", "started order":
		return kindCheckoutStarted
	case "order completed", "completed order":
		return kindOrderCompleted
	case "order updated", "updated order":
		return kindOrderUpdated
	case "order cancelled", "order canceled", "cancelled order", "canceled order":
		return kindOrderCancelled
	case "order refunded", "refunded order":
		return kindOrderRefunded
	case "products searched", "searched products",
		"product list viewed", "product list filtered", "viewed product category",
		"product clicked", "clicked product", "product viewed", "viewed product",
		"promotion viewed", "viewed promotion", "promotion clicked", "clicked promotion",
		"checkout step viewed", "viewed checkout step", "checkout step completed", "completed checkout step",
		"payment info entered",
		"coupon entered", "coupon applied", "coupon denied", "coupon removed",
		"product added to wishlist", "product removed from wishlist",
		// The spec has Product Added beside it, so this one is no second addition.
		"wishlist product added to cart",
		"product shared", "cart shared", "product reviewed":
		return kindActivity
	}
	return kindNone
}

// IsActivity says whether e shows the person shopping or browsing: page and screen calls and the spec's
// product, cart, coupon and checkout events. Orders and their later life (which may be reported by a back
// office while the person sleeps) are not, nor is any event that the spec does not name.
func IsActivity(e *event.Event) bool {
	switch e.Type {
	case event.Page, event.Screen:
		return true
	case event.Track:
		k := kindOf(e.Name)
		return k >= kindActivity && k <= kindCheckoutStarted
	}
	return false
}
