package journey_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

const journeyFile = `name: abandoned-cart
arms: cart
delay: 1h
channel: email
purpose: marketing
minimum_value: 5
from: Shop <shop@example.com>
subject: "{{.Person.FirstName}}, {{.Cart.Items}} items"
text: |
  {{range .Lines}}{{.Name}} {{money .Total .Currency}}
  {{end}}{{.UnsubscribeURL}}
`

func parse(t testing.TB, src string) *journey.Journey {
	t.Helper()
	j, faults := journey.Parse("test.yaml", []byte(src))
	require.Empty(t, faults)
	return j
}

func decider(js ...*journey.Journey) *journey.Decider {
	return &journey.Decider{
		Journeys: js,
		Version: func(name, version string) (*journey.Journey, error) {
			for _, j := range js {
				if j.Name == name && j.Version == version {
					return j, nil
				}
			}
			return nil, nil
		},
		Suppressed: func(a string) bool { return strings.EqualFold(a, "never@example.com") },
		Channels:   map[string]bool{"email": true},
		Unsubscribe: func(r *journey.Request) string {
			return "https://u.example/" + r.Profile + "/" + r.Brand + "/" + r.Channel
		},
	}
}

// shop drives one person through a decider.
type shop struct {
	testing.TB
	d        *journey.Decider
	s        journey.State
	now      time.Time
	n        int
	requests []journey.Request
	receipts []journey.Receipt
	armed    int
	capped   int
}

func newShop(t testing.TB, d *journey.Decider) *shop { return &shop{TB: t, d: d, now: noon} }

func (h *shop) take(r journey.Result) {
	h.requests = append(h.requests, r.Requests...)
	h.receipts = append(h.receipts, r.Receipts...)
	h.armed += r.Armed
	h.capped += r.Capped
}

func decode(t testing.TB, body string, m event.Meta) *event.Event {
	t.Helper()
	e, err := event.Decode([]byte(body), m)
	require.NoError(t, err)
	return e
}

// send sends a body's members after type, as of at, received now.
func (h *shop) send(at time.Time, body string, change ...func(*event.Meta)) {
	h.Helper()
	h.n++
	m := event.Meta{Source: "web", Brand: "main", MessageID: fmt.Sprint("m", h.n), ReceivedAt: h.now}
	for _, c := range change {
		c(&m)
	}
	full := fmt.Sprintf(`{"anonymousId":"a","timestamp":%q,%s}`, at.Format(time.RFC3339Nano), body)
	h.take(h.d.Observe("p1", &h.s, decode(h, full, m), h.now))
}

func (h *shop) add(cart, product string) {
	h.send(h.now, fmt.Sprintf(`"type":"track","event":"Product Added","properties":{"cart_id":%q,"product_id":%q,"name":"Tea","price":10,"currency":"EUR"}`, cart, product))
}

func (h *shop) reachable() *shop {
	h.send(h.now, `"type":"identify","traits":{"email":"ada@example.com","firstName":"Ada","consent":{"email":{"marketing":true}}}`)
	return h
}

// wait moves the clock and fires what is due.
func (h *shop) wait(d time.Duration) {
	h.now = h.now.Add(d)
	if due, ok := h.s.Due(); ok && !due.After(h.now) {
		h.take(h.d.Fire("p1", &h.s, h.now))
		if due, ok := h.s.Due(); ok {
			require.True(h, due.After(h.now), "due again at once")
		}
	}
}

func (h *shop) only(outcome, reason string) journey.Receipt {
	h.Helper()
	require.Empty(h, h.requests)
	require.Len(h, h.receipts, 1)
	require.Equal(h, outcome+"/"+reason, h.receipts[0].Outcome+"/"+h.receipts[0].Reason)
	return h.receipts[0]
}

func TestReminder(t *testing.T) {
	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	h.add("c1", "tea")
	h.wait(59 * time.Minute)
	require.Empty(t, h.requests)
	h.send(h.now, `"type":"page","name":"Home"`) // activity begins the delay anew
	h.wait(59 * time.Minute)
	require.Empty(t, h.requests)
	h.wait(time.Minute)
	require.Empty(t, h.receipts, "whoever delivers writes the receipt")
	require.Len(t, h.requests, 1)
	r := h.requests[0]
	require.Equal(t, "Ada, 1 items", r.Subject)
	require.Equal(t, "Tea 10.00 EUR\nhttps://u.example/p1/main/email", r.Text[:len(r.Text)-1])
	require.Equal(t, "ada@example.com", r.To)
	require.Equal(t, "<https://u.example/p1/main/email>", r.Headers["List-Unsubscribe"])
	require.Equal(t, noon.UnixMilli(), r.ArmedAt)
	require.Equal(t, noon.Add(119*time.Minute).UnixMilli(), r.DueAt)
	require.True(t, decimal.NewFromInt(10).Equal(r.Cart.Value))
	_, waits := h.s.Due()
	require.False(t, waits)
}

