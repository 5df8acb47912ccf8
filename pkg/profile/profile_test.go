package profile

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
)

var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(n int) time.Time { return base.Add(time.Duration(n) * time.Minute) }

// ev makes an event of brand main at minute n, received three seconds later.
func ev(t testing.TB, id string, n int, fields string) *event.Event {
	return evIn(t, "main", id, n, fields)
}

func evIn(t testing.TB, brand, id string, n int, fields string) *event.Event {
	t.Helper()
	body := fmt.Sprintf(`{"messageId":%q,"timestamp":%q,"userId":"u",%s}`, id, at(n).Format(timeLayout), fields)
	e, err := event.Decode([]byte(body), event.Meta{Source: "shop", Brand: brand, MessageID: id, ReceivedAt: at(n).Add(3 * time.Second)})
	require.NoError(t, err)
	return e
}

func track(name, properties string) string {
	return fmt.Sprintf(`"type":"track","event":%q,"properties":%s`, name, properties)
}

func identify(traits string) string { return `"type":"identify","traits":` + traits }

func fold(t testing.TB, rules *Rules, es ...*event.Event) *State {
	t.Helper()
	var s State
	for _, e := range es {
		require.Empty(t, s.Apply(e, rules))
	}
	return &s
}

func text(t require.TestingT, v any) string {
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// stored is s as it is stored.
func stored(t require.TestingT, s *State) string {
	b, err := s.MarshalBinary()
	require.NoError(t, err)
	return string(b)
}

func traitsText(t require.TestingT, s *State) string { return text(t, s.traits.values()) }

func TestTraits(t *testing.T) {
	rules := &Rules{BrandTraits: []string{"tier"}}
	for _, tc := range []struct {
		name   string
		events []*event.Event
		want   string
	}{
		{"newest event time wins", []*event.Event{ev(t, "b", 2, identify(`{"plan":"new"}`)), ev(t, "a", 1, identify(`{"plan":"old","city":"Warsaw"}`))}, `{"city":"Warsaw","plan":"new"}`},
		{"null removes", []*event.Event{ev(t, "a", 1, identify(`{"plan":"x"}`)), ev(t, "b", 2, identify(`{"plan":null}`))}, `{}`},
		{"and stays removed", []*event.Event{ev(t, "b", 2, identify(`{"plan":null}`)), ev(t, "a", 1, identify(`{"plan":"x"}`))}, `{}`},
		{"until set again", []*event.Event{ev(t, "b", 2, identify(`{"plan":null}`)), ev(t, "c", 3, identify(`{"plan":"y"}`))}, `{"plan":"y"}`},
		{"values stay as they came", []*event.Event{ev(t, "a", 1, identify(`{"n":123456789012345678901234567890.10,"a":{"street":"X","zip":["1"]},"b":false}`))}, `{"a":{"street":"X","zip":["1"]},"b":false,"n":123456789012345678901234567890.10}`},
		{"context.traits of identify", []*event.Event{ev(t, "a", 1, `"type":"identify","context":{"traits":{"plan":"x"}}`)}, `{"plan":"x"}`},
		{"a copy on another call fills in", []*event.Event{ev(t, "a", 1, `"type":"page","context":{"traits":{"plan":"x"}}`)}, `{"plan":"x"}`},
		{"but does not undo what was said", []*event.Event{ev(t, "a", 1, identify(`{"plan":"pro"}`)), ev(t, "b", 2, `"type":"page","context":{"traits":{"plan":"free"}}`)}, `{"plan":"pro"}`},
		{"a group's traits are the group's", []*event.Event{ev(t, "a", 1, `"type":"group","groupId":"g","traits":{"employees":7}`)}, `{}`},
		{"too large", []*event.Event{ev(t, "a", 1, identify(`{"big":"`+strings.Repeat("x", MaxTraitValue)+`","`+strings.Repeat("n", MaxTraitName+1)+`":1,"ok":1}`))}, `{"ok":1}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, tc.want, traitsText(t, fold(t, rules, tc.events...)))
		})
	}
	s := fold(t, rules, evIn(t, "b1", "a", 1, identify(`{"tier":"gold","name":"N"}`)), evIn(t, "b2", "b", 2, identify(`{"tier":"none"}`)))
	require.Equal(t, `{"name":"N"}`, traitsText(t, s))
	d := s.Document("p")
	require.JSONEq(t, `{"tier":"gold"}`, text(t, d.Brands["b1"].Traits))
	require.JSONEq(t, `{"tier":"none"}`, text(t, d.Brands["b2"].Traits))
}

func TestOrders(t *testing.T) {
	completed := func(id string, n int, properties string) *event.Event {
		return ev(t, id, n, track("Order Completed", properties))
	}
	for _, tc := range []struct {
		name                   string
		events                 []*event.Event
		orders                 int64
		revenue, average, last string
	}{
		{"none", []*event.Event{ev(t, "a", 1, identify(`{}`))}, 0, `{}`, `{}`, "null"},
		{"total before revenue", []*event.Event{completed("a", 1, `{"order_id":"o","total":27.5,"revenue":25,"currency":"EUR"}`)}, 1,
			`{"EUR":"27.5000"}`, `{"EUR":"27.5000"}`, `{"id":"o","brand":"main","time":"2026-03-01T12:01:00.000Z","total":"27.5000","currency":"EUR"}`},
		{"two reports are one order, the newest counts", []*event.Event{
			completed("b", 5, `{"order_id":"o","total":30}`), completed("a", 1, `{"order_id":"o","total":27.5}`)}, 1,
			`{"USD":"30.0000"}`, `{"USD":"30.0000"}`, `{"id":"o","brand":"main","time":"2026-03-01T12:01:00.000Z","total":"30.0000","currency":"USD"}`},
		{"cancelled", []*event.Event{completed("a", 1, `{"order_id":"o","total":1}`), ev(t, "b", 2, track("Order Cancelled", `{"order_id":"o"}`))}, 0, `{}`, `{}`, "null"},
		{"cancelled, told before the order", []*event.Event{ev(t, "b", 2, track("Order Cancelled", `{"order_id":"o"}`)), completed("a", 1, `{"order_id":"o","total":1}`)}, 0, `{}`, `{}`, "null"},
		{"refunded keeps its revenue", []*event.Event{completed("a", 1, `{"order_id":"o","total":10}`), ev(t, "b", 2, track("Order Refunded", `{"order_id":"o","total":4}`))}, 1,
			`{"USD":"10.0000"}`, `{"USD":"10.0000"}`, `{"id":"o","brand":"main","time":"2026-03-01T12:01:00.000Z","total":"10.0000","currency":"USD"}`},
		{"a refund alone is no order", []*event.Event{ev(t, "b", 2, track("Order Refunded", `{"order_id":"o","total":4}`))}, 0, `{}`, `{}`, "null"},
		{"updated", []*event.Event{completed("a", 1, `{"order_id":"o","total":10}`), ev(t, "b", 2, track("Order Updated", `{"order_id":"o","total":8}`))}, 1,
			`{"USD":"8.0000"}`, `{"USD":"8.0000"}`, `{"id":"o","brand":"main","time":"2026-03-01T12:01:00.000Z","total":"8.0000","currency":"USD"}`},
		{"updated without money keeps it", []*event.Event{completed("a", 1, `{"order_id":"o","total":10}`), ev(t, "b", 2, track("Order Updated", `{"order_id":"o"}`))}, 1,
			`{"USD":"10.0000"}`, `{"USD":"10.0000"}`, `{"id":"o","brand":"main","time":"2026-03-01T12:01:00.000Z","total":"10.0000","currency":"USD"}`},
		{"average per currency, half to even", []*event.Event{completed("a", 1, `{"order_id":"1","total":"0.0001"}`), completed("b", 2, `{"order_id":"2","total":"0.0002"}`), completed("c", 3, `{"order_id":"3","total":9,"currency":"PLN"}`)}, 3,
			`{"PLN":"9.0000","USD":"0.0003"}`, `{"PLN":"9.0000","USD":"0.0002"}`, `{"id":"3","brand":"main","time":"2026-03-01T12:03:00.000Z","total":"9.0000","currency":"PLN"}`},
		{"one order id in two brands is two orders", []*event.Event{completed("a", 1, `{"order_id":"o","total":1}`), evIn(t, "other", "b", 1, track("Order Completed", `{"order_id":"o","total":1}`))}, 2,
			`{"USD":"2.0000"}`, `{"USD":"1.0000"}`, `{"id":"o","brand":"other","time":"2026-03-01T12:01:00.000Z","total":"1.0000","currency":"USD"}`},
		{"no amount", []*event.Event{completed("a", 1, `{"order_id":"o"}`)}, 1, `{}`, `{}`, `{"id":"o","brand":"main","time":"2026-03-01T12:01:00.000Z","total":"0.0000","currency":""}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := fold(t, &Rules{}, tc.events...).Document("p")
			require.Equal(t, tc.orders, d.Orders)
			require.Equal(t, tc.revenue, text(t, d.Revenue))
			require.Equal(t, tc.average, text(t, d.AverageOrderValue))
			require.Equal(t, tc.last, text(t, d.LastOrder))
		})
	}
}

