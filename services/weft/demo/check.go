package demo

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Check is one comparison of what was found with the truth.
type Check struct {
	What  string
	Found string
	Truth string
	OK    bool
}

// Verdict is the facts held against the truth.
type Verdict struct {
	Checks        []Check
	Faults        []string // in detail, what is not as it should be
	AfterPurchase int      // messages for carts that an acknowledged order had bought before they were due
	Late          int      // carts that cannot be judged because this machine was too slow
	Unseen        int      // carts whose purchase, by another way, overtook them: rightly without a receipt
	Pending       int      // carts without the receipt that they must have
}

// OK says that everything is as the truth has it.
func (v Verdict) OK() bool {
	return len(v.Faults) == 0 && !slices.ContainsFunc(v.Checks, func(c Check) bool { return !c.OK })
}

func (v *Verdict) equal(what string, found, truth any) {
	f, t := fmt.Sprint(found), fmt.Sprint(truth)
	v.Checks = append(v.Checks, Check{What: what, Found: f, Truth: t, OK: f == t})
}

// maxFaults is how many faults of a kind are told in detail.
const maxFaults = 10

// judge compares. alone says that nobody else sends to this Weft, so that its totals are the shop's.
func judge(f Facts, t Truth, mails []Mail, unreadable []error, alone bool) Verdict {
	var v Verdict
	sum := f.Audit.Total()
	v.Checks = append(v.Checks, Check{"events: accepted = stored + rejected + duplicate", yes(f.Audit.Closes()), "yes", f.Audit.Closes()})
	if alone {
		v.equal("events stored", sum.Stored, t.Events-t.Rejected)
		v.equal("events rejected", sum.Rejected, t.Rejected)
		dup := Check{"duplicates dropped", fmt.Sprint(sum.Duplicate), fmt.Sprint(t.Resent), sum.Duplicate == uint64(t.Resent)} //nolint:gosec // a count
		if t.Unknown > 0 {                                                                                                     // the answer to some requests got lost, so that they were repeated
			dup.Truth = fmt.Sprintf("%d to %d", t.Resent, t.Resent+t.Unknown)
			dup.OK = sum.Duplicate >= uint64(t.Resent) && sum.Duplicate <= uint64(t.Resent+t.Unknown) //nolint:gosec // counts
		}
		v.Checks = append(v.Checks, dup)
	}
	v.equal("people", f.People, t.People)
	if alone {
		v.equal("profiles", f.Profiles.People, t.People)
		v.equal("identifiers joined", f.Joins, t.Nodes-t.People)
		v.equal("orders in the profiles", f.Profiles.Orders, t.Orders)
		v.equal("revenue in the profiles", trim(f.Profiles.Revenue), Money(t.Cents))
		v.equal("people who viewed a product", sumOf(f.Funnel, func(s step) uint64 { return s.Viewed }), t.ViewedBy)
		v.equal("carts recovered after a reminder", first(f.Recovered).Carts, t.Recovered)
	}
	v.equal("orders", f.Orders.Orders, t.Orders)
	v.equal("revenue", trim(f.Orders.Revenue), Money(t.Cents))
	v.carts(f, t, mails == nil)
	v.equal("messages after a purchase", v.AfterPurchase, 0)
	if v.Late > len(t.Carts)/2 {
		v.fault("this machine is too slow for this shop: %d of %d carts cannot be judged; try fewer --visitors", v.Late, len(t.Carts))
	}
	if mails != nil {
		v.mails(t, mails)
	}
	for _, err := range unreadable {
		v.fault("a mail cannot be read: %v", err)
	}
	if t.NeverAcked > 0 {
		v.fault("%d actions of visitors were never acknowledged", t.NeverAcked)
	}
	if n := len(t.Unanswered); n > 0 {
		v.fault("%d visitors waited in vain for their mail, such as number %d", n, t.Unanswered[0])
	}
	return v
}

func sumOf[T any](list []T, get func(T) uint64) uint64 {
	var n uint64
	for _, x := range list {
		n += get(x)
	}
	return n
}

