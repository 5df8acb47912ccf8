package journey

import (
	"encoding/binary"
	"hash/fnv"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
)

const (
	// maxOverdue is how long after its due time a cart may still be written about. A service that was away
	// for longer, or history that nobody marked, must not mail old customers in bulk (features 4.2: a first
	// activation looks back at most three days).
	maxOverdue = 72 * time.Hour
	// lookupPause is the wait before a journey's version is asked for again when it could not be read.
	lookupPause = 5 * time.Second
)

// Decider is the rules, with what they read besides a person's state. It is immutable and safe for
// concurrent use: a reload makes a new one.
type Decider struct {
	// Journeys are those that arm, at most one of a name.
	Journeys []*Journey
	// Version finds the journey that an instance was armed with, also when its file has changed since or
	// is gone. Nil and no error: nobody has it any more. It must always give the same for the same version.
	Version func(name, version string) (*Journey, error)
	// Suppressed says whether an address is never to be written to.
	Suppressed func(address string) bool
	// Channels are those that can deliver.
	Channels map[string]bool
	// Unsubscribe makes the signed link of a message, of which subject and body are not written yet.
	Unsubscribe func(r *Request) string
}

// Result is what an event, timer or merge led to.
type Result struct {
	Requests   []Request
	Receipts   []Receipt
	Armed      int
	Capped     int   // carts or parts of them that were left out to keep the state within its limits
	Unreadable error // why a cart or order event was not understood in full; what could be read counts
}

// cause is what arms an instance.
type cause struct {
	id         string // unique: what receipts are named after
	at         int64
	historical bool
	merge      bool
}

// run is one call on one brand of one person.
type run struct {
	*Decider
	profile, name string
	s             *State
	b             *Brand
	now           int64
	res           *Result
}

// happened is when an event took place, for carts, activity and answers: its own time, but never later
// than its receipt. A browser's clock may be ahead by minutes; taken as it stands, its cart would look
// younger than the order placed after it. Where the sender said when it sent, by the same clock, the whole
// of what it sent is set right by that, so that its order is kept.
func happened(e *event.Event) int64 {
	t := e.Time
	if e.Historical || e.TimeClamped {
		return t.UnixMilli()
	}
	if !e.SentAt.IsZero() && e.SentAt.After(e.ReceivedAt) {
		t = t.Add(-e.SentAt.Sub(e.ReceivedAt))
	}
	return min(t.UnixMilli(), e.ReceivedAt.UnixMilli())
}

// Observe takes one event of a person in.
func (d *Decider) Observe(profile string, s *State, e *event.Event, now time.Time) Result {
	var res Result
	at := happened(e)
	s.learn(e, at)
	if commerce.IsActivity(e) {
		b := s.brand(e.Brand)
		b.Active = max(b.Active, at)
	}
	ch, isChange, errChange := commerce.ChangeOf(e)
	o, isOrder, errOrder := commerce.OrderOf(e)
	if res.Unreadable = errChange; errOrder != nil {
		res.Unreadable = errOrder
	}
	// Order Updated comes from back offices long after the purchase, which Order Completed reported.
	bought := isOrder && o.Status == commerce.Completed
	if !isChange && !bought {
		return res
	}
	b := s.brand(e.Brand)
	r := run{d, profile, e.Brand, s, b, now.UnixMilli(), &res}
	before, told := b.openCarts(), b.Carts.Forgotten
	if isChange {
		ch.Time = time.UnixMilli(at)
		b.Carts.Apply(ch)
	} else {
		b.Carts.Bought(o.At)
	}
	if b.Carts.Forgotten && !told {
		res.Capped++
	}
	r.reconcile(before, cause{id: e.Source + "\x00" + e.MessageID, at: at, historical: e.Historical})
	s.size += len(e.Body)
	d.bound(profile, s, now, &res)
	return res
}

