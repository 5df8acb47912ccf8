package collector

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
)

// maxCopied bounds what the context and the integrations of a batch may take once they stand in each of its events: otherwise
// a request of 4 MB is 160 MB in Kafka. SDKs write less than 2 KB of them, 5 MB in the largest batch that is taken.
const maxCopied = 32 << 20

// call is one request of events on its way: what is known of it so far.
type call struct {
	ctx      context.Context
	ep       endpoint
	path     string
	origin   string // of the page that a browser sent it from; empty: it did not say
	client   client
	received time.Time
	source   *source // nil: not known yet
	final    bool    // a key was given in a place where no other can count
}

func (d *door) begin(r *http.Request, ep endpoint, path string) call {
	c := call{ctx: r.Context(), ep: ep, path: path, origin: r.Header.Get("Origin"), client: clientOf(r), received: d.received()}
	key, final := headerKey(r.Header.Get("Authorization"))
	c.source, c.final = d.keys.find(key), final
	if ep.keyInURL && c.source == nil && !final {
		c.source = d.keys.find(r.URL.Query().Get(keyParameter))
	}
	return c
}

func (d *door) received() time.Time { return d.intake.now().UTC().Truncate(time.Millisecond) }

func clientOf(r *http.Request) client {
	c := client{forwardedFor: r.Header.Values("X-Forwarded-For"), userAgent: r.UserAgent()}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.ip = at.Addr().Unmap()
	}
	return c
}

// call takes one request of events.
func (d *door) call(r *http.Request, ep endpoint, path string) answer {
	c := d.begin(r, ep, path)
	limit := d.cfg.MaxRequestBytes
	switch {
	case c.source != nil:
		if a, refused := d.refusal(&c); refused { // before any work is done for it
			return a
		}
		limit = c.source.maxRequest
	case c.final:
		return unknownKey()
	}
	room := &lease{b: d.budget, of: d.shareOf(c.source)}
	defer room.release()
	body, err := d.reader.read(r.Body, r.ContentLength, limit, room)
	c.received = d.received()
	if err != nil {
		return d.unreadable(&c, err, body, limit)
	}
	return d.taken(&c, body, room)
}

// noRoom asks the sender to come again when there is room; s is nil while it is not known who sends.
func (d *door) noRoom(s *source) answer {
	name := ""
	if s != nil {
		name = s.name
	}
	d.metrics.refused.WithLabelValues(name, codeOverloaded).Inc()
	return later(codeOverloaded, "too many bytes are in flight; come again")
}

// shareOf is whose bytes a request's are.
func (d *door) shareOf(s *source) *share {
	if s == nil {
		return &d.strangers
	}
	return &s.share
}

// refusal says why the call's source may not send now, whatever it sends.
func (d *door) refusal(c *call) (a answer, refused bool) {
	s := c.source
	switch wait := s.bucket.take(0, c.received); {
	case s.disabled:
		a = refuse(http.StatusNotFound, codeDisabled, "this source is disabled")
	case !s.allows(c.origin):
		a = refuse(http.StatusForbidden, codeOrigin, "this source's key may not be used on pages of this origin")
	case wait > 0:
		a = tooFast(wait, s.bucket.perSecond)
	default:
		return answer{}, false
	}
	d.metrics.refused.WithLabelValues(s.name, a.code).Inc()
	return a, true
}

// allows says whether pages of that origin may send; "" is no page.
func (s *source) allows(origin string) bool {
	if origin == "" || len(s.origins) == 0 {
		return true
	}
	return slices.ContainsFunc(s.origins, func(allowed string) bool {
		scheme, host, isWild := strings.Cut(allowed, "*")
		if !isWild {
			return strings.EqualFold(origin, allowed)
		}
		return len(origin) > len(scheme)+len(host) && strings.EqualFold(origin[:len(scheme)], scheme) && strings.EqualFold(origin[len(origin)-len(host):], host)
	})
}

