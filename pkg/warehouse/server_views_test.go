//go:build integration

package warehouse

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/topic"
)

// shop writes a small shop's journeys, one row per call, and reads views.
type shop struct {
	*Client
	t      *testing.T
	start  time.Time
	offset uint64
}

func newShop(t *testing.T) *shop {
	return &shop{newDatabase(t), t, time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), 0}
}

func (s *shop) origin() Origin {
	s.offset++
	return Origin{Topic: "weft.t", Partition: 0, Offset: s.offset}
}

func insertOne[R any](s *shop, table Table[R], row R) {
	s.t.Helper()
	b := table.NewBlock()
	b.Add(&row)
	require.NoError(s.t, s.Insert(s.t.Context(), b, token(uuid.NewString()), time.Now))
}

// event stores one event of a person, minutes after the start.
func (s *shop) event(person int, minutes float64, name string, set ...func(*Event)) {
	s.t.Helper()
	at := s.start.Add(time.Duration(minutes * float64(time.Minute)))
	e := Event{
		Origin: s.origin(), Brand: "main", Source: "web", Type: "track", Name: name, Profile: id(person),
		MessageID: fmt.Sprint("m", s.offset), Time: at, ReceivedAt: at, DeviceType: "desktop",
	}
	for _, f := range set {
		f(&e)
	}
	insertOne(s, Events(), e)
}

func (s *shop) redirect(from, to int, version uint64) {
	s.t.Helper()
	insertOne(s, Redirects(), Redirect{Origin: s.origin(), Profile: id(from), Current: id(to), Version: version})
}

func (s *shop) receipt(person int, minutes float64, outcome, reason string) {
	s.t.Helper()
	insertOne(s, Receipts(), Receipt{
		Origin: s.origin(), Brand: "main", Journey: "abandoned-cart", Channel: "email", Outcome: outcome, Reason: reason,
		ID: fmt.Sprint("r", s.offset), Profile: id(person), ArmedAt: s.start,
		SettledAt: s.start.Add(time.Duration(minutes * float64(time.Minute))),
	})
}

func parseAmount(text string) Amount { return AmountOf(decimal.RequireFromString(text)) }

func mobile(e *Event)              { e.DeviceType = "mobile" }
func order(id string) func(*Event) { return func(e *Event) { e.OrderID = id } }
func total(text string) func(*Event) {
	return func(e *Event) { e.Total = parseAmount(text) }
}
func revenue(text string) func(*Event) {
	return func(e *Event) { e.Revenue = parseAmount(text) }
}
func price(text string) func(*Event) {
	return func(e *Event) { e.Price = parseAmount(text) }
}
func cart(id string) func(*Event) { return func(e *Event) { e.CartID = id } }

// lines is the first column of a query's answer.
func (s *shop) lines(sql string) []string {
	s.t.Helper()
	res, err := s.Query(s.t.Context(), sql)
	require.NoError(s.t, err)
	var out []string
	for _, r := range res.Rows {
		out = append(out, r[0])
	}
	return out
}

func TestTodaysPersonIsFlatWhateverTheOrder(t *testing.T) {
	s := newShop(t)
	s.event(1, 0, "A")
	s.event(2, 1, "B")
	s.event(3, 2, "C")
	s.event(4, 3, "D")
	// 1 -> 2 (v2), then {1,2} -> 3 (v3): the newer row comes first.
	s.redirect(1, 3, 3)
	s.redirect(2, 3, 3)
	require.NoError(t, s.ReloadPersons(t.Context()))
	s.redirect(1, 2, 2)
	require.NoError(t, s.ReloadPersons(t.Context()))
	people := func() string {
		return scalar[string](t, s.Client, `SELECT arrayStringConcat(groupArray(name || '=' || toString(toUInt64(right(toString(person_id), 4)))), ' ')
			FROM (SELECT name, person_id FROM ${database}.events_by_person ORDER BY name)`)
	}
	require.Equal(t, "A=3 B=3 C=3 D=4", people())
	s.redirect(3, 4, 9)
	s.redirect(2, 4, 9)
	s.redirect(1, 4, 9)
	require.NoError(t, s.ReloadPersons(t.Context()))
	require.Equal(t, "A=4 B=4 C=4 D=4", people())
	require.EqualValues(t, 4, scalar[uint64](t, s.Client, "SELECT count() FROM ${database}.person_timeline(person = ?)", id(1).String()))
	require.EqualValues(t, 4, scalar[uint64](t, s.Client, "SELECT count() FROM ${database}.person_timeline(person = ?)", id(4).String()))
	require.EqualValues(t, 0, scalar[uint64](t, s.Client, "SELECT count() FROM ${database}.person_timeline(person = ?)", id(9).String()))
}

