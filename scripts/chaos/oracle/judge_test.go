package oracle

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/load"
	"github.com/weft-cdp/weft/services/weft/demo"
)

const delay = 20 * time.Second

// world is a shop in which everything went well.
type world struct {
	visitors []demo.Visitor
	book     ledger.Book
	facts    Facts
}

// newWorld plays a generated shop, every action acknowledged a moment after it was done, into facts that are right.
func newWorld(t *testing.T) *world {
	t.Helper()
	return worldOf(t, demo.Plan{Seed: 3, Visitors: 60, Run: "r", Delay: delay, Over: time.Minute})
}

func worldOf(t *testing.T, plan demo.Plan) *world {
	t.Helper()
	opened := time.UnixMilli(1_700_000_000_000)
	w := &world{
		visitors: demo.Generate(plan),
		book:     ledger.Book{Plan: &ledger.Plan{Delay: delay}, Opened: opened, Done: map[string]time.Time{}, Acked: map[string]time.Time{}},
		facts:    Facts{Profiles: map[string]profile{}, Arrived: map[string]place{}},
	}
	for i := range w.visitors {
		w.play(&w.visitors[i], opened)
	}
	require.True(t, w.judge().OK(), "%v", w.judge().violations)
	return w
}

// play makes what Weft must have of one visitor. Those who are several people, because no link joins their devices, do
// not occur in the shop.
func (w *world) play(v *demo.Visitor, opened time.Time) {
	person := fmt.Sprintf("person-%d", v.N)
	var p profile
	p.Revenue = map[string]string{}
	orders := map[string]int64{}
	var last time.Time
	for part := range v.Parts {
		for n := range v.Parts[part].Actions {
			a := &v.Parts[part].Actions[n]
			id := load.ID(v.N, part, n)
			at := opened.Add(v.Start + a.At)
			w.book.Done[id], w.book.Acked[id] = at, at.Add(10*time.Millisecond)
			if a.Activity {
				last = at
			}
			message := a.ID
			if a.ID != "" {
				w.facts.Arrived[a.ID] = place{part, int64(100*v.N + n)} // one after the other, as each device sends
			}
			if a.Channel == demo.Till {
				message = fmt.Sprintf("till:0:%d", len(w.facts.Sales))
				w.facts.Sales = append(w.facts.Sales, sale{action: id, id: message})
			}
			if a.Broken {
				w.facts.Rejected = append(w.facts.Rejected, rejection{Message: a.ID, Origin: message, Reason: "invalid"})
				continue
			}
			w.facts.Rows = append(w.facts.Rows, row{Message: message, Person: person})
			p.Counts.Events++
			if a.Order != "" {
				orders[a.Order] = a.Cents
			}
		}
	}
	var cents int64
	for _, c := range orders {
		cents += c
	}
	p.Orders, p.Revenue[demo.Currency] = int64(len(orders)), demo.Money(cents)+"00"
	if p.Counts.Events > 0 {
		w.facts.Profiles[person] = p
	}
	for _, c := range v.Carts {
		r := receipt{Receipt: "receipt of " + c.ID, Cart: c.ID, Outcome: c.Want.Outcome, Reason: c.Want.Reason, Due: last.Add(delay)}
		if c.Want == demo.Sent {
			r.Message = "message of " + c.ID
			w.book.Mails = append(w.book.Mails, ledger.Mail{Message: r.Message, At: r.Due})
		}
		w.facts.Receipts = append(w.facts.Receipts, r)
	}
}

func (w *world) judge() *Verdict { return Judge(w.visitors, &w.book, &w.facts) }

func purchased(r receipt) bool { return r.Outcome == "suppressed" && r.Reason == "purchased" }

// find is the index of the first receipt that fits.
func (w *world) find(t *testing.T, fits func(r receipt) bool) int {
	t.Helper()
	i := slices.IndexFunc(w.facts.Receipts, fits)
	require.GreaterOrEqual(t, i, 0)
	return i
}

func delivered(r receipt) bool { return r.Outcome == "delivered" }

