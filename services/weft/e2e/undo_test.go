//go:build integration

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/undo"
)

// couple is two people: one has an account, the other only a telephone and an address.
type couple struct{ user, email, laptop, otherEmail, phone string }

func newCouple(name, id string) couple {
	return couple{"user-" + name, name + "-" + id + "@example.com", "laptop-" + name, "other-" + name + "-" + id + "@example.com", "phone-" + name}
}

// live has both fill a cart, and the other buy.
func (d *deployment) live(c couple, at time.Time) {
	d.t.Helper()
	later := func(e event, seconds int) event {
		return with(e, event{"timestamp": stamp(at.Add(time.Duration(seconds) * time.Second))})
	}
	other := identify(c.phone, "", c.otherEmail)
	delete(other, "userId")
	d.send(
		later(identify(c.laptop, c.user, c.email), 0),
		later(added(event{"anonymousId": c.laptop, "userId": c.user}, "cart-"+c.user, "p1"), 1),
		later(other, 2),
		later(added(event{"anonymousId": c.phone}, "cart-"+c.phone, "p2"), 3),
		later(with(event{"anonymousId": c.phone}, event{"type": "track", "event": "Order Completed", "properties": event{
			"order_id": "order-" + c.phone, "total": 12.5, "currency": "EUR"}}), 4),
	)
}

// facts are what a profile says of a person, without what differs between any two.
func (d *deployment) facts(typ, value string) (string, error) {
	p, err := d.profile(typ, value)
	if err != nil {
		return "", err
	}
	counts, err := json.Marshal(p["counts"])
	if err != nil {
		return "", err
	}
	carts, _ := p["openCarts"].([]any)
	return fmt.Sprintf("%s orders %v revenue %v carts %d", counts, p["orders"], p["revenue"], len(carts)), nil
}

// wrongLogin says that the one's account has the other's address.
func (d *deployment) wrongLogin(c couple, messageID string) {
	d.t.Helper()
	body := fmt.Sprintf(`{"messageId":%q,"type":"identify","userId":%q,"traits":{"email":%q}}`, messageID, c.user, c.otherEmail)
	a := d.post(keyBackend, "/v1/identify", body)
	require.Equal(d.t, http.StatusOK, a.status, a.body)
}

// profileID waits until an identifier has a profile that fits.
func (d *deployment) profileID(typ, value string, fits func(p map[string]any) error) string {
	d.t.Helper()
	id := ""
	eventually(d.t, settleLimit, "the profile of "+value, func() error {
		p, err := d.profile(typ, value)
		if err != nil {
			return err
		}
		id, _ = p["id"].(string)
		return fits(p)
	})
	return id
}

func anyProfile(map[string]any) error { return nil }

// stored waits until ClickHouse has so many events.
func (d *deployment) stored(n int) {
	d.t.Helper()
	eventually(d.t, settleLimit, "all events are in ClickHouse", func() error { return want("events", n, d.number("SELECT count() FROM events")) })
}

// split runs the command and returns what it printed as JSON.
func (d *deployment) splitLink(c couple, args ...string) undo.Status {
	d.t.Helper()
	var s undo.Status
	text := d.run(append([]string{"identity", "split", "--link", "email:" + c.otherEmail, "user_id:" + c.user, "--reason", "not his address", "--yes", "--json"}, args...)...)
	require.NoError(d.t, json.Unmarshal([]byte(text), &s), text)
	return s
}

