package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/unsubscribe"
)

// Codes of error answers, beside the reasons of events; SDKs want "code" and "message" in the body.
const (
	codeUnknownKey  = "unknown_write_key"
	codeNotFound    = "not_found"
	codeMethod      = "method_not_allowed"
	codeUnavailable = "unavailable"
	codeOverloaded  = "overloaded"
	codeIncomplete  = "incomplete_request"
	codeEmptyBatch  = "empty_batch"
)

const (
	// maxGrowth bounds what batch-level context may make of a request: its items together may become this many
	// times collector.max_request_bytes.
	maxGrowth = 4
	// retryAfterMin and retryAfterSpread are the seconds that a sender is asked to wait: short, because some
	// SDKs give up after a few tries, and spread, because they all come back.
	retryAfterMin    = 1
	retryAfterSpread = 3
)

// endpoint is one path of the Segment contract.
type endpoint struct {
	name string     // metrics label
	typ  event.Type // of a single call; empty: the items say it themselves
}

// endpoints are the paths below /v1/.
var endpoints = map[string]endpoint{
	"track": {"track", event.Track}, "t": {"track", event.Track},
	"identify": {"identify", event.Identify}, "i": {"identify", event.Identify},
	"page": {"page", event.Page}, "p": {"page", event.Page},
	"screen": {"screen", event.Screen}, "s": {"screen", event.Screen},
	"group": {"group", event.Group}, "g": {"group", event.Group},
	"alias": {"alias", event.Alias}, "a": {"alias", event.Alias},
	"batch": {"batch", ""}, "b": {"batch", ""},
	"import": {"import", ""},
}

// answer is what a request gets.
type answer struct {
	status      int
	body        []byte
	contentType string
	header      [][2]string
}

func ok(body string) answer {
	return answer{status: http.StatusOK, body: []byte(body), contentType: "application/json"}
}

func refuse(status int, code, message string) answer {
	body, err := json.Marshal(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{code, message})
	if err != nil {
		body = []byte(`{"code":"internal","message":""}`) // cannot be: two strings
	}
	return answer{status: status, body: body, contentType: "application/json"}
}

// later asks the sender to come again.
func later(code, message string) answer {
	a := refuse(http.StatusServiceUnavailable, code, message)
	seconds := retryAfterMin + rand.IntN(retryAfterSpread) //nolint:gosec // spreading, not a secret
	a.header = append(a.header, [2]string{"Retry-After", strconv.Itoa(seconds)})
	return a
}

// door is the HTTP door. Safe for concurrent use.
type door struct {
	cfg                 config.Collector
	keys                *keys
	intake              *intake
	reader              reader
	budget              *budget
	collected, rejected sender
	secret              []byte
	page                *template.Template
	metrics             *metrics
	log                 *zap.Logger
}

func newDoor(cfg config.Collector, in *intake, collected, rejected sender, m *metrics, log *zap.Logger) (*door, error) {
	k, err := newKeys(in)
	if err != nil {
		return nil, err
	}
	secret, err := config.LoadOrCreateSecret(cfg.UnsubscribeSecret)
	if err != nil {
		return nil, fmt.Errorf("collector.unsubscribe_secret_file: %w", err)
	}
	page, err := template.New("page").Parse(unsubscribePage)
	if err != nil {
		return nil, fmt.Errorf("read the unsubscribe page: %w", err)
	}
	return &door{
		cfg: cfg, keys: k, intake: in, reader: reader{max: cfg.MaxRequestBytes}, budget: &budget{max: int64(cfg.MaxInFlightBytes)},
		collected: collected, rejected: rejected, secret: secret, page: page, metrics: m, log: log,
	}, nil
}

// ServeHTTP routes by hand, because http.ServeMux answers odd paths with a redirect, which SDKs take for
// success or for a failure: both lose the data.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	name, a := d.route(r)
	h := w.Header()
	cors(h, r)
	for _, kv := range a.header {
		h.Set(kv[0], kv[1])
	}
	if a.contentType != "" {
		h.Set("Content-Type", a.contentType)
		h.Set("X-Content-Type-Options", "nosniff")
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead && len(a.body) > 0 {
		if _, err := w.Write(a.body); err != nil {
			d.log.Debug("answer not delivered", zap.String("endpoint", name), zap.Error(err))
		}
	}
	d.metrics.requests.WithLabelValues(name, strconv.Itoa(a.status)).Inc()
	d.metrics.seconds.WithLabelValues(name).Observe(time.Since(began).Seconds())
	d.metrics.inFlight.Set(float64(d.budget.used.Load()))
}

