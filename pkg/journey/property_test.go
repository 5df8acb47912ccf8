package journey_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
)

// person is one component of people, with what an oracle remembers of it.
type person struct {
	key    string
	s      journey.State
	orders []int64            // At of every order
	ops    map[string][]int64 // times of every addition or snapshot, by cart
	active int64
}

// world is a few people whose events come late and in any order, who turn out to be the same at any time.
type world struct {
	*rapid.T
	d      *journey.Decider
	people []*person
	now    time.Time
	n      int
	armed  int
	ended  map[string]string // receipt id -> how
}

func (w *world) take(p *person, r journey.Result) {
	w.armed += r.Armed
	end := func(id, how string) {
		if was, twice := w.ended[id]; twice {
			w.Fatalf("receipt %s ended as %s and as %s", id, was, how)
		}
		w.ended[id] = how
	}
	for _, x := range r.Receipts {
		end(x.Receipt, x.Outcome+"/"+x.Reason)
	}
	for _, x := range r.Requests {
		end(x.Receipt, "requested")
		last := int64(0)
		for _, t := range p.ops[x.Cart.ID] {
			last = max(last, t)
		}
		for _, at := range p.orders {
			if at >= last {
				w.Fatalf("cart %q with last addition %d was bought at %d, and written about", x.Cart.ID, last, at)
			}
		}
		if len(x.Cart.Lines) == 0 {
			w.Fatalf("message about an empty cart")
		}
		if w.now.UnixMilli() < p.active+time.Hour.Milliseconds() {
			w.Fatalf("message at %d, an hour has not passed since activity at %d", w.now.UnixMilli(), p.active)
		}
	}
	// What goes to Redis comes back the same.
	b, err := p.s.MarshalBinary()
	require.NoError(w, err)
	var back journey.State
	require.NoError(w, back.UnmarshalBinary(b))
	again, err := back.MarshalBinary()
	require.NoError(w, err)
	require.Equal(w, b, again)
	p.s = back
}

func (w *world) event(p *person) {
	e := w.happen(p).decode(w)
	w.take(p, w.d.Observe(p.key, &p.s, e, w.now))
}

// record is an event as it lies in Kafka.
type record struct {
	body string
	meta event.Meta
	at   time.Time // when it happened
}

func (r record) decode(t require.TestingT) *event.Event {
	e, err := event.Decode([]byte(r.body), r.meta)
	require.NoError(t, err)
	return e
}

// happen has a person do something.
func (w *world) happen(p *person) record {
	w.n++
	late := rapid.SampledFrom([]time.Duration{0, 0, 0, time.Second, 20 * time.Minute, 3 * time.Hour}).Draw(w.T, "late")
	at := w.now.Add(-late)
	cart := rapid.SampledFrom([]string{"", "c1", "c2"}).Draw(w.T, "cart")
	product := rapid.SampledFrom([]string{"tea", "pot"}).Draw(w.T, "product")
	item := fmt.Sprintf(`"product_id":%q,"price":10,"quantity":%d`, product, rapid.IntRange(1, 2).Draw(w.T, "quantity"))
	id := ""
	if cart != "" {
		id = fmt.Sprintf(`"cart_id":%q,`, cart)
	}
	track := func(name, properties string) string {
		return fmt.Sprintf(`"type":"track","event":%q,"properties":{%s}`, name, properties)
	}
	var body string
	isOp, isActivity, isOrder := false, true, false
	switch rapid.SampledFrom([]string{"add", "add", "add", "remove", "snapshot", "clear", "checkout", "page", "order", "identify", "consent"}).Draw(w.T, "what") {
	case "add":
		body, isOp = track("Product Added", id+item), true
	case "remove":
		body, isOp = track("Product Removed", id+item), true
	case "snapshot":
		body, isOp = track("Cart Viewed", id+`"products":[{`+item+`}]`), true
	case "clear":
		body, isOp = track("Cart Cleared", id+`"x":1`), true
	case "checkout": // names no cart: where it counts is for package commerce to say
		body = track("Checkout Started", `"products":[{`+item+`}]`)
		for _, c := range []string{"", "c1", "c2"} {
			p.ops[c] = append(p.ops[c], at.UnixMilli())
		}
	case "page":
		body = `"type":"page","name":"x"`
	case "order":
		body, isActivity, isOrder = track("Order Completed", `"order_id":"o"`), false, true
	case "identify":
		body, isActivity = `"type":"identify","traits":{"email":"a@b.example","consent":{"email":{"marketing":true}}}`, false
	case "consent":
		body, isActivity = track("Unsubscribed", `"channel":"email"`), false
	}
	if isOp {
		p.ops[cart] = append(p.ops[cart], at.UnixMilli())
	}
	if isActivity {
		p.active = max(p.active, at.UnixMilli())
	}
	if isOrder {
		p.orders = append(p.orders, w.now.UnixMilli())
	}
	m := event.Meta{Source: "web", Brand: "main", MessageID: fmt.Sprint("m", w.n), ReceivedAt: w.now}
	return record{fmt.Sprintf(`{"anonymousId":"a","timestamp":%q,%s}`, at.Format(time.RFC3339Nano), body), m, at}
}

