//go:build integration

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// largestEvent is the most that collector.max_event_bytes may be, smallEvent what the source small may send.
	largestEvent, smallEvent = 1_000_000, 2_000
	keySmall                 = "wk_small"
	// longestID is the longest that the door takes.
	longestID = 1024
)

// ofSize is an event of exactly so many bytes, with ids as long as ids may be, of text that does not compress well. The
// limit is judged of an event as it is stored, so nothing is left for the door to add.
func ofSize(t *testing.T, size int, id, kind string) string {
	t.Helper()
	long := func(s string) string { return s + strings.Repeat("x", min(longestID, size/8)-len(s)) }
	head := fmt.Sprintf(`{"messageId":%q,"anonymousId":%q,"userId":%q,"timestamp":%q,"type":%q,`,
		long(id+"-message-"), long(id+"-visitor-"), long(id+"-user-"), stamp(time.Now()), kind)
	switch kind {
	case "identify":
		head += `"traits":{"filler":"`
	default:
		head += `"event":"Export Made","properties":{"filler":"`
	}
	const tail = `"}}`
	noise := make([]byte, size)
	_, err := rand.Read(noise)
	require.NoError(t, err)
	return head + base64.RawURLEncoding.EncodeToString(noise)[:size-len(head)-len(tail)] + tail
}

// TestEventsAtTheLimit: events of the largest size that may be configured, and of the size that their source may send, come through to
// ClickHouse whole, straight and through the spool while Kafka is away, with the longest ids; one byte more is refused, and kept.
func TestEventsAtTheLimit(t *testing.T) {
	b := startBroker(t)
	d := deploy(t, options{
		broker:  b.address,
		environ: []string{fmt.Sprintf("WEFT_COLLECTOR_MAX_EVENT_BYTES=%d", largestEvent)},
		sources: func(*deployment) map[string]string {
			return map[string]string{"small.yaml": fmt.Sprintf("name: small\nkind: server\nwrite_key: %s\nmax_event_bytes: %d\n", keySmall, smallEvent)}
		},
	})
	whole, refused := map[string]string{}, map[string]string{} // by the beginning of the id
	send := func(round string) {
		for _, c := range []struct {
			key   string
			limit int
		}{{keyBackend, largestEvent}, {keySmall, smallEvent}} {
			for more := -1; more <= 1; more++ {
				for _, kind := range []string{"track", "identify"} {
					id := fmt.Sprintf("%s-%d-%s", round, c.limit+more, kind)
					text := ofSize(t, c.limit+more, id, kind)
					require.Len(t, text, c.limit+more)
					a := d.post(c.key, "/v1/batch", `{"batch":[`+text+`]}`)
					require.Equal(t, http.StatusOK, a.status, a.body)
					if more > 0 {
						require.Contains(t, a.body, `"code":"too_large"`, id)
						refused[id] = text
					} else {
						require.NotContains(t, a.body, `"rejected"`, id)
						whole[id] = text
					}
				}
			}
		}
	}
	send("straight")
	b.kill()
	send("spooled")
	require.Positive(t, d.metricOf(d.processes[collector], "weft_spool_waiting_records"), "they wait on the disk")
	b.start()

	eventually(t, drainLimit, "all events are in ClickHouse", func() error {
		return errors.Join(want("events", len(whole), d.number("SELECT uniqExact(message_id) FROM events WHERE match(message_id, '^(straight|spooled)-')")),
			want("refused", len(refused), d.number("SELECT count() FROM events_rejected WHERE reason = 'too_large'")))
	})
	found := d.rows(`SELECT splitByString('-message-', message_id)[1] AS id, length(message_id), length(user_id), length(anonymous_id),
		if(type = 'track', JSONExtractString(properties, 'filler'), JSONExtractString(traits, 'filler')) FROM events WHERE match(message_id, '^(straight|spooled)-')`)
	for _, row := range found {
		text, known := whole[row[0]]
		require.True(t, known, row[0])
		_, filler, _ := strings.Cut(text, `"filler":"`)
		require.True(t, strings.TrimSuffix(filler, `"}}`) == row[4], "%s: its text is not whole", row[0])
	}
	for id, text := range refused {
		body := d.value(`SELECT body FROM events_rejected WHERE reason = 'too_large' AND position(body, %s) > 0`, quote(id+"-message-"))
		require.True(t, body == text[:min(len(text), largestEvent)], "%s: what was refused is not kept", id)
	}
	t.Logf("weft audit says:\n%s", d.run("audit", "--wait", "3m"))
	d.healthy()
}
