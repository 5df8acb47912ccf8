package commerce

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// ChangeKind is what a Change does to a cart.
type ChangeKind string

// The kinds of cart changes.
const (
	Add      ChangeKind = "add"      // lines come in
	Remove   ChangeKind = "remove"   // lines go out, by quantity
	Snapshot ChangeKind = "snapshot" // the lines are the whole cart; none: the cart was emptied
	View     ChangeKind = "view"     // looked at; the lines stay
)

// Change is one operation on one cart.
type Change struct {
	CartID   string // "" if the event names none
	Kind     ChangeKind
	Checkout bool      // by Checkout Started: the cart is in the checkout stage from now on
	Time     time.Time // of the event: operations act in this order, whatever the order they come in

	id    uint64 // from source and message id: the same operation twice is one
	lines []Item
}

// Lines are the lines of the change, as the event has them.
func (ch Change) Lines() []Line {
	ls := make([]Line, len(ch.lines))
	for i := range ch.lines {
		ls[i] = ch.lines[i].public()
	}
	return ls
}

// ChangeOf reads e as a change of a cart. False: it is none. Cart Viewed and Checkout Started with
// products are snapshots, without products they are views; Cart Cleared is an empty snapshot. An error
// names the field that cannot be read; then there is no change, but IsActivity of the event still holds.
func ChangeOf(e *event.Event) (Change, bool, error) {
	if e.Type != event.Track {
		return Change{}, false, nil
	}
	k := kindOf(e.Name)
	if k < kindAdded || k > kindCheckoutStarted {
		return Change{}, false, nil
	}
	ch := Change{Time: e.Time, id: operationID(e), Checkout: k == kindCheckoutStarted}
	var err error
	if ch.CartID, err = key(e.Property(), field{-1, "cart_id"}); err != nil {
		return Change{}, false, err
	}
	switch k {
	case kindAdded, kindRemoved:
		ch.Kind = Add
		if k == kindRemoved {
			ch.Kind = Remove
		}
		err = ch.readItems(e)
	case kindCartCleared:
		ch.Kind = Snapshot
	default:
		err = ch.readSnapshot(e)
	}
	if err != nil {
		return Change{}, false, err
	}
	for _, l := range ch.lines {
		if l.Quantity < 0 {
			return Change{}, false, fmt.Errorf("properties.quantity: a cart holds no negative quantity (product %q)", clip(l.ProductID))
		}
	}
	return ch, true, nil
}

// readSnapshot reads the whole cart, if it is there.
func (ch *Change) readSnapshot(e *event.Event) error {
	currency, err := eventCurrency(e)
	if err != nil {
		return err
	}
	ch.Kind = View
	ls, given, err := parseLines(e, currency)
	if given {
		ch.Kind, ch.lines = Snapshot, ls
	}
	return err
}

// readItems reads the product of Product Added or Removed: the properties themselves, or, from senders
// that put several into one event, products.
func (ch *Change) readItems(e *event.Event) error {
	currency, err := eventCurrency(e)
	if err != nil {
		return err
	}
	props := e.Property()
	if props == nil || props.Type() != fastjson.TypeObject {
		return fmt.Errorf("properties: missing")
	}
	if !props.Exists("product_id") && !props.Exists("sku") {
		ls, given, err := parseLines(e, currency)
		if given || err != nil {
			ch.lines = ls
			return err
		}
	}
	l, err := parseLine(props, -1, currency)
	if err != nil {
		return err
	}
	ch.lines = []Item{l}
	return nil
}

// operationID is 64 bits from what makes an event unique. Two operations of one cart in one millisecond
// would have to collide to be taken for one.
func operationID(e *event.Event) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(e.Source)) // never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(e.MessageID))
	return h.Sum64()
}