// Fire decides every instance that is due at now. The caller has made sure that all that was acknowledged
// before is in s (the fence).
func (d *Decider) Fire(profile string, s *State, now time.Time) Result {
	var res Result
	for _, name := range s.brandNames() {
		r := run{d, profile, name, s, s.Brands[name], now.UnixMilli(), &res}
		for i := 0; i < len(r.b.Running); {
			in := &r.b.Running[i]
			if max(r.b.dueAt(in), in.NotBefore) > r.now || s.told(in.Receipt) || !r.decide(in) {
				i++
			}
		}
	}
	return res
}

// Merge takes in the state of another person who turned out to be the same.
func (d *Decider) Merge(profile string, into *State, from State, now time.Time) Result {
	var res Result
	into.Email.set(from.Email.Value, from.Email.At)
	into.FirstName.set(from.FirstName.Value, from.FirstName.At)
	for _, name := range from.brandNames() {
		b, o := into.brand(name), from.Brands[name]
		r := run{d, profile, name, into, b, now.UnixMilli(), &res}
		before := b.openCarts()
		for id, last := range o.openCarts() {
			before[id] = max(before[id], last)
		}
		b.Carts.Merge(o.Carts)
		b.Active = max(b.Active, o.Active)
		b.Consent = strictest(b.Consent, o.Consent)
		b.Receive = strictest(b.Receive, o.Receive)
		for _, x := range o.Decided {
			if i, found := b.findDecided(x.Journey, x.Cart); !found {
				b.Decided = slices.Insert(b.Decided, i, x)
			} else if x.after(b.Decided[i]) {
				b.Decided[i] = x
			}
		}
		for _, x := range o.Running {
			r.join(x)
		}
		r.reconcile(before, cause{id: "merge\x00" + profile, at: r.now, merge: true})
	}
	into.unite(&from)
	into.size += from.size
	d.bound(profile, into, now, &res)
	return res
}

// join takes in a running instance of the other person. Of two for the same journey and cart the one
// armed first goes on.
func (r *run) join(x Instance) {
	i, found := r.b.findRunning(x.Journey, x.Cart)
	if !found {
		r.b.Running = slices.Insert(r.b.Running, i, x)
		return
	}
	first, second := r.b.Running[i], x
	if second.ArmedAt < first.ArmedAt || second.ArmedAt == first.ArmedAt && second.Receipt < first.Receipt {
		first, second = second, first
	}
	// Of two carts in one the younger operation says whether the last one was history.
	switch {
	case second.LastOp > first.LastOp:
		first.LastOld = second.LastOld
	case second.LastOp == first.LastOp:
		first.LastOld = first.LastOld || second.LastOld
	}
	first.LastOp = max(first.LastOp, second.LastOp)
	first.Historical = first.Historical || second.Historical
	first.NotBefore = max(first.NotBefore, second.NotBefore)
	r.b.Running[i] = first
	r.receipt(&second, nil, Suppressed, ReasonMerged, "goes on as "+first.Receipt)
}

// reconcile compares the open carts with those before a change: it ends instances whose cart is bought
// and arms carts that got their first line or moved on after a decision.
func (r *run) reconcile(before map[string]int64, c cause) {
	open := r.b.Carts.Open()
	last := make(map[string]int64, len(open))
	for i := range open {
		last[open[i].ID] = open[i].LastActivity
	}
	bought := r.b.boughtUntil()
	r.b.Running = slices.DeleteFunc(r.b.Running, func(in Instance) bool {
		_, isOpen := last[in.Cart]
		if isOpen || bought < in.LastOp { // not open and not bought: emptied, for now
			return false
		}
		r.receipt(&in, nil, Suppressed, ReasonPurchased, "")
		return true
	})
	for i := range r.b.Running {
		in := &r.b.Running[i]
		if at, isOpen := last[in.Cart]; isOpen && at > in.LastOp {
			in.LastOp = at
			if !c.merge {
				in.LastOld = c.historical
			}
		}
	}
	for i := range open {
		if was, wasOpen := before[open[i].ID]; wasOpen && last[open[i].ID] <= was {
			continue
		}
		for _, j := range r.Journeys {
			if j.In(r.name) {
				r.arm(j, &open[i], c)
			}
		}
	}
}