func TestFunnelCountsPeopleByFirstDevice(t *testing.T) {
	s := newShop(t)
	// 1 sees on the telephone, and orders on the desktop under another profile that becomes theirs; names in
	// every notation.
	s.event(1, 0, "Product Viewed", mobile)
	s.event(1, 1, "added_product", mobile)
	s.event(2, 2, "STARTED ORDER")
	s.event(2, 3, "Completed-Order", order("o1"))
	s.redirect(2, 1, 2)
	s.event(3, 0, "Viewed Product")
	s.event(3, 1, "Product Added")
	s.event(4, 0, "product viewed")
	s.event(5, 0, "Product Added") // never viewed: not in the funnel
	s.event(6, 0, "Product Viewed", func(e *Event) { e.Brand = "other" })
	s.event(7, 0, "Product Viewed")
	s.event(7, 3000, "Product Added") // too late
	require.NoError(t, s.ReloadPersons(t.Context()))
	type row struct {
		Brand    string  `ch:"brand"`
		Device   string  `ch:"device"`
		Viewed   uint64  `ch:"viewed"`
		Added    uint64  `ch:"added"`
		Checkout uint64  `ch:"checkout"`
		Ordered  uint64  `ch:"ordered"`
		Rate     float64 `ch:"conversion"`
	}
	var got []row
	require.NoError(t, s.Select(t.Context(), &got, "SELECT * FROM ${database}.funnel(from = '2026-03-01 00:00:00', to = '2026-03-31', brand = '', window = 86400) ORDER BY brand, device"))
	require.Equal(t, []row{{"main", "desktop", 3, 1, 0, 0, 0}, {"main", "mobile", 1, 1, 1, 1, 1}, {"other", "desktop", 1, 0, 0, 0, 0}}, got)
	got = nil
	require.NoError(t, s.Select(t.Context(), &got, "SELECT * FROM ${database}.funnel(from = '2026-03-01', to = '2026-03-31', brand = 'other', window = 86400)"))
	require.Len(t, got, 1)
	got = nil
	require.NoError(t, s.Select(t.Context(), &got, "SELECT * FROM ${database}.funnel(from = '2026-02-01', to = '2026-03-01', brand = '', window = 86400)"))
	require.Empty(t, got)
}

func TestSessionsEndAfterThirtyMinutes(t *testing.T) {
	s := newShop(t)
	s.event(1, 0, "A")
	s.event(1, 30, "B") // thirty minutes are still one session
	s.event(1, 60.001, "C")
	s.event(1, 61, "D", mobile)
	s.event(2, 62, "E") // the same person
	s.event(1, 63, "F", func(e *Event) { e.Brand = "other" })
	s.redirect(2, 1, 2)
	require.NoError(t, s.ReloadPersons(t.Context()))
	var got []struct {
		Brand   string `ch:"brand"`
		Device  string `ch:"device"`
		Session uint64 `ch:"session"`
		Events  uint64 `ch:"events"`
		Seconds int64  `ch:"seconds"`
	}
	require.NoError(t, s.Select(t.Context(), &got, "SELECT brand, device, toUInt64(session) AS session, events, toInt64(seconds) AS seconds FROM ${database}.sessions ORDER BY brand, device, session"))
	require.Equal(t, "[{main desktop 1 2 1800} {main desktop 2 2 120} {main mobile 1 1 0} {other desktop 1 1 0}]", fmt.Sprint(got))
}

func TestOrdersAreOneWhoeverReportsThem(t *testing.T) {
	s := newShop(t)
	s.event(1, 0, "Order Completed", order("o1"), total("10.50"), revenue("9"))
	s.event(1, 5, "order_completed", order("o1"), func(e *Event) { e.Source, e.Trusted, e.Profile = "erp", true, id(2) })
	s.event(3, 6, "Order Completed", order("o2"), revenue("5"), func(e *Event) { e.Currency = "EUR" })
	s.event(3, 7, "Order Updated", order("o2"), revenue("6"), func(e *Event) { e.Currency = "EUR" })
	s.event(3, 8, "Order Completed", order("o3"), total("1"))
	s.event(3, 9, "Order Canceled", order("o3"))
	s.event(3, 9, "Order Refunded", order("unknown"))
	s.event(4, 9, "Order Completed", total("2500315.63"), func(e *Event) { e.CheckoutID = "c9"; e.Historical = true })
	s.event(4, 9, "Order Completed", order("o1"), total("1"), func(e *Event) { e.Brand = "other" })
	require.NoError(t, s.ReloadPersons(t.Context()))
	got := s.lines(`SELECT concat(brand, ' ', order_id, ' ', right(toString(person_id), 1), ' ', toString(amount), ' ', toString(revenue), ' ', currency,
		' ', toString(reports), if(cancelled, ' cancelled', ''), if(historical, ' historical', '')) FROM ${database}.orders ORDER BY brand, order_id`)
	require.Equal(t, []string{
		"main c9 4 2500315.63 2500315.63 USD 1 historical",
		"main o1 2 10.5 9 USD 2", // whom the trusted source names
		"main o2 3 6 6 EUR 2",
		"main o3 3 1 1 USD 2 cancelled",
		"other o1 4 1 1 USD 1",
	}, got)
}