// taken takes the body of a call, once it is read.
func (d *door) taken(c *call, body []byte, room *lease) answer {
	maxItems := d.cfg.MaxBatchEvents
	if c.ep.typ != "" {
		maxItems = 0 // a single call, also if it happens to have a member called batch
	}
	work := d.intake.desk()
	defer d.intake.release(work)
	req, err := work.reader.Split(body, maxItems)
	if c.source == nil {
		if c.source = d.keys.find(req.WriteKey); c.source == nil {
			if err != nil && req.WriteKey == "" {
				return refuse(http.StatusBadRequest, event.Reason(err, event.InvalidJSON), err.Error())
			}
			return unknownKey()
		}
		if a, refused := d.refusal(c); refused {
			return a
		}
		room.move(&c.source.share)
	}
	switch limit := c.source.maxRequest; {
	case len(body) > limit:
		return d.keep(c, tooLargeRequest(limit), body)
	case err != nil:
		return d.keep(c, err, body)
	case len(req.Items) == 0:
		return refuse(http.StatusBadRequest, codeEmptyBatch, "the batch has no events")
	case len(req.Items)*(len(req.Context)+len(req.Integrations)) > maxCopied:
		return d.keep(c, &event.Error{Reason: event.TooLarge, Path: "context", Detail: fmt.Sprintf(
			"the batch's context and integrations, %d bytes, stand in each of its %d events then: together at most %d bytes; send fewer events at a time",
			len(req.Context)+len(req.Integrations), len(req.Items), maxCopied)}, body)
	}
	if wait := c.source.bucket.take(len(req.Items), c.received); wait > 0 {
		d.metrics.refused.WithLabelValues(c.source.name, codeRateLimited).Inc()
		return tooFast(wait, c.source.bucket.perSecond)
	}
	ctx, cancel := d.patience(c.ctx)
	defer cancel()
	recs, err := d.records(c, req, work, room, func(recs []record) error { return d.sendBy(ctx, recs) })
	if err != nil {
		c.source.bucket.give(len(req.Items))
	}
	switch {
	case errors.Is(err, errNoRoom):
		return d.noRoom(c.source)
	case err != nil:
		d.log.Debug("request not acknowledged by kafka", zap.String("endpoint", c.ep.name), zap.Error(err))
		return later(codeUnavailable, "the events could not be stored; come again")
	}
	return c.source.stored(recs, req.Batch)
}

// records makes a record of each item, valid or not, and sends them, in order: at most max_request_bytes at a time, since
// with the batch-level context in each event they may be many times what the request was. What the answer does not need
// of those sent is let go.
// Their memory is the desk's.
func (d *door) records(c *call, req event.Request, work *desk, room *lease, send func([]record) error) ([]record, error) {
	it := item{meta: c.source.meta(c.received), source: c.source, client: c.client, desk: work}
	it.meta.SentAt = req.SentAt
	fill := event.Filling{Type: c.ep.typ, MessageID: newMessageID, Context: req.Context, Integrations: req.Integrations}
	grows := req.Context != nil || req.Integrations != nil
	recs := work.room(len(req.Items))
	sent, size := 0, 0
	for i, body := range req.Items {
		at := place{}
		if req.Batch {
			at = place{"batch", i}
		}
		it.body, it.number = body, i+1
		recs[i] = d.take(it, fill, c.path, at)
		n := len(recs[i].Value)
		if size > 0 && size+n > d.cfg.MaxRequestBytes {
			if err := send(recs[sent:i]); err != nil {
				return nil, err
			}
			for ; sent < i; sent++ {
				recs[sent] = recs[sent].told()
			}
			if grows {
				room.give(size)
			}
			size = 0
		}
		size += n
		if grows && !room.grow(n) {
			return nil, errNoRoom
		}
	}
	return recs, send(recs[sent:])
}

// told is what an answer says of a record.
func (r *record) told() record {
	return record{reason: r.reason, why: r.why, left: r.left, meta: event.Meta{MessageID: strings.Clone(r.meta.MessageID)}}
}

func tooLargeRequest(limit int) error {
	return &event.Error{Reason: event.TooLarge, Detail: fmt.Sprintf("a request may have %d bytes, after decompression too", limit)}
}