func TestAMalformedPriceIsAnErrorButLosesNothingElse(t *testing.T) {
	s := fold(t, &Rules{}, ev(t, "a", 1, track("Product Added", `{"product_id":"p","price":1}`)))
	errs := s.Apply(ev(t, "b", 2, track("Order Completed", `{"order_id":"o","total":"12,50"}`)), &Rules{})
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "properties.total")
	d := s.Document("p")
	require.EqualValues(t, 2, d.Counts.Events)
	require.EqualValues(t, 1, d.Orders, "it was bought, whatever it cost")
	require.Empty(t, d.OpenCarts)
	errs = s.Apply(ev(t, "c", 3, track("Product Added", `{"product_id":"p","price":"1e999999"}`)), &Rules{})
	require.Len(t, errs, 1)
	require.EqualValues(t, 3, s.Document("p").Counts.Track)
}

func TestDocument(t *testing.T) {
	s := fold(t, &Rules{},
		ev(t, "a", 1, identify(`{"email":"a@x.example"}`)),
		ev(t, "b", 2, track("Order Completed", `{"order_id":"o","total":10,"currency":"EUR","products":[{"product_id":"p","price":5,"quantity":2},{"product_id":"q","price":0}]}`)),
		ev(t, "c", 3, track("Product Added", `{"cart_id":"c1","product_id":"p","variant":"red","name":"Shirt","price":12.5,"quantity":2,"currency":"EUR"}`)),
		ev(t, "d", 4, `"type":"page","name":"Home"`),
	)
	_, errs := s.Settle("id-1", &Audiences{}, at(5))
	require.Empty(t, errs)
	b, err := s.Encode("id-1")
	require.NoError(t, err)
	require.JSONEq(t, `{
		"id":"id-1","traits":{"email":"a@x.example"},
		"brands":{"main":{"traits":{},"firstSeen":"2026-03-01T12:01:00.000Z","lastSeen":"2026-03-01T12:04:00.000Z","events":4,"orders":1,"units":"3",
			"revenue":{"EUR":"10.0000"},"averageOrderValue":{"EUR":"10.0000"},"openCarts":1}},
		"firstSeen":"2026-03-01T12:01:00.000Z","lastSeen":"2026-03-01T12:04:00.000Z",
		"counts":{"events":4,"track":2,"identify":1,"page":1,"screen":0,"group":0,"alias":0,"byName":{"Order Completed":1,"Product Added":1},"otherNames":0},
		"orders":1,"units":"3","revenue":{"EUR":"10.0000"},"averageOrderValue":{"EUR":"10.0000"},
		"lastOrder":{"id":"o","brand":"main","time":"2026-03-01T12:02:00.000Z","total":"10.0000","currency":"EUR"},
		"openCarts":[{"brand":"main","id":"c1","items":"2","value":{"EUR":"25.0000"},"currency":"EUR","checkout":false,
			"firstActivity":"2026-03-01T12:03:00.000Z","lastActivity":"2026-03-01T12:03:00.000Z",
			"lines":[{"productId":"p","variant":"red","name":"Shirt","price":"12.5000","currency":"EUR","quantity":"2"}]}],
		"audiences":[],"updatedAt":"2026-03-01T12:04:03.000Z","version":4}`, string(b))

	later := ev(t, "e", 4+31*24*60, `"type":"page","name":"Home"`)
	require.Empty(t, s.Apply(later, &Rules{}))
	require.Empty(t, s.Document("id-1").OpenCarts, "a cart of a month ago is no open cart")
	require.Equal(t, at(4+31*24*60).Add(3*time.Second), s.AsOf())
}