// TestSplitThroughTheCommandLine: two people were wrongly joined by an account that was given somebody else's address. After the split
// profiles, carts and what ClickHouse answers are those of a couple that never met; the same event does not join them again;
// after a release it does.
func TestSplitThroughTheCommandLine(t *testing.T) {
	d := deploy(t, options{})
	joined, apart := newCouple("ann", d.id), newCouple("eve", d.id)
	at := time.Now().Add(-time.Minute)
	d.live(joined, at)
	d.live(apart, at)
	d.wrongLogin(joined, "wrong-1")
	d.stored(11)
	one := d.profileID("anonymous_id", joined.phone, func(p map[string]any) error {
		a, err := d.profile("user_id", joined.user)
		if err != nil {
			return err
		}
		return errors.Join(want("profile", fmt.Sprint(p["id"]), fmt.Sprint(a["id"])), want("orders", "1", fmt.Sprint(a["orders"])))
	})
	// The split reads links, too; they come in a topic of their own.
	eventually(t, settleLimit, "ClickHouse knows that they are one", func() error {
		return want("people", 1, d.number("SELECT uniqExact(person_id) FROM orders WHERE person_id = toUUID(%s)", quote(one)))
	})

	preview := d.run("identity", "split", "--link", "email:"+joined.otherEmail, "user_id:"+joined.user, "--dry-run")
	require.Contains(t, preview, "today: "+one)
	require.Contains(t, preview, "0 orders")
	var will undo.Preview
	text := d.run("identity", "split", "--link", "email:"+joined.otherEmail, "user_id:"+joined.user, "--dry-run", "--json")
	require.NoError(t, json.Unmarshal([]byte(text), &will), text)

	s := d.splitLink(joined)
	require.Equal(t, undo.Done, s.State, "%+v", s)
	require.Equal(t, map[string]int{"parts": 2, "identifiers": 5, "events": 6, "messages": s.Counts["messages"]}, s.Counts)

	// The login itself was the account holder's: it goes with the dearer identifier.
	d.wrongLogin(couple{user: apart.user, otherEmail: apart.email}, "right-1")
	for _, pair := range [][2][2]string{
		{{"user_id", joined.user}, {"user_id", apart.user}}, {{"anonymous_id", joined.phone}, {"anonymous_id", apart.phone}},
	} {
		eventually(t, settleLimit, "both are as if they had never met", func() error {
			is, err1 := d.facts(pair[0][0], pair[0][1])
			should, err2 := d.facts(pair[1][0], pair[1][1])
			return errors.Join(err1, err2, want("facts", should, is))
		})
	}
	for i, who := range [][2]string{{"anonymous_id", joined.phone}, {"user_id", joined.user}} {
		p, err := d.profile(who[0], who[1])
		require.NoError(t, err)
		part := &will.Parts[i].Profile
		require.Equal(t, []string{fmt.Sprint(part.Orders), fmt.Sprint(part.Counts.Events), fmt.Sprint(len(part.OpenCarts))},
			[]string{fmt.Sprint(p["orders"]), fmt.Sprint(p["counts"].(map[string]any)["events"]), fmt.Sprint(len(p["openCarts"].([]any)))}, "as the preview said")
	}
	former, err := d.profile("profile", one)
	require.NoError(t, err, "an id that was handed out leads to somebody for ever")
	require.NotEqual(t, one, former["id"])

	phone := d.profileID("anonymous_id", joined.phone, anyProfile)
	holder := d.profileID("user_id", joined.user, anyProfile)
	require.NotEqual(t, phone, holder)
	eventually(t, settleLimit, "ClickHouse answers as if they had never met", func() error {
		rows := d.rows(`SELECT order_id FROM orders WHERE person_id = toUUID(%s)`, quote(phone))
		return errors.Join(want("orders of the other", "[[order-"+joined.phone+"]]", fmt.Sprint(rows)),
			want("orders of the holder", 0, d.number(`SELECT count() FROM orders WHERE person_id = toUUID(%s)`, quote(holder))),
			want("events of the other", 3, d.number(`SELECT count() FROM events_by_person WHERE person_id = toUUID(%s)`, quote(phone))),
			want("events of the holder", 3, d.number(`SELECT count() FROM events_by_person WHERE person_id = toUUID(%s)`, quote(holder))))
	})

	// The identical login does not join them again,
	d.wrongLogin(joined, "wrong-2")
	d.stored(13)
	require.NotEqual(t, d.profileID("anonymous_id", joined.phone, anyProfile), d.profileID("user_id", joined.user, anyProfile))
	aside := fmt.Sprint(d.rows(`SELECT set_aside FROM events WHERE message_id = 'wrong-2'`))
	require.Contains(t, aside, "email:cut", "it was resolved without an identifier, because of the split")

	// until the split is released.
	require.Contains(t, d.run("identity", "release", s.ID, "--reason", "it is his address"), "release done")
	d.wrongLogin(joined, "wrong-3")
	d.profileID("anonymous_id", joined.phone, func(p map[string]any) error {
		a, err := d.profile("user_id", joined.user)
		if err != nil {
			return err
		}
		return errors.Join(want("profile", fmt.Sprint(p["id"]), fmt.Sprint(a["id"])), want("orders", "1", fmt.Sprint(a["orders"])))
	})
	list := d.run("identity", "commands")
	require.Equal(t, 3, strings.Count(list, "\n"), list)
	d.healthy()
}