func (d *door) route(r *http.Request) (name string, a answer) {
	if r.Method == http.MethodOptions {
		return "preflight", answer{status: http.StatusNoContent}
	}
	path := clean(r.URL.Path)
	below, isV1 := strings.CutPrefix(path, "/v1/")
	ep, isCall := endpoints[below]
	key, isSettings := strings.CutPrefix(below, "projects/")
	key, hasSettings := strings.CutSuffix(key, "/settings")
	switch {
	case isV1 && isCall:
		if r.Method != http.MethodPost {
			return ep.name, notAllowed(http.MethodPost)
		}
		return ep.name, d.call(r, ep, path)
	case isV1 && below == "m": // the browser SDK's metrics about itself: taken, not kept
		return "metrics", ok(`{"success":true}`)
	case isV1 && isSettings && hasSettings && !strings.Contains(key, "/"):
		return "settings", d.settings(r, key)
	case path == unsubscribe.Path:
		return "unsubscribe", d.unsubscribe(r)
	case path == "/health":
		return "health", ok(`{"status":"ok"}`)
	}
	return "other", refuse(http.StatusNotFound, codeNotFound, "there is nothing at this path")
}

func notAllowed(methods string) answer {
	a := refuse(http.StatusMethodNotAllowed, codeMethod, "this path takes "+methods)
	a.header = append(a.header, [2]string{"Allow", methods + ", OPTIONS"})
	return a
}

// clean drops trailing and doubled slashes: SDKs are configured with hosts that end in one.
func clean(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimRight(path, "/")
}

// call takes one request of events.
func (d *door) call(r *http.Request, ep endpoint, path string) answer {
	key, final := headerKey(r.Header.Get("Authorization"))
	src := d.keys.find(key)
	if final && src == nil {
		return unknownKey()
	}
	room := &lease{b: d.budget}
	defer room.release()
	body, err := d.reader.read(r.Body, r.ContentLength, room)
	received := d.intake.now().UTC().Truncate(time.Millisecond)
	if err != nil {
		return d.unreadable(r.Context(), err, body, src, received, path)
	}
	req, err := event.Split(body)
	if err != nil {
		if src == nil {
			return refuse(http.StatusBadRequest, event.Reason(err, event.InvalidJSON), err.Error())
		}
		return d.keep(r.Context(), err, body, src, received, path)
	}
	if src == nil {
		if src = d.keys.find(req.WriteKey); src == nil {
			return unknownKey()
		}
	}
	if ep.typ != "" && req.Batch { // a single call that happens to have a member of that name
		req = event.Request{Items: [][]byte{body}, SentAt: req.SentAt}
	}
	switch {
	case len(req.Items) == 0:
		return refuse(http.StatusBadRequest, codeEmptyBatch, "the batch has no events")
	case len(req.Items) > d.cfg.MaxBatchEvents:
		err := &event.Error{Reason: reasonTooManyEvents, Path: "batch", Detail: fmt.Sprintf("has %d events, at most %d", len(req.Items), d.cfg.MaxBatchEvents)}
		return d.keep(r.Context(), err, body, src, received, path)
	}
	recs, err := d.records(req, ep, item{meta: src.meta(received), source: src, client: clientOf(r)}, path, room)
	switch {
	case errors.Is(err, errNoRoom):
		return later(codeOverloaded, "too many bytes are in flight; come again")
	case err != nil:
		return d.keep(r.Context(), err, body, src, received, path)
	}
	if err := d.send(r.Context(), recs); err != nil {
		d.log.Debug("request not acknowledged by kafka", zap.String("endpoint", ep.name), zap.Error(err))
		return later(codeUnavailable, "the events could not be stored; come again")
	}
	return ok(`{"success":true}`)
}

func unknownKey() answer {
	return refuse(http.StatusUnauthorized, codeUnknownKey,
		"no source has this write key; send it as the user name of HTTP Basic, as a Bearer token, or as writeKey in the body")
}

