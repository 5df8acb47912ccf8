package builder

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
)

const (
	// pathPrefix stands before TYPE/VALUE.
	pathPrefix = "/v1/profiles/"
	// ordersSuffix after TYPE/VALUE asks for the order history.
	ordersSuffix = "/orders"
	// typeProfile is the type of a profile id itself, current or merged.
	typeProfile = "profile"
	// lookupTimeout bounds the reading of one profile: a few round trips to Redis.
	lookupTimeout = 5 * time.Second
	// retryAfter is told when Redis is away, in seconds.
	retryAfter = "2"
)

// finder finds the profile that an id leads to. False: there is none.
type finder interface {
	find(ctx context.Context, id string) (person, bool, error)
}

// api answers GET /v1/profiles/{type}/{value}: the profile that an identifier belongs to, merges followed,
// and how fresh it is; with /orders behind it, that person's orders one by one. The value is URL-escaped
// and normalised as events are; the type "profile" takes a profile id. Authorization: Bearer KEY with one of the configured access keys. Every answer is JSON;
// errors have code and message.
type api struct {
	keys    accessKeys
	rules   *identity.Rules
	finder  finder
	people  *identityAPI
	metrics *metrics
	log     *zap.Logger
}

// accessKeys are the hashes of keys.
type accessKeys [][sha256.Size]byte

func hashKeys(keys []string) accessKeys {
	out := make(accessKeys, len(keys))
	for i, k := range keys {
		out[i] = sha256.Sum256([]byte(k))
	}
	return out
}

func newAPI(keys []string, rules *identity.Rules, f finder, people *identityAPI, m *metrics, log *zap.Logger) *api {
	return &api{keys: hashKeys(keys), rules: rules, finder: f, people: people, metrics: m, log: log}
}

// apiError is an answer that is not a profile.
type apiError struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Message }

func refuse(status int, code, message string) *apiError {
	return &apiError{status: status, Code: code, Message: message}
}

// ServeHTTP answers one request.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	found, err := a.serve(h, r)
	status, body := http.StatusOK, found
	if err != nil {
		status, body = err.status, err
	}
	b, encodeErr := json.Marshal(body)
	if encodeErr != nil {
		a.log.Error("answer can not be encoded", zap.Error(encodeErr))
		status, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"the profile can not be written as JSON"}`)
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(b, '\n')) // the caller has gone if it fails
	}
	a.metrics.requests.WithLabelValues(strconv.Itoa(status)).Observe(time.Since(begin).Seconds())
}

func (a *api) serve(h http.Header, r *http.Request) (any, *apiError) {
	if rest, ok := strings.CutPrefix(r.URL.EscapedPath(), identityPrefix); ok {
		return a.people.serve(h, r, rest)
	}
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), pathPrefix)
	if !ok {
		return nil, refuse(http.StatusNotFound, "unknown_path", "profiles are at GET "+pathPrefix+"{type}/{value}, their orders at GET "+pathPrefix+"{type}/{value}"+ordersSuffix+", who somebody is at GET "+identityPrefix)
	}
	if err := a.keys.admit(h, r, "builder.access_keys", false); err != nil {
		return nil, err
	}
	rest, history := cutOrders(rest)
	id, refused := a.profileID(rest)
	if refused != nil {
		return nil, refused
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookupTimeout)
	defer cancel()
	found, ok, err := a.finder.find(ctx, id)
	switch {
	case errors.Is(err, keyed.ErrNewerState):
		a.log.Error("profile can not be read", zap.String("profile", id), zap.Error(err))
		return nil, refuse(http.StatusInternalServerError, "newer_state", "the profile was written by a newer version of weft")
	case err != nil:
		if r.Context().Err() == nil {
			a.log.Warn("profile can not be read", zap.String("profile", id), zap.Error(err))
		}
		h.Set("Retry-After", retryAfter)
		return nil, refuse(http.StatusServiceUnavailable, "unavailable", "profiles can not be read at the moment")
	case !ok:
		return nil, refuse(http.StatusNotFound, "unknown_profile", "no event with this identifier has become a profile")
	}
	if history {
		return found.orders(), nil
	}
	return found.answer(), nil
}

// cutOrders takes ordersSuffix from a TYPE/VALUE/orders. Of TYPE/orders, orders is the value.
func cutOrders(escaped string) (rest string, found bool) {
	if rest, found = strings.CutSuffix(escaped, ordersSuffix); found && strings.Contains(rest, "/") {
		return rest, true
	}
	return escaped, false
}

// admit lets a request through that reads, with one of the keys, which stand at path of the configuration. It compares
// with every key in constant time, whichever matches. acts: the request may be one that does more than read.
func (keys accessKeys) admit(h http.Header, r *http.Request, path string, acts bool) *apiError {
	if !acts && r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		return refuse(http.StatusMethodNotAllowed, "method_not_allowed", "this is read with GET")
	}
	if len(keys) == 0 {
		return refuse(http.StatusForbidden, "no_access_keys", "no key is configured ("+path+"), so nobody may read this")
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(key)))
	match := 0
	for i := range keys {
		match |= subtle.ConstantTimeCompare(sum[:], keys[i][:])
	}
	if match == 0 || !strings.EqualFold(scheme, "Bearer") {
		h.Set("WWW-Authenticate", `Bearer realm="weft profiles"`)
		return refuse(http.StatusUnauthorized, "unauthorized", "a key of "+path+" is wanted: Authorization: Bearer KEY")
	}
	return nil
}

// profileID reads TYPE/VALUE, both still escaped.
func (a *api) profileID(escaped string) (string, *apiError) {
	t, v, ok := strings.Cut(escaped, "/")
	if !ok || strings.Contains(v, "/") {
		return "", refuse(http.StatusBadRequest, "invalid_path", "want "+pathPrefix+"{type}/{value}, the value URL-escaped (a / in it is %2F)")
	}
	typ, err1 := url.PathUnescape(t)
	value, err2 := url.PathUnescape(v)
	if err1 != nil || err2 != nil {
		return "", refuse(http.StatusBadRequest, "invalid_path", "type or value are not URL-escaped properly")
	}
	if typ == typeProfile {
		n, err := identity.ParseNode(strings.ToLower(value))
		if err != nil {
			return "", refuse(http.StatusBadRequest, "invalid_profile_id", "a profile id is a UUID as it stands in the topics")
		}
		return n.String(), nil
	}
	n, ignored := a.rules.Identify(event.Identifier{Type: typ, Value: value})
	switch ignored {
	case "":
		return n.Node.String(), nil
	case identity.IgnoredType:
		return "", refuse(http.StatusBadRequest, "invalid_type", "the type is that of an identifier (user_id, email, phone, anonymous_id, ...) or profile")
	}
	return "", refuse(http.StatusBadRequest, "invalid_value", "the value can not identify anybody: "+string(ignored))
}