// manyEvents is the size of the person of TestSplitOfTenThousandEvents.
const manyEvents = 10_000

// TestSplitOfTenThousandEvents splits a person of ten thousand events, exactly, and prints how long it took; then, joined
// again, a second time with the stitcher killed on the way.
func TestSplitOfTenThousandEvents(t *testing.T) {
	d := deploy(t, options{})
	c := newCouple("max", d.id)
	ids := []event{{"anonymousId": c.laptop, "userId": c.user}, {"anonymousId": c.phone}}
	other := identify(c.phone, "", c.otherEmail)
	delete(other, "userId")
	d.send(other)
	var batch []event
	for i := range manyEvents {
		if batch = append(batch, with(ids[i%2], event{"type": "page", "name": "Home"})); len(batch) == 250 {
			d.send(batch...)
			batch = batch[:0]
		}
	}
	d.wrongLogin(c, "wrong-1")
	counts := func(of string, holder, other int) {
		eventually(t, settleLimit, of, func() error {
			a, err1 := d.profile("user_id", c.user)
			b, err2 := d.profile("anonymous_id", c.phone)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			is := func(p map[string]any) string { return fmt.Sprint(p["counts"].(map[string]any)["events"]) }
			return errors.Join(want("events of the holder", fmt.Sprint(holder), is(a)), want("events of the other", fmt.Sprint(other), is(b)))
		})
	}
	counts("they are one", manyEvents+2, manyEvents+2)
	d.stored(manyEvents + 2)
	s := d.splitLink(c)
	require.Equal(t, undo.Done, s.State, "%+v", s)
	require.Equal(t, manyEvents+2, s.Counts["events"])
	took := s.Ended.Sub(*s.Began)
	t.Logf("split of %d events: %s, %.0f events/s", s.Counts["events"], took.Round(time.Millisecond), float64(s.Counts["events"])/took.Seconds())
	counts("each has its own", manyEvents/2+1, manyEvents/2+1)

	d.run("identity", "release", s.ID, "--reason", "to do it again")
	d.run("identity", "link", "email:"+c.otherEmail, "user_id:"+c.user, "--reason", "to do it again")
	counts("they are one again", manyEvents+2, manyEvents+2)
	var given undo.Status
	text := d.run("identity", "split", "--link", "email:"+c.otherEmail, "user_id:"+c.user, "--reason", "once more", "--yes", "--json", "--wait=false")
	require.NoError(t, json.Unmarshal([]byte(text), &given), text)
	status := func() undo.Status {
		var s undo.Status
		text := d.run("identity", "commands", given.ID, "--json")
		require.NoError(t, json.Unmarshal([]byte(text), &s), text)
		return s
	}
	eventually(t, settleLimit, "it is being carried out", func() error {
		if s := status(); s.State == undo.Queued {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	d.processes[stitcher].kill()
	d.processes[stitcher].start()
	eventually(t, settleLimit, "it has ended", func() error { return want("state", undo.Done, status().State) })
	counts("each has its own again", manyEvents/2+1, manyEvents/2+1)
	d.healthy()
}
