package simulate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// load says what people do in a schedule.
type load struct {
	people  int
	span    time.Duration // in which they do it
	views   int           // pages per device
	carts   int           // of ten devices, how many fill a cart
	orders  int           // of ten people, how many order, from another device or at the till
	duels   int           // of ten orders, how many come right before the cart is due
	unions  int           // of ten people, how many turn out to be another one too
	doubles int           // of ten events, how many are sent again
	poison  int           // records that nobody can read
	old     int           // of ten carts, how many are history
	tills   int           // of ten orders, how many surely come from the till
	chains  bool          // people turn out to be one late, link by link
}

// sentEvent is one record of the collector's topic.
type sentEvent struct {
	at         time.Duration // when it is sent
	name       string        // of a track event
	source, id string
	key        string
	ids        []event.Identifier
	cart       string
	ordered    bool
	stamp      time.Duration // the time it claims
	old        bool
	poison     bool
	double     bool  // the same message id once more
	inlet      bool  // of a Kafka inlet
	again      bool  // the same inlet record once more, where nothing but its position stands for the inlet
	placed     bool  // of a till that gives no message ids: the inlet names its record by its place
	seq        int64 // of that position
	body       string

	settled bool // it was acknowledged, or its sender has given it up
}

// counts says whether the event must be in a profile, once.
func (e *sentEvent) counts() bool { return !e.poison && !e.double && !e.again }

// delay is the journey's: carts are due this long after the last activity.
const delay = 4 * time.Second

// plan writes down what will be sent.
func (w *world) plan() []*sentEvent {
	l := w.shape.load
	var es []*sentEvent
	ten := func(n int, words ...string) bool { return w.upTo(10, words...) < n }
	at := func(lo, hi time.Duration, words ...string) time.Duration {
		return lo + w.between(0, max(hi-lo, time.Millisecond), words...)
	}
	device := func(i, d int) string { return fmt.Sprintf("a%d%d", i, d) }
	user := func(i int) string { return "u" + strconv.Itoa(i) }
	add := func(e *sentEvent) *sentEvent {
		e.id = "m" + strconv.Itoa(len(es))
		if e.source == "" {
			e.source = "web"
		}
		e.stamp = e.at
		es = append(es, e)
		return e
	}
	for i := range l.people {
		p := strconv.Itoa(i)
		for d := range 2 {
			dd := p + "." + strconv.Itoa(d)
			a := device(i, d)
			for v := range l.views {
				add(&sentEvent{at: at(0, l.span, "view", dd, strconv.Itoa(v)), name: "Viewed", ids: anonymous(a)})
			}
			known := at(0, l.span, "identify", dd)
			if l.chains { // the device first is an e-mail address, and that then a user
				mail := []event.Identifier{{Type: event.Email, Value: user(i) + "@example.com"}}
				half := at(0, l.span, "half", dd)
				add(&sentEvent{at: half, name: "Viewed", ids: append(anonymous(a), mail...)})
				add(&sentEvent{at: at(half, half+l.span/2, "whole", dd), ids: append(mail, event.Identifier{Type: event.UserID, Value: user(i)})})
				continue
			}
			add(&sentEvent{at: known, ids: append(anonymous(a), event.Identifier{Type: event.UserID, Value: user(i)},
				event.Identifier{Type: event.Email, Value: user(i) + "@example.com"})})
			if !ten(l.carts, "cart", dd) {
				continue
			}
			first := at(0, l.span, "add", dd)
			last := first
			old := ten(l.old, "old", dd)
			for n := range 1 + w.upTo(3, "adds", dd) {
				x := at(first, first+delay/2, "line", dd, strconv.Itoa(n))
				last = max(last, x)
				add(&sentEvent{at: x, name: "Product Added", ids: anonymous(a), cart: "c" + dd, old: old})
			}
			if d > 0 || !ten(l.orders, "order", p) {
				continue
			}
			when := at(last, last+delay*2, "ordered", p)
			if ten(l.duels, "duel", p) {
				when = last + delay - w.between(0, 200*time.Millisecond, "close", p)
			}
			o := &sentEvent{at: when, name: "Order Completed", ordered: true}
			where := w.upTo(3, "where", p)
			if ten(l.tills, "till", p) {
				where = 2
			}
			switch where {
			case 0:
				o.ids = anonymous(device(i, 1))
			case 1:
				o.source, o.ids = "shop", []event.Identifier{{Type: event.UserID, Value: user(i)}}
			default:
				o.source, o.inlet, o.ids = "till", true, []event.Identifier{{Type: event.UserID, Value: user(i)}}
				o.placed = !w.knocks() && ten(5, "placed", p) // through the doors the till names all, else nobody here knew them again
			}
			add(o)
		}
		if l.people > 1 && ten(l.unions, "union", p) {
			other := (i + 1 + w.upTo(l.people-1, "with", p)) % l.people
			add(&sentEvent{at: at(0, l.span, "unite", p), name: "Viewed",
				ids: append(anonymous(device(i, w.upTo(2, "which", p))), event.Identifier{Type: event.UserID, Value: user(other)})})
		}
	}
	for i := range l.poison {
		add(&sentEvent{at: at(0, l.span, "poison", strconv.Itoa(i)), poison: true, ids: anonymous(device(i, 0))})
	}
	for _, e := range slices.Clone(es) {
		if !e.poison && ten(l.doubles, "double", e.id) {
			x := *e
			x.at += w.between(time.Millisecond, 3*time.Second, "again", e.id)
			x.double, x.again = !e.placed, e.placed // a till that sends again makes another record
			es = append(es, &x)
		}
	}
	slices.SortStableFunc(es, func(a, b *sentEvent) int { return int(a.at - b.at) })
	w.number(es)
	return es
}

