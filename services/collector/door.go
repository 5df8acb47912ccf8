package collector

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/unsubscribe"
)

// endpoint is one path of the Segment contract.
type endpoint struct {
	name     string     // metrics label
	typ      event.Type // of a single call; empty: the items say it themselves
	keyInURL bool       // its senders can write no header
}

// endpoints are the paths below /v1/.
var endpoints = map[string]endpoint{
	"track": {name: "track", typ: event.Track}, "t": {name: "track", typ: event.Track},
	"identify": {name: "identify", typ: event.Identify}, "i": {name: "identify", typ: event.Identify},
	"page": {name: "page", typ: event.Page}, "p": {name: "page", typ: event.Page},
	"screen": {name: "screen", typ: event.Screen}, "s": {name: "screen", typ: event.Screen},
	"group": {name: "group", typ: event.Group}, "g": {name: "group", typ: event.Group},
	"alias": {name: "alias", typ: event.Alias}, "a": {name: "alias", typ: event.Alias},
	"batch": {name: "batch"}, "b": {name: "batch"},
	"import": {name: "import"},
}

// beaconPath is where RudderStack's SDKs send batches with sendBeacon, the key in the URL; Segment's take /v1/b.
const beaconPath = "/beacon/v1/batch"

// pixelOf finds the call of a pixel's path: /v1/pixel/CALL is Segment's, /pixel/v1/CALL RudderStack's.
func pixelOf(path string) (endpoint, bool) {
	for _, prefix := range []string{"/v1/pixel/", "/pixel/v1/"} {
		if name, below := strings.CutPrefix(path, prefix); below {
			ep, found := endpoints[name]
			return endpoint{name: "pixel", typ: ep.typ, keyInURL: true}, found && ep.typ != ""
		}
	}
	return endpoint{}, false
}

// door is the HTTP door. Safe for concurrent use.
type door struct {
	cfg                 config.Collector
	keys                *keys
	hooks               map[string]*hook
	intake              *intake
	reader              reader
	budget              *budget
	strangers           share // of the bytes in flight: of requests whose source is not known yet
	collected, rejected sender
	trays               trays
	secret              []byte
	page                *template.Template
	metrics             *metrics
	log, rarely         *zap.Logger
}

func newDoor(cfg config.Collector, in *intake, collected, rejected sender, m *metrics, log *zap.Logger) (*door, error) {
	k, err := newKeys(in)
	if err != nil {
		return nil, err
	}
	hooks, err := newHooks(in)
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
		cfg: cfg, keys: k, hooks: hooks, intake: in, budget: &budget{max: int64(cfg.MaxInFlightBytes)},
		collected: collected, rejected: rejected, secret: secret, page: page, metrics: m, log: log, rarely: rarely(log),
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
		if h["Content-Type"] = asJSON; a.contentType != contentJSON {
			h["Content-Type"] = []string{a.contentType}
		}
		h["X-Content-Type-Options"] = noSniffing
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead && len(a.body) > 0 {
		if _, err := w.Write(a.body); err != nil {
			d.log.Debug("answer not delivered", zap.String("endpoint", name), zap.Error(err))
		}
	}
	d.metrics.answered(name, a.status, time.Since(began))
	d.metrics.inFlight.Set(float64(d.budget.used.Load()))
}

func (d *door) route(r *http.Request) (name string, a answer) {
	if r.Method == http.MethodOptions {
		return "preflight", answer{status: http.StatusNoContent}
	}
	path := clean(r.URL.Path)
	below, isV1 := strings.CutPrefix(path, "/v1/")
	ep, isCall := endpoints[below]
	pixel, isPixel := pixelOf(path)
	key, isSettings := strings.CutPrefix(below, "projects/")
	key, hasSettings := strings.CutSuffix(key, "/settings")
	hook, isHook := strings.CutPrefix(path, hookPath)
	switch {
	case isV1 && isCall:
		if r.Method != http.MethodPost {
			return ep.name, notAllowed(http.MethodPost)
		}
		return ep.name, d.call(r, ep, path)
	case isPixel:
		return pixel.name, d.pixel(r, pixel, path)
	case path == beaconPath: // RudderStack's path for what a browser sends while it leaves a page
		if r.Method != http.MethodPost {
			return "beacon", notAllowed(http.MethodPost)
		}
		return "beacon", d.call(r, endpoint{name: "beacon", keyInURL: true}, path)
	case isV1 && below == "m": // the browser SDK's metrics about itself: taken, not kept
		return "metrics", success
	case isV1 && isSettings && hasSettings && !strings.Contains(key, "/"):
		return "settings", d.settings(r, key)
	case isHook:
		return "hooks", d.hook(r, hook)
	case path == unsubscribe.Path:
		return "unsubscribe", d.unsubscribe(r)
	case path == "/health":
		return "health", ok(`{"status":"ok"}`)
	}
	return "other", refuse(http.StatusNotFound, codeNotFound, "there is nothing at this path")
}

// clean drops trailing and doubled slashes: SDKs are configured with hosts that end in one.
func clean(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimRight(path, "/")
}
