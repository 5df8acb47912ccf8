package journey_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
)

func TestWithdrawn(t *testing.T) {
	const (
		order   = `"type":"track","event":"Order Completed","properties":{"order_id":"o1","total":10}`
		leave   = `"type":"track","event":"Unsubscribed","properties":{"channel":"email"}`
		comeIn  = `"type":"track","event":"Subscribed","properties":{"channel":"email"}`
		deny    = `"type":"track","event":"Consent Updated","properties":{"channel":"email","purpose":"marketing","status":"denied"}`
		further = `"type":"track","event":"Consent Updated","properties":{"channel":"email","purpose":"research","status":"denied"}`
		texts   = `"type":"track","event":"Unsubscribed","properties":{"channel":"sms"}`
	)
	elsewhere := func(m *event.Meta) { m.Brand = "other" }
	old := func(m *event.Meta) { m.Historical = true }
	cases := map[string]struct {
		then func(h *shop)
		want string
	}{
		"nothing happened": {func(*shop) {}, ""},
		"bought":           {func(h *shop) { h.send(h.now, order) }, journey.ReasonPurchased},
		"bought before it was due, told late": {
			func(h *shop) { h.send(h.now.Add(-50*time.Minute), order, old) }, journey.ReasonPurchased,
		},
		"an order from before the cart": {func(h *shop) { h.send(h.now.Add(-3*time.Hour), order, old) }, ""},
		"bought, and a new cart begun": {
			func(h *shop) { h.send(h.now, order); h.wait(time.Minute); h.add("c1", "pot") }, journey.ReasonPurchased,
		},
		"bought at another brand":    {func(h *shop) { h.send(h.now, order, elsewhere) }, ""},
		"looked at the cart again":   {func(h *shop) { h.add("c1", "pot") }, ""},
		"unsubscribed":               {func(h *shop) { h.send(h.now, leave) }, journey.ReasonUnsubscribed},
		"unsubscribed and came back": {func(h *shop) { h.send(h.now, leave); h.wait(time.Minute); h.send(h.now, comeIn) }, ""},
		"unsubscribed elsewhere":     {func(h *shop) { h.send(h.now, leave, elsewhere) }, ""},
		"unsubscribed from texts":    {func(h *shop) { h.send(h.now, texts) }, ""},
		"denied":                     {func(h *shop) { h.send(h.now, deny) }, journey.ReasonConsentDenied},
		"denied another purpose":     {func(h *shop) { h.send(h.now, further) }, ""},
		"bought, denied and unsubscribed": {
			func(h *shop) { h.send(h.now, leave); h.send(h.now, deny); h.send(h.now, order) }, journey.ReasonPurchased,
		},
		"found to be one who unsubscribed": {
			func(h *shop) {
				o := newShop(h, h.d).reachable()
				o.now = h.now
				o.send(o.now, leave)
				h.take(h.d.Merge("p1", &h.s, o.s, h.now))
			}, journey.ReasonUnsubscribed,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := newShop(t, decider(parse(t, journeyFile))).reachable()
			h.add("c1", "tea")
			h.wait(time.Hour)
			require.Len(t, h.requests, 1)
			r := h.requests[0]
			require.Equal(t, noon.UnixMilli(), r.ChangedAt)
			h.wait(time.Minute)
			tc.then(h)
			require.Equal(t, tc.want, journey.Withdrawn(&h.s, &r, h.d.Suppressed))
		})
	}

	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	h.add("c1", "tea")
	h.wait(time.Hour)
	r := h.requests[0]
	require.Equal(t, journey.ReasonNoConsent, journey.Withdrawn(nil, &r, h.d.Suppressed), "of nobody nothing is known")
	require.Equal(t, journey.ReasonNoConsent, journey.Withdrawn(&journey.State{}, &r, h.d.Suppressed))
	r.To = "Never@example.com"
	require.Equal(t, journey.ReasonSuppressedList, journey.Withdrawn(&h.s, &r, h.d.Suppressed))
	require.Equal(t, journey.ReasonSuppressedList, journey.Withdrawn(nil, &r, h.d.Suppressed))
}
