package commerce

import (
	"slices"
	"time"
)

const (
	// MaxOps is the most lines that the added and removed operations of one cart keep after its last
	// snapshot. Beyond it the earliest operations, by event time, are forgotten: the retained ones are the
	// longest run of latest operations that fits, which depends on the set alone and so converges.
	MaxOps = 500
	// MaxCarts is the most carts of one person in one brand. Beyond it the cart whose last operation is the
	// oldest is forgotten. This is the one rule that can depend on the order of arrival; only a sender
	// that makes a cart id per event meets it.
	MaxCarts = 50
)

// Carts is one person's carts in one brand. The zero value is ready. It is JSON-serialisable (compact,
// private names), and not safe for concurrent use.
//
// It keeps no history, only what a later or a late operation can still depend on: the time of the last
// purchase, and of each cart the latest snapshot and the operations after it.
type Carts struct {
	Until    int64            `json:"b,omitempty"` // what is in any cart up to here is bought; ms, 0: nothing was
	ByID     map[string]*cart `json:"c,omitempty"`
	Unnamed  *snapshot        `json:"k,omitempty"` // latest Checkout Started with products and without cart id
	Checkout int64            `json:"t,omitempty"` // latest Checkout Started without cart id, ms
}

// cart is what is known of one cart id after the last purchase.
type cart struct {
	Snap     *snapshot `json:"s,omitempty"`
	Ops      []op      `json:"o,omitempty"` // later than Snap; by (T, ID)
	Viewed   int64     `json:"v,omitempty"` // latest activity without a change, ms
	Checkout int64     `json:"t,omitempty"` // latest Checkout Started, ms
}

type snapshot struct {
	T     int64  `json:"t"`
	ID    uint64 `json:"i"`
	Lines []line `json:"l,omitempty"`
}

type op struct {
	T      int64  `json:"t"`
	ID     uint64 `json:"i"`
	Remove bool   `json:"r,omitempty"`
	Lines  []line `json:"l"`
}

func compareOps(a, b op) int {
	switch {
	case a.T != b.T && a.T < b.T, a.T == b.T && a.ID < b.ID:
		return -1
	case a.T == b.T && a.ID == b.ID:
		return 0
	}
	return 1
}

// later is the one of a and b that counts: the later by event time, then by id. Either may be nil.
func later(a, b *snapshot) *snapshot {
	switch {
	case a == nil:
		return b
	case b == nil, a.T > b.T, a.T == b.T && a.ID >= b.ID:
		return a
	}
	return b
}

// Apply takes one operation in. It acts at its event time: what is older than the cart's last snapshot or
// the last purchase changes nothing, except that it may still have been the cart's last activity.
func (c *Carts) Apply(ch Change) {
	t := ch.Time.UnixMilli()
	if t <= c.Until {
		return
	}
	if ch.Checkout && ch.CartID == "" {
		c.Checkout = max(c.Checkout, t)
		if ch.Kind == Snapshot {
			c.Unnamed = later(c.Unnamed, &snapshot{T: t, ID: ch.id, Lines: ch.lines})
		}
		return
	}
	k := c.cart(ch.CartID)
	if ch.Checkout {
		k.Checkout = max(k.Checkout, t)
	}
	k.Viewed = max(k.Viewed, t)
	switch ch.Kind {
	case Snapshot:
		k.Snap = later(k.Snap, &snapshot{T: t, ID: ch.id, Lines: ch.lines})
	case Add, Remove:
		k.insert(op{T: t, ID: ch.id, Remove: ch.Kind == Remove, Lines: ch.lines})
	}
	k.prune(c.Until)
	c.limit()
}

// Bought says that this person ordered in this brand: whatever is in any cart up to at is bought. A cart
// need not be named by the order, nor its products: a false reminder costs more than a missing one.
func (c *Carts) Bought(at time.Time) {
	c.until(at.UnixMilli())
}

