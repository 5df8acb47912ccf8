package collector

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/valyala/fastjson"

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
		if addressOnly && keep && !bytes.Contains(it.body, []byte(`"direct"`)) {
			return nil
		}
		r := enrich.Request{IP: proxies.ClientIP(it.client.ip, it.client.forwardedFor), UserAgent: it.client.userAgent}
		body, bot, err := e.Apply(it.body, r)
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

// consentStep keeps nothing of events whose consent forbids it; nil: consent is not asked for.
func consentStep(c config.SourceConsent) step {
	if len(c.Categories) == 0 {
		return nil
	}
	otherwise := cmp.Or(c.Default, config.ConsentUnknown)
	suppress := c.Suppress
	if len(suppress) == 0 {
		suppress = []string{config.ConsentDenied}
	}
	without := fmt.Errorf("consent: %w", errSuppressed)
	return func(it *item) error {
		e, err := event.Decode(it.body, it.meta)
		if err != nil {
			return err // the same as without
		}
		if e.Type == event.Track && slices.Contains(consentEvents, e.Name) {
			return nil
		}
		if slices.Contains(suppress, consentOf(e.Context("consent", "categoryPreferences"), c.Categories, otherwise)) {
			return without
		}
		return nil
	}
}

// consentOf is the strictest of the categories: denied, unknown, granted.
func consentOf(preferences *fastjson.Value, categories []string, otherwise string) string {
	state := config.ConsentGranted
	for _, category := range categories {
		said := otherwise
		switch event.Text(preferences.Get(category)) {
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
