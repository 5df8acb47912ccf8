package collector

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
)

// source is a configured sender, compiled. Safe for concurrent use.
type source struct {
	name, brand, kind   string
	trusted, historical bool
	disabled, strict    bool
	origins             []string // empty: any
	bucket              *bucket  // nil: as much as it likes
	maxRequest          int
	maxEvent            int
	suppress            bool     // people on the suppression list, and who were erased, are left out
	consent             *consent // nil: it is not asked for
	steps               []step
	transforming        int   // how many of steps, the first ones, are done with an event once in its life
	share               share // of the bytes in flight
}

// newSource compiles one; its error names the field.
func newSource(in *intake, s config.Source) (*source, error) {
	src := &source{
		name: s.Name, brand: s.Brand, kind: s.KindOrDefault(), trusted: s.Trusted, historical: s.Historical,
		disabled: s.Disabled, strict: s.Mode == config.ModeStrict, origins: s.Origins, bucket: newBucket(s.Rate),
		suppress: in.suppressing(), consent: newConsent(s.Consent),
		maxRequest: cmp.Or(s.MaxRequestBytes, in.cfg.MaxRequestBytes), maxEvent: cmp.Or(s.MaxEventBytes, in.cfg.MaxEventBytes),
	}
	if src.brand == "" {
		src.brand = in.cfg.Brand
	}
	var err error
	if src.steps, src.transforming, err = newSteps(in, s); err != nil {
		return nil, fmt.Errorf("source %s: %w", s.Name, err)
	}
	return src, nil
}

func (s *source) meta(received time.Time) event.Meta {
	return event.Meta{Source: s.name, Brand: s.brand, ReceivedAt: received, Trusted: s.trusted, Historical: s.historical}
}

// client is what is known of who made a request; the zero value for a record of a topic.
type client struct {
	ip           netip.Addr // the other end of the connection
	forwardedFor []string   // X-Forwarded-For as it came: whoever sent it may have made it up
	userAgent    string
}

// item is one event on its way through the door.
type item struct {
	// body is a JSON object that has a type and, over HTTP, a messageId. A step that changes it puts a new one in
	// its place, made by editing the text, so that digits and unknown members stay as they came.
	body   []byte
	meta   event.Meta // source, brand, receipt; of the message id only what stood outside of the body
	source *source
	client client
	passed bool  // it went through the door before: what is done with an event once is done
	desk   *desk // nil: one is found for it
	number int   // from 1, in the request that the desk's reader has split; 0: it is of none
}

// step is one thing that a source does with each of its items, valid or not. It is safe for concurrent use, does no
// I/O, and gives the same for the same item. It may change body and the flags, or return an *event.Error: the item goes
// to events.rejected, as it came; or errSuppressed: it is counted and not stored.
type step func(it *item) error

// errSuppressed says that nothing may be kept of an item.
var errSuppressed = fmt.Errorf("the person, or the lack of consent, forbids to store it")

// errDropped says that a transformation drops an item.
var errDropped = fmt.Errorf("a transformation of the source drops it: %w", errSuppressed)

// newSteps compiles what a source is to do, in this order: transformations, enrichment, consent, tracking plan. What is
// configured of them adds itself here. Whom an item names as it came has been held against the suppression list before,
// since a step may refuse the item, and may hide the person; behind transformations it is held again: they may name one.
// transforming is how many of them are transformations.
func newSteps(in *intake, s config.Source) (steps []step, transforming int, err error) {
	transformations, err := transformStep(s, in.metrics)
	if err != nil {
		return nil, 0, err
	}
	if transformations != nil {
		steps, transforming = append(steps, transformations), 1
		if in.suppressing() {
			steps = append(steps, in.suppressStep())
		}
	}
	enrichment, err := enrichStep(in.proxies, s)
	if err != nil {
		return nil, 0, err
	}
	if enrichment != nil {
		steps = append(steps, enrichment)
	}
	if c := newConsent(s.Consent); c != nil {
		steps = append(steps, c.step())
	}
	plan, err := planStep(s, in.metrics)
	if err != nil {
		return nil, 0, err
	}
	if plan != nil {
		steps = append(steps, plan)
	}
	return steps, transforming, nil
}