func (w *world) merge() {
	if len(w.people) < 2 {
		return
	}
	i := rapid.IntRange(0, len(w.people)-2).Draw(w.T, "winner")
	p, o := w.people[i], w.people[len(w.people)-1]
	w.people = w.people[:len(w.people)-1]
	p.orders = append(p.orders, o.orders...)
	p.active = max(p.active, o.active)
	for c, ts := range o.ops {
		p.ops[c] = append(p.ops[c], ts...)
	}
	w.take(p, w.d.Merge(p.key, &p.s, o.s, w.now))
}

func (w *world) fire() {
	for _, p := range w.people {
		if due, ok := p.s.Due(); ok && !due.After(w.now) {
			w.take(p, w.d.Fire(p.key, &p.s, w.now))
			if due, ok := p.s.Due(); ok && !due.After(w.now) {
				w.Fatalf("due again at %s, fired at %s", due, w.now)
			}
		}
	}
}

func draw(t *rapid.T, d *journey.Decider) *world {
	w := &world{T: t, d: d, now: noon, ended: map[string]string{}}
	for i := range rapid.IntRange(1, 4).Draw(t, "people") {
		w.people = append(w.people, &person{key: fmt.Sprint("p", i), ops: map[string][]int64{}})
	}
	return w
}

// P6 and P7: whatever comes in whatever order, nobody is written to about a bought cart, and every armed
// instance ends exactly once.
func TestEveryArmedInstanceEndsOnce(t *testing.T) {
	second := `name: second
arms: cart
delay: 90m
channel: webhook
purpose: marketing
`
	d := decider(parse(t, journeyFile), parse(t, second))
	d.Channels["webhook"] = true
	outcomes := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, d)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				w.merge()
			case 1, 2:
				w.now = w.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Minute, time.Hour, 5 * time.Hour}).Draw(t, "wait"))
				w.fire()
			default:
				w.now = w.now.Add(time.Millisecond)
				w.event(w.people[rapid.IntRange(0, len(w.people)-1).Draw(t, "who")])
			}
		}
		for range 3 {
			w.now = w.now.Add(10 * time.Hour)
			w.fire()
		}
		for _, p := range w.people {
			if due, waits := p.s.Due(); waits {
				t.Fatalf("still due at %s", due)
			}
		}
		if w.armed != len(w.ended) {
			t.Fatalf("%d armed, %d ended: %v", w.armed, len(w.ended), w.ended)
		}
		for _, how := range w.ended {
			outcomes[how]++
		}
	})
	for _, how := range []string{"requested", "suppressed/purchased", "suppressed/emptied", "suppressed/merged", "suppressed/no_consent", "suppressed/unsubscribed"} {
		require.NotZero(t, outcomes[how], "the test never reached %s: %v", how, outcomes)
	}
}

// Merge is commutative: who is found to be whom does not matter.
func TestMergeCommutes(t *testing.T) {
	d := decider(parse(t, journeyFile))
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, d)
		w.people = []*person{{key: "a", ops: map[string][]int64{}}, {key: "b", ops: map[string][]int64{}}}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			w.now = w.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, 2 * time.Hour}).Draw(t, "wait"))
			w.fire()
			w.event(w.people[rapid.IntRange(0, 1).Draw(t, "who")])
		}
		a, b := w.people[0].s, w.people[1].s
		ab, ba := copyOf(t, a), copyOf(t, b)
		r1 := d.Merge("x", &ab, copyOf(t, b), w.now)
		r2 := d.Merge("x", &ba, copyOf(t, a), w.now)
		require.Equal(t, text(t, &ab), text(t, &ba))
		require.Equal(t, asJSON(t, r1), asJSON(t, r2))
	})
}

// Merge is associative in all but which receipts end as merged: of each cart one goes on.
func TestMergeAssociates(t *testing.T) {
	d := decider(parse(t, journeyFile))
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, d)
		w.people = []*person{{key: "a"}, {key: "b"}, {key: "c"}}
		for _, p := range w.people {
			p.ops = map[string][]int64{}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.now = w.now.Add(time.Millisecond)
			w.event(w.people[rapid.IntRange(0, 2).Draw(t, "who")])
		}
		a, b, c := w.people[0].s, w.people[1].s, w.people[2].s
		left, right, rest := copyOf(t, a), copyOf(t, a), copyOf(t, b)
		d.Merge("x", &left, copyOf(t, b), w.now)
		d.Merge("x", &left, copyOf(t, c), w.now)
		d.Merge("x", &rest, copyOf(t, c), w.now)
		d.Merge("x", &right, rest, w.now)
		for _, s := range []*journey.State{&left, &right} {
			for _, b := range s.Brands {
				b.Running = nil // an instance that a merge arms may be armed by either of the two
			}
		}
		require.Equal(t, text(t, &left), text(t, &right))
	})
}

func copyOf(t require.TestingT, s journey.State) journey.State {
	var c journey.State
	require.NoError(t, c.UnmarshalBinary([]byte(text(t, &s))))
	return c
}

// text is a state as it is stored.
func text(t require.TestingT, s *journey.State) string {
	b, err := s.MarshalBinary()
	require.NoError(t, err)
	return string(b)
}

func asJSON(t require.TestingT, r journey.Result) string {
	b, err := json.Marshal(r)
	require.NoError(t, err)
	return string(b)
}
