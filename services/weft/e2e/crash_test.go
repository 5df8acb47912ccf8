//go:build integration

package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// crashCarts become due together, and are decided and delivered while the activator is killed.
	crashCarts = 160
	// killEvery is after how many mails the next one finds the activator killed before the answer.
	killEvery = 40
	// underWay is how many mails the activator hands over at once.
	underWay = 8
)

// TestCrashBetweenDecideAndDeliver: the activator is killed again and again with a mail handed over and not yet
// answered. Each cart ends in one receipt; no mail goes out twice; a mail whose fate the crash left open is called
// unknown and not repeated.
func TestCrashBetweenDecideAndDeliver(t *testing.T) {
	t.Parallel()
	const delay = 8 * time.Second
	d := deploy(t, options{delay: delay.String()})
	due := make(chan chan struct{}) // a mail that waits until the activator is gone
	var mu sync.Mutex
	handed := 0
	d.mail.before(func() {
		mu.Lock()
		handed++
		fatal := handed%killEvery == 0 && handed < crashCarts
		mu.Unlock()
		if fatal {
			gone := make(chan struct{})
			select {
			case due <- gone:
				<-gone
			case <-t.Context().Done():
			}
		}
	})
	events := make([]event, 0, 2*crashCarts)
	for i := range crashCarts {
		s := newShopper(fmt.Sprintf("c%03d", i))
		events = append(events, identify(s.phone, s.user, s.email), added(event{"anonymousId": s.phone}, fmt.Sprintf("cart-%03d", i), "p1"))
	}
	d.send(events...)

	kills := 0
	limit := time.After(arrivalLimit)
	for settled := false; !settled; {
		select {
		case gone := <-due:
			d.processes[activator].kill()
			kills++
			close(gone)
			d.processes[activator].start()
		case <-limit:
			t.Fatalf("%d of %d carts have a receipt after %s", len(d.receipts("")), crashCarts, arrivalLimit)
		case <-time.After(time.Second):
			settled = d.number("SELECT uniqExact(receipt) FROM messages") >= crashCarts
		}
	}
	require.Positive(t, kills)
	d.run("audit", "--wait", "3m")
	d.healthy()
	d.checkDeliveries(kills)
}

// checkDeliveries holds receipts against the mails that were received.
func (d *deployment) checkDeliveries(kills int) {
	d.t.Helper()
	mails := map[string]int{}
	for _, l := range d.mail.all() {
		mails[l.messageID]++
	}
	ends, carts := map[string]int{}, map[string]int{}
	for _, r := range d.receipts("") {
		ends[r.outcome+"/"+r.reason]++
		carts[r.cart]++
		require.LessOrEqual(d.t, mails[r.message], 1, "%s: mails with id %s", r, r.message)
		switch r.outcome {
		case "delivered":
			require.Equal(d.t, 1, mails[r.message], "%s: a mail with id %s", r, r.message)
		case "unknown":
		default:
			d.t.Errorf("cart %s ended as %s, with %s", r.cart, r, r.message)
		}
	}
	d.t.Logf("%d carts, the activator killed %d times: %s; %d mails, none twice", crashCarts, kills, sorted(ends), len(d.mail.all()))
	require.Len(d.t, carts, crashCarts)
	for cart, n := range carts {
		require.Equal(d.t, 1, n, "receipts of %s", cart)
	}
	// Each kill found at least one mail handed over and not answered; nobody can know of those.
	unknown := ends["unknown/crash_during_send"] + ends["unknown/no_answer"]
	require.GreaterOrEqual(d.t, unknown, kills)
	require.LessOrEqual(d.t, unknown, kills*underWay, "a mail that only waited for its turn is not unknown")
	for id, n := range mails {
		require.Equal(d.t, 1, n, "mails with id %s", id)
	}
}