// unreadable answers a request whose body could not be read.
func (d *door) unreadable(c *call, err error, body []byte, limit int) answer {
	switch {
	case errors.Is(err, errNoRoom):
		return d.noRoom(c.source)
	case errors.Is(err, errBodyTooLarge):
		err = tooLargeRequest(limit)
	case errors.Is(err, errGzip):
		err = &event.Error{Reason: reasonInvalidGzip, Detail: err.Error()}
	default: // 408 is one of the few codes that SDKs come again for
		return refuse(http.StatusRequestTimeout, codeIncomplete, "the request ended before its body was complete")
	}
	if c.source == nil {
		return refuse(http.StatusBadRequest, event.Reason(err, event.InvalidJSON), err.Error())
	}
	return d.keep(c, err, body)
}

// keep refuses a request that cannot be taken apart, once its first bytes are on events.rejected.
func (d *door) keep(c *call, why error, body []byte) answer {
	meta := c.source.meta(c.received)
	meta.MessageID = newMessageID()
	rec := d.intake.aside(body, meta, nil, why, c.path)
	rec.Value = rec.Value[:min(len(rec.Value), maxKeptBytes)]
	if err := d.send(c.ctx, []record{rec}); err != nil {
		d.log.Debug("rejected request not acknowledged by kafka", zap.Error(err))
		return later(codeUnavailable, "the request could not be stored; come again")
	}
	reason := event.Reason(why, event.InvalidJSON)
	return refuse(c.source.status(reason), reason, why.Error())
}

// patience is how long the records of a request may take. It goes on when the sender has hung up: a browser that is
// leaving the page does so right after it has sent.
func (d *door) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d.cfg.ProduceTimeout)
}

// send is sendBy of a request's only records.
func (d *door) send(ctx context.Context, recs []record) error {
	ctx, cancel := d.patience(ctx)
	defer cancel()
	return d.sendBy(ctx, recs)
}

// sendBy returns nil when Kafka has all records.
func (d *door) sendBy(ctx context.Context, recs []record) error {
	p := d.trays.get()
	defer d.trays.put(p)
	var invalid []stream.Record
	for i := range recs {
		switch {
		case recs[i].left != "":
		case recs[i].reason == "":
			p.recs = append(p.recs, recs[i].Record)
		default:
			invalid = append(invalid, recs[i].Record)
		}
	}
	var rejected chan error
	if len(invalid) > 0 {
		rejected = make(chan error, 1)
		go func() { rejected <- d.rejected.SendAll(ctx, invalid) }()
	}
	var err error
	if len(p.recs) > 0 {
		err = d.collected.SendAll(ctx, p.recs)
	}
	if rejected != nil {
		if err2 := <-rejected; err2 != nil {
			return err2
		}
	}
	if at := (*stream.RecordError)(nil); errors.As(err, &at) {
		err = d.sendSingly(ctx, recs)
	}
	if err != nil {
		return err
	}
	d.intake.allAcknowledged(recs)
	return nil
}

// trays are memory for records to be sent, used again. Safe for concurrent use.
type trays struct{ pool sync.Pool }

type tray struct{ recs []stream.Record }

func (ts *trays) get() *tray {
	if p, ok := ts.pool.Get().(*tray); ok {
		return p
	}
	return &tray{}
}

func (ts *trays) put(p *tray) {
	if cap(p.recs) > maxKeptRecords {
		return
	}
	clear(p.recs)
	p.recs = p.recs[:0]
	ts.pool.Put(p)
}

// sendSingly finds the records that the broker itself refuses, because its limit is below ours, and puts their
// first bytes on events.rejected. Those sent twice by this have the same message ids.
func (d *door) sendSingly(ctx context.Context, recs []record) error {
	for i := range recs {
		if recs[i].reason != "" || recs[i].left != "" {
			continue
		}
		err := d.collected.SendAll(ctx, []stream.Record{recs[i].Record})
		if at := (*stream.RecordError)(nil); errors.As(err, &at) {
			r := &recs[i]
			why := &event.Error{Reason: reasonRefused, Detail: at.Error()}
			*r = d.intake.reject(r.Value[:min(len(r.Value), maxKeptBytes)], r.meta, r.Key, why, "", place{})
			err = d.rejected.SendAll(ctx, []stream.Record{r.Record})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