// generated events: few names, ids and minutes, so that everything collides.
func genEvent(t *rapid.T, i int) *event.Event {
	n := rapid.IntRange(1, 8).Draw(t, "minute")
	brand := rapid.SampledFrom([]string{"b1", "b2"}).Draw(t, "brand")
	value := rapid.SampledFrom([]string{`null`, `1`, `"x"`, `{"k":[1,2]}`}).Draw(t, "value")
	trait := rapid.SampledFrom([]string{"plan", "city", "tier"}).Draw(t, "trait")
	amount := rapid.SampledFrom([]string{`{"order_id":%q}`, `{"order_id":%q,"total":1.5}`, `{"order_id":%q,"revenue":"2.25","currency":"PLN"}`, `{"order_id":%q,"total":"bad"}`,
		`{"order_id":%q,"quantity":3}`, `{"order_id":%q,"total":4,"quantity":0}`, `{"order_id":%q,"products":[{"product_id":"p","price":1,"quantity":"0.5"},{"product_id":"q"}]}`}).Draw(t, "amount")
	order := fmt.Sprintf(amount, rapid.SampledFrom([]string{"o1", "o2"}).Draw(t, "order"))
	product := fmt.Sprintf(`{"cart_id":"c","product_id":%q,"price":2,"quantity":%d}`, rapid.SampledFrom([]string{"p", "q"}).Draw(t, "product"), rapid.IntRange(1, 3).Draw(t, "quantity"))
	fields := rapid.SampledFrom([]string{
		identify(fmt.Sprintf(`{%q:%s}`, trait, value)),
		fmt.Sprintf(`"type":"page","name":"Home","context":{"traits":{%q:%s}}`, trait, value),
		track("Order Completed", order), track("Order Updated", order), track("Order Cancelled", order), track("Order Refunded", order),
		track("Product Added", product), track("Product Removed", product), track("Cart Viewed", `{"cart_id":"c","products":[`+product+`]}`),
		`"type":"group","groupId":"g"`,
	}).Draw(t, "event")
	id := fmt.Sprintf("m%d", i)
	body := fmt.Sprintf(`{"timestamp":%q,"userId":"u",%s}`, at(n).Format(timeLayout), fields)
	e, err := event.Decode([]byte(body), event.Meta{
		Source: "shop", Brand: brand, MessageID: id, Historical: rapid.Bool().Draw(t, "historical"),
		ReceivedAt: at(rapid.IntRange(1, 9).Draw(t, "received")),
	})
	require.NoError(t, err)
	return e
}