func clientOf(r *http.Request) client {
	c := client{forwardedFor: r.Header.Values("X-Forwarded-For"), userAgent: r.UserAgent()}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.ip = at.Addr().Unmap()
	}
	return c
}

// records makes a record of each item, valid or not, in order. each is what they have in common.
func (d *door) records(req event.Request, ep endpoint, each item, path string, room *lease) ([]record, error) {
	each.meta.SentAt = req.SentAt
	recs := make([]record, len(req.Items))
	grown := 0
	for i, body := range req.Items {
		place := ""
		if req.Batch {
			place = "batch[" + strconv.Itoa(i) + "]"
		}
		each.body = body
		recs[i] = d.intake.take(each, event.Filling{Type: ep.typ, MessageID: newMessageID, Context: req.Context}, path, place)
		n := len(recs[i].Value)
		if grown += n; grown > maxGrowth*d.cfg.MaxRequestBytes {
			return nil, &event.Error{Reason: event.TooLarge, Path: "context", Detail: "with the batch-level context in every event the batch becomes too large; send smaller batches"}
		}
		if req.Context != nil && !room.grow(n) {
			return nil, errNoRoom
		}
	}
	return recs, nil
}

// unreadable answers a request whose body could not be read.
func (d *door) unreadable(ctx context.Context, err error, body []byte, src *source, received time.Time, path string) answer {
	switch {
	case errors.Is(err, errNoRoom):
		return later(codeOverloaded, "too many bytes are in flight; come again")
	case errors.Is(err, errBodyTooLarge):
		err = &event.Error{Reason: event.TooLarge, Detail: fmt.Sprintf("a request may have %d bytes, after decompression too", d.cfg.MaxRequestBytes)}
	case errors.Is(err, errGzip):
		err = &event.Error{Reason: reasonInvalidGzip, Detail: err.Error()}
	default: // 408 is one of the few codes that SDKs come again for
		return refuse(http.StatusRequestTimeout, codeIncomplete, "the request ended before its body was complete")
	}
	if src == nil {
		return refuse(http.StatusBadRequest, event.Reason(err, event.InvalidJSON), err.Error())
	}
	return d.keep(ctx, err, body, src, received, path)
}

// keep answers 400 to a request that cannot be taken apart, once its first bytes are on events.rejected.
func (d *door) keep(ctx context.Context, why error, body []byte, src *source, received time.Time, path string) answer {
	meta := src.meta(received)
	meta.MessageID = newMessageID()
	rec := d.intake.reject(body[:min(len(body), maxKeptBytes)], meta, nil, why, path, "")
	if err := d.send(ctx, []record{rec}); err != nil {
		d.log.Debug("rejected request not acknowledged by kafka", zap.Error(err))
		return later(codeUnavailable, "the request could not be stored; come again")
	}
	return refuse(http.StatusBadRequest, rec.reason, why.Error())
}

// send returns nil when Kafka has all records. It goes on when the sender has hung up: a browser that is
// leaving the page does so right after it has sent.
func (d *door) send(ctx context.Context, recs []record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.ProduceTimeout)
	defer cancel()
	valid := make([]stream.Record, 0, len(recs))
	var invalid []stream.Record
	for i := range recs {
		switch {
		case recs[i].left != "":
		case recs[i].reason == "":
			valid = append(valid, recs[i].Record)
		default:
			invalid = append(invalid, recs[i].Record)
		}
	}
	rejected := make(chan error, 1)
	if len(invalid) > 0 {
		go func() { rejected <- d.rejected.SendAll(ctx, invalid) }()
	} else {
		rejected <- nil
	}
	var err error
	if len(valid) > 0 {
		err = d.collected.SendAll(ctx, valid)
	}
	if err2 := <-rejected; err2 != nil {
		return err2
	}
	if at := (*stream.RecordError)(nil); errors.As(err, &at) {
		err = d.sendSingly(ctx, recs)
	}
	if err != nil {
		return err
	}
	for i := range recs {
		d.intake.acknowledged(&recs[i])
	}
	return nil
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
			*r = d.intake.reject(r.Value[:min(len(r.Value), maxKeptBytes)], r.meta, r.Key, why, "", "")
			err = d.rejected.SendAll(ctx, []stream.Record{r.Record})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
