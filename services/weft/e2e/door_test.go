//go:build integration

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// event is one call of an SDK, as JSON is written by hand.
type event = map[string]any

// answer is what a door said.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends one request.
func (d *deployment) do(method, address string, body io.Reader, headers ...string) answer {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, address, body)
	require.NoError(d.t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	require.NoError(d.t, err)
	defer resp.Body.Close() //nolint:errcheck // was only read
	text, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// post sends a body to a path of the HTTP door.
func (d *deployment) post(key, path, body string, headers ...string) answer {
	d.t.Helper()
	req, err := http.NewRequest(http.MethodPost, d.door, nil) // only for the header
	require.NoError(d.t, err)
	req.SetBasicAuth(key, "")
	headers = append([]string{"Content-Type", "application/json", "Authorization", req.Header.Get("Authorization")}, headers...)
	return d.do(http.MethodPost, d.door+path, strings.NewReader(body), headers...)
}

// send sends events through the HTTP door as one batch, and requires that they are acknowledged. Each gets a message id
// and, unless it has one, the time of now.
func (d *deployment) send(events ...event) {
	d.t.Helper()
	for _, e := range events {
		if e["messageId"] == nil {
			e["messageId"] = uuid.NewString()
		}
		if e["timestamp"] == nil {
			e["timestamp"] = stamp(time.Now())
		}
	}
	body, err := json.Marshal(map[string]any{"batch": events, "sentAt": stamp(time.Now())})
	require.NoError(d.t, err)
	a := d.post(keyWeb, "/v1/batch", string(body))
	require.Equal(d.t, http.StatusOK, a.status, a.body)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// identify says who an anonymous id is, and that reminders by mail are welcome.
func identify(anonymousID, userID, email string) event {
	return event{
		"type": "identify", "anonymousId": anonymousID, "userId": userID,
		"traits": event{"email": email, "firstName": "Anna", "consent": event{"email": event{"marketing": true}}},
	}
}

// added puts a product into a cart. who are the ids: anonymousId, userId.
func added(who event, cart, product string) event {
	return with(who, event{"type": "track", "event": "Product Added", "properties": event{
		"cart_id": cart, "product_id": product, "name": "Product " + product, "price": 19.99, "quantity": 2, "currency": "EUR",
	}})
}

// ordered buys a cart.
func ordered(who event, cart, order string) event {
	return with(who, event{"type": "track", "event": "Order Completed", "properties": event{
		"order_id": order, "cart_id": cart, "total": 39.98, "currency": "EUR",
		"products": []event{{"product_id": "p1", "price": 19.99, "quantity": 2}},
	}})
}

func with(e, more event) event {
	out := event{}
	for k, v := range e {
		out[k] = v
	}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// profile is what the profile API says of an identifier; an error unless it is found.
func (d *deployment) profile(typ, value string) (map[string]any, error) {
	d.t.Helper()
	a := d.do(http.MethodGet, d.api+"/v1/profiles/"+typ+"/"+url.PathEscape(value), nil, "Authorization", "Bearer "+keyRead)
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("profile of %s %s: %d: %s", typ, value, a.status, strings.TrimSpace(a.body))
	}
	var p map[string]any
	dec := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	dec.UseNumber()
	require.NoError(d.t, dec.Decode(&p))
	return p, nil
}

// receipt is one row of the messages view.
type receipt struct {
	id, profile, cart, outcome, reason, message, version string
	dueAt, armedAt                                       time.Time
}

func (r receipt) String() string { return r.cart + " " + r.outcome + "/" + r.reason }

// receipts are those in ClickHouse whose cart id begins with prefix, by cart.
func (d *deployment) receipts(prefix string) []receipt {
	d.t.Helper()
	var out []receipt
	for _, r := range d.rows(`SELECT receipt, person_id, cart_id, outcome, reason, message, version,
		toUnixTimestamp64Milli(assumeNotNull(armed_at)), toUnixTimestamp64Milli(assumeNotNull(due_at))
		FROM messages WHERE startsWith(cart_id, %s) ORDER BY cart_id, settled_at`, quote(prefix)) {
		out = append(out, receipt{
			id: r[0], profile: r[1], cart: r[2], outcome: r[3], reason: r[4], message: r[5], version: r[6],
			armedAt: millis(d, r[7]), dueAt: millis(d, r[8]),
		})
	}
	return out
}

func millis(d *deployment, text string) time.Time {
	d.t.Helper()
	var ms int64
	_, err := fmt.Sscan(text, &ms)
	require.NoError(d.t, err)
	return time.UnixMilli(ms)
}