func TestRequestAndReceiptAsPublished(t *testing.T) {
	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	h.add("c1", "tea")
	h.wait(time.Hour)
	b, err := journey.Encode(h.requests[0])
	require.NoError(t, err)
	r, err := journey.DecodeRequest(b)
	require.NoError(t, err)
	require.Equal(t, h.requests[0].Subject, r.Subject)
	b, err = journey.Encode(r.Settle(journey.Delivered, journey.ReasonSent, "", 5))
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, map[string]any{"id": "c1", "value": "10", "currency": "EUR", "items": "1"}, got["cart"])
	require.Equal(t, r.ID, got["message"])
	_, err = journey.DecodeRequest([]byte(`{"id":"x"}`))
	require.Error(t, err)
	_, err = journey.DecodeRequest([]byte(`[`))
	require.Error(t, err)
}

func TestReasonsNotToSend(t *testing.T) {
	cases := map[string]struct {
		want string
		do   func(h *shop)
	}{
		"bought": {"purchased", func(h *shop) {
			h.reachable().add("c1", "tea")
			h.now = h.now.Add(time.Hour - time.Second)
			// The till's clock is an hour late, and it knows no cart.
			h.send(h.now.Add(-time.Hour), `"type":"track","event":"Order Completed","properties":{"order_id":"o","total":"broken"}`)
		}},
		"browser ahead of the till": {"purchased", func(h *shop) {
			h.reachable()
			h.send(h.now.Add(4*time.Minute), `"type":"track","event":"Product Added","properties":{"product_id":"p","price":10}`)
			h.now = h.now.Add(time.Minute)
			h.send(h.now, `"type":"track","event":"Order Completed","properties":{"order_id":"o"}`)
		}},
		"browser ahead that says so": {"purchased", func(h *shop) {
			h.reachable()
			ahead := h.now.Add(4 * time.Minute)
			sent := func(m *event.Meta) { m.SentAt = ahead.Add(time.Second) }
			h.send(ahead, `"type":"track","event":"Cart Viewed","properties":{"currency":"EUR","products":[{"product_id":"p","price":1}]}`, sent)
			h.send(ahead.Add(time.Millisecond), `"type":"track","event":"Product Added","properties":{"product_id":"q","price":10,"currency":"EUR"}`, sent)
			require.Equal(h, "11", h.s.Brands["main"].Carts.Open()[0].Cart().Value["EUR"].String(), "what it sent keeps its order")
			h.now = h.now.Add(time.Second)
			h.send(h.now, `"type":"track","event":"Order Completed","properties":{"order_id":"o"}`)
		}},
		"emptied": {"emptied", func(h *shop) {
			h.reachable().add("c1", "tea")
			h.now = h.now.Add(time.Second)
			h.send(h.now, `"type":"track","event":"Product Removed","properties":{"cart_id":"c1","product_id":"tea"}`)
			require.Empty(h, h.receipts, "only when due")
		}},
		"small": {"below_minimum", func(h *shop) {
			h.reachable()
			h.send(h.now, `"type":"track","event":"Product Added","properties":{"product_id":"p","price":"4.9999"}`)
		}},
		"history": {"historical", func(h *shop) {
			h.reachable()
			h.send(h.now.AddDate(-29, 0, 0), `"type":"track","event":"Product Added","properties":{"product_id":"p","price":10}`, func(m *event.Meta) { m.Historical = true })
			h.wait(0)
		}},
		"history that nobody marked": {"historical", func(h *shop) {
			h.now = h.now.AddDate(-29, 0, 0)
			h.reachable().add("c", "tea")
			h.now = noon
		}},
		"unknown consent": {"no_consent", func(h *shop) {
			h.send(h.now, `"type":"identify","traits":{"email":"ada@example.com","consent":{"sms":{"marketing":true},"email":{"service":true}}}`)
			h.add("c1", "tea")
		}},
		"consent of another brand": {"no_consent", func(h *shop) {
			h.send(h.now, `"type":"identify","traits":{"email":"ada@example.com","consent":{"email":{"marketing":true}}}`, func(m *event.Meta) { m.Brand = "outlet" })
			h.add("c1", "tea")
		}},
		"denied": {"consent_denied", func(h *shop) {
			h.reachable().add("c1", "tea")
			h.now = h.now.Add(time.Second)
			h.send(h.now, `"type":"track","event":"Consent Updated","properties":{"channel":"email","purpose":"marketing","status":"denied"}`)
		}},
		"denied beats an older yes that comes late": {"consent_denied", func(h *shop) {
			h.send(h.now, `"type":"identify","traits":{"email":"ada@example.com","consent":{"email":{"marketing":"denied"}}}`)
			h.send(h.now.Add(-time.Hour), `"type":"track","event":"consent_updated","properties":{"channel":"email","purpose":"marketing","status":"granted"}`)
			h.add("c1", "tea")
		}},
		"unsubscribed": {"unsubscribed", func(h *shop) {
			h.reachable().add("c1", "tea")
			h.now = h.now.Add(time.Second)
			h.send(h.now, `"type":"track","event":"Unsubscribed","properties":{"channel":"email"}`)
			h.send(h.now.Add(-time.Minute), `"type":"track","event":"Subscribed","properties":{"channel":"email"}`)
		}},
		"on the list": {"suppression_list", func(h *shop) {
			h.reachable()
			h.now = h.now.Add(time.Second)
			h.send(h.now, `"type":"track","event":"Ping","context":{"traits":{"email":"Never@Example.com"}}`)
			h.add("c1", "tea")
		}},
		"nobody's address": {"no_address", func(h *shop) {
			h.reachable()
			h.now = h.now.Add(time.Second)
			h.send(h.now, `"type":"identify","traits":{"email":null}`)
			h.add("c1", "tea")
		}},
		"no address at all": {"no_address", func(h *shop) {
			h.reachable()
			h.now = h.now.Add(time.Second)
			h.send(h.now, `"type":"identify","traits":{"email":"a@b.c\r\nBcc: x@y.z"}`)
			h.add("c1", "tea")
		}},
		"no mail server": {"channel_off", func(h *shop) {
			h.d.Channels = nil
			h.reachable().add("c1", "tea")
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := newShop(t, decider(parse(t, journeyFile)))
			c.do(h)
			h.wait(2 * time.Hour)
			h.only(journey.Suppressed, c.want)
			require.Equal(t, 1, h.armed)
			_, waits := h.s.Due()
			require.False(t, waits)
		})
	}
}