// arm begins an instance, unless one runs or the cart was decided and has not changed since.
func (r *run) arm(j *Journey, cart *commerce.OpenCart, c cause) {
	i, runs := r.b.findRunning(j.Name, cart.ID)
	if runs {
		return
	}
	last := cart.LastActivity
	if k, decided := r.b.findDecided(j.Name, cart.ID); decided {
		// After a message the cart must also have changed: the message itself brings people back to look.
		d := r.b.Decided[k]
		if last <= d.At || d.Sent && d.Lines == hashLines(cart.Cart().Lines) {
			return
		}
	}
	in := Instance{
		Journey: j.Name, Version: j.Version, Channel: j.Channel, Cart: cart.ID, Delay: j.Delay,
		Receipt: derive(receiptSpace, r.name, cart.ID, j.Name, c.id, strconv.FormatInt(last, 10)),
		ArmedAt: c.at, LastOp: last, Historical: c.historical, LastOld: c.historical,
	}
	r.res.Armed++
	if len(r.b.Running) >= MaxRunning {
		whole := cart.Cart()
		r.receipt(&in, &whole, Suppressed, ReasonTooManyCarts, "")
		r.b.decide(Decision{Journey: j.Name, Cart: cart.ID, At: r.now}, r.b.openCarts())
		return
	}
	r.b.Running = slices.Insert(r.b.Running, i, in)
}

// hashLines is a fingerprint of what is in a cart.
func hashLines(lines []commerce.Line) uint64 {
	h := fnv.New64a()
	var n [8]byte
	for _, l := range lines {
		for _, s := range []string{l.ProductID, l.Variant, l.Quantity.String()} {
			binary.BigEndian.PutUint64(n[:], uint64(len(s)))
			_, _ = h.Write(n[:]) // never fails
			_, _ = h.Write([]byte(s))
		}
	}
	return h.Sum64()
}

// decide ends an instance that is due, with a request or a receipt; false: not now.
func (r *run) decide(in *Instance) bool {
	j, err := r.Version(in.Journey, in.Version)
	if err != nil {
		in.NotBefore = r.now + lookupPause.Milliseconds()
		return false
	}
	open := r.b.Carts.Open()
	var cart *commerce.Cart
	for i := range open {
		if open[i].ID == in.Cart {
			whole := open[i].Cart()
			cart = &whole
		}
	}
	d := Decision{Journey: in.Journey, Cart: in.Cart, At: r.now}
	if outcome, reason, detail := r.refusal(in, j, cart); reason != "" {
		r.receipt(in, cart, outcome, reason, detail)
		if reason == ReasonAlreadySent {
			d.Sent, d.Lines = true, hashLines(cart.Lines)
		}
	} else if d.Sent = r.request(in, j, cart); d.Sent {
		d.Lines = hashLines(cart.Lines)
	}
	last := make(map[string]int64, len(open))
	for i := range open {
		last[open[i].ID] = 0
	}
	i, _ := r.b.findRunning(in.Journey, in.Cart)
	r.b.Running = slices.Delete(r.b.Running, i, i+1)
	r.b.decide(d, last)
	return true
}