func (c *Carts) until(t int64) {
	if t <= c.Until {
		return
	}
	c.Until = t
	if c.Unnamed != nil && c.Unnamed.T <= t {
		c.Unnamed = nil
	}
	if c.Checkout <= t {
		c.Checkout = 0
	}
	for id, k := range c.ByID {
		if k.prune(t); k.empty() {
			delete(c.ByID, id)
		}
	}
	if len(c.ByID) == 0 {
		c.ByID = nil
	}
}

// BoughtUntil is the latest time given to Bought, over all merges; zero if there was none.
func (c *Carts) BoughtUntil() time.Time {
	if c.Until == 0 {
		return time.Time{}
	}
	return time.UnixMilli(c.Until).UTC()
}

// Empty says whether nothing at all is known: no cart and no purchase.
func (c *Carts) Empty() bool {
	return c.Until == 0 && len(c.ByID) == 0 && c.Unnamed == nil && c.Checkout == 0
}

// Merge takes everything in that o knows; o stays as it is and shares no changeable memory with c
// afterwards.
func (c *Carts) Merge(o Carts) {
	until := max(c.Until, o.Until)
	c.until(until)
	if o.Checkout > until {
		c.Checkout = max(c.Checkout, o.Checkout)
	}
	if o.Unnamed != nil && o.Unnamed.T > until {
		c.Unnamed = later(c.Unnamed, o.Unnamed) // a snapshot is never changed once made
	}
	for id, from := range o.ByID {
		k := c.cart(id)
		k.Viewed = max(k.Viewed, from.Viewed)
		k.Checkout = max(k.Checkout, from.Checkout)
		k.Snap = later(k.Snap, from.Snap)
		for _, p := range from.Ops {
			k.insert(p)
		}
		if k.prune(until); k.empty() {
			delete(c.ByID, id)
		}
	}
	if len(c.ByID) == 0 {
		c.ByID = nil
	}
	c.limit()
}

func (c *Carts) cart(id string) *cart {
	k := c.ByID[id]
	if k == nil {
		if c.ByID == nil {
			c.ByID = map[string]*cart{}
		}
		k = &cart{}
		c.ByID[id] = k
	}
	return k
}

// limit forgets the cart of the oldest last operation while there are too many.
func (c *Carts) limit() {
	for len(c.ByID) > MaxCarts {
		oldest, at := "", int64(0)
		for id, k := range c.ByID {
			if t := k.last(); oldest == "" || t < at || t == at && id > oldest {
				oldest, at = id, t
			}
		}
		delete(c.ByID, oldest)
	}
}

func (k *cart) insert(p op) {
	if k.Snap != nil && p.T <= k.Snap.T {
		return
	}
	if i, found := slices.BinarySearchFunc(k.Ops, p, compareOps); !found {
		k.Ops = slices.Insert(k.Ops, i, p)
	}
}

// prune drops what is bought, what the snapshot replaced and what is beyond MaxOps. An operation of the
// very millisecond of the snapshot is in the snapshot.
func (k *cart) prune(until int64) {
	if k.Snap != nil && k.Snap.T <= until {
		k.Snap = nil
	}
	if k.Viewed <= until {
		k.Viewed = 0
	}
	if k.Checkout <= until {
		k.Checkout = 0
	}
	floor := until
	if k.Snap != nil {
		floor = max(floor, k.Snap.T)
	}
	keep, size := len(k.Ops), 0
	for keep > 0 && k.Ops[keep-1].T > floor {
		if size += len(k.Ops[keep-1].Lines); size > MaxOps {
			break
		}
		keep--
	}
	if k.Ops = slices.Delete(k.Ops, 0, keep); len(k.Ops) == 0 {
		k.Ops = nil
	}
}

func (k *cart) empty() bool {
	return k.Snap == nil && len(k.Ops) == 0 && k.Viewed == 0 && k.Checkout == 0
}

// last is the time of the cart's last operation: every operation moves Viewed.
func (k *cart) last() int64 { return k.Viewed }