// tree folds each event once, over a random tree of merges.
func tree(t *rapid.T, rules *Rules, es []*event.Event) *State {
	var s State
	if len(es) < 2 || rapid.IntRange(0, 3).Draw(t, "leaf") == 0 {
		for _, e := range es {
			s.Apply(e, rules)
		}
		return &s
	}
	n := rapid.IntRange(0, len(es)).Draw(t, "split")
	left, right := tree(t, rules, es[:n]), tree(t, rules, es[n:])
	before := stored(t, right)
	left.Merge(right)
	require.Equal(t, before, stored(t, right), "Merge changed what it merged from")
	var back State // as keyed stores it
	require.NoError(t, back.UnmarshalBinary([]byte(stored(t, left))))
	return &back
}

func TestStateIsAFunctionOfTheSetOfEvents(t *testing.T) {
	rules := &Rules{BrandTraits: []string{"tier"}}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 14).Draw(t, "n")
		es := make([]*event.Event, n)
		for i := range es {
			es[i] = genEvent(t, i)
		}
		var want State
		for _, e := range es {
			want.Apply(e, rules)
		}
		got := tree(t, rules, rapid.Permutation(es).Draw(t, "order"))
		require.Equal(t, stored(t, &want), stored(t, got))
		require.Equal(t, text(t, want.Document("p")), text(t, got.Document("p")))
		b, err := got.Encode("p")
		require.NoError(t, err)
		require.JSONEq(t, text(t, want.Document("p")), string(b), "written without a Document")
		wantOrders, _ := want.Orders()
		gotOrders, _ := got.Orders()
		require.Equal(t, text(t, wantOrders), text(t, gotOrders))
		requireUnits(t, got)
	})
}

