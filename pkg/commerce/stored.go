package commerce

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/weft-cdp/weft/pkg/packed"
)

// The stored form of Carts is a part of the states that hold them, whose version says which form it is. Times
// are told relative to a base, and a line relative to the line before it: carts name the same few products,
// currencies and categories over and over.

// What a packed Carts or cart has, as bits.
const (
	hasUntil = 1 << iota
	hasUnnamed
	hasCheckout
	isForgotten
)

const (
	hasSnap = 1 << iota
	hasViewed
	hasCartCheckout
)

// AppendPacked appends the carts.
func (c *Carts) AppendPacked(b []byte) []byte {
	w := packer{b: b, base: c.newest()}
	var has byte
	if c.Until != 0 {
		has |= hasUntil
	}
	if c.Unnamed != nil {
		has |= hasUnnamed
	}
	if c.Checkout != 0 {
		has |= hasCheckout
	}
	if c.Forgotten {
		has |= isForgotten
	}
	w.b = append(w.b, has)
	if has == 0 && len(c.byID) == 0 {
		return packed.AppendLen(w.b, 0)
	}
	w.b = packed.AppendLen(w.b, len(c.byID))
	w.b = packed.AppendInt(w.b, w.base)
	w.b = packed.AppendLen(w.b, c.lines())
	if c.Until != 0 {
		w.time(c.Until)
	}
	if c.Checkout != 0 {
		w.time(c.Checkout)
	}
	if c.Unnamed != nil {
		w.snapshot(c.Unnamed)
	}
	for i := range c.byID {
		w.cart(&c.byID[i])
	}
	return w.b
}

// newest is the latest time there is, from which the others are not far.
func (c *Carts) newest() int64 {
	t := max(c.Until, c.Checkout)
	for i := range c.byID {
		t = max(t, c.byID[i].Viewed)
	}
	return t
}

func (c *Carts) lines() int {
	n := 0
	if c.Unnamed != nil {
		n = len(c.Unnamed.Lines)
	}
	for i := range c.byID {
		k := &c.byID[i]
		if k.Snap != nil {
			n += len(k.Snap.Lines)
		}
		for j := range k.Ops {
			n += len(k.Ops[j].Lines)
		}
	}
	return n
}

type packer struct {
	b    []byte
	base int64
	last *Item // the line before
}

func (w *packer) time(t int64) { w.b = packed.AppendInt(w.b, w.base-t) }

func (w *packer) cart(k *cart) {
	w.b = packed.AppendString(w.b, k.ID)
	var has byte
	if k.Snap != nil {
		has |= hasSnap
	}
	if k.Viewed != 0 {
		has |= hasViewed
	}
	if k.Checkout != 0 {
		has |= hasCartCheckout
	}
	w.b = append(w.b, has)
	if k.Viewed != 0 {
		w.time(k.Viewed)
	}
	if k.Checkout != 0 {
		w.time(k.Checkout)
	}
	if k.Snap != nil {
		w.snapshot(k.Snap)
	}
	w.b = packed.AppendLen(w.b, len(k.Ops))
	for i := range k.Ops {
		p := &k.Ops[i]
		w.time(p.T)
		w.b = packed.AppendHash(w.b, p.ID)
		n := len(p.Lines) << 1
		if p.Remove {
			n |= 1
		}
		w.b = packed.AppendLen(w.b, n)
		w.lines(p.Lines)
	}
}

func (w *packer) snapshot(s *snapshot) {
	w.time(s.T)
	w.b = packed.AppendHash(w.b, s.ID)
	w.b = packed.AppendLen(w.b, len(s.Lines))
	w.lines(s.Lines)
}

// texts are the fields of a line that are text, in stored order. The product is the first, since others may
// repeat it.
func (l *Item) texts() [9]*string {
	return [...]*string{&l.ProductID, &l.Variant, &l.SKU, &l.Name, &l.Brand, &l.Category, &l.URL, &l.ImageURL, &l.Currency}
}

// How a text is told: two bits each, from the lowest on.
const (
	textEmpty   = iota
	textGiven   // it follows
	textAsLast  // as in the line before
	textProduct // as the product of this line
)

// Behind the texts' bits: what there is to say about the numbers.
const (
	oneOfIt    = 1 << (18 + iota) // the quantity is 1
	wholeCents                    // the price follows in 1/100
)

func (w *packer) lines(ls []Item) {
	for i := range ls {
		l := &ls[i]
		w.line(l)
		w.last = l
	}
}

