package collector

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/collector/hooks"
)

// hookPath is where webhooks are sent to, with the name of their source behind it.
const hookPath = "/v1/hooks/"

// codeUnsigned is the answer to a delivery that does not prove who sent it.
const codeUnsigned = "invalid_signature"

// What becomes of a webhook's deliveries and their items, as the metric says it.
const (
	hookEvent    = "event"
	hookIgnored  = "ignored"
	hookRefused  = "refused"
	hookUnsigned = "unsigned"
)

// hook is a source of kind webhook.
type hook struct {
	source *source
	reader hooks.Hook
}

// newHooks compiles the sources of kind webhook, by name. The error names every field that is wrong.
func newHooks(in *intake) (map[string]*hook, error) {
	list := map[string]*hook{}
	var errs []error
	for _, s := range in.cfg.Sources {
		if s.KindOrDefault() != config.KindWebhook {
			continue
		}
		src, err := newSource(in, s)
		if err == nil {
			in.know(src, nil) // repaired copies are events: what needs its provider's reader, 'weft rejected replay' has read
			var r hooks.Hook
			if r, err = newHook(s.Webhook, in.tokens.of(s.Name)); err != nil {
				err = fmt.Errorf("source %s: webhook.%w", s.Name, err)
			}
			list[s.Name] = &hook{src, r}
		}
		errs = append(errs, err)
		for _, result := range []string{hookEvent, hookIgnored, hookRefused, hookUnsigned} {
			in.metrics.hooks.WithLabelValues(s.Name, result)
		}
	}
	return list, errors.Join(errs...)
}

func newHook(w config.SourceWebhook, memory hooks.Memory) (hooks.Hook, error) {
	secrets, err := readSecrets(w.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	opt := hooks.Options{
		Provider: w.Provider, Secrets: secrets, Tolerance: w.Tolerance, CustomerType: w.CustomerType, Memory: memory,
		Generic: hooks.GenericOptions{
			Header: w.Header, Algorithm: w.Algorithm, Encoding: w.Encoding, Prefix: w.Prefix, Signed: w.Signed,
			TimestampHeader: w.TimestampHeader, IDHeader: w.IDHeader, EventNames: w.EventNames,
		},
	}
	if len(w.Mapping) > 0 {
		m, err := inlets.CompileMapping(w.Mapping)
		if err != nil {
			return nil, fmt.Errorf("mapping: %w", err)
		}
		opt.Generic.Mapping = m.Event
	}
	return hooks.New(opt)
}

// readSecrets reads one secret per line, or keys in PEM one after the other.
func readSecrets(path string) ([][]byte, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the path is the operator's configuration
	if err != nil {
		return nil, err
	}
	var list [][]byte
	const begin = "-----BEGIN "
	if bytes.Contains(text, []byte(begin)) {
		for _, block := range strings.Split(string(text), begin)[1:] {
			list = append(list, []byte(begin+block))
		}
		return list, nil
	}
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			list = append(list, line)
		}
	}
	return list, nil
}

