package collector

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/services/collector/enrich"
)

// reasonBot is the reason of events of programs, where a source refuses them.
const reasonBot = "bot"

// enrichStep adds what the request says of the sender; nil: there is nothing to do for that kind of source.
func enrichStep(proxies enrich.Proxies, s config.Source) (step, error) {
	kind, bots := s.KindOrDefault(), cmp.Or(s.Bots, config.BotsFlag)
	opt := enrich.Options{IP: cmp.Or(s.IP, config.IPKeep), Bots: bots != config.BotsIgnore}
	opt.Client = kind == config.KindBrowser || kind == config.KindApp
	opt.Browser = kind == config.KindBrowser
	opt.Agents = opt.Client || kind == config.KindWebhook
	e, err := enrich.New(opt)
	if err != nil {
		return nil, err
	}
	// Of a server, and of a topic, there is only the address to look at, and mostly none.
	addressOnly, keep := !opt.Agents, opt.IP == config.IPKeep
	if addressOnly && keep && kind != config.KindServer {
		return nil, nil
	}
	return func(it *item) error {
		in := &it.desk.reader
		if addressOnly && keep {
			if err := in.Look(it.body); err != nil {
				return err
			}
			if string(in.LookedContext().Find("direct").Raw) != "true" {
				return nil // there is nothing to add
			}
		}
		r := enrich.Request{IP: proxies.ClientIP(it.client.ip, it.client.forwardedFor), UserAgent: it.client.userAgent}
		body, bot, err := e.Apply(&it.desk.enriching, in, it.body, r)
		if err != nil {
			return err
		}
		it.body = body
		switch {
		case bot && bots == config.BotsRefuse:
			return &event.Error{Reason: reasonBot, Path: "context.userAgent", Detail: "is that of a program, and the source refuses them"}
		case bot:
			it.meta.AddFlag(event.FlagBot)
		}
		return nil
	}, nil
}

// consentEvents are stored whatever the consent: they say what the person wants, and a refusal that is not kept can
// not be honoured.
var consentEvents = []string{"Segment Consent Preference Updated", "Consent Updated", UnsubscribedEvent}

// consent is what a source asks for before anything of an event is kept.
type consent struct {
	categories []string
	otherwise  string   // what a category is of which an event says nothing
	suppress   []string // the states that forbid it
}

// newConsent compiles it; nil: consent is not asked for.
func newConsent(c config.SourceConsent) *consent {
	if len(c.Categories) == 0 {
		return nil
	}
	x := &consent{c.Categories, cmp.Or(c.Default, config.ConsentUnknown), c.Suppress}
	if len(x.suppress) == 0 {
		x.suppress = []string{config.ConsentDenied}
	}
	return x
}

// errNoConsent says that the consent of an event forbids to keep anything of it.
var errNoConsent = fmt.Errorf("consent: %w", errSuppressed)

// step keeps nothing of events whose consent forbids it.
func (c *consent) step() step {
	return func(it *item) error {
		if c.forbids(event.Glimpse(it.body, event.Filling{})) {
			return errNoConsent
		}
		return nil
	}
}

// forbids says whether nothing of an event may be kept; never, if consent is not asked for.
func (c *consent) forbids(e *event.Event) bool {
	if c == nil || e.Type == event.Track && slices.Contains(consentEvents, e.Name) {
		return false
	}
	return slices.Contains(c.suppress, c.of(e))
}

// of is the strictest of the categories: denied, unknown, granted.
func (c *consent) of(e *event.Event) string {
	var o event.Object
	o.Read(e.RawContext())
	o.Read(o.Find("consent").Raw)
	o.Read(o.Find("categoryPreferences").Raw)
	state := config.ConsentGranted
	for _, category := range c.categories {
		said := c.otherwise
		switch o.Find(category).Text() {
		case "true":
			said = config.ConsentGranted
		case "false":
			said = config.ConsentDenied
		}
		switch said {
		case config.ConsentDenied:
			return said
		case config.ConsentUnknown:
			state = said
		}
	}
	return state
}

// correct moves an event of a device whose clock is off.
func (in *intake) correct(e *event.Event, s *source) {
	if s.kind != config.KindBrowser && s.kind != config.KindApp || e.SentAt.IsZero() {
		return
	}
	device := e.AnonymousID
	if device == "" {
		device = event.Text(e.Context("device", "id"))
	}
	at, ok := e.ClaimedTime()
	if !ok || device == "" {
		return
	}
	if skew := in.clocks.Skew(s.name, device, at, e.SentAt, e.ReceivedAt); skew != 0 {
		e.Correct(skew)
		e.AddFlag(event.FlagSkewCorrected)
	}
}
