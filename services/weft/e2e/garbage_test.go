//go:build integration

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// bombBytes is what the gzip bomb unpacks to.
	bombBytes = 1 << 30
	// memoryLimit is far below the bomb and far above what the collector needs.
	memoryLimit = 400 << 20
)

// TestGarbageAtEveryDoor: whatever comes in at the HTTP door, the profile API, an inlet or, by mistake, one of Weft's own
// topics gets a clear error or a row of events_rejected with its reason; every service stays up, and good events go
// through.
func TestGarbageAtEveryDoor(t *testing.T) {
	d := deploy(t, options{till: true})
	d.garbageOverHTTP()
	d.garbageAtOtherPorts()
	d.garbageOverKafka(map[string][]string{d.till: {"collector"}, d.prefix + "events.inbox": {"collector"}}, `{"type":"track"}`)
	t.Logf("weft audit says:\n%s", d.run("audit", "--wait", "3m"))
	// Only the collector writes the topics below, so what others write there is more than was ever accepted.
	d.garbageOverKafka(map[string][]string{
		d.prefix + "events.collected":      {"identity-stitcher"},
		d.prefix + "events.identified":     {"activator", "journey-writer", "profile-builder"},
		d.prefix + "activations.requested": {"activator-deliver", "journey-writer"},
		d.prefix + "activations.settled":   {"journey-writer"},
		d.prefix + "profiles.changed":      {"journey-writer"},
		d.prefix + "audiences.changed":     {"journey-writer"},
	})
	d.healthy()
	for _, name := range d.names() {
		require.True(t, d.processes[name].running(), name)
	}
	require.Less(t, d.processes[collector].peakMemory(), int64(memoryLimit))
	d.goodEvents()
	t.Logf("rejected, in ClickHouse:\n%s", table([]string{"service", "reason", "rows"},
		d.rows("SELECT service, reason, toString(count()) FROM events_rejected GROUP BY service, reason ORDER BY service, reason")))
	t.Logf("the collector's memory was at most %d MB", d.processes[collector].peakMemory()>>20)
}

// goodEvents sends one event through each door for events, and waits for it.
func (d *deployment) goodEvents() {
	d.t.Helper()
	d.send(event{"type": "track", "event": "Good", "userId": "good-http"})
	d.kafka.produce(record(d.prefix+"events.inbox", "", `{"type":"track","event":"Good","userId":"good-inbox"}`))
	d.kafka.produce(record(d.till, "", fmt.Sprintf(sale, "good", time.Now().Format(time.RFC3339), "good-till", "good@example.com")))
	eventually(d.t, time.Minute, "good events are in ClickHouse", func() error {
		return want("good events", 3, d.number("SELECT count() FROM events WHERE startsWith(user_id, 'good-')"))
	})
}