// requireUnits: the document's units are those of the orders that count, per brand and in all.
func requireUnits(t require.TestingT, s *State) {
	all, of := decimal.Decimal{}, map[string]decimal.Decimal{}
	orders, _ := s.Orders()
	for _, o := range orders {
		list := s.brand(o.Brand).orders.all()
		i := slices.IndexFunc(list, func(x order) bool { return x.ID == o.ID })
		if list[i].counts() && o.Units != nil {
			all, of[o.Brand] = all.Add(o.Units.Decimal), of[o.Brand].Add(o.Units.Decimal)
		}
	}
	d := s.Document("p")
	require.Equal(t, all.String(), d.Units.String())
	for name, b := range d.Brands {
		require.Equal(t, of[name].String(), b.Units.String())
	}
}

func TestUnits(t *testing.T) {
	completed := func(id string, n int, properties string) *event.Event {
		return ev(t, id, n, track("Order Completed", properties))
	}
	for _, tc := range []struct {
		name   string
		events []*event.Event
		want   string
	}{
		{"none", []*event.Event{ev(t, "a", 1, identify(`{}`))}, "0"},
		{"an order that names none", []*event.Event{completed("a", 1, `{"order_id":"o","total":1}`)}, "0"},
		{"of products", []*event.Event{completed("a", 1, `{"order_id":"o","products":[{"product_id":"p","quantity":2},{"product_id":"q"}]}`)}, "3"},
		{"of a whole order", []*event.Event{completed("a", 1, `{"order_id":"o","quantity":7}`)}, "7"},
		{"over currencies and brands", []*event.Event{completed("a", 1, `{"order_id":"1","total":1,"quantity":1}`),
			completed("b", 1, `{"order_id":"2","total":1,"currency":"PLN","quantity":0.25}`), evIn(t, "other", "c", 1, track("Order Completed", `{"order_id":"1","quantity":2}`))}, "3.25"},
		{"of two reports the newest", []*event.Event{completed("b", 5, `{"order_id":"o","quantity":3}`), completed("a", 1, `{"order_id":"o","quantity":2}`)}, "3"},
		{"updated", []*event.Event{completed("a", 1, `{"order_id":"o","quantity":3}`), ev(t, "b", 2, track("Order Updated", `{"order_id":"o","products":[]}`))}, "0"},
		{"updated without units keeps them", []*event.Event{completed("a", 1, `{"order_id":"o","quantity":3}`), ev(t, "b", 2, track("Order Updated", `{"order_id":"o","total":1}`))}, "3"},
		{"a refund's products are not the order's", []*event.Event{completed("a", 1, `{"order_id":"o","quantity":3}`), ev(t, "b", 2, track("Order Refunded", `{"order_id":"o","products":[{"product_id":"p"}]}`))}, "3"},
		{"cancelled", []*event.Event{completed("a", 1, `{"order_id":"o","quantity":3}`), ev(t, "b", 2, track("Order Cancelled", `{"order_id":"o"}`))}, "0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := fold(t, &Rules{}, tc.events...)
			require.Equal(t, tc.want, s.Document("p").Units.String())
			requireUnits(t, s)
		})
	}
}

func TestAStateOfBeforeUnitsIsRead(t *testing.T) {
	const old = `{"b":{"main":{"f":1,"l":1,"e":1,"o":{"o":{"p":1000,"s":"completed","t":1000,"i":7,"a":125000,"y":"USD","u":1000,"j":7}},"x":{"USD":{"n":2,"a":"3.5"}}}},"f":1,"l":1,"e":1}`
	var s State
	require.NoError(t, s.UnmarshalBinary([]byte(old)))
	d := s.Document("p")
	require.EqualValues(t, 3, d.Orders)
	require.Equal(t, `"0"`, text(t, d.Units))
	require.Empty(t, s.Apply(ev(t, "a", 1, track("Order Updated", `{"order_id":"o","quantity":4}`)), &Rules{}))
	require.Equal(t, `"4"`, text(t, s.Document("p").Units))
}