func TestSubscribedTakesBack(t *testing.T) {
	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	h.send(h.now, `"type":"track","event":"Unsubscribed","properties":{}`)
	h.now = h.now.Add(time.Second)
	h.send(h.now, `"type":"track","event":"Subscribed","properties":{"channel":"email"}`)
	h.add("c1", "tea")
	h.wait(2 * time.Hour)
	require.Len(t, h.requests, 1)
}

func TestArmsAnew(t *testing.T) {
	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	h.add("c1", "tea")
	h.wait(time.Hour)
	require.Len(t, h.requests, 1)

	h.send(h.now.Add(-time.Minute), `"type":"track","event":"Product Added","properties":{"cart_id":"c1","product_id":"late","price":1}`)
	h.wait(2 * time.Hour)
	require.Len(t, h.requests, 1, "what was before the decision belongs to it")

	look := `"type":"track","event":"Cart Viewed","properties":{"cart_id":"c1","currency":"EUR","products":[{"product_id":"tea","name":"Tea","price":10},{"product_id":"late","price":1}]}`
	h.send(h.now, look)
	h.wait(time.Second)
	h.send(h.now, `"type":"track","event":"Product Added","properties":{"cart_id":"c1","product_id":"pot","price":46,"currency":"EUR"}`)
	h.wait(time.Hour)
	require.Len(t, h.requests, 2)
	require.NotEqual(t, h.requests[0].Receipt, h.requests[1].Receipt)
	require.NotEqual(t, h.requests[0].ID, h.requests[1].ID)

	h.wait(time.Hour)
	h.send(h.now, strings.Replace(look, `]}`, `,{"product_id":"pot","price":46}]}`, 1))
	h.wait(2 * time.Hour)
	require.Len(t, h.requests, 2, "looking at the cart one was written about is no new cart")
	require.Equal(t, 2, h.armed)
	require.Empty(t, h.receipts)
}

