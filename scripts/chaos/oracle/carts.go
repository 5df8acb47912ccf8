package oracle

import (
	"slices"
	"strings"
	"time"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/load"
	"github.com/weft-cdp/weft/services/weft/demo"
)

// clockMargin is how far the clocks of the collectors and the activators may be apart, because they are stepped by up
// to half of it: an order that is known that little before a reminder is due may come too late for it.
const clockMargin = 5 * time.Second

// cart is what the ledger knows of one.
type cart struct {
	demo.Cart
	visitor *demo.Visitor
	begun   time.Time // its first line, by its visitor
	bought  time.Time // when the order, and all that links it to the cart, was acknowledged; zero: never
	passed  bool      // something of it was overtaken by what its device did later: it lay in another collector's spool
	late    bool      // something was acknowledged only after the reminder was due by what was known until then
	touched bool      // something of it was acknowledged
	again   bool      // its visitor went on after a pause of the delay (the harness was killed): it may be due twice
}

// due is when its reminder may be decided at the earliest.
func (c *cart) due(delay time.Duration) time.Time { return c.begun.Add(delay) }

// cartsOf are a visitor's.
func cartsOf(v *demo.Visitor, b *ledger.Book, arrived map[string]place) []cart {
	out := make([]cart, 0, len(v.Carts))
	for _, dc := range v.Carts {
		c := cart{Cart: dc, visitor: v}
		var last, known time.Time
		complete := true
		for p := range v.Parts {
			overtaken := overtakenOf(v.Parts[p].Actions, arrived)
			for n := range v.Parts[p].Actions {
				a := &v.Parts[p].Actions[n]
				id := load.ID(v.N, p, n)
				done, acked := b.Done[id], b.Acked[id]
				if acked.IsZero() {
					complete = false
					continue
				}
				if acked.After(known) {
					known = acked
				}
				if c.touched && c.bought.IsZero() && !acked.Before(last.Add(b.Plan.Delay-clockMargin)) {
					c.late = true
				}
				c.again = c.again || c.touched && a.Activity && done.After(last.Add(b.Plan.Delay-clockMargin))
				c.passed = c.passed || a.Cart == c.ID && overtaken[n]
				if a.Cart == c.ID && !c.touched {
					c.touched, c.begun = true, done
				}
				if a.Activity && done.After(last) {
					last = done
				}
				if c.touched && a.Order != "" && c.bought.IsZero() && complete {
					c.bought = known
				}
			}
		}
		out = append(out, c)
	}
	return out
}

// overtakenOf says which actions of a device stand in events.collected behind something that it did later. A spool keeps
// the order of what one collector has taken; while it waits there, another collector passes on what comes next.
func overtakenOf(actions []demo.Action, arrived map[string]place) []bool {
	out := make([]bool, len(actions))
	first := map[int]int64{} // by partition: the lowest offset of what was done later
	for n := len(actions) - 1; n >= 0; n-- {
		at, ok := arrived[actions[n].ID]
		if !ok { // the till's come through another door, and have no id
			continue
		}
		later, some := first[at.partition]
		out[n] = some && later < at.offset
		if !some || at.offset < later {
			first[at.partition] = at.offset
		}
	}
	return out
}

// carts holds receipts and mails against the stories: P6 and P7.
func (j *judge) carts() {
	receipts := map[string][]receipt{}
	rows := map[string]int{}
	byMessage := map[string]receipt{}
	for _, r := range j.facts.Receipts {
		receipts[r.Cart] = append(receipts[r.Cart], r)
		rows[r.Receipt]++
		if r.Message != "" {
			byMessage[r.Message] = r
		}
		j.Ends[r.Outcome+"/"+r.Reason]++
	}
	for id, n := range rows {
		if n > 1 {
			j.Violate("P7", "receipt %s stands in %d rows", id, n)
		}
	}
	mails := map[string]int{}
	for _, m := range j.book.Mails {
		mails[m.Message]++
		j.Mails++
	}
	for m, n := range mails {
		r, ok := byMessage[m]
		switch {
		case !ok:
			j.Violate("P7", "mail %s has no receipt", m)
		case n > 1:
			j.Violate("P7", "mail %s about cart %s came %d times", m, r.Cart, n)
		case r.Outcome != "delivered" && r.Outcome != "unknown":
			j.Violate("P7", "mail %s about cart %s came, and its receipt says %s/%s", m, r.Cart, r.Outcome, r.Reason)
		}
	}
	known := map[string]bool{}
	passed := 0
	for i := range j.visitors {
		for _, c := range cartsOf(&j.visitors[i], j.book, j.facts.Arrived) {
			known[c.ID] = true
			if c.passed {
				passed++
			}
			if c.touched {
				j.Carts++
				j.cart(&c, receipts[c.ID], mails)
			}
		}
	}
	for id, got := range receipts {
		if id == "" && len(got) <= passed && !slices.ContainsFunc(got, written) {
			continue // of checkouts that name no cart, and came before the lines of theirs
		}
		if !known[id] {
			j.Violate("P7", "cart %s has a receipt, and nobody has filled it", id)
		}
	}
}