func TestOrderHistory(t *testing.T) {
	s := fold(t, &Rules{},
		ev(t, "a", 1, track("Order Completed", `{"order_id":"1","total":10,"currency":"EUR","products":[{"product_id":"p","quantity":2}]}`)),
		ev(t, "b", 2, track("Order Cancelled", `{"order_id":"1"}`)),
		ev(t, "c", 3, track("Order Completed", `{"order_id":"2"}`)),
		evIn(t, "other", "d", 3, track("Order Completed", `{"order_id":"2","total":0,"quantity":1}`)),
		ev(t, "e", 3, track("Order Completed", `{"order_id":"10","total":1.5}`)),
		ev(t, "f", 9, track("Order Refunded", `{"order_id":"lost","total":4}`)),
		ev(t, "g", 10, track("Order Updated", `{"order_id":"2","total":3}`)),
	)
	list, older := s.Orders()
	require.Zero(t, older)
	require.JSONEq(t, `[
		{"id":"lost","brand":"main","time":"2026-03-01T12:09:00.000Z","amount":"0.0000","currency":"","status":"refunded"},
		{"id":"10","brand":"main","time":"2026-03-01T12:03:00.000Z","amount":"1.5000","currency":"USD","status":"completed"},
		{"id":"2","brand":"main","time":"2026-03-01T12:03:00.000Z","amount":"3.0000","currency":"USD","status":"updated"},
		{"id":"2","brand":"other","time":"2026-03-01T12:03:00.000Z","amount":"0.0000","currency":"USD","units":"1","status":"completed"},
		{"id":"1","brand":"main","time":"2026-03-01T12:01:00.000Z","amount":"10.0000","currency":"EUR","units":"2","status":"cancelled"}
	]`, text(t, list))
	var nobody State
	list, older = nobody.Orders()
	require.Equal(t, "[] 0", fmt.Sprint(text(t, list), " ", older))
}

func TestNamesAndTraitsBeyondTheCapsConverge(t *testing.T) {
	const n = 40
	es := make([]*event.Event, 0, MaxNames+n)
	for i := range MaxNames + n {
		es = append(es, ev(t, fmt.Sprint("t", i), i, track(fmt.Sprint("Event ", i%(MaxNames+n/2)), `{}`)))
	}
	for i := range MaxTraits + n {
		es = append(es, ev(t, fmt.Sprint("i", i), i, identify(fmt.Sprintf(`{"trait %d":%d}`, i, i))))
	}
	want := fold(t, &Rules{}, es...)
	require.Len(t, want.names, MaxNames)
	require.Len(t, want.traits, MaxTraits)
	d := want.Document("p")
	sum := d.Counts.OtherNames
	for _, k := range d.Counts.ByName {
		sum += k
	}
	require.Equal(t, d.Counts.Track, sum, "none is lost")
	rapid.Check(t, func(t *rapid.T) {
		order := append([]*event.Event(nil), es...) // one drawn seed: drawing hundreds of places is slow
		seed := rapid.Uint64().Draw(t, "order")
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(order), func(i, j int) { //nolint:gosec // reproducible by the seed
			order[i], order[j] = order[j], order[i]
		})
		got := tree(t, &Rules{}, order)
		require.Equal(t, stored(t, want), stored(t, got))
	})
}

func TestOrdersBeyondTheCapStayCounted(t *testing.T) {
	var a, b State
	for i := range MaxOrders + 100 {
		s := &a
		if i%2 == 1 {
			s = &b
		}
		require.Empty(t, s.Apply(ev(t, fmt.Sprint("m", i), i, track("Order Completed", fmt.Sprintf(`{"order_id":"o%d","total":1.01,"quantity":2}`, i))), &Rules{}))
	}
	a.Merge(&b)
	d := a.Document("p")
	require.EqualValues(t, MaxOrders+100, d.Orders)
	require.Equal(t, "2121.0000", d.Revenue["USD"].StringFixed(4))
	require.Equal(t, "1.0100", d.AverageOrderValue["USD"].StringFixed(4))
	require.Equal(t, MaxOrders, a.brand("main").orders.len())
	require.Equal(t, fmt.Sprint(2*(MaxOrders+100)), d.Units.String())
	list, older := a.Orders()
	require.Len(t, list, MaxOrders)
	require.EqualValues(t, 100, older)
	require.Equal(t, fmt.Sprint("o", MaxOrders+99), list[0].ID, "the newest first")
	require.Equal(t, fmt.Sprint("o", MaxOrders+99), d.LastOrder.ID)
}

