package demo

import "time"

// story is one way a visit goes.
type story struct {
	name   string
	weight int // how often, relative to the others
	tell   func(t *teller)
}

// What a report calls them.
const (
	storyTill      = "bought at the till just before the reminder"
	storyOneTap    = "bought on another device just before the reminder"
	storyNewDevice = "bought on a device never seen before, just before the reminder"
)

// stories is the mix of visitors.
func stories(p Plan) []story {
	list := []story{
		{"looked around", 360, func(t *teller) { t.strolls(t.device(pickOne(t.Rand, []Channel{Web, Web, App}))) }},
		{"filled a cart and stayed anonymous", 60, anonymousCart},
		{"bought", 160, func(t *teller) { buyer(t, false) }},
		{"bought, and the shop system reported it too", 40, func(t *teller) { buyer(t, true) }},
		{"left a cart", 80, func(t *teller) { leaver(t, Sent, true) }},
		{"left a cart, then said who they are", 50, lateKnown},
		{"left a cart, known on two devices", 30, twoDevices},
		{"changed a cart and left it", 20, changer},
		{"emptied the cart", 30, emptier},
		{storyOneTap, 25, oneTap},
		{storyNewDevice, 10, newDevice},
		{storyTill, 30, atTheTill},
		{"bought at the till only", 15, func(t *teller) { t.tillOnly() }},
		{"never said what may be sent", 20, func(t *teller) { leaver(t, NoConsent, nil) }},
		{"said no to mails", 10, func(t *teller) { leaver(t, Denied, false) }},
		{"one cart on two devices", 6, sharedCart},
		{"a cart of last year, imported", 6, history},
		{"sent by a broken integration", 8, broken},
	}
	if p.List {
		list = append(list, story{"on the suppression list", 4, func(t *teller) {
			t.v.OnList = true
			leaver(t, OnList, true)
		}})
	}
	if p.Mailbox {
		list = append(list,
			story{"came back by the mail and bought", 40, returner},
			story{"unsubscribed, then left another cart", 12, unsubscriber})
	}
	return list
}

func anonymousCart(t *teller) {
	d := t.device(pickOne(t.Rand, []Channel{Web, App}))
	t.looks(d, "Home")
	t.fills(d, t.cart(NoConsent)) // nobody to ask
}

func buyer(t *teller, reportedTwice bool) {
	d := t.device(pickOne(t.Rand, []Channel{Web, Web, App}))
	t.strolls(d)
	t.says(d, true)
	c := t.cart(Purchased)
	t.fills(d, c)
	t.checksOut(d, c)
	id := t.nextOrder()
	t.buys(d, id, c.Lines)
	if reportedTwice {
		c.Overtaken = true
		t.pause(300, 1500)
		t.buys(Device{Channel: Shop}, id, c.Lines)
	}
	if t.IntN(5) == 0 { // and something at the till
		c.Overtaken = true
		t.pause(500, 3000)
		t.pays([]Line{{pickOne(t.Rand, t.shelf), 1}}, true, t.IntN(2) == 0)
	}
}

// leaver is known from the start and leaves a cart. consent is as teller.says has it.
func leaver(t *teller, want Ending, consent any) {
	d := t.device(pickOne(t.Rand, []Channel{Web, Web, App}))
	t.looks(d, "Home")
	t.says(d, consent)
	c := t.cart(want)
	t.fills(d, c)
	if t.IntN(3) == 0 {
		t.checksOut(d, c)
	}
}

// lateKnown fills a cart as nobody; the log-in comes while the reminder's delay runs.
func lateKnown(t *teller) {
	d := t.device(Web)
	t.strolls(d)
	t.fills(d, t.cart(Sent))
	t.pause(200, int(t.plan.Delay.Milliseconds()/3))
	t.says(d, true)
}

// twoDevices is known by a user id on one device and by the same on another.
func twoDevices(t *teller) {
	phone, desk := t.device(App), t.device(Web)
	t.strolls(phone)
	c := t.cart(Sent)
	t.fills(desk, c)
	t.says(phone, true)
	t.logs(desk, map[string]any{"firstName": t.v.First})
}

func changer(t *teller) {
	d := t.device(Web)
	t.says(d, "granted")
	c := t.cart(Sent)
	t.adds(d, c, t.shelf[t.IntN(4)])
	t.adds(d, c, t.shelf[4+t.IntN(4)])
	t.adds(d, c, t.shelf[8+t.IntN(4)])
	t.removes(d, c, t.IntN(3))
}

func emptier(t *teller) {
	d := t.device(pickOne(t.Rand, []Channel{Web, App}))
	t.says(d, true)
	c := t.cart(Emptied)
	t.fills(d, c)
	if t.IntN(3) == 0 {
		t.clears(d, c)
		return
	}
	for len(c.Lines) > 0 {
		t.removes(d, c, 0)
	}
}