func anonymous(a string) []event.Identifier {
	return []event.Identifier{{Type: event.AnonymousID, Value: a}}
}

// number gives inlet records their positions, and all events keys and bodies.
func (w *world) number(es []*sentEvent) {
	seq := map[string]int64{}
	for _, e := range es {
		e.key = e.ids[0].Value
		if e.inlet && !e.again {
			seq["till"]++
			seq[e.id] = seq["till"]
		}
		e.seq = seq[e.id]
		if e.placed {
			e.id = "till:0:" + strconv.FormatInt(e.seq, 10)
		}
		e.body = w.body(e)
	}
}

// body is the event as JSON, in Segment's shape.
func (w *world) body(e *sentEvent) string {
	if e.poison && w.knocks() { // the door looks itself: this names nobody
		return fmt.Sprintf(`{"type":"track","event":"broken","messageId":%q}`, e.id)
	}
	if e.poison {
		return `{"type":"track","event":"broken` + e.id
	}
	parts := []string{
		fmt.Sprintf(`"messageId":%q`, e.id), fmt.Sprintf(`"timestamp":%q`, w.began.Add(e.stamp).UTC().Format(time.RFC3339Nano)),
	}
	if e.old && w.knocks() {
		parts = append(parts, `"context":{"historical":true}`)
	}
	typ := "track"
	if e.name == "" {
		typ = "identify"
	} else {
		parts = append(parts, fmt.Sprintf(`"event":%q`, e.name))
	}
	for _, id := range e.ids {
		switch id.Type {
		case event.AnonymousID:
			parts = append(parts, fmt.Sprintf(`"anonymousId":%q`, id.Value))
		case event.UserID:
			parts = append(parts, fmt.Sprintf(`"userId":%q`, id.Value))
		case event.Email:
			traits := fmt.Sprintf(`"traits":{"email":%q,"consent":{"email":{"marketing":true}}}`, id.Value)
			if e.name != "" {
				traits = `"context":{` + traits + `}`
			}
			parts = append(parts, traits)
		}
	}
	switch {
	case e.ordered:
		parts = append(parts, fmt.Sprintf(`"properties":{"order_id":"o%s","total":12.9,"currency":"EUR"}`, e.id))
	case e.cart != "":
		parts = append(parts, fmt.Sprintf(`"properties":{"cart_id":%q,"product_id":"p%s","name":"Tea","price":12.9,"currency":"EUR","quantity":1}`, e.cart, e.id))
	}
	return fmt.Sprintf(`{"type":%q,%s}`, typ, strings.Join(parts, ","))
}

// record is the event as the collector writes it.
func (w *world) record(e *sentEvent) stream.Record {
	hs := topic.MetaHeaders(event.Meta{
		Source: e.source, Brand: "main", MessageID: e.id, ReceivedAt: time.Now().UTC().Truncate(time.Millisecond), Historical: e.old, Trusted: true,
	})
	if e.inlet {
		pos := topic.Position{Stage: topic.StageCollector + "/till", Partition: 0, Seq: e.seq}
		hs = append(hs, topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})
	}
	return stream.Record{Key: []byte(e.key), Value: []byte(e.body), Headers: hs}
}

// produce sends everything at its time.
func (w *world) produce() {
	es := w.plan()
	if w.acts != nil {
		es = w.acts
		for i, e := range es {
			e.id, e.source = "m"+strconv.Itoa(i), "web"
			if e.stamp == 0 {
				e.stamp = e.at
			}
		}
		slices.SortStableFunc(es, func(a, b *sentEvent) int { return int(a.at - b.at) })
		w.number(es)
	}
	w.mu.Lock()
	w.events = es
	w.mu.Unlock()
	if w.knocks() {
		w.arrive(es)
		return
	}
	for _, e := range es {
		if !w.rest(e.at - w.now()) {
			return
		}
		w.send(e)
	}
}

// send appends an event to the collector's topic and notes that it was acknowledged.
func (w *world) send(e *sentEvent) {
	r := w.record(e)
	part := topic.Partition(r.Key, partitions)
	w.tried([]*sentEvent{e})
	if err := w.doors.stream.Produce(w.ctx, w.topics.EventsCollected(), part, []stream.Record{r}); err != nil {
		return
	}
	w.acknowledge(e)
	w.settled(e)
}
