package activator

import (
	"bytes"
	"context"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/unsubscribe"
)

// An abandoned cart becomes one mail and one receipt; restarts make no second; the mail's link takes the
// person out.
func TestAbandonedCartBecomesOneMail(t *testing.T) {
	e := newEnv(t)
	_, stop := e.start()
	e.reachable("ada")
	e.shops("ada", "c1")
	e.decided()
	e.pass(time.Hour)
	r := e.only("ada")
	require.Equal(t, "delivered/sent", r.Outcome+"/"+r.Reason)
	require.Equal(t, "abandoned-cart", r.Journey)
	require.Len(t, r.Version, 12)

	require.Len(t, e.mail.mails(), 1)
	m, err := mail.ReadMessage(bytes.NewReader(e.mail.mails()[0]))
	require.NoError(t, err)
	require.Equal(t, "<"+r.Message+"@example.com>", m.Header.Get("Message-Id"))
	require.Equal(t, "List-Unsubscribe=One-Click", m.Header.Get("List-Unsubscribe-Post"))
	link, err := url.Parse(strings.Trim(strings.Join(strings.Fields(m.Header.Get("List-Unsubscribe")), ""), "<>"))
	require.NoError(t, err)
	require.Equal(t, "https://shop.example/v1/unsubscribe", link.Scheme+"://"+link.Host+link.Path)
	secret, err := config.LoadOrCreateSecret(e.cfg.Collector.UnsubscribeSecret)
	require.NoError(t, err)
	claim, err := unsubscribe.Verify(secret, link.Query().Get("t"))
	require.NoError(t, err)
	require.Equal(t, unsubscribe.Claim{
		Brand: "main", Channel: "email", Profile: "ada", Address: "ada@example.com", Receipt: r.Receipt, IssuedAt: claim.IssuedAt,
	}, claim)

	stop()
	_, _ = e.start()
	e.pass(time.Minute)
	e.send("ada", `"type":"track","event":"Unsubscribed","properties":{"channel":"email"}`)
	e.shops("ada", "c2")
	e.decided()
	e.pass(2 * time.Hour)
	require.Eventually(t, func() bool { return len(e.read(e.topics.ActivationsSettled())) == 2 }, waitAtMost, look)
	reasons := map[string]int{}
	for _, r := range e.receipts(2) {
		reasons[r.Reason]++
	}
	require.Equal(t, map[string]int{"sent": 1, "unsubscribed": 1}, reasons)
	require.Len(t, e.mail.mails(), 1)
}

// Nobody is written to about what was bought: on another device, by a person found out to be the same, a
// second before the reminder was due; nor about history.
func TestNoMailAfterThePurchase(t *testing.T) {
	e := newEnv(t)
	_, _ = e.start()
	for _, p := range []string{"one", "two", "phone", "old"} {
		e.reachable(p)
	}
	e.shops("one", "c1")
	e.shops("two", "c2")
	e.shops("phone", "c2")
	e.send("old", `"type":"track","event":"Product Added","properties":{"product_id":"x","price":1}`, func(m *event.Meta) { m.Historical = true })
	e.decided()
	e.pass(time.Hour - time.Second)
	e.orders("one")
	e.orders("two")
	e.merge("phone", "two")
	e.decided()
	e.pass(time.Minute)
	reasons := map[string]int{}
	for _, r := range e.receipts(4) {
		require.Equal(t, journey.Suppressed, r.Outcome)
		reasons[r.Reason]++
	}
	// Of the two instances of c2 the one in "two" was bought first; the other is bought by the merge.
	require.Equal(t, map[string]int{"purchased": 3, "historical": 1}, reasons)
	require.Empty(t, e.mail.mails())
	require.Empty(t, e.read(e.topics.ActivationsRequested()))
}

// The mail server is away when messages are decided. Who buys or says no until it is back gets none.
func TestNoMailToWhoBuysOrLeavesWhileItWaits(t *testing.T) {
	e := newEnv(t)
	s, _ := e.start()
	e.mail.goAway(true)
	want := map[string]string{
		"buys": "purchased", "leaves": "unsubscribed", "denies": "consent_denied", "calls": "suppression_list", "waits": "sent", "phone": "purchased",
	}
	for p := range want {
		e.reachable(p)
		e.shops(p, "cart of "+p)
	}
	e.decided()
	e.pass(time.Hour)
	require.Eventually(t, func() bool { // each is decided; which of them has been tried, and how often, is chance
		return len(e.read(e.topics.ActivationsRequested())) == len(want) && e.mail.sentAway() >= len(want)
	}, waitAtMost, look)

	e.pass(time.Second)
	e.orders("buys")
	e.send("leaves", `"type":"track","event":"Unsubscribed","properties":{"channel":"email"}`)
	e.send("denies", `"type":"track","event":"Consent Updated","properties":{"channel":"email","purpose":"marketing","status":"denied"}`)
	e.merge("phone", "buys") // who bought as the person they turned out to be
	require.NoError(t, os.WriteFile(e.cfg.Activator.SuppressionFile, []byte("calls@example.com\n"), 0o600))
	require.Eventually(t, func() bool { return s.rules.decider().Suppressed("calls@example.com") }, waitAtMost, look)
	e.decided()
	e.mail.goAway(false)

	got := map[string]string{}
	for _, r := range e.receipts(len(want)) {
		got[r.Profile] = r.Reason
		require.NotEmpty(t, r.Message)
	}
	require.Equal(t, want, got)
	require.Len(t, e.mail.mails(), 1)
	require.Contains(t, string(e.mail.mails()[0]), "waits@example.com")
}