func yes(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

func (v *Verdict) fault(format string, args ...any) {
	v.Faults = append(v.Faults, fmt.Sprintf(format, args...))
}

// carts holds every cart's receipts against its story. Where nobody looks for mails the Weft may have no mail server.
func (v *Verdict) carts(f Facts, t Truth, blind bool) {
	byCart := map[string][]receipt{}
	for _, r := range f.Receipts {
		byCart[r.Cart] = append(byCart[r.Cart], r)
	}
	right, told := 0, 0
	ids := make([]string, 0, len(t.Carts))
	for id := range t.Carts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		c := t.Carts[id]
		got := byCart[id]
		v.AfterPurchase += afterPurchase(c, got)
		switch {
		case c.Late:
			v.Late++
			continue
		case len(got) == 0 && c.Overtaken:
			v.Unseen++
			right++
			continue
		case fits(c, got, blind):
			right++
			continue
		case len(got) == 0:
			v.Pending++
		}
		if told++; told <= maxFaults {
			v.fault("cart %s (visitor %d: %s) must end %s, found %s", id, c.Visitor, c.Story, words(c.Want), endings(got))
		}
	}
	for id := range byCart {
		if _, known := t.Carts[id]; !known {
			v.fault("cart %s has a receipt, and nobody has filled it", id)
		}
	}
	v.equal("carts with the one end that their story has", right, len(t.Carts)-v.Late)
}

// fits says whether receipts are what the truth has: one, with the wanted ending, and where the cart may have
// been two, another that says so.
func fits(c CartTruth, got []receipt, blind bool) bool {
	wanted, others := 0, 0
	for _, r := range got {
		switch {
		case r.ending() == c.Want, blind && c.Want == Sent && r.ending() == ChannelOff:
			wanted++
		case c.MayMerge && r.ending() == Merged:
		default:
			others++
		}
	}
	return wanted == 1 && others == 0
}

// afterPurchase counts messages about a cart that an acknowledged order had bought before it was due.
func afterPurchase(c CartTruth, got []receipt) int {
	n := 0
	for _, r := range got {
		due := c.Due
		if c.Late { // it was due before, by what could be known
			due = r.Due
		}
		if r.mayHaveReached() && !c.Bought.IsZero() && c.Bought.Before(due) && !r.Settled.Before(c.Bought) {
			n++
		}
	}
	return n
}

func words(e Ending) string {
	if e.Outcome == "suppressed" {
		return strings.ReplaceAll(e.Reason, "_", " ")
	}
	return e.Outcome
}

func endings(got []receipt) string {
	if len(got) == 0 {
		return "no receipt"
	}
	list := make([]string, len(got))
	for i, r := range got {
		list[i] = words(r.ending())
	}
	slices.Sort(list)
	return strings.Join(list, " and ")
}

// mails holds what came to the mailbox against the truth.
func (v *Verdict) mails(t Truth, mails []Mail) {
	late := map[string]bool{}
	carts := map[string][]CartTruth{}
	for _, c := range t.Carts {
		late[c.Email] = late[c.Email] || c.Late
		if c.Want == Sent {
			carts[c.Email] = append(carts[c.Email], c)
		}
	}
	got := map[string]int{}
	for _, m := range mails {
		if !late[m.To] {
			got[m.To]++
		}
	}
	want, told := 0, 0
	for address, n := range t.MailsTo {
		if late[address] {
			continue
		}
		want += n
		if got[address] != n {
			if told++; told <= maxFaults {
				v.fault("%s must get %d mails, got %d", address, n, got[address])
			}
		}
	}
	total := 0
	for address, n := range got {
		total += n
		if t.MailsTo[address] == 0 {
			v.fault("%s got %d mails and must get none", address, n)
		}
	}
	v.equal("mails received", total, want)
	for _, m := range mails {
		if of := carts[m.To]; len(of) == 1 && !of[0].Late {
			v.content(m, of[0])
		}
	}
}

// content looks whether a mail names what was left in the cart.
func (v *Verdict) content(m Mail, c CartTruth) {
	for _, l := range c.Lines {
		if !strings.Contains(m.Text, l.Name) {
			v.fault("the mail to %s does not name %s", m.To, l.Name)
			return
		}
	}
	if !strings.Contains(m.Text, Money(total(c.Lines))) || m.Unsubscribe == "" || !m.HTML {
		v.fault("the mail to %s lacks the cart's value %s, the one-click link or its HTML part", m.To, Money(total(c.Lines)))
	}
}

// trim writes a decimal of ClickHouse with two places, as Money does; what has more stays as it is.
func trim(text string) string {
	whole, frac, _ := strings.Cut(cmp.Or(text, "0"), ".")
	for len(frac) > 2 && frac[len(frac)-1] == '0' {
		frac = frac[:len(frac)-1]
	}
	for len(frac) < 2 {
		frac += "0"
	}
	return whole + "." + frac
}
