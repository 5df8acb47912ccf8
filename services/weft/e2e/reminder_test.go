//go:build integration

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// holdFor is how long a service is held back around the time that a reminder is due.
	holdFor = 30 * time.Second
	// heldBefore and orderedBefore are how long before the reminder is due a service is held back, and the order made: the
	// order must be acknowledged before that moment on a busy machine too.
	heldBefore, orderedBefore = 8 * time.Second, 5 * time.Second
	// settleLimit bounds the way from a decision to its row.
	settleLimit = 3 * time.Minute
)

// shopper is one person with two devices.
type shopper struct{ user, email, phone, laptop string }

func newShopper(name string) shopper {
	return shopper{user: "user-" + name, email: name + "@example.com", phone: "phone-" + name, laptop: "laptop-" + name}
}

// fillCart has the shopper fill a cart on the phone, at first without a name, and then log in. It returns when the
// reminder is due, once the cart is armed and the profile has it.
func (d *deployment) fillCart(s shopper, cart string, delay time.Duration) (due time.Time) {
	d.t.Helper()
	armed := d.metric(activator, "weft_activator_armed_total")
	phone := event{"anonymousId": s.phone}
	at := time.Now()
	d.send(
		with(phone, event{"type": "page", "name": "Shoes", "timestamp": stamp(at)}),
		with(added(phone, cart, "p1"), event{"timestamp": stamp(at)}),
		identify(s.phone, s.user, s.email),
	)
	eventually(d.t, settleLimit, "the cart is armed and "+s.user+" has it", func() error {
		if d.metric(activator, "weft_activator_armed_total") <= armed {
			return errors.New("not armed")
		}
		p, err := d.profile("user_id", s.user)
		if err != nil {
			return err
		}
		carts, _ := p["openCarts"].([]any)
		return want("open carts", 1, len(carts))
	})
	return at.Add(delay)
}

// metric is the value of a metric without labels.
func (d *deployment) metric(service, name string) float64 {
	d.t.Helper()
	return d.metricOf(d.processes[service], name)
}

func (d *deployment) metricOf(p *process, name string) float64 {
	d.t.Helper()
	a := d.do(http.MethodGet, "http://"+p.admin+"/metrics", nil)
	for _, line := range strings.Split(a.body, "\n") {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			require.NoError(d.t, err)
			return v
		}
	}
	d.t.Fatalf("%s has no metric %s", p.name, name)
	return 0
}

// until waits for a moment of the story.
func (d *deployment) until(at time.Time) {
	d.t.Helper()
	select {
	case <-time.After(time.Until(at)):
	case <-d.t.Context().Done():
	}
}

// TestOrderOnSecondDeviceJustBeforeTheReminder: an order seconds before the reminder is due, on another device or at
// the till, while a service on its way is held back for half a minute: the decision waits, no mail, one receipt
// "purchased". Without an order there is exactly one mail, and its unsubscribe link is honoured by the next decision.
func TestOrderOnSecondDeviceJustBeforeTheReminder(t *testing.T) {
	t.Parallel()
	for _, held := range []string{collector, stitcher, builder, activator} {
		t.Run(held+" held back", func(t *testing.T) {
			t.Parallel()
			for n := 1; !orderWhileHeld(t, held); n++ {
				require.Less(t, n, attempts, "the machine was too slow for the story every time")
			}
		})
	}
	t.Run("no order, then unsubscribed", func(t *testing.T) {
		t.Parallel()
		noOrder(t)
	})
}