// bomb is bombBytes of nothing, packed.
func bomb(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	block := make([]byte, 1<<20)
	for range bombBytes / len(block) {
		_, err := z.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return b.String()
}

// garbageOverHTTP checks each answer, and that what has a known key left a row.
func (d *deployment) garbageOverHTTP() {
	d.t.Helper()
	packed := bomb(d.t)
	good := `{"type":"track","event":"E","userId":"u"}`
	many := `{"batch":[` + strings.Repeat(good+",", 2600) + good + `]}`
	rejected := map[string]int{} // expected rows by reason
	for _, c := range []struct {
		name, key, path, body string
		headers               []string
		status                int
		code                  string // in the answer; "" where the events of a batch are judged one by one
		reason                string // of the row; "" for none
	}{
		{name: "broken JSON", path: "/v1/track", body: `{"type":"track",`, status: 400, code: "invalid_json", reason: "invalid_json"},
		{name: "no JSON", path: "/v1/track", body: "GET / HTTP/1.1", status: 400, code: "invalid_json", reason: "invalid_json"},
		{name: "nothing", path: "/v1/track", body: "", status: 400, code: "invalid_json", reason: "invalid_json"},
		{name: "a list", path: "/v1/track", body: `[` + good + `]`, status: 400, code: "invalid_type", reason: "invalid_type"},
		{name: "not UTF-8", path: "/v1/track", body: "{\"type\":\"track\",\"event\":\"\xff\xfe\",\"userId\":\"u\"}", status: 200, reason: "invalid_utf8"},
		{name: "nested without end", path: "/v1/track", body: strings.Repeat(`{"a":`, 100_000), status: 400, code: "nested deeper", reason: "invalid_json"},
		{name: "gzip bomb of 1 GB", path: "/v1/batch", body: packed, headers: []string{"Content-Encoding", "gzip"}, status: 400, code: "too_large", reason: "too_large"},
		{name: "gzip bomb that does not say so", path: "/v1/batch", body: packed, status: 400, code: "too_large", reason: "too_large"},
		{name: "damaged gzip", path: "/v1/batch", body: packed[:1000] + "damage" + packed[1006:2000], headers: []string{"Content-Encoding", "gzip"}, status: 400, code: "invalid_gzip", reason: "invalid_gzip"},
		{name: "too many events", path: "/v1/batch", body: many, status: 400, code: "too_many_events", reason: "too_many_events"},
		{name: "an empty batch", path: "/v1/batch", body: `{"batch":[]}`, status: 400, code: "empty_batch"},
		{name: "nobody's event", path: "/v1/track", body: `{"event":"E"}`, status: 200, reason: "no_user_anon_id"},
		{name: "an event without a name", path: "/v1/track", body: `{"userId":"u"}`, status: 200, reason: "missing_event"},
		{name: "an unknown type in a batch", path: "/v1/batch", body: `{"batch":[{"type":"dance","userId":"u"},` + good + `]}`, status: 200, reason: "unknown_type"},
		{name: "an id that is an object", path: "/v1/track", body: `{"event":"E","userId":{"a":1}}`, status: 200, reason: "invalid_type"},
		{name: "an event too large", path: "/v1/track", body: `{"event":"E","userId":"u","properties":{"x":"` + strings.Repeat("x", 1_000_000) + `"}}`, status: 400, code: "too_large", reason: "too_large"},
		{name: "a wrong key", key: "wk_wrong", path: "/v1/track", body: good, status: 401, code: "unknown_write_key"},
		{name: "broken JSON with a wrong key", key: "wk_wrong", path: "/v1/track", body: "{", status: 401, code: "unknown_write_key"},
		{name: "an unknown path", path: "/v1/nothing", body: good, status: 404, code: "not_found"},
		{name: "a path from elsewhere", path: "/../../etc/passwd", body: good, status: 404, code: "not_found"},
		{name: "a forged link", path: "/unsubscribe?t=forged", body: "List-Unsubscribe=One-Click", status: 0},
	} {
		key := c.key
		if key == "" {
			key = keyWeb
		}
		a := d.post(key, c.path, c.body, c.headers...)
		if c.status == 0 { // whatever it is called there, it is an error of the sender's
			require.True(d.t, a.status >= 400 && a.status < 500, "%s: %d", c.name, a.status)
			continue
		}
		if a.status != c.status || !strings.Contains(a.body, c.code) {
			d.t.Errorf("%s: want %d with %q, found %d %s", c.name, c.status, c.code, a.status, a.body)
		}
		if c.reason != "" {
			rejected[c.reason]++
		}
	}
	require.Equal(d.t, http.StatusMethodNotAllowed, d.do(http.MethodGet, d.door+"/v1/track", nil).status)
	eventually(d.t, time.Minute, "each has its row", func() error {
		var errs []error
		for reason, n := range rejected {
			errs = append(errs, want(reason, n, d.number("SELECT count() FROM events_rejected WHERE service = 'collector' AND reason = %s AND error != '' AND startsWith(origin, '/v1/')", quote(reason))))
		}
		return errors.Join(errs...)
	})
}

// garbageAtOtherPorts: raw bytes at each listener, and odd questions to the profile API.
func (d *deployment) garbageAtOtherPorts() {
	d.t.Helper()
	addresses := []string{strings.TrimPrefix(d.door, "http://"), strings.TrimPrefix(d.api, "http://")}
	for _, name := range d.names() {
		addresses = append(addresses, d.processes[name].admin)
	}
	for _, address := range addresses {
		c, err := net.Dial("tcp", address)
		require.NoError(d.t, err)
		require.NoError(d.t, c.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = c.Write([]byte("\x16\x03\x01\x02\x00\x01\x00garbage\r\n\r\n\x00\xff"))
		require.NoError(d.t, err)
		text, _ := io.ReadAll(c) // an answer or a closed connection
		require.True(d.t, len(text) == 0 || bytes.HasPrefix(text, []byte("HTTP/1.1 400")), "%s: %q", address, text)
		require.NoError(d.t, c.Close())
	}
	for path, status := range map[string]int{
		"/v1/profiles/user_id/%ff": 0, "/v1/profiles/user_id": 400, "/v1/profiles/profile/no-uuid": 400, "/v1/profiles/NO TYPE/x": 0,
		"/v1/profiles/user_id/nobody": 404, "/": 404, "/v1/profiles/user_id/" + strings.Repeat("x", 5000): 0,
	} {
		a := d.do(http.MethodGet, d.api+strings.ReplaceAll(path, " ", "%20"), nil, "Authorization", "Bearer "+keyRead)
		if status == 0 {
			require.True(d.t, a.status >= 400 && a.status < 500, "%s: %d", path, a.status)
		} else {
			require.Equal(d.t, status, a.status, path)
		}
		require.Contains(d.t, a.body, `"code"`, path)
	}
	require.Equal(d.t, http.StatusUnauthorized, d.do(http.MethodGet, d.api+"/v1/profiles/user_id/u", nil, "Authorization", "Bearer wrong").status)
}

// garbageValues are what a foreign producer may write by mistake.
func garbageValues() []string {
	return []string{
		"{", "[]", `"text"`, "null", "42", "", "\xff\x00\xfe", "{}", strings.Repeat("[", 100_000),
		`{"type":"dance","userId":"u"}`, `{"type":"track","event":"E","userId":{"a":1}}`, strings.Repeat("x", 900_000),
		"<xml/>", "a,b,c\n1,2,3", `{"type":"track","event":"E","userId":"u","userId"`,
	}
}

// garbageOverKafka writes into topics; each record must leave a row with its reason, by every service that reads the
// topic, and by no other.
func (d *deployment) garbageOverKafka(readers map[string][]string, more ...string) {
	d.t.Helper()
	var recs []*kgo.Record
	for topic := range readers {
		for i, value := range append(garbageValues(), more...) {
			key := []string{"", "garbage", "u"}[i%3]
			if key == "" && strings.HasSuffix(topic, "profiles.changed") {
				key = "garbage" // Kafka itself refuses records without a key where it compacts
			}
			recs = append(recs, record(topic, key, value))
		}
		recs = append(recs,
			record(topic, "k", `{"type":"track","event":"E","userId":"u"}`, "weft-received-at", "yesterday"),
			record(topic, "k", `{}`, "weft-kind", "dance", "weft-position", "nowhere"),
			record(topic, "k", `{}`, "weft-kind", "merge"))
	}
	d.kafka.produce(recs...)
	eventually(d.t, 2*time.Minute, "every record of garbage is rejected with a reason", func() error {
		rows := map[string][]string{}
		for _, r := range d.rows("SELECT origin, arrayStringConcat(arraySort(groupUniqArray(service)), ' ') FROM events_rejected WHERE reason != '' AND error != '' GROUP BY origin") {
			rows[r[0]] = strings.Fields(r[1])
		}
		var missing []string
		for _, r := range recs {
			origin := r.Topic + ":" + strconv.Itoa(int(r.Partition)) + ":" + strconv.FormatInt(r.Offset, 10)
			wanted := fmt.Sprint(readers[r.Topic])
			if got := fmt.Sprint(rows[origin]); got != wanted {
				missing = append(missing, fmt.Sprintf("%s %.60q %s: want rows of %s, found %s", origin, r.Value, r.Headers, wanted, got))
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("%d of %d are not:\n%s", len(missing), len(recs), strings.Join(missing, "\n"))
		}
		return nil
	})
}
