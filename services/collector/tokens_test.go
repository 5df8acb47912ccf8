package collector

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	clickedEvent = `{"event":"clicked","id":"e","recipient":"a@example.com"}`
	forgedEvent  = `{"event":"unsubscribed","id":"f","recipient":"b@example.com"}`
)

// mailgun delivers an event under a token that was signed at a time.
func (f *fixture) mailgun(at time.Time, token, data string) int {
	seconds := strconv.FormatInt(at.Unix(), 10)
	return f.do("POST", "/v1/hooks/mailgun", "", `{"signature":{"timestamp":"`+seconds+`","token":"`+token+`","signature":"`+
		hex.EncodeToString(macOf("hush", seconds, token))+`"},"event-data":`+data+`}`).Code
}

// What came under a token of Mailgun's at one collector, the others know: Mailgun signs no event, so that whoever saw a delivery
// could otherwise have another collector take what he likes.
func TestTokensAreKnownToAllCollectors(t *testing.T) {
	r := miniredis.RunT(t)
	r.SetTime(now)
	st, err := store.New(config.Redis{Addresses: []string{r.Addr()}, AllowNonDurable: true}, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	door := func(most int) *fixture {
		f := hookFixture(t)
		f.door.intake.tokens = newTokens(st, topic.Set{Prefix: "p."}, zap.NewNop())
		f.door.intake.tokens.most, f.door.intake.tokens.patience = most, patience
		f.door.hooks, err = newHooks(f.door.intake)
		require.NoError(t, err)
		return f
	}
	one, two := door(2), door(2)
	require.Equal(t, http.StatusOK, one.mailgun(now, "a", clickedEvent))
	require.Equal(t, http.StatusUnauthorized, two.mailgun(now, "a", forgedEvent))
	require.Equal(t, http.StatusOK, two.mailgun(now, "a", clickedEvent), "sent again, to another collector")
	require.Equal(t, http.StatusUnauthorized, door(2).mailgun(now, "a", forgedEvent), "one that was started now")

	require.Equal(t, http.StatusOK, one.mailgun(now, "b", clickedEvent))
	require.Equal(t, http.StatusOK, one.mailgun(now, "c", clickedEvent), "no room for it in this hour")
	require.Equal(t, http.StatusUnauthorized, one.mailgun(now, "c", forgedEvent), "its own memory has room")
	require.Equal(t, http.StatusOK, one.mailgun(now.Add(-2*time.Hour), "d", clickedEvent))
	require.Equal(t, http.StatusUnauthorized, two.mailgun(now.Add(-2*time.Hour), "d", forgedEvent), "another hour has room")
	require.Len(t, r.Keys(), 2)
	for _, key := range r.Keys() {
		require.LessOrEqual(t, r.TTL(key), 26*time.Hour, key)
		require.Greater(t, r.TTL(key), 22*time.Hour, key)
	}
	r.FastForward(27 * time.Hour)
	require.Empty(t, r.Keys(), "what proves nothing any more is forgotten")

	require.Equal(t, http.StatusOK, one.mailgun(now, "e", clickedEvent))
	r.Close()
	one.door.intake.tokens.patience, two.door.intake.tokens.patience = time.Millisecond, time.Millisecond
	require.Equal(t, http.StatusUnauthorized, one.mailgun(now, "e", forgedEvent), "without Redis each knows its own")
	require.Equal(t, http.StatusOK, two.mailgun(now, "g", clickedEvent))
}

// A collector that has a store shares its tokens.
func TestCollectorsShareTokens(t *testing.T) {
	b, _, _ := newSpoolingBroker(t)
	require.NotNil(t, b.ready().intake.tokens)
}