// orderWhileHeld says false if the order was not acknowledged before the reminder was due: that is another story.
func orderWhileHeld(t *testing.T, held string) bool {
	const delay = 20 * time.Second
	d := deploy(t, options{delay: delay.String(), till: true})
	s := newShopper("anna")
	d.fillCart(s, "cart-1", delay)
	// She looks around once more: the delay begins anew, whatever time all that took.
	seen := time.Now()
	d.send(event{"anonymousId": s.phone, "type": "page", "name": "Shoes", "timestamp": stamp(seen)})
	due := seen.Add(delay)
	d.until(due.Add(-heldBefore))
	d.processes[held].signal(syscall.SIGSTOP)
	release := time.Now().Add(holdFor)
	d.until(due.Add(-orderedBefore))
	if held == collector { // the HTTP door is held: she buys at the till, whose topic nobody reads
		d.kafka.produce(record(d.till, "", fmt.Sprintf(sale, "order-1", time.Now().Format(time.RFC3339), s.user, s.email)))
	} else {
		d.send(ordered(event{"anonymousId": s.laptop, "userId": s.user}, "", "order-1"))
	}
	if left := time.Until(due); left <= 0 {
		t.Logf("the order was acknowledged %s after the reminder was due", -left)
		for _, p := range d.processes {
			p.kill()
		}
		return false
	}
	for time.Now().Before(release) {
		require.Empty(t, d.mail.all(), "a mail after the purchase")
		d.until(time.Now().Add(min(time.Second, time.Until(release))))
	}
	late := time.Since(due).Round(100 * time.Millisecond)
	d.processes[held].signal(syscall.SIGCONT)
	eventually(t, settleLimit, "the cart has its receipt", func() error {
		if len(d.receipts("")) == 0 {
			return errors.New("none")
		}
		return nil
	})
	d.run("audit", "--wait", "3m")
	d.healthy()
	got := d.receipts("")
	require.Len(t, got, 1)
	require.Equal(t, "cart-1 suppressed/purchased", got[0].String())
	require.Empty(t, d.mail.all())
	require.Zero(t, d.number("SELECT count() FROM messages_requested"))
	require.Zero(t, d.number("SELECT count() FROM false_sends"))
	t.Logf("order %s before the reminder was due, %s held until %s after: %d mails, receipt %s", orderedBefore, held, late, len(d.mail.all()), got[0])
	return true
}

// sale is a record as a till writes it: receipt, time, customer, e-mail.
const sale = `{"receipt":%q,"soldAt":%q,"customer":{"id":%q,"email":%q},"total":"39.98","currency":"EUR",` +
	`"items":[{"sku":"p1","name":"Product p1","price":19.99,"quantity":2}]}`

func noOrder(t *testing.T) {
	const delay = 6 * time.Second
	d := deploy(t, options{delay: delay.String()})
	s := newShopper("bella")
	due := d.fillCart(s, "cart-1", delay)
	eventually(t, settleLimit, "one mail and its receipt", func() error {
		return errors.Join(want("mails", 1, len(d.mail.all())), want("receipts", 1, len(d.receipts(""))))
	})
	l, r := d.mail.all()[0], d.receipts("")[0]
	require.Equal(t, "cart-1 delivered/sent", r.String())
	require.Equal(t, r.message, l.messageID, "the receipt names the mail")
	require.WithinDuration(t, due, r.dueAt, time.Millisecond)
	require.False(t, l.at.Before(due), "received %s before it was due", due.Sub(l.at))
	require.Equal(t, s.email, l.to)
	require.Equal(t, "Anna, your cart is waiting", l.subject)
	for _, body := range []string{l.text, l.html} {
		require.Contains(t, body, "Product p1")
		require.Contains(t, body, "39.98")
	}
	t.Logf("no order: one mail %s after it was due: %q; receipt %s", l.at.Sub(due).Round(time.Millisecond), l.subject, r)

	link := strings.Trim(l.header.Get("List-Unsubscribe"), "<>")
	require.True(t, strings.HasPrefix(link, d.door+"/"), link)
	require.Equal(t, "List-Unsubscribe=One-Click", l.header.Get("List-Unsubscribe-Post"))
	scanned := d.do(http.MethodGet, link, nil) // as scanners of mail do with every link: it must change nothing
	require.Equal(t, http.StatusOK, scanned.status)
	d.mailAgain(s, "cart-2", delay)

	used := d.do(http.MethodPost, link, io.Reader(strings.NewReader("List-Unsubscribe=One-Click")), "Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, http.StatusOK, used.status, used.body)
	d.send(added(event{"anonymousId": s.phone, "userId": s.user}, "cart-3", "p3"))
	eventually(t, settleLimit, "the next cart has its receipt", func() error { return want("receipts", 1, len(d.receipts("cart-3"))) })
	require.Equal(t, "cart-3 suppressed/unsubscribed", d.receipts("cart-3")[0].String())
	d.run("audit", "--wait", "3m")
	require.Len(t, d.mail.all(), 2)
	require.Len(t, d.receipts(""), 3)
	t.Logf("after the link was used: receipt %s", d.receipts("cart-3")[0])
}

// mailAgain has the shopper fill another cart, which is mailed about.
func (d *deployment) mailAgain(s shopper, cart string, delay time.Duration) {
	d.t.Helper()
	before := len(d.mail.all())
	d.send(added(event{"anonymousId": s.phone, "userId": s.user}, cart, "p2"))
	eventually(d.t, delay+settleLimit, "the mail about "+cart, func() error {
		return errors.Join(want("mails", before+1, len(d.mail.all())), want("receipts", 1, len(d.receipts(cart))))
	})
	require.Equal(d.t, cart+" delivered/sent", d.receipts(cart)[0].String())
}