func TestARecordAlwaysFitsIntoKafka(t *testing.T) {
	rules := &Rules{BrandTraits: []string{"tier"}}
	line := fmt.Sprintf(`{"product_id":"%%s","price":1,"url":"https://x/%s","image_url":"https://x/%s"}`, strings.Repeat("u", 2000), strings.Repeat("i", 2000))
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf(line, fmt.Sprint("p", i)))
	}
	var es []*event.Event
	for i := range 3 {
		es = append(es, ev(t, fmt.Sprint("c", i), i, track("Cart Viewed", fmt.Sprintf(`{"cart_id":"c%d","products":[%s]}`, i, strings.Join(lines, ",")))))
	}
	s := fold(t, rules, es...)
	encode := func() (Document, []byte) {
		before := stored(t, s)
		b, err := s.Encode("p")
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), MaxDocument)
		require.Equal(t, before, stored(t, s), "Encode changes nothing")
		var d Document
		require.NoError(t, json.Unmarshal(b, &struct {
			*Document
			FirstSeen, LastSeen, UpdatedAt any
			OpenCarts, LastOrder           any
		}{Document: &d}))
		return d, b
	}
	d, b := encode()
	require.Equal(t, []string{"openCarts.lines"}, d.Truncated)
	require.Contains(t, string(b), `"value":{"USD":"200.0000"}`, "what the cart is worth stays")

	for i := range 200 {
		require.Empty(t, s.Apply(ev(t, fmt.Sprint("t", i), i, identify(fmt.Sprintf(`{"trait %d":%q,"name":"short"}`, i, strings.Repeat("x", 8000)))), rules))
	}
	d, _ = encode()
	require.Equal(t, []string{"openCarts.lines", "traits above 256 bytes"}, d.Truncated)
	require.JSONEq(t, `{"name":"short"}`, text(t, d.Traits))
}

func BenchmarkApply(b *testing.B) {
	events := []*event.Event{
		ev(b, "a", 1, identify(`{"email":"a@x.example","name":"A","plan":"pro","address":{"city":"Warsaw"}}`)),
		ev(b, "b", 2, `"type":"page","name":"Home"`),
		ev(b, "c", 3, track("Product Viewed", `{"product_id":"p","price":12.5}`)),
		ev(b, "d", 4, track("Product Added", `{"cart_id":"c1","product_id":"p","price":12.5,"quantity":2,"currency":"EUR"}`)),
		ev(b, "e", 5, track("Order Completed", `{"order_id":"o","total":25,"currency":"EUR"}`)),
	}
	rules := &Rules{BrandTraits: []string{"tier"}}
	b.ReportAllocs()
	var s State
	for i := range b.N {
		s.Apply(events[i%len(events)], rules)
	}
}

// BenchmarkStored is the whole way of one event in a batch of its own: read the state, apply, settle, render
// and write.
func BenchmarkStored(b *testing.B) {
	var s State
	for i := range 20 {
		s.Apply(ev(b, fmt.Sprint("o", i), i, track("Order Completed", fmt.Sprintf(`{"order_id":"o%d","total":25}`, i))), &Rules{})
	}
	s.Apply(ev(b, "i", 3, identify(`{"email":"a@x.example","name":"A","plan":"pro"}`)), &Rules{})
	stored, err := s.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	as, err := ParseAudiences("a.yaml", []byte("audiences: [{name: a, when: 'profile.revenue[\"USD\"] > 100.0'}, {name: b, when: 'profile.orders >= 2'}]"))
	if err != nil {
		b.Fatal(err)
	}
	e := ev(b, "b", 2, `"type":"page","name":"Home"`)
	b.ReportAllocs()
	for range b.N {
		var s State
		if err := s.UnmarshalBinary(stored); err != nil {
			b.Fatal(err)
		}
		s.Apply(e, &Rules{})
		s.Settle("p", as, base)
		if _, err := s.Encode("p"); err != nil {
			b.Fatal(err)
		}
		if stored, err = s.MarshalBinary(); err != nil {
			b.Fatal(err)
		}
	}
}