// cart judges one.
func (j *judge) cart(c *cart, got []receipt, mails map[string]int) {
	j.looked("P7")
	sent, others := 0, 0
	for _, r := range got {
		sent += mails[r.Message]
		if r.Outcome == "delivered" && mails[r.Message] == 0 {
			j.Violate("P7", "cart %s: receipt %s says delivered, and no mail %s came", c.ID, r.Receipt, r.Message)
		}
		j.early(c, r, mails[r.Message])
		if !fits(c, r) {
			others++
		}
	}
	if sent > 1 && !c.again {
		j.Violate("P7", "cart %s: %d mails came", c.ID, sent)
	}
	wanted := len(got) - others
	switch {
	case c.late, c.again: // two people may have had it, one after the other; or it was due twice
		j.Late++
		if len(got) == 0 && !c.Overtaken && c.bought.IsZero() {
			j.Violate("P7", "cart %s (%s; its news came late) has no receipt", c.ID, c.visitor.Story)
		}
	case len(got) == 0 && c.Overtaken:
	case len(got) == 0 && c.passed && (!c.bought.IsZero() || c.Want == demo.Emptied):
		j.Late++ // what ended it came before what began it
	case wanted == 1 && others == 0:
	case wanted == 1 && (c.MayMerge || c.passed) && merged(got) == others: // something filled it behind who they are
	default:
		j.Violate("P7", "cart %s (%s) must end once as %s/%s, found %s", c.ID, c.visitor.Story, c.Want.Outcome, c.Want.Reason, endings(got))
	}
}

// written says whether somebody was, or may have been, written to.
func written(r receipt) bool { return r.Outcome != "suppressed" }

// early finds a message about a cart whose purchase was known before the message could be decided.
func (j *judge) early(c *cart, r receipt, sent int) {
	if c.bought.IsZero() {
		return
	}
	inTime := c.bought.Before(c.due(j.book.Plan.Delay).Add(-clockMargin)) || c.bought.Before(r.Due.Add(-clockMargin))
	if !inTime {
		return
	}
	j.looked("P6")
	j.Later++
	if sent > 0 || r.Outcome == "delivered" {
		j.Violate("P6", "cart %s (%s): bought and known %s, due %s, and a mail was sent (%s/%s)", c.ID, c.visitor.Story,
			c.bought.UTC().Format(time.RFC3339Nano), r.Due.UTC().Format(time.RFC3339Nano), r.Outcome, r.Reason)
	}
}

// fits says whether a receipt is the one that the story has. Where a message was under way when its sender was struck
// nobody can know its fate: then the receipt must say so.
func fits(c *cart, r receipt) bool {
	if c.Want == demo.Sent {
		return r.Outcome == "delivered" || r.Outcome == "unknown"
	}
	return r.Outcome == c.Want.Outcome && r.Reason == c.Want.Reason
}

func merged(got []receipt) int {
	n := 0
	for _, r := range got {
		if r.Reason == demo.Merged.Reason {
			n++
		}
	}
	return n
}

func endings(got []receipt) string {
	if len(got) == 0 {
		return "no receipt"
	}
	list := make([]string, len(got))
	for i, r := range got {
		list[i] = r.Outcome + "/" + r.Reason
	}
	slices.Sort(list)
	return strings.Join(list, " and ")
}