func (w *packer) line(l *Item) {
	texts := l.texts()
	var before [9]*string
	if w.last != nil {
		before = w.last.texts()
	}
	mask := 0
	for i, s := range texts {
		how := textGiven
		switch {
		case *s == "":
			how = textEmpty
		case before[i] != nil && *before[i] == *s:
			how = textAsLast
		case i > 0 && *s == l.ProductID:
			how = textProduct
		}
		mask |= how << (2 * i)
	}
	if l.Quantity == perOne {
		mask |= oneOfIt
	}
	price := l.Price
	if price%100 == 0 {
		mask |= wholeCents
		price /= 100
	}
	w.b = packed.AppendLen(w.b, mask)
	for i, s := range texts {
		if mask>>(2*i)&3 == textGiven {
			w.b = packed.AppendString(w.b, *s)
		}
	}
	w.b = packed.AppendInt(w.b, price)
	if mask&oneOfIt == 0 {
		w.b = packed.AppendInt(w.b, l.Quantity)
	}
}

// What the shortest of each takes, so that a count can not ask for more room than there are bytes.
const (
	leastCart = 3
	leastOp   = 10
	leastLine = 2
)

// ReadPacked undoes AppendPacked; a fault is r's. What was in c before is gone.
func (c *Carts) ReadPacked(r *packed.Reader) {
	*c = Carts{}
	has := r.Byte()
	n := r.Len(leastCart)
	if has == 0 && n == 0 {
		return
	}
	u := unpacker{r: r, base: r.Int()}
	u.room = make([]Item, r.Len(leastLine))
	c.Forgotten = has&isForgotten != 0
	if has&hasUntil != 0 {
		c.Until = u.time()
	}
	if has&hasCheckout != 0 {
		c.Checkout = u.time()
	}
	if has&hasUnnamed != 0 {
		c.Unnamed = u.snapshot()
	}
	if n > 0 {
		c.byID = make([]cart, n)
	}
	for i := range c.byID {
		u.cart(&c.byID[i])
	}
}

type unpacker struct {
	r    *packed.Reader
	base int64
	room []Item // for all lines, made at once
	last *Item
}

func (u *unpacker) time() int64 { return u.base - u.r.Int() }

func (u *unpacker) cart(k *cart) {
	k.ID = u.r.String()
	has := u.r.Byte()
	if has&hasViewed != 0 {
		k.Viewed = u.time()
	}
	if has&hasCartCheckout != 0 {
		k.Checkout = u.time()
	}
	if has&hasSnap != 0 {
		k.Snap = u.snapshot()
	}
	n := u.r.Len(leastOp)
	if n == 0 {
		return
	}
	k.Ops = make([]op, n)
	for i := range k.Ops {
		p := &k.Ops[i]
		p.T, p.ID = u.time(), u.r.Hash()
		n := u.r.Uint()
		p.Remove = n&1 != 0
		p.Lines = u.lines(n >> 1)
	}
}

func (u *unpacker) snapshot() *snapshot {
	s := &snapshot{T: u.time(), ID: u.r.Hash()}
	s.Lines = u.lines(u.r.Uint())
	return s
}

func (u *unpacker) lines(n uint64) []Item {
	if n > uint64(len(u.room)) {
		u.r.Fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	ls := u.room[:n:n]
	u.room = u.room[n:]
	for i := range ls {
		u.line(&ls[i])
		u.last = &ls[i]
	}
	return ls
}

func (u *unpacker) line(l *Item) {
	mask := u.r.Uint()
	texts := l.texts()
	var before [9]*string
	if u.last != nil {
		before = u.last.texts()
	}
	for i, s := range texts {
		switch mask >> (2 * i) & 3 {
		case textGiven:
			*s = u.r.String()
		case textAsLast:
			if before[i] == nil {
				u.r.Fail()
				return
			}
			*s = *before[i]
		case textProduct:
			*s = l.ProductID
		}
	}
	l.Price = u.r.Int()
	if mask&wholeCents != 0 {
		l.Price *= 100
	}
	l.Quantity = perOne
	if mask&oneOfIt == 0 {
		l.Quantity = u.r.Int()
	}
}

// UnmarshalJSON reads the form of version 1 of the states that hold carts.
func (c *Carts) UnmarshalJSON(b []byte) error {
	var v struct {
		Until    int64            `json:"b"`
		ByID     map[string]*cart `json:"c"`
		Unnamed  *snapshot        `json:"k"`
		Checkout int64            `json:"t"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("read carts of version 1: %w", err)
	}
	*c = Carts{Until: v.Until, Unnamed: v.Unnamed, Checkout: v.Checkout}
	for id, k := range v.ByID {
		if k == nil {
			k = &cart{}
		}
		k.ID = id
		c.byID = append(c.byID, *k)
	}
	slices.SortFunc(c.byID, func(a, b cart) int { return strings.Compare(a.ID, b.ID) })
	return nil
}