// hook takes one delivery of a webhook. Nothing of it is kept, or told, before it has proven who sent it.
func (d *door) hook(r *http.Request, name string) answer {
	h := d.hooks[name]
	switch {
	case h == nil:
		return refuse(http.StatusNotFound, codeNotFound, "there is no source of kind webhook with this name")
	case r.Method != http.MethodPost:
		return notAllowed(http.MethodPost)
	}
	c := call{ctx: r.Context(), path: hookPath + name, source: h.source, received: d.received()} // its client is a provider, no person
	if a, refused := d.refusal(&c); refused {
		return a
	}
	room := &lease{b: d.budget, of: d.shareOf(nil)} // whoever sends it is not known yet
	defer room.release()
	body, err := d.reader.read(r.Body, r.ContentLength, h.source.maxRequest, room)
	c.received = d.received()
	switch {
	case errors.Is(err, errNoRoom):
		return d.noRoom(h.source)
	case errors.Is(err, errBodyTooLarge):
		err = tooLargeRequest(h.source.maxRequest)
		return refuse(h.source.status(event.TooLarge), event.TooLarge, err.Error())
	case errors.Is(err, errGzip):
		return refuse(http.StatusBadRequest, reasonInvalidGzip, err.Error())
	case err != nil:
		return refuse(http.StatusRequestTimeout, codeIncomplete, "the request ended before its body was complete")
	}
	delivery := &hooks.Delivery{Header: r.Header.Get, Body: body, Received: c.received}
	if err := d.verify(h, delivery); err != nil {
		d.metrics.hooks.WithLabelValues(name, hookUnsigned).Inc()
		return refuse(http.StatusUnauthorized, codeUnsigned, err.Error())
	}
	room.move(&h.source.share)
	res := d.events(h, delivery)
	recs := d.hooked(&c, h, delivery, &res)
	if wait := h.source.bucket.take(len(recs), c.received); wait > 0 {
		d.metrics.refused.WithLabelValues(name, codeRateLimited).Inc()
		return tooFast(wait, h.source.bucket.perSecond)
	}
	if err := d.send(c.ctx, recs); err != nil {
		h.source.bucket.give(len(recs))
		d.log.Debug("webhook not acknowledged by kafka", zap.String("source", name), zap.Error(err))
		return later(codeUnavailable, "the events could not be stored; come again")
	}
	d.metrics.hooks.WithLabelValues(name, hookEvent).Add(float64(len(res.Events)))
	d.metrics.hooks.WithLabelValues(name, hookIgnored).Add(float64(res.Ignored))
	d.metrics.hooks.WithLabelValues(name, hookRefused).Add(float64(len(res.Refused)))
	return ok(`{"success":true}`)
}

// hooked makes the records of a delivery.
func (d *door) hooked(c *call, h *hook, delivery *hooks.Delivery, res *hooks.Result) []record {
	it := item{meta: c.source.meta(c.received), source: c.source}
	recs := make([]record, 0, len(res.Events)+len(res.Refused))
	for i, body := range res.Events {
		it.body = body
		at := place{}
		if len(res.Events) > 1 {
			at = place{"event", i}
		}
		recs = append(recs, d.take(it, event.Filling{MessageID: newMessageID}, c.path, at))
	}
	for _, x := range res.Refused {
		meta := it.meta
		meta.MessageID = newMessageID()
		r := d.intake.aside(x.Item, meta, nil, x.Why, c.path)
		if r.left == "" {
			r.Headers = append(r.Headers, topic.Header{Key: topic.HeaderDelivery, Value: []byte(readAgain(h.reader, x, delivery))})
		}
		recs = append(recs, r)
	}
	return recs
}

// readAgain is the header by which HookReader reads a refused item.
func readAgain(reader hooks.Hook, x hooks.Refused, delivery *hooks.Delivery) string {
	again := url.Values{}
	for _, name := range reader.Headers() {
		if value := cmp.Or(x.ID, delivery.Header(name)); value != "" {
			again.Set(name, value)
		}
	}
	return again.Encode()
}

// HookReader reads again what a webhook brought and its reader refused. Nobody proves it again: it stood on
// events.rejected because it was proven. Safe for concurrent use.
type HookReader struct{ reader hooks.Hook }

// NewHookReader makes the reader of a source of kind webhook. The error names the field.
func NewHookReader(s config.Source) (*HookReader, error) {
	r, err := newHook(s.Webhook, nil)
	if err != nil {
		return nil, fmt.Errorf("source %s: webhook.%w", s.Name, err)
	}
	return &HookReader{r}, nil
}

// errMeansNothing is of items of kinds that are known and no events.
var errMeansNothing = errors.New("it is of a kind that means nothing to a customer's journey")

// Events are those of an item. header is topic.HeaderDelivery of the record. The error is the first reason why it
// is none, and then there are no events.
func (h *HookReader) Events(header string, item []byte, received time.Time) ([][]byte, error) {
	again, err := url.ParseQuery(header)
	if err != nil {
		return nil, fmt.Errorf("read header %s: %w", topic.HeaderDelivery, err)
	}
	res := h.reader.Events(&hooks.Delivery{Header: func(name string) string { return again.Get(name) }, Body: item, Received: received})
	switch {
	case len(res.Refused) > 0:
		return nil, res.Refused[0].Why
	case len(res.Events) == 0:
		return nil, errMeansNothing
	}
	return res.Events, nil
}
