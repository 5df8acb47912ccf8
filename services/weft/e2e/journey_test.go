//go:build integration

package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestQueryableWithinFiveSeconds: the README's promise for each door, on real servers with each service a process.
func TestQueryableWithinFiveSeconds(t *testing.T) {
	d := deploy(t, options{till: true})
	for door, send := range map[string]func(user string){
		"HTTP": func(user string) { d.send(event{"type": "track", "event": "E", "userId": user}) },
		"events.inbox": func(user string) {
			d.kafka.produce(record(d.prefix+"events.inbox", "", fmt.Sprintf(`{"event":"E","userId":%q}`, user)))
		},
		"the till's topic": func(user string) {
			d.kafka.produce(record(d.till, "", fmt.Sprintf(sale, "r-"+user, time.Now().Format(time.RFC3339), user, user+"@example.com")))
		},
	} {
		for n := 1; ; n++ {
			user := fmt.Sprintf("user-%s-%d", door, n)
			send(user)
			sent := time.Now()
			eventually(t, settleLimit, "the event of "+door, func() error {
				return want("rows", 1, d.number("SELECT count() FROM events_by_person WHERE user_id = %s", quote(user)))
			})
			took := time.Since(sent).Round(time.Millisecond)
			t.Logf("%s: queryable after %s (promised: %s)", door, took, promised)
			if took <= promised {
				break
			}
			require.Less(t, n, attempts, "took longer than promised every time")
		}
	}
}

// TestJourneyEditedWhileRunning: a changed file is taken without a restart; new carts go by it, a running cart keeps what
// it was armed with; a faulty file changes nothing and is named by its line.
func TestJourneyEditedWhileRunning(t *testing.T) {
	t.Parallel()
	const slow = 20 * time.Second
	d := deploy(t, options{delay: slow.String()})
	first := d.version()
	old, young, third := newShopper("old"), newShopper("young"), newShopper("third")
	due := d.fillCart(old, "cart-old", slow)

	text, err := os.ReadFile(d.journey)
	require.NoError(t, err)
	edited := edit(t, edit(t, string(text), "delay: "+slow.String()+" ", "delay: 2s "), "Your cart is waiting{{end}}'", "Your tea is waiting{{end}}'")
	edited = edit(t, edited, "}, your cart is waiting{{else}}", "}, your tea is waiting{{else}}")
	d.takeJourney(edited)
	second := d.version()
	require.NotEqual(t, first, second)
	d.mailAbout(young, "cart-young")

	faulty := edit(t, edited, "delay: 2s ", "delay: soon ")
	require.NoError(t, os.WriteFile(d.journey, []byte(faulty), 0o600))
	check := d.command(t.Context(), "journey", "check", d.journey)
	said, err := check.CombinedOutput()
	require.Error(t, err)
	require.Regexp(t, `abandoned-cart\.yaml:\d+: delay: "soon"`, string(said))
	eventually(t, settleLimit, "the fault is seen by the running service", func() error {
		if d.metric(activator, "weft_activator_journey_faults") == 0 {
			return errors.New("not seen")
		}
		return nil
	})
	d.mailAbout(third, "cart-third")

	eventually(t, slow+settleLimit, "the running cart's mail", func() error {
		return errors.Join(want("mails", 1, len(d.mail.to(old.email))), want("receipts", 1, len(d.receipts("cart-old"))))
	})
	mails := map[string]letter{}
	for _, s := range []shopper{old, young, third} {
		require.Len(t, d.mail.to(s.email), 1)
		mails[s.user] = d.mail.to(s.email)[0]
	}
	require.Equal(t, "Anna, your cart is waiting", mails[old.user].subject)
	require.Equal(t, "Anna, your tea is waiting", mails[young.user].subject)
	require.Equal(t, "Anna, your tea is waiting", mails[third.user].subject)
	require.False(t, mails[old.user].at.Before(due), "the running cart keeps its delay")
	for cart, version := range map[string]string{"cart-old": first, "cart-young": second, "cart-third": second} {
		require.Equal(t, version, d.receipts(cart)[0].version, cart)
	}
	t.Logf("version %s: %q; version %s, taken while it ran: %q; with a faulty file: the last good one", first, mails[old.user].subject, second, mails[young.user].subject)
}

// version is that of the journey file, as 'weft journey check' prints it.
func (d *deployment) version() string {
	d.t.Helper()
	m := regexp.MustCompile(`version ([0-9a-f]{12})`).FindStringSubmatch(d.run("journey", "check", d.journey))
	require.NotNil(d.t, m)
	return m[1]
}

// takeJourney changes the file and waits until the running service has taken it.
func (d *deployment) takeJourney(text string) {
	d.t.Helper()
	before := d.metric(activator, "weft_activator_reloads_total")
	d.writeJourney(text)
	eventually(d.t, settleLimit, "the running service takes the file", func() error {
		if d.metric(activator, "weft_activator_reloads_total") == before {
			return errors.New("not yet")
		}
		return nil
	})
}

// mailAbout has a new shopper fill a cart, and waits for the mail and its receipt.
func (d *deployment) mailAbout(s shopper, cart string) {
	d.t.Helper()
	d.send(identify(s.phone, s.user, s.email), added(event{"anonymousId": s.phone}, cart, "p1"))
	eventually(d.t, settleLimit, "the mail about "+cart, func() error {
		return errors.Join(want("mails", 1, len(d.mail.to(s.email))), want("receipts", 1, len(d.receipts(cart))))
	})
}
