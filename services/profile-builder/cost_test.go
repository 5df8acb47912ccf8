package builder

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/profile"
)

// What the states of a usual person take at most, in bytes: docs/performance.md says what that comes to in Redis. It
// is exact, so a change that makes states larger shows here.
const (
	mostProfile = 1000
	mostJourney = 700
)

// usual are the events of a person as shops have them: 3 orders, 5 traits, a cart of 3 lines, some browsing.
func usual(t testing.TB, each func(e *event.Event, now time.Time)) {
	n := 0
	send := func(fields string) {
		n++
		now := base.Add(time.Duration(n) * time.Minute)
		id := fmt.Sprintf("m-%04d", n)
		body := fmt.Sprintf(`{"messageId":%q,"timestamp":%q,"userId":"u1","anonymousId":"a1",%s}`, id, now.Format(time.RFC3339Nano), fields)
		e, err := event.Decode([]byte(body), event.Meta{Source: "shop", Brand: "main", MessageID: id, ReceivedAt: now.Add(time.Second)})
		require.NoError(t, err)
		each(e, now)
	}
	line := func(i int) string {
		return fmt.Sprintf(`"product_id":"sku-%05d","name":"Stoneware teapot no. %d","category":"Kitchen","url":"https://shop.example.com/p/sku-%05d","image_url":"https://shop.example.com/i/sku-%05d.jpg","price":%d.90,"quantity":1,"currency":"EUR"`, i, i, i, i, 10+i)
	}
	send(`"type":"identify","traits":{"email":"ada.lovelace@example.com","firstName":"Ada","lastName":"Lovelace","plan":"gold","city":"London","consent":{"email":{"marketing":true}}}`)
	for i := range 3 {
		send(`"type":"page","name":"Home"`)
		send(`"type":"track","event":"Product Viewed","properties":{` + line(i) + `}`)
		send(fmt.Sprintf(`"type":"track","event":"Order Completed","properties":{"order_id":"order-%06d","total":%d.80,"currency":"EUR","products":[{%s},{%s},{%s}]}`, i, 40+i, line(i), line(i+1), line(i+2)))
	}
	for i := range 3 {
		send(`"type":"track","event":"Product Added","properties":{"cart_id":"cart-1001",` + line(i) + `}`)
	}
}

func TestWhatAUsualPersonTakes(t *testing.T) {
	var s state
	usual(t, func(e *event.Event, _ time.Time) { require.Empty(t, s.Profile.Apply(e, &profile.Rules{})) })
	b, err := s.AppendBinary(nil)
	require.NoError(t, err)
	t.Logf("profile: %d bytes", len(b))
	require.Less(t, len(b), mostProfile)

	var j journey.State
	d := &journey.Decider{}
	usual(t, func(e *event.Event, now time.Time) { d.Observe("p", &j, e, now) })
	b, err = j.AppendBinary(nil)
	require.NoError(t, err)
	t.Logf("journeys: %d bytes", len(b))
	require.Less(t, len(b), mostJourney)
}