func TestNewCartAfterOrder(t *testing.T) {
	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	h.add("", "tea")
	h.wait(time.Minute)
	h.send(h.now, `"type":"track","event":"Order Completed","properties":{"order_id":"o"}`)
	h.only(journey.Suppressed, journey.ReasonPurchased)
	h.send(h.now, `"type":"track","event":"Order Completed","properties":{"order_id":"o"}`)
	h.wait(time.Minute)
	h.add("", "pot")
	h.send(h.now.Add(time.Second), `"type":"track","event":"Order Updated","properties":{"order_id":"o"}`)
	h.send(h.now.Add(time.Second), `"type":"track","event":"Order Cancelled","properties":{"order_id":"o"}`)
	h.wait(2 * time.Hour)
	require.Len(t, h.requests, 1)
	require.Len(t, h.receipts, 1)
}

func TestRunningKeepsItsVersion(t *testing.T) {
	old := parse(t, journeyFile)
	edited := parse(t, strings.NewReplacer("delay: 1h", "delay: 2h", "items", "pieces").Replace(journeyFile))
	require.NotEqual(t, old.Version, edited.Version)
	d := decider(old, edited)
	d.Journeys = []*journey.Journey{old}
	h := newShop(t, d).reachable()
	h.add("c1", "tea")
	next := *d
	next.Journeys = []*journey.Journey{edited}
	h.d = &next
	h.add("c2", "tea")
	h.wait(time.Hour)
	require.Len(t, h.requests, 1)
	require.Equal(t, old.Version, h.requests[0].Version)
	require.Equal(t, "Ada, 1 items", h.requests[0].Subject)
	h.wait(time.Hour)
	require.Len(t, h.requests, 2)
	require.Equal(t, edited.Version, h.requests[1].Version)
	require.Equal(t, "Ada, 1 pieces", h.requests[1].Subject)
}

func TestVersionThatCannotBeRead(t *testing.T) {
	j := parse(t, journeyFile)
	d := decider(j)
	away := true
	d.Version = func(string, string) (*journey.Journey, error) {
		if away {
			return nil, errors.New("redis is away")
		}
		return nil, nil
	}
	h := newShop(t, d).reachable()
	h.add("c1", "tea")
	h.wait(time.Hour)
	require.Empty(t, h.receipts, "held")
	away = false
	h.wait(time.Minute)
	h.only(journey.Suppressed, journey.ReasonJourneyLost)
}

func TestTemplateFault(t *testing.T) {
	src := strings.Replace(journeyFile, "{{.UnsubscribeURL}}", `{{if eq (len .Lines) 1}}{{(index .Lines 0).Name}}{{else if gt (len .Lines) 2}}{{slice .Brand 0 99}}{{end}}`, 1)
	h := newShop(t, decider(parse(t, src))).reachable()
	h.add("c1", "a")
	h.add("c1", "b")
	h.add("c1", "c")
	h.wait(2 * time.Hour)
	r := h.only(journey.Failed, journey.ReasonTemplate)
	require.Contains(t, r.Detail, "render text")
}

func TestTooManyCarts(t *testing.T) {
	h := newShop(t, decider(parse(t, journeyFile))).reachable()
	const many = journey.MaxRunning + 50
	for i := range many {
		h.add(fmt.Sprint("c", i), "tea")
		h.now = h.now.Add(time.Millisecond)
	}
	h.wait(2 * time.Hour)
	require.Equal(t, many, h.armed)
	require.Equal(t, many, len(h.requests)+len(h.receipts))
}

func TestMergeRules(t *testing.T) {
	d := decider(parse(t, journeyFile))
	one, two := newShop(t, d).reachable(), newShop(t, d)
	two.n = 1000
	one.add("c1", "tea")
	two.now = two.now.Add(time.Minute)
	two.add("c1", "pot")
	two.send(two.now, `"type":"track","event":"Consent Updated","properties":{"channel":"email","purpose":"marketing","status":"denied"}`)
	r := d.Merge("p1", &one.s, two.s, two.now)
	require.Len(t, r.Receipts, 1)
	require.Equal(t, journey.ReasonMerged, r.Receipts[0].Reason)
	require.Zero(t, r.Armed)
	due, _ := one.s.Due()
	require.Equal(t, two.now.Add(time.Hour), due)
	one.now = two.now
	one.wait(2 * time.Hour)
	got := one.only(journey.Suppressed, journey.ReasonConsentDenied)
	require.Contains(t, r.Receipts[0].Detail, got.Receipt)
	require.Equal(t, "20", got.Cart.Value.String())

	// The other device bought: at once, by the merge.
	one, two = newShop(t, d).reachable(), newShop(t, d)
	one.add("c1", "tea")
	two.send(two.now.Add(time.Second), `"type":"track","event":"Order Completed","properties":{"order_id":"o"}`)
	one.take(d.Merge("p1", &one.s, two.s, two.now))
	one.only(journey.Suppressed, journey.ReasonPurchased)
}