// An order was acknowledged and the stitcher is behind: the cart waits for it, however long it is due.
func TestDecisionWaitsForWhatWasAcknowledged(t *testing.T) {
	e := newEnv(t)
	s, _ := e.start()
	e.reachable("ada")
	e.shops("ada", "c1")
	e.decided()
	e.produce(e.topics.EventsCollected(), stream.Record{Key: []byte("till"), Value: []byte(`{}`)})
	e.pass(time.Hour)
	for range 3 { // each makes ada's partition look at its timers anew
		e.send("ada", `"type":"identify","traits":{"city":"Ulm"}`)
		e.decided()
	}
	n := s.fence.Ticket()
	require.Empty(t, e.read(e.topics.ActivationsRequested()))
	require.Less(t, s.fence.Done(), n)
	require.Eventually(t, func() bool { _, _, waits := s.fence.Waiting(); return waits }, waitAtMost, look)
	e.pass(2 * time.Minute)
	require.ErrorContains(t, s.Ready(), "for test.events.collected, to be read by "+topic.StageStitcher, "an operator sees what is held, and why")
	e.orders("ada")
	e.decided()

	// The stitcher comes through.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	group := stream.GroupOptions{Group: e.topics.Group(topic.StageStitcher, e.topics.EventsCollected()), Topics: []string{e.topics.EventsCollected()}}
	go func() {
		done <- e.stream.RunGroup(ctx, group, func(ctx context.Context, cl *stream.Claim) error {
			ends, err := e.stream.EndOffsets(ctx, cl.Topic)
			if err == nil {
				err = cl.Commit(ctx, ends[cl.Partition], "")
			}
			<-ctx.Done()
			return err
		})
	}()
	require.Equal(t, "purchased", e.only("ada").Reason)
	require.Eventually(t, func() bool { return s.fence.Done() >= n && s.Ready() == nil }, waitAtMost, look)
	cancel()
	require.NoError(t, <-done)
	require.Empty(t, e.read(e.topics.ActivationsRequested()))
}

// The marketer's loop: a changed file is taken while running, running carts keep their version, a faulty
// one changes nothing, also over restarts.
func TestJourneysChangeWhileRunning(t *testing.T) {
	e := newEnv(t)
	s, stop := e.start()
	for _, p := range []string{"ada", "ben", "cy", "dee"} {
		e.reachable(p)
	}
	e.shops("ada", "c1")
	e.decided()
	old := s.rules.decider().Journeys[0].Version

	changed := strings.NewReplacer("delay: 1h", "delay: 3h", "Your cart", "Still there").Replace(journeyFile)
	e.write("abandoned-cart.yaml", changed)
	require.Eventually(t, func() bool { return s.rules.decider().Journeys[0].Version != old }, waitAtMost, look)
	e.shops("ben", "c1")
	e.decided()
	e.pass(time.Hour)
	require.Equal(t, old, e.only("ada").Version)
	require.Contains(t, string(e.mail.mails()[0]), "Subject: Your cart")

	e.write("abandoned-cart.yaml", strings.Replace(changed, "delay: 3h", "delay: soon", 1))
	require.Eventually(t, func() bool { return gauge(t, s.rules.metrics.faults) == 1 }, waitAtMost, look)
	e.shops("cy", "c1")
	e.decided()
	stop()

	// A restart with the faulty file goes on with the last good version.
	s, stop = e.start()
	require.Equal(t, 3*time.Hour, s.rules.decider().Journeys[0].Delay)
	e.pass(3 * time.Hour)
	require.Equal(t, "delivered", e.only("ben").Outcome)
	require.Equal(t, "delivered", e.only("cy").Outcome)
	e.shops("dee", "c1")
	e.decided()
	stop()

	// The file is gone: nothing new is armed, what runs finds its version in Redis.
	require.NoError(t, os.Remove(filepath.Join(e.cfg.Activator.Journeys, "abandoned-cart.yaml")))
	_, _ = e.start()
	e.shops("ada", "c9")
	e.decided()
	e.pass(3 * time.Hour)
	r := e.only("dee")
	require.Equal(t, "delivered", r.Outcome)
	require.NotEqual(t, old, r.Version)
	require.Len(t, e.receipts(4), 4)
}