// refusal is the first reason not to send; "" if there is none.
func (r *run) refusal(in *Instance, j *Journey, cart *commerce.Cart) (outcome, reason, detail string) {
	no := func(reason, detail string) (string, string, string) { return Suppressed, reason, detail }
	if cart == nil {
		if r.b.boughtUntil() >= in.LastOp {
			return no(ReasonPurchased, "")
		}
		return no(ReasonEmptied, "")
	}
	if j == nil {
		return no(ReasonJourneyLost, "version "+in.Version+" is known nowhere")
	}
	if value := cart.Value[cart.Currency]; value.LessThan(j.MinimumValue) {
		return no(ReasonBelowMinimum, "worth "+money(value, cart.Currency)+", wanted "+money(j.MinimumValue, cart.Currency))
	}
	if in.Historical || in.LastOld {
		return no(ReasonHistorical, "")
	}
	if overdue := r.now - r.b.dueAt(in); overdue > maxOverdue.Milliseconds() {
		return no(ReasonHistorical, "due "+(time.Duration(overdue)*time.Millisecond).Truncate(time.Hour).String()+" ago")
	}
	if k, decided := r.b.findDecided(in.Journey, in.Cart); decided {
		if d := r.b.Decided[k]; d.Sent && (in.LastOp <= d.At || d.Lines == hashLines(cart.Lines)) {
			return no(ReasonAlreadySent, "")
		}
	}
	consent, known := r.b.Consent[consentKey(j.Channel, j.Purpose)]
	switch {
	case !known:
		return no(ReasonNoConsent, "")
	case !consent.OK:
		return no(ReasonConsentDenied, "")
	}
	if a, said := r.b.Receive[j.Channel]; said && !a.OK {
		return no(ReasonUnsubscribed, "")
	}
	address := r.s.Email.Value
	if address != "" && r.Suppressed(address) {
		return no(ReasonSuppressedList, "")
	}
	if j.Channel == ChannelEmail && !deliverable(address) {
		return no(ReasonNoAddress, "")
	}
	if !r.Channels[j.Channel] {
		return no(ReasonChannelOff, "")
	}
	return "", "", ""
}

// deliverable says whether an address is a plain one: local@domain, nothing around it.
func deliverable(address string) bool {
	a, err := mail.ParseAddress(address)
	return err == nil && a.Name == "" && a.Address == address && !strings.ContainsAny(address, "\r\n<> ")
}

// request makes the message; false if it cannot be rendered, which is a receipt.
func (r *run) request(in *Instance, j *Journey, cart *commerce.Cart) bool {
	req := Request{
		ID: messageID(in.Receipt), Receipt: in.Receipt, Journey: in.Journey, Version: in.Version, Brand: r.name,
		Profile: r.profile, Channel: j.Channel, Purpose: j.Purpose, From: j.From, ReplyTo: j.ReplyTo, To: r.s.Email.Value,
		Cart:    RequestCart{receiptCart(in.Cart, cart), cart.Lines[:min(len(cart.Lines), MaxLines)]},
		ArmedAt: in.ArmedAt, ChangedAt: in.LastOp, DueAt: r.b.dueAt(in), DecidedAt: r.now,
	}
	link := r.Unsubscribe(&req)
	m, err := Render(j, NewInput(r.name, Person{FirstName: r.s.FirstName.Value, Email: req.To}, *cart, link))
	if err != nil {
		r.receipt(in, cart, Failed, ReasonTemplate, err.Error())
		return false
	}
	req.Subject, req.Text, req.HTML = m.Subject, m.Text, m.HTML
	if link != "" {
		req.Headers = map[string]string{
			"List-Unsubscribe":      "<" + link + ">",
			"List-Unsubscribe-Post": "List-Unsubscribe=One-Click", // RFC 8058
		}
	}
	r.res.Requests = append(r.res.Requests, req)
	return true
}

// receipt writes the end of an instance; cart is nil where none is left.
func (r *run) receipt(in *Instance, cart *commerce.Cart, outcome, reason, detail string) {
	r.res.Receipts = append(r.res.Receipts, Receipt{
		Receipt: in.Receipt, Journey: in.Journey, Version: in.Version, Brand: r.name, Profile: r.profile,
		Channel: in.Channel, Outcome: outcome, Reason: reason, Detail: cutDetail(detail),
		Cart: receiptCart(in.Cart, cart), ArmedAt: in.ArmedAt, DueAt: r.b.dueAt(in), SettledAt: r.now,
	})
}

func receiptCart(id string, cart *commerce.Cart) ReceiptCart {
	c := ReceiptCart{ID: id, Value: decimal.New(0, -commerce.Places)}
	if cart != nil {
		c.Value, c.Currency, c.Items = cart.Value[cart.Currency], cart.Currency, cart.Items()
	}
	return c
}