// untilJustBefore moves on to Margin before the reminder of the last activity is due.
func (t *teller) untilJustBefore() {
	actions := t.v.Parts[len(t.v.Parts)-1].Actions
	for i := len(actions) - 1; i >= 0; i-- {
		if actions[i].Activity {
			t.at = max(t.at, actions[i].At+t.plan.Delay-Margin)
			return
		}
	}
}

// oneTap buys the cart with the app, on which the visitor has been known before.
func oneTap(t *teller) {
	phone, desk := t.device(App), t.device(Web)
	t.looks(phone, "Home")
	t.says(phone, true)
	t.says(desk, true)
	c := t.cart(Purchased)
	c.Elsewhere, c.Overtaken = true, true
	t.fills(desk, c)
	t.untilJustBefore()
	t.buys(phone, t.nextOrder(), c.Lines)
}

// newDevice buys on a device that says who it belongs to with the order itself.
func newDevice(t *teller) {
	phone, desk := t.device(App), t.device(Web)
	t.says(desk, true)
	c := t.cart(Purchased)
	c.Elsewhere, c.Overtaken = true, true
	t.fills(desk, c)
	t.untilJustBefore()
	t.known[phone.ID] = true
	t.buys(phone, t.nextOrder(), c.Lines)
}

func atTheTill(t *teller) {
	d := t.device(pickOne(t.Rand, []Channel{Web, App}))
	t.looks(d, "Home")
	t.says(d, true)
	c := t.cart(Purchased)
	c.Elsewhere, c.Overtaken = true, true
	t.fills(d, c)
	t.untilJustBefore()
	card := t.IntN(2) == 0
	t.pays(c.Lines, card, !card || t.IntN(2) == 0)
}

func (t *teller) tillOnly() {
	t.v.UserID, t.v.Email = t.user, t.email
	t.pays([]Line{{pickOne(t.Rand, t.shelf), 1}, {t.shelf[0], 2}}, true, true)
	if t.IntN(2) == 0 {
		t.pause(500, 2000)
		t.pays([]Line{{pickOne(t.Rand, t.shelf), 1}}, false, true)
	}
}

// sharedCart fills one cart on a known and on an unknown device; then the unknown one says whose it is.
func sharedCart(t *teller) {
	phone, desk := t.device(App), t.device(Web)
	t.says(phone, true)
	c := t.cart(Sent)
	c.MayMerge = true
	t.adds(phone, c, t.shelf[0])
	t.adds(desk, c, t.shelf[3])
	t.pause(300, 900)
	t.logs(desk, map[string]any{"firstName": t.v.First})
}

// history is what an import of old data brings: it counts, and triggers nothing.
func history(t *teller) {
	const year = 365 * 24 * time.Hour
	t.v.UserID, t.v.Email = t.user, t.email
	c := t.cart(Historical)
	c.Lines = []Line{{pickOne(t.Rand, t.shelf), 1}}
	a := Action{
		Cart: c.ID, Identifiers: []string{"user_id:" + t.user, "email:" + t.email}, Ago: year,
		Body: track("Product Added", c.Lines[0].properties(c.ID)),
	}
	a.Body["userId"] = t.user
	a.Body["context"] = map[string]any{"traits": map[string]any{"email": t.email}}
	t.act(Device{Channel: Shop}, a)
}

// broken is events that nobody can use.
func broken(t *teller) {
	d := Device{Channel: Shop}
	for _, body := range []map[string]any{
		{"type": "track", "userId": t.user, "properties": map[string]any{"note": "no name of an event"}},
		{"type": "track", "event": "Order Completed", "properties": map[string]any{"order_id": "of nobody"}},
		{"type": "purchase", "userId": t.user},
		{"type": "track", "event": "Product Added", "userId": t.user, "properties": "not an object"},
	}[:1+t.IntN(4)] {
		t.act(d, Action{Body: body, Broken: true})
		t.pause(100, 500)
	}
	if t.IntN(2) == 0 {
		t.pays([]Line{{t.shelf[1], 1}}, false, false)
	}
}

// returner answers the reminder: looks at the cart again and buys it.
func returner(t *teller) {
	d := t.device(pickOne(t.Rand, []Channel{Web, App}))
	t.looks(d, "Home")
	t.says(d, true)
	c := t.cart(Sent)
	c.Recovered = true
	t.fills(d, c)
	t.afterMail()
	t.pause(2500, 4000)
	t.looks(d, "Cart")
	t.checksOut(d, c)
	t.buys(d, t.nextOrder(), c.Lines)
}

// unsubscriber uses the link of the first reminder; the second cart must stay without one.
func unsubscriber(t *teller) {
	d := t.device(Web)
	t.says(d, true)
	first := t.cart(Sent)
	t.fills(d, first)
	t.afterMail()
	t.pause(500, 1000)
	t.act(Device{Channel: Web}, Action{Link: true, Identifiers: []string{"email:" + t.email}, Body: map[string]any{}})
	t.pause(800, 1200)
	t.fills(d, t.cart(Unsubscribed))
}
