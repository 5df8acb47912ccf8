package config

import (
	"net/netip"
	"slices"
	"time"
)

// SourceWebhook says how a source of kind webhook proves its deliveries, and what becomes of them.
type SourceWebhook struct {
	Provider        string            `yaml:"provider" doc:"shopify, woocommerce, sendgrid, mailgun, or generic: any signed JSON, by a mapping."`
	SecretFile      string            `yaml:"secret_file" doc:"File with what proves a delivery: the provider's signing secret, of SendGrid its verification key. Several, one per line, while one is being replaced."`
	Tolerance       time.Duration     `yaml:"tolerance" doc:"How far the time of a signature may be from now (sendgrid, mailgun, and generic with a timestamp_header). 0: 25h, of generic 5m."`
	CustomerType    string            `yaml:"customer_type" doc:"Identifier type of a shop's customer numbers: user_id if your site's userId is that number. Empty: shopify_customer_id or woocommerce_customer_id; two WooCommerce shops need one each, since both count from 1."`
	Header          string            `yaml:"header" doc:"generic: header of the signature, an HMAC."`
	Algorithm       string            `yaml:"algorithm" doc:"generic: sha256 (the default), sha512 or sha1."`
	Encoding        string            `yaml:"encoding" doc:"generic: of the signature: hex (the default) or base64."`
	Prefix          string            `yaml:"prefix" doc:"generic: before the signature, such as sha256=."`
	Signed          string            `yaml:"signed" doc:"generic: what is signed, with {body}, {timestamp} and {id}: {body} by default; {id}.{timestamp}.{body} for Standard Webhooks."`
	TimestampHeader string            `yaml:"timestamp_header" doc:"generic: header with the time of the signature, in Unix seconds. Empty: it has none, and an old delivery can be sent again."`
	IDHeader        string            `yaml:"id_header" doc:"generic: header with an id that is the same when a delivery comes again. Empty: the content decides."`
	EventNames      map[string]string `yaml:"event_names" doc:"generic: names as they are mapped, to names of events; one mapped to nothing is counted and not stored, one that is not listed goes to events.rejected. Empty: names are taken as they are."`
	Mapping         map[string]string `yaml:"mapping" doc:"generic: event field to where it stands in the payload, as for collector.inlets. A payload that is a list is mapped element by element."`
}

// Providers of webhooks.
const (
	ProviderShopify     = "shopify"
	ProviderWooCommerce = "woocommerce"
	ProviderSendGrid    = "sendgrid"
	ProviderMailgun     = "mailgun"
	ProviderGeneric     = "generic"
)

// SourceConsent says which events of a source may be stored, by the consent that they carry
// (context.consent.categoryPreferences, as Segment has it).
type SourceConsent struct {
	Categories []string `yaml:"categories" doc:"Categories of context.consent.categoryPreferences that all must be granted. Empty: consent is not asked for."`
	Default    string   `yaml:"default" doc:"What counts for a category that an event does not name: granted, denied or unknown. Empty: unknown."`
	Suppress   []string `yaml:"suppress" doc:"Events to count and not to store: denied, unknown. Empty: denied."`
}

// States of consent.
const (
	ConsentGranted = "granted"
	ConsentDenied  = "denied"
	ConsentUnknown = "unknown"
)

// Bots of a source: what is done with events of programs.
const (
	BotsFlag   = "flag"
	BotsRefuse = "refuse"
	BotsIgnore = "ignore"
)

// Addresses of a source: what is kept of them.
const (
	IPKeep     = "keep"
	IPTruncate = "truncate"
	IPDrop     = "drop"
)

// isZero says that nothing is set.
func (w SourceWebhook) isZero() bool {
	return len(w.EventNames) == 0 && len(w.Mapping) == 0 && w.common() == (webhookTexts{})
}

// webhookTexts is all of SourceWebhook that can be compared.
type webhookTexts struct {
	a         [10]string
	tolerance time.Duration
}

func (w SourceWebhook) common() webhookTexts {
	return webhookTexts{
		[10]string{w.Provider, w.SecretFile, w.CustomerType, w.Header, w.Algorithm, w.Encoding, w.Prefix, w.Signed, w.TimestampHeader, w.IDHeader}, w.Tolerance,
	}
}

// webhookSource checks a source of kind webhook. How its fields fit together is for the collector to say.
func (c *checker) webhookSource(path string, s Source) {
	c.want(s.WriteKey == "" && len(s.WriteKeyHashes) == 0, path+".write_key", "a source of kind webhook has none: its deliveries are signed")
	c.want(len(s.Origins) == 0, path+".origins", "a source of kind webhook has none: no page sends it")
	w := s.Webhook
	c.oneOf(path+".webhook.provider", w.Provider, ProviderShopify, ProviderWooCommerce, ProviderSendGrid, ProviderMailgun, ProviderGeneric)
	c.want(w.SecretFile != "", path+".webhook.secret_file", "empty: deliveries that prove nothing are not taken")
	c.want(w.Tolerance >= 0, path+".webhook.tolerance", "want 0 or more, found %s", w.Tolerance)
	if w.Provider != ProviderGeneric {
		generic := SourceWebhook{Provider: w.Provider, SecretFile: w.SecretFile, Tolerance: w.Tolerance, CustomerType: w.CustomerType}
		c.want(w.common() == generic.common() && len(w.Mapping) == 0 && len(w.EventNames) == 0, path+".webhook",
			"header, algorithm, encoding, prefix, signed, timestamp_header, id_header, event_names and mapping are for provider generic only")
	}
}

// sourcePrivacy checks what is done about addresses, bots and consent.
func (c *checker) sourcePrivacy(path string, s Source) {
	c.oneOf(path+".ip", s.IP, "", IPKeep, IPTruncate, IPDrop)
	c.oneOf(path+".bots", s.Bots, "", BotsFlag, BotsRefuse, BotsIgnore)
	k := s.Consent
	c.oneOf(path+".consent.default", k.Default, "", ConsentGranted, ConsentDenied, ConsentUnknown)
	for i, state := range k.Suppress {
		c.oneOf(index(path+".consent.suppress", i), state, ConsentDenied, ConsentUnknown)
	}
	c.want(len(k.Categories) > 0 || k.Default == "" && len(k.Suppress) == 0, path+".consent.categories", "empty: which categories must be granted?")
	c.want(!slices.Contains(k.Categories, ""), path+".consent.categories", "a category without a name")
}

// proxies checks collector.trusted_proxies.
func (c *checker) proxies(path string, list []string) {
	for i, text := range list {
		_, err := netip.ParsePrefix(text)
		if err != nil {
			_, err = netip.ParseAddr(text)
		}
		c.want(err == nil, index(path, i), "want a network such as 10.0.0.0/8, or an address, found %q", text)
	}
}
