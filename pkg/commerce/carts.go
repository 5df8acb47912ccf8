package commerce

import (
	"slices"
	"strings"
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

// Carts is one person's carts in one brand. The zero value is ready. It is stored by AppendPacked, and not
// safe for concurrent use.
//
// It keeps no history, only what a later or a late operation can still depend on: the time of the last
// purchase, and of each cart the latest snapshot and the operations after it.
type Carts struct {
	Until    int64     // what is in any cart up to here is bought; ms, 0: nothing was
	Unnamed  *snapshot // latest Checkout Started with products and without cart id
	Checkout int64     // latest Checkout Started without cart id, ms
	// Forgotten says that MaxOps, MaxCarts or Shrink has left something out here, ever. It is no part of what
	// converges: an order of arrival that never met a limit has nothing to tell.
	Forgotten bool

	byID []cart // sorted by ID
}

// cart is what is known of one cart id after the last purchase.
type cart struct {
	ID       string    `json:"-"`
	Snap     *snapshot `json:"s,omitempty"`
	Ops      []op      `json:"o,omitempty"` // later than Snap; by (T, ID)
	Viewed   int64     `json:"v,omitempty"` // latest activity without a change, ms
	Checkout int64     `json:"t,omitempty"` // latest Checkout Started, ms
}

type snapshot struct {
	T     int64  `json:"t"`
	ID    uint64 `json:"i"`
	Lines []Item `json:"l,omitempty"` // never changed once made: snapshots are shared
}

type op struct {
	T      int64  `json:"t"`
	ID     uint64 `json:"i"`
	Remove bool   `json:"r,omitempty"`
	Lines  []Item `json:"l"`
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
	c.prune(k, c.Until)
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
	for i := range c.byID {
		c.prune(&c.byID[i], t)
	}
	c.byID = slices.DeleteFunc(c.byID, func(k cart) bool { return k.empty() })
	if len(c.byID) == 0 {
		c.byID = nil
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
	return c.Until == 0 && len(c.byID) == 0 && c.Unnamed == nil && c.Checkout == 0
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
	c.Forgotten = c.Forgotten || o.Forgotten
	for i := range o.byID {
		from := &o.byID[i]
		k := c.cart(from.ID)
		k.Viewed = max(k.Viewed, from.Viewed)
		k.Checkout = max(k.Checkout, from.Checkout)
		k.Snap = later(k.Snap, from.Snap)
		for _, p := range from.Ops {
			k.insert(p)
		}
		if c.prune(k, until); k.empty() {
			c.drop(from.ID)
		}
	}
	c.limit()
}

func (c *Carts) find(id string) (int, bool) {
	return slices.BinarySearchFunc(c.byID, id, func(k cart, id string) int { return strings.Compare(k.ID, id) })
}

// cart is that of an id, made if there is none. It is good until another is made or dropped.
func (c *Carts) cart(id string) *cart {
	i, found := c.find(id)
	if !found {
		c.byID = slices.Insert(c.byID, i, cart{ID: id})
	}
	return &c.byID[i]
}

func (c *Carts) drop(id string) {
	if i, found := c.find(id); found {
		c.byID = slices.Delete(c.byID, i, i+1)
	}
	if len(c.byID) == 0 {
		c.byID = nil
	}
}

// limit forgets the cart of the oldest last operation while there are too many.
func (c *Carts) limit() {
	for len(c.byID) > MaxCarts {
		c.forgetOldest()
	}
}

func (c *Carts) forgetOldest() {
	oldest := 0
	for i := range c.byID {
		if t, at := c.byID[i].last(), c.byID[oldest].last(); t < at || t == at && i > oldest {
			oldest = i
		}
	}
	c.drop(c.byID[oldest].ID)
	c.Forgotten = true
}

// Shrink leaves out what a reader misses least, for a state that has become too large, and says whether there
// was anything left to leave out: first the cart that was left alone for longest, while there are several; the
// last checkout without cart id; of what is left the names, categories and links of products; at last the
// cart itself. When something was bought stays known.
func (c *Carts) Shrink() bool {
	switch {
	case len(c.byID) > 1:
		c.forgetOldest()
	case c.Unnamed != nil:
		c.Unnamed = nil
	case len(c.byID) == 1 && c.byID[0].strip():
	case len(c.byID) == 1:
		c.byID = nil
	default:
		return false
	}
	c.Forgotten = true
	return true
}

// strip leaves out the texts of lines; false if there are none.
func (k *cart) strip() bool {
	changed := false
	bare := func(ls []Item) []Item {
		out := slices.Clone(ls) // they may be shared
		for i := range out {
			l := &out[i]
			changed = changed || l.Name != "" || l.Brand != "" || l.Category != "" || l.URL != "" || l.ImageURL != ""
			l.Name, l.Brand, l.Category, l.URL, l.ImageURL = "", "", "", "", ""
		}
		return out
	}
	if k.Snap != nil {
		k.Snap = &snapshot{T: k.Snap.T, ID: k.Snap.ID, Lines: bare(k.Snap.Lines)}
	}
	for i := range k.Ops {
		k.Ops[i].Lines = bare(k.Ops[i].Lines)
	}
	return changed
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
func (c *Carts) prune(k *cart, until int64) {
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
			c.Forgotten = true
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