func TestCartsAreAbandonedOrderedOrEmptied(t *testing.T) {
	s := newShop(t)
	add := func(person int, minutes float64, amount string, set ...func(*Event)) {
		s.event(person, minutes, "Product Added", append(set, price(amount))...)
	}
	add(1, 0, "10", cart("c1")) // ordered on another device
	s.event(2, 10, "Order Completed", order("o1"), total("10"))
	s.redirect(2, 1, 2)
	add(3, 0, "7.5", cart("c3"), mobile) // abandoned
	add(3, 1, "2.5", cart("c3"), mobile)
	s.event(3, 2, "Product Removed", cart("c3"), mobile, price("2.5"))
	add(4, 0, "5") // ordered, but too late; and a second cart behind that order, with a checkout
	s.event(4, 3000, "Order Completed", order("o4"), total("5"))
	add(4, 3001, "6")
	s.event(4, 3002, "Checkout Started", func(e *Event) { e.Value = parseAmount("60") })
	add(5, 0, "5")
	s.event(5, 1, "Product Removed", price("5")) // emptied
	add(6, 0, "5")
	s.event(6, 1, "Cart Cleared")
	insertOne(s, Events(), Event{Origin: s.origin(), Brand: "main", Type: "track", Name: "Product Added", Profile: id(7), Time: time.Now(), ReceivedAt: time.Now()})
	require.NoError(t, s.ReloadPersons(t.Context()))
	got := s.lines(`SELECT concat(right(toString(person_id), 1), ' ', cart_id, ' ', status, ' ', toString(cart_value))
		FROM ${database}.carts(within = 86400) ORDER BY right(toString(person_id), 1), armed_at`)
	require.Equal(t, []string{"1 c1 ordered 10", "3 c3 abandoned 7.5", "4  abandoned 5", "4  abandoned 60", "5  emptied 0", "6  emptied 0", "7  open 0"}, got)
	var rates []struct {
		Device    string          `ch:"device"`
		Carts     uint64          `ch:"carts"`
		Abandoned uint64          `ch:"abandoned"`
		Rate      float64         `ch:"rate"`
		Risk      decimal.Decimal `ch:"value_at_risk"`
	}
	require.NoError(t, s.Select(t.Context(), &rates, `SELECT device, carts, abandoned, rate, value_at_risk
		FROM ${database}.cart_abandonment(from = '2026-03-01', to = '2026-04-01', brand = 'main', within = 86400) ORDER BY device`))
	require.Equal(t, "[{desktop 3 2 0.6667 65} {mobile 1 1 1 7.5}]", fmt.Sprint(rates))
}

func TestRecoveryCreditsTheLastMessage(t *testing.T) {
	s := newShop(t)
	s.receipt(1, 0, "delivered", "sent")
	s.receipt(1, 60, "delivered", "sent")
	s.event(1, 90, "Order Completed", order("o1"), total("12"), revenue("10"))
	s.event(1, 95, "Order Completed", order("o2"), revenue("99")) // the message's second order
	s.receipt(2, 0, "suppressed", "purchased")
	s.event(2, 10, "Order Completed", order("o3"), revenue("5"))
	s.receipt(3, 0, "delivered", "sent")
	s.event(4, 5000, "Order Completed", order("o4"), revenue("5")) // too late
	s.redirect(4, 3, 2)
	s.receipt(5, 30, "delivered", "sent")
	s.event(5, 10, "Order Completed", order("o5"), revenue("5")) // before: a false send
	require.NoError(t, s.ReloadPersons(t.Context()))
	got := s.lines(`SELECT concat(journey, ' ', currency, ' ', toString(recovered), ' ', toString(revenue))
		FROM ${database}.recovery(from = '2026-03-01', to = '2026-03-02', brand = '', within = 259200)`)
	require.Equal(t, []string{"abandoned-cart USD 1 10"}, got)
	got = s.lines("SELECT concat(recovered_order, ' ', toString(settled_at)) FROM ${database}.recovered_carts(from = '2026-03-01', to = '2026-03-02', brand = 'main', within = 259200)")
	require.Equal(t, []string{"o1 2026-03-01 11:00:00.000"}, got)
	got = s.lines("SELECT concat(order_id, ' ', toString(order_known)) FROM ${database}.false_sends")
	require.Equal(t, []string{"o5 1"}, got)
	got = s.lines("SELECT concat(outcome, ' ', reason, ' ', toString(carts)) FROM ${database}.messages_by_outcome ORDER BY outcome")
	require.Equal(t, []string{"delivered sent 4", "suppressed purchased 1"}, got)
}