func TestTwoFilesOfOneName(t *testing.T) {
	e := newEnv(t)
	s, stop := e.start()
	e.write("a-copy.yaml", strings.Replace(journeyFile, "1h", "2h", 1))
	require.Eventually(t, func() bool { return gauge(t, s.rules.metrics.faults) == 1 }, waitAtMost, look)
	require.Len(t, s.rules.decider().Journeys, 1)
	require.Equal(t, time.Hour, s.rules.decider().Journeys[0].Delay, "the one that runs goes first")
	require.NoError(t, os.Remove(filepath.Join(e.cfg.Activator.Journeys, "abandoned-cart.yaml")))
	require.Eventually(t, func() bool {
		js := s.rules.decider().Journeys
		return len(js) == 1 && js[0].Delay == 2*time.Hour && gauge(t, s.rules.metrics.faults) == 0
	}, waitAtMost, look)
	stop()

	e.write("abandoned-cart.yaml", "name: x\n")
	sc, st := e.connect()
	never, err := New(e.cfg, Deps{Stream: sc, Store: st, Log: zap.NewNop(), Now: e.now})
	require.NoError(t, err)
	require.NoError(t, st.Set(t.Context(), never.rules.fileKey("abandoned-cart.yaml"), []byte("also: faulty"), 0))
	err = never.Run(t.Context())
	require.ErrorContains(t, err, "abandoned-cart.yaml: delay: is missing")
	require.ErrorContains(t, err, "abandoned-cart.yaml: arms: is missing", "all faults at once")
}

func TestSuppressionListIsReadAgain(t *testing.T) {
	e := newEnv(t)
	s, _ := e.start()
	require.NoError(t, os.WriteFile(e.cfg.Activator.SuppressionFile, []byte("  ADA@example.com # asked by phone\n"), 0o600))
	require.Eventually(t, func() bool { return s.rules.decider().Suppressed("ada@EXAMPLE.com") }, waitAtMost, look)
	e.reachable("ada")
	e.shops("ada", "c1")
	e.decided()
	e.pass(2 * time.Hour)
	require.Equal(t, "suppression_list", e.only("ada").Reason)
}

func TestPoisonIsRejected(t *testing.T) {
	e := newEnv(t)
	_, _ = e.start()
	m := event.Meta{Source: "web", Brand: "main", MessageID: "x", ReceivedAt: e.now()}
	e.record("ada", topic.KindEvent, m, `{"type":`)
	e.record("ada", "of a later version", m, `{}`)
	e.produce(e.topics.ActivationsRequested(), stream.Record{Key: []byte("ada"), Value: []byte(`{"id":""}`)})
	require.Eventually(t, func() bool { return len(e.read(e.topics.EventsRejected())) == 2 }, waitAtMost, look)
	services := map[string]string{}
	for _, r := range e.read(e.topics.EventsRejected()) {
		service, _ := topic.Get(r.Headers, topic.HeaderService)
		services[service], _ = topic.Get(r.Headers, topic.HeaderReason)
	}
	require.Equal(t, map[string]string{topic.StageDecide: "invalid_json", topic.StageDeliver: "invalid_request"}, services)
	e.reachable("ada")
	e.shops("ada", "c1")
	e.decided()
	e.pass(2 * time.Hour)
	require.Equal(t, "sent", e.only("ada").Reason, "what came behind the poison is done")
}

func TestNewRefuses(t *testing.T) {
	e := newEnv(t)
	sc, st := e.connect()
	deps := Deps{Stream: sc, Store: st, Log: zap.NewNop(), Metrics: prometheus.NewRegistry()}
	for want, change := range map[string]func(*config.Config, *Deps){
		"required":                          func(_ *config.Config, d *Deps) { d.Store = nil },
		"activator.journeys":                func(c *config.Config, _ *Deps) { c.Activator.Journeys = "/does/not/exist" },
		"is not a directory":                func(c *config.Config, _ *Deps) { c.Activator.Journeys = e.cfg.Activator.SuppressionFile },
		"activator.suppression_file":        func(c *config.Config, _ *Deps) { c.Activator.SuppressionFile = "/does/not/exist" },
		"activator.smtp.address":            func(c *config.Config, _ *Deps) { c.Activator.SMTP.Address = "mail" },
		"activator.webhook.secret_file":     func(c *config.Config, _ *Deps) { c.Activator.Webhook.URL = "https://hook.example" },
		"collector.unsubscribe_secret_file": func(c *config.Config, _ *Deps) { c.Collector.UnsubscribeSecret = e.cfg.Activator.SuppressionFile },
	} {
		c, d := e.cfg, deps
		d.Metrics = prometheus.NewRegistry()
		change(&c, &d)
		_, err := New(c, d)
		require.ErrorContains(t, err, want)
	}
}
