package builder

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

const (
	// identityPrefix stands before what is asked: show, why or history.
	identityPrefix = "/v1/identity/"
	// explainTimeout bounds one question: a few queries of ClickHouse, of which the greatest reads a person's links. It
	// is below writeTimeout.
	explainTimeout = 12 * time.Second
)

// identityAPI answers GET /v1/identity/show/{type}/{value}, /v1/identity/history/{type}/{value} and
// /v1/identity/why/{type}/{value}/{type}/{value}: who somebody is, and why, as 'weft identity' does with --json; ?brand= is its
// --brand; and GET /v1/identity/suspended. The answers hold all identifiers of a person, so the keys are others than those that read a profile.
type identityAPI struct {
	keys   accessKeys
	people *explain.Explainer // nil: there is no ClickHouse
	orders *commandsAPI
	log    *zap.Logger
}

// serve answers one request; rest is what stands behind the prefix, still escaped.
func (a *identityAPI) serve(h http.Header, r *http.Request, rest string) (any, *apiError) {
	acts := rest == "commands" || rest == "preview" || strings.HasPrefix(rest, "commands/")
	if err := a.keys.admit(h, r, "builder.admin_keys", acts); err != nil {
		return nil, err
	}
	if acts {
		return a.orders.serve(r, rest)
	}
	if a.people == nil {
		return nil, refuse(http.StatusNotFound, "no_history", "clickhouse.addresses is not configured for this profile-builder, so nobody's history can be read here")
	}
	if rest == "suspended" {
		return a.suspended(h, r)
	}
	question, path, _ := strings.Cut(rest, "/")
	parts := strings.Split(path, "/")
	want := 2
	if question == "why" {
		want = 4
	}
	if question != "show" && question != "why" && question != "history" || len(parts) != want {
		return nil, refuse(http.StatusNotFound, "unknown_path", "want "+identityPrefix+"show/{type}/{value}, history/{type}/{value}, why/{type}/{value}/{type}/{value}, or suspended, the values URL-escaped (a / in one is %2F)")
	}
	ids, refused := a.identifiers(r.URL.Query().Get("brand"), parts)
	if refused != nil {
		return nil, refused
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
	defer cancel()
	answer, err := a.ask(ctx, question, ids)
	return a.answer(h, r, answer, err)
}

// suspendedShown is how many suspended links an answer has if nobody says otherwise, and maxSuspended is the most.
const (
	suspendedShown = 100
	maxSuspended   = 10_000
)

// suspended answers GET /v1/identity/suspended?cap=&source=&type=&since=&limit=.
func (a *identityAPI) suspended(h http.Header, r *http.Request) (any, *apiError) {
	q := r.URL.Query()
	f := warehouse.SuspendedFilter{Cap: q.Get("cap"), Source: q.Get("source"), Type: q.Get("type"), Limit: suspendedShown}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxSuspended {
			return nil, refuse(http.StatusBadRequest, "invalid_value", "limit: want a number from 1 to "+strconv.Itoa(maxSuspended))
		}
		f.Limit = n
	}
	if text := q.Get("since"); text != "" {
		var err error
		if f.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid_value", "since: want a time such as 2026-03-01T12:00:00Z")
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
	defer cancel()
	answer, err := a.people.Suspended(ctx, f)
	return a.answer(h, r, answer, err)
}

// answer is the answer, or why there is none.
func (a *identityAPI) answer(h http.Header, r *http.Request, answer any, err error) (any, *apiError) {
	switch {
	case errors.Is(err, explain.ErrNobody):
		return nil, refuse(http.StatusNotFound, "unknown_identifier", err.Error())
	case err != nil:
		if r.Context().Err() == nil {
			a.log.Warn("identity can not be explained", zap.Error(err))
		}
		h.Set("Retry-After", retryAfter)
		return nil, refuse(http.StatusServiceUnavailable, "unavailable", "ClickHouse does not answer at the moment")
	}
	return answer, nil
}

// identifiers reads TYPE, VALUE, ..., all still escaped, as a brand knows them.
func (a *identityAPI) identifiers(brand string, parts []string) ([]explain.Identifier, *apiError) {
	var out []explain.Identifier
	for i := 0; i < len(parts); i += 2 {
		typ, err1 := url.PathUnescape(parts[i])
		value, err2 := url.PathUnescape(parts[i+1])
		if err1 != nil || err2 != nil {
			return nil, refuse(http.StatusBadRequest, "invalid_path", "type or value are not URL-escaped properly")
		}
		id, err := a.people.Identify(brand, typ, value)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid_value", err.Error())
		}
		out = append(out, id)
	}
	return out, nil
}

func (a *identityAPI) ask(ctx context.Context, question string, ids []explain.Identifier) (any, error) {
	switch question {
	case "why":
		return a.people.Why(ctx, ids[0], ids[1])
	case "history":
		return a.people.History(ctx, ids[0])
	}
	return a.people.Show(ctx, ids[0])
}