func TestPeopleMergesAndAudiences(t *testing.T) {
	s := newShop(t)
	p := func(person int, version uint64, orders uint64, tombstone bool) {
		insertOne(s, Profiles(), Profile{Origin: s.origin(), ID: id(person), Version: version, Orders: orders, Tombstone: tombstone,
			Units:   Amount{Units: int64(orders) * 5000},
			Revenue: []Money{{"EUR", Amount{Units: int64(orders) * 10000}}}, Audiences: []string{"vip"}})
	}
	p(1, 5, 3, false)
	p(1, 4, 2, false) // older, comes later
	p(2, 1, 1, false)
	p(2, 2, 0, true)
	for n := range 2 {
		insertOne(s, Identities(), Identity{Origin: s.origin(), Loser: id(2), Winner: id(1), Version: uint64(2 + n), Rule: "same_event",
			Time: s.start, ReceivedAt: s.start, Type: "email", Value: "secret@example.org"})
	}
	a := func(person, minutes int, change string, version uint64) {
		at := s.start.Add(time.Duration(minutes) * time.Minute)
		insertOne(s, AudienceChanges(), AudienceChange{Origin: s.origin(), Audience: "vip", Change: change, Profile: id(person), Time: at, ReceivedAt: at, Version: version})
	}
	a(1, 0, "entered", 1)
	a(3, 0, "entered", 1)
	a(3, 1, "left", 2)
	got := s.lines("SELECT concat(right(toString(person_id), 1), ' ', toString(orders), ' ', toString(units), ' ', toString(revenue['EUR'])) FROM ${database}.people")
	require.Equal(t, []string{"1 3 1.5 3"}, got)
	got = s.lines("SELECT concat(rule, ' ', toString(version), ' ', arrayStringConcat(evidence, ',')) FROM ${database}.merges")
	require.Equal(t, []string{"same_event 3 email"}, got)
	got = s.lines("SELECT concat(audience, ' ', right(toString(person_id), 1)) FROM ${database}.audience_members")
	require.Equal(t, []string{"vip 1"}, got)
}

func TestBalancesCloseTheAccount(t *testing.T) {
	s := newShop(t)
	set := topic.Set{Prefix: "weft.", Partitions: 12}
	s.event(1, 0, "A")
	s.event(1, 0.5, "B")
	s.event(1, 1, "C")
	reject := func(service, reason, topicName string) {
		o := s.origin()
		o.Topic = topicName
		insertOne(s, RejectedEvents(), Rejected{Origin: o, Brand: "main", Source: "web", Service: service, Reason: reason, ReceivedAt: s.start, Error: "why"})
	}
	reject(topic.StageStitcher, "duplicate", "weft.events.rejected")
	reject(topic.StageCollector, "invalid_json", "weft.events.rejected")
	reject(topic.StageBuilder, "poison", "weft.events.rejected") // stored all the same
	reject(topic.StageWriter, "invalid_json", "weft.events.identified")
	reject(topic.StageWriter, "invalid_record", "weft.profiles.changed")
	got, err := s.Balances(t.Context(), set, s.start, s.start.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, []Balance{
		{Brand: "main", Source: "web", Minute: s.start, Stored: 2, Duplicate: 1, Rejected: 2, Later: 2},
		{Brand: "main", Source: "web", Minute: s.start.Add(time.Minute), Stored: 1},
	}, got)
	got, err = s.Balances(t.Context(), set, s.start.Add(-time.Hour), s.start)
	require.NoError(t, err)
	require.Empty(t, got)
	rejections, err := s.Rejections(t.Context(), s.start, s.start.Add(time.Hour))
	require.NoError(t, err)
	require.Len(t, rejections, 5)
	require.Equal(t, "why", rejections[0].Example)
	stored, err := s.StoredOffsets(t.Context(), TableEvents, "weft.t", 0, 2, 4, time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.Equal(t, map[uint64]bool{2: true, 3: true}, stored)
	stored, err = s.StoredOffsets(t.Context(), TableEvents, "weft.t", 0, 0, 99, time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Empty(t, stored)
}