// Whatever can go wrong is found, and said to break the promise that it breaks.
func TestEveryFaultIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		promise string
		spoil   func(t *testing.T, w *world)
	}{
		"an event is lost": {"P2", func(_ *testing.T, w *world) { w.facts.Rows = w.facts.Rows[1:] }},
		"an event is stored twice": {"P2", func(t *testing.T, w *world) {
			i := slices.IndexFunc(w.facts.Rows, func(r row) bool { return !w.resent(r.Message) })
			require.GreaterOrEqual(t, i, 0)
			w.facts.Rows = append(w.facts.Rows, w.facts.Rows[i])
		}},
		"an event that was sent twice is stored twice": {"P3", func(t *testing.T, w *world) {
			i := slices.IndexFunc(w.facts.Rows, func(r row) bool { return w.resent(r.Message) })
			require.GreaterOrEqual(t, i, 0)
			w.facts.Rows = append(w.facts.Rows, w.facts.Rows[i])
		}},
		"an event that nobody sent is stored":     {"P2", func(_ *testing.T, w *world) { w.facts.Rows = append(w.facts.Rows, row{Message: "x"}) }},
		"what cannot be an event is not rejected": {"P2", func(_ *testing.T, w *world) { w.facts.Rejected = nil }},
		"a rejection has no reason":               {"P2", func(_ *testing.T, w *world) { w.facts.Rejected[0].Reason = "" }},
		"a record has two rows":                   {"P2", func(_ *testing.T, w *world) { w.facts.Doubles = []warehouse.Double{{Rows: 2}} }},
		"a sale is in no topic":                   {"P1", func(_ *testing.T, w *world) { w.facts.Sales = w.facts.Sales[1:] }},
		"a person falls apart":                    {"P4", func(_ *testing.T, w *world) { w.facts.Rows[0].Person = "nobody" }},
		"two people are one":                      {"P4", func(_ *testing.T, w *world) { w.rename("person-1", "person-2") }},
		"a merge has no evidence":                 {"P5", func(_ *testing.T, w *world) { w.facts.Bare = 1 }},
		"a profile counts an event twice":         {"P3", func(_ *testing.T, w *world) { w.change(func(p *profile) { p.Counts.Events++ }) }},
		"a profile counts an order twice":         {"P3", func(_ *testing.T, w *world) { w.change(func(p *profile) { p.Orders++ }) }},
		"a profile has another revenue":           {"P3", func(_ *testing.T, w *world) { w.change(func(p *profile) { p.Revenue[demo.Currency] = "0.01" }) }},
		"a profile is missing":                    {"P3", func(_ *testing.T, w *world) { delete(w.facts.Profiles, w.facts.Rows[0].Person) }},
		"a cart has no receipt": {"P7", func(t *testing.T, w *world) {
			w.facts.Receipts = slices.Delete(w.facts.Receipts, w.find(t, delivered), w.find(t, delivered)+1)
		}},
		"a receipt stands twice": {"P7", func(t *testing.T, w *world) {
			w.facts.Receipts = append(w.facts.Receipts, w.facts.Receipts[w.find(t, purchased)])
		}},
		"a cart ends otherwise": {"P7", func(t *testing.T, w *world) { w.facts.Receipts[w.find(t, purchased)].Reason = "emptied" }},
		"a cart that nobody filled has a receipt": {"P7", func(_ *testing.T, w *world) {
			w.facts.Receipts = append(w.facts.Receipts, receipt{Receipt: "x", Cart: "x"})
		}},
		"a receipt without a cart's name is one too many": {"P7", func(_ *testing.T, w *world) {
			w.facts.Receipts = append(w.facts.Receipts, receipt{Receipt: "x", Outcome: "suppressed", Reason: "purchased"})
		}},
		"a mail came twice":                      {"P7", func(_ *testing.T, w *world) { w.book.Mails = append(w.book.Mails, w.book.Mails[0]) }},
		"a mail has no receipt":                  {"P7", func(_ *testing.T, w *world) { w.book.Mails = append(w.book.Mails, ledger.Mail{Message: "x"}) }},
		"a receipt says delivered and none came": {"P7", func(_ *testing.T, w *world) { w.book.Mails = w.book.Mails[1:] }},
		"a mail came though the receipt says no": {"P7", func(t *testing.T, w *world) { w.facts.Receipts[w.find(t, delivered)].Outcome = "suppressed" }},
		"a cart that was bought before gets a mail": {"P6", func(t *testing.T, w *world) {
			r := &w.facts.Receipts[w.boughtInTime(t)]
			r.Outcome, r.Reason, r.Message = "delivered", "sent", "m"
			w.book.Mails = append(w.book.Mails, ledger.Mail{Message: "m"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.spoil(t, w)
			v := w.judge()
			require.False(t, v.OK())
			require.Contains(t, v.Violations(), c.promise)
		})
	}
}

// TestAnOrderMayOvertakeItsCart is a cart of a run whose lines one collector spooled, while the other one passed on the
// checkout, which named no cart, and the order.
func TestAnOrderMayOvertakeItsCart(t *testing.T) {
	w := worldOf(t, demo.Plan{Seed: 1795373568035654636, Visitors: 216, Run: "rtox340", Delay: 20 * time.Second, Over: 72 * time.Second})
	i := w.find(t, func(r receipt) bool { return r.Cart == "rtox340-c43-1" })
	w.facts.Receipts[i].Cart = ""
	require.False(t, w.judge().OK(), "everything came in its order")
	v := &w.visitors[slices.IndexFunc(w.visitors, func(v demo.Visitor) bool { return v.N == 43 })]
	line := v.Parts[0].Actions[4]
	require.Equal(t, "rtox340-c43-1", line.Cart)
	w.facts.Arrived[line.ID] = place{0, 100*43 + 99}
	require.True(t, w.judge().OK(), "%v", w.judge().violations)
	again := w.facts.Receipts[i] // the cart that got its lines in the end has an ending too, where the order came behind it
	again.Receipt, again.Cart = "of the lines", "rtox340-c43-1"
	w.facts.Receipts = append(w.facts.Receipts, again)
	require.True(t, w.judge().OK(), "%v", w.judge().violations)
	w.facts.Receipts = w.facts.Receipts[:len(w.facts.Receipts)-1]
	w.facts.Receipts[i].Outcome = "delivered"
	require.False(t, w.judge().OK(), "somebody was written to about a cart that he had bought")
	w.facts.Receipts[i].Outcome = "suppressed"
	w.facts.Receipts = slices.Delete(w.facts.Receipts, i, i+1)
	require.True(t, w.judge().OK(), "%v", w.judge().violations)
}

// The stories of a run as short as CI's hold something for every promise, and much for that which needs an order in
// time: strikes would have to delay all of them for it to go without. P1 and P8 are counted by whoever runs the shop.
func TestAShortRunHasEverythingToLookAt(t *testing.T) {
	for seed := range uint64(50) {
		w := worldOf(t, demo.Plan{Seed: seed, Visitors: 216, Run: "r", Delay: delay, Over: 72 * time.Second})
		v := w.judge()
		require.Equal(t, []string{"P1", "P8", Stands}, v.Unlooked())
		require.Greater(t, v.Events, 1000)
		require.Greater(t, v.Compared["P6"], 30)
	}
}

// What violence makes right is no violation: an event that nobody acknowledged, a message whose sender was struck.
func TestWhatMayBeIsNoFault(t *testing.T) {
	w := newWorld(t)
	i := w.find(t, delivered)
	w.facts.Receipts[i].Outcome, w.facts.Receipts[i].Reason = "unknown", "crash_during_send"
	lost := w.facts.Receipts[i].Message
	require.True(t, w.judge().OK())
	w.book.Mails = slices.DeleteFunc(w.book.Mails, func(m ledger.Mail) bool { return m.Message == lost })
	require.True(t, w.judge().OK())

	w = newWorld(t)
	v := w.visitors[len(w.visitors)-1]
	require.NotEqual(t, demo.Till, v.Parts[0].Actions[0].Channel)
	delete(w.book.Acked, load.ID(v.N, 0, 0))
	require.True(t, w.judge().OK(), "it may have been taken all the same")
}

// Who went on with a cart after a pause longer than the delay, because nobody was there to act, may be written to twice.
func TestACartMayBeDueTwiceAfterAPause(t *testing.T) {
	w := newWorld(t)
	r := w.facts.Receipts[w.find(t, delivered)]
	r.Receipt, r.Message = "another receipt", "another message"
	w.facts.Receipts = append(w.facts.Receipts, r)
	w.book.Mails = append(w.book.Mails, ledger.Mail{Message: r.Message})
	require.Contains(t, w.judge().Violations(), "P7")
	for i := range w.visitors {
		v := &w.visitors[i]
		if !slices.ContainsFunc(v.Carts, func(c demo.Cart) bool { return c.ID == r.Cart }) {
			continue
		}
		actions := v.Parts[0].Actions
		k := slices.IndexFunc(actions, func(a demo.Action) bool { return a.Cart == r.Cart })
		for n := k + 1; n < len(actions); n++ {
			id := load.ID(v.N, 0, n)
			w.book.Done[id], w.book.Acked[id] = w.book.Done[id].Add(time.Minute), w.book.Acked[id].Add(time.Minute)
		}
		require.Less(t, k+1, len(actions), "the visitor must have gone on")
	}
	require.True(t, w.judge().OK(), "%v", w.judge().violations)
}

func (w *world) resent(message string) bool {
	found := false
	(&judge{visitors: w.visitors}).each(func(_ *demo.Visitor, _ string, a *demo.Action) {
		found = found || a.ID == message && a.Resend
	})
	return found
}

func (w *world) rename(from, to string) {
	for i := range w.facts.Rows {
		if w.facts.Rows[i].Person == from {
			w.facts.Rows[i].Person = to
		}
	}
}

func (w *world) change(f func(p *profile)) {
	person := w.facts.Rows[0].Person
	p := w.facts.Profiles[person]
	f(&p)
	w.facts.Profiles[person] = p
}

// boughtInTime is the receipt of a cart whose order was known well before it was due.
func (w *world) boughtInTime(t *testing.T) int {
	t.Helper()
	for i := range w.visitors {
		for _, c := range cartsOf(&w.visitors[i], &w.book, w.facts.Arrived) {
			if !c.bought.IsZero() && c.bought.Before(c.due(delay).Add(-clockMargin)) {
				return w.find(t, func(r receipt) bool { return r.Cart == c.ID })
			}
		}
	}
	t.Fatal("no cart was bought in time")
	return 0
}
