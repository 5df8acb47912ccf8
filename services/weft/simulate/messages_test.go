package simulate

import (
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/journey"
)

// cartOf is what the oracle knows of one cart.
type cartOf struct {
	first, last time.Duration
	by          *sentEvent
}

func (x *expected) carts() map[string]*cartOf {
	cs := map[string]*cartOf{}
	for _, e := range x.events {
		if e.cart == "" {
			continue
		}
		c := cs[e.cart]
		if c == nil {
			c = &cartOf{first: e.stamp, last: e.stamp, by: e}
			cs[e.cart] = c
		}
		c.first, c.last = min(c.first, e.stamp), max(c.last, e.stamp)
	}
	return cs
}

// checkMessages: no message for a cart that was bought before its decision, one receipt per eligible cart,
// and each message to its channel at most once.
func (w *world) checkMessages(f *findings, all *expected) error {
	requests, _, err := w.read(w.topics.ActivationsRequested())
	if err != nil {
		return err
	}
	settled, _, err := w.read(w.topics.ActivationsSettled())
	if err != nil {
		return err
	}
	asked := map[string]*journey.Request{}
	for i := range requests {
		r, err := journey.DecodeRequest(requests[i].Value)
		if err != nil {
			f.bad("request: %v", err)
			continue
		}
		if asked[r.ID] != nil {
			f.bad("message %s for cart %s is requested twice", r.ID, r.Cart.ID)
		}
		asked[r.ID] = r
		w.checkRequest(f, r)
	}
	receipts := map[string]journey.Receipt{}
	ends := map[string]*endsOf{} // by cart
	maps.DeleteFunc(w.seen, func(k string, _ int) bool { return strings.HasPrefix(k, "receipt ") })
	for i := range settled {
		var r journey.Receipt
		if err := json.Unmarshal(settled[i].Value, &r); err != nil {
			f.bad("receipt: %v", err)
			continue
		}
		if _, ok := receipts[r.Receipt]; ok {
			f.bad("receipt %s of cart %s twice", r.Receipt, r.Cart.ID)
		}
		receipts[r.Receipt] = r
		decided := time.UnixMilli(r.SettledAt)
		for _, q := range asked {
			if q.Receipt == r.Receipt {
				decided = time.UnixMilli(q.DecidedAt)
			}
		}
		if ends[r.Cart.ID] == nil {
			ends[r.Cart.ID] = &endsOf{reasons: map[string]int{}, first: decided}
		}
		end := ends[r.Cart.ID]
		end.reasons[r.Reason]++
		if decided.Before(end.first) {
			end.first = decided
		}
		w.seen["receipt "+r.Reason]++
	}
	w.seen["messages"] = len(asked)
	for _, r := range asked {
		if _, ok := receipts[r.Receipt]; !ok {
			f.miss("message %s for cart %s has no receipt", r.ID, r.Cart.ID)
		}
	}
	w.checkCarts(f, all, ends)
	w.checkSent(f, asked, receipts)
	return nil
}

// checkRequest: what was acknowledged before the timer was seen due has had its effect.
func (w *world) checkRequest(f *findings, r *journey.Request) {
	decided := time.UnixMilli(r.DecidedAt).Add(-w.mostAhead())
	if r.DueAt > r.DecidedAt {
		f.bad("message for cart %s is decided at %d, due at %d", r.Cart.ID, r.DecidedAt, r.DueAt)
	}
	then := w.expect(func(e *sentEvent) bool {
		at, ok := w.ackedThen[e.id]
		return ok && at.Before(decided)
	})
	c := w.expect(func(*sentEvent) bool { return true }).carts()[r.Cart.ID]
	if c == nil {
		f.bad("message for cart %s, which nobody had filled", r.Cart.ID)
		return
	}
	id := then.people.of(c.by)
	changed := time.UnixMilli(r.ChangedAt).Sub(w.began)
	for _, e := range then.events {
		if e.ordered && then.people.of(e) == id && w.boughtUntil(e) >= changed {
			f.bad("message for cart %s is decided at %s, and order %s was acknowledged at %s", r.Cart.ID,
				decided.Sub(w.began), e.id, w.ackedThen[e.id].Sub(w.began))
		}
	}
}

// boughtUntil is up to when an order empties carts: its own time, or that at the door if it is later.
func (w *world) boughtUntil(e *sentEvent) time.Duration {
	return max(e.stamp, w.stored[e.id].received.Sub(w.began))
}

// mostAhead is how far an activator's clock may have been ahead, at most: whoever decided, the order was acknowledged
// before if it was acknowledged that much before the decision by its clock.
func (w *world) mostAhead() time.Duration {
	most := -w.shape.skew
	for o := range max(1, w.shape.owners) {
		most = max(most, w.skew(activate, o, 0), w.skew(activate, o, w.shape.trouble))
	}
	return most
}

// endsOf is how a cart ended.
type endsOf struct {
	reasons map[string]int
	first   time.Time // when it was decided first, by the decider's clock
}

// checkCarts: a cart that nobody bought ends once; one that was bought may have been bought before it armed. What comes into
// it behind a decision, because its sender could not reach a door, may arm it once more.
func (w *world) checkCarts(f *findings, all *expected, ends map[string]*endsOf) {
	for id, c := range all.carts() {
		who := all.people.of(c.by)
		var bought, between bool
		for _, e := range all.events {
			if e.ordered && all.people.of(e) == who {
				at := w.boughtUntil(e).Truncate(time.Millisecond)
				bought = bought || at >= c.last.Truncate(time.Millisecond)
				between = between || at >= c.first.Truncate(time.Millisecond) && at <= c.last
			}
		}
		end := ends[id]
		if end == nil {
			end = &endsOf{}
		}
		n, most := 0, 1
		for _, e := range all.events {
			if e.cart == id && w.stored[e.id].received.Add(2*w.shape.skew).After(end.first) {
				most++
			}
		}
		for reason, k := range end.reasons {
			if reason != journey.ReasonMerged && (reason != journey.ReasonPurchased || !bought && !between) {
				n += k
			}
		}
		switch {
		case n == 0 && !bought:
			f.miss("cart %s has no receipt (%v)", id, end.reasons)
		case n > most:
			f.bad("cart %s has %d receipts: %v", id, n, end.reasons)
		}
	}
}

// checkSent: what reached the channel was requested, once, and its receipt does not deny it.
func (w *world) checkSent(f *findings, asked map[string]*journey.Request, receipts map[string]journey.Receipt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	times := map[string]int{}
	for _, d := range w.sent {
		times[d.id]++
		if times[d.id] > 1 && !w.shape.idempotent {
			f.bad("message %s was sent %d times", d.id, times[d.id])
		}
	}
	for _, r := range asked {
		end, ok := receipts[r.Receipt]
		if !ok {
			continue
		}
		switch sent := times[r.ID] > 0; {
		case end.Outcome == journey.Delivered && !sent:
			f.bad("message %s has the receipt delivered and was never sent", r.ID)
		case end.Outcome == journey.Suppressed && sent:
			f.bad("message %s has the receipt suppressed and was sent", r.ID)
		}
	}
}
