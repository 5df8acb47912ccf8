package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/profile"
)

// known finds one profile and fails for one other.
type known struct {
	id, broken string
	err        error
}

func (k known) find(_ context.Context, id string) (person, bool, error) {
	if id == k.broken {
		return person{}, false, k.err
	}
	return person{id: id, state: &profile.State{}}, id == k.id, nil
}

func testAPI(t *testing.T, f finder, keys ...string) *api {
	t.Helper()
	m, err := newMetrics(nil)
	require.NoError(t, err)
	return newAPI(keys, testRules(t), f, &identityAPI{keys: hashKeys([]string{"admin"}), log: zap.NewNop()}, m, zap.NewNop())
}

func testRules(t *testing.T) *identity.Rules {
	t.Helper()
	r, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{DefaultRegion: "PL"})
	require.NoError(t, err)
	return r
}

func TestAPI(t *testing.T) {
	node := func(typ, value string) string {
		n, ok := testRules(t).Node(event.Identifier{Type: typ, Value: value})
		require.True(t, ok)
		return n.String()
	}
	email := node(event.Email, "a+b@x.example")
	slash := node(event.UserID, "a/b?c d")
	named := node(event.UserID, "orders")
	phone := node(event.Phone, "+48123456789")
	for _, tc := range []struct {
		name, method, path, auth string
		keys                     []string
		finder                   known
		status                   int
		code                     string
	}{
		{name: "found", path: "/v1/profiles/email/a+b@x.example", finder: known{id: email}, status: 200},
		{name: "normalised like an event's", path: "/v1/profiles/email/%20A%2Bb@X.example", finder: known{id: email}, status: 200},
		{name: "a phone as people write it", path: "/v1/profiles/phone/123%20456%20789", finder: known{id: phone}, status: 200},
		{name: "escaped value", path: "/v1/profiles/user_id/a%2Fb%3Fc%20d", finder: known{id: slash}, status: 200},
		{name: "profile id", path: "/v1/profiles/profile/" + email, finder: known{id: email}, status: 200},
		{name: "profile id in capitals", path: "/v1/profiles/profile/" + strings.ToUpper(email), finder: known{id: email}, status: 200},
		{name: "head", method: "HEAD", path: "/v1/profiles/email/a+b@x.example", finder: known{id: email}, status: 200},
		{name: "orders", path: "/v1/profiles/email/a+b@x.example/orders", finder: known{id: email}, status: 200},
		{name: "orders under a profile id", path: "/v1/profiles/profile/" + email + "/orders", finder: known{id: email}, status: 200},
		{name: "orders of an escaped value", path: "/v1/profiles/user_id/a%2Fb%3Fc%20d/orders", finder: known{id: slash}, status: 200},
		{name: "somebody called orders", path: "/v1/profiles/user_id/orders", finder: known{id: named}, status: 200},
		{name: "orders of somebody called orders", path: "/v1/profiles/user_id/orders/orders", finder: known{id: named}, status: 200},
		{name: "orders of nobody", path: "/v1/profiles/email/nobody@x.example/orders", finder: known{id: email}, status: 404, code: "unknown_profile"},
		{name: "orders without a key", auth: "-", path: "/v1/profiles/email/a+b@x.example/orders", finder: known{id: email}, status: 401, code: "unauthorized"},
		{name: "orders, redis away", path: "/v1/profiles/email/a+b@x.example/orders", finder: known{broken: email, err: errors.New("dial tcp: refused")}, status: 503, code: "unavailable"},
		{name: "orders posted", method: "POST", path: "/v1/profiles/email/a+b@x.example/orders", status: 405, code: "method_not_allowed"},
		{name: "something behind orders", path: "/v1/profiles/user_id/a/orders/1", status: 400, code: "invalid_path"},
		{name: "orders of a blank value", path: "/v1/profiles/user_id//orders", status: 400, code: "invalid_value"},
		{name: "unknown", path: "/v1/profiles/email/nobody@x.example", finder: known{id: email}, status: 404, code: "unknown_profile"},
		{name: "redis away", path: "/v1/profiles/email/a+b@x.example", finder: known{broken: email, err: errors.New("dial tcp: refused")}, status: 503, code: "unavailable"},
		{name: "newer state", path: "/v1/profiles/email/a+b@x.example", finder: known{broken: email, err: fmt.Errorf("x: %w", keyed.ErrNewerState)}, status: 500, code: "newer_state"},
		{name: "no profile id", path: "/v1/profiles/profile/17", status: 400, code: "invalid_profile_id"},
		{name: "bad type", path: "/v1/profiles/user%20id/17", status: 400, code: "invalid_type"},
		{name: "reserved type", path: "/v1/profiles/event/17", status: 400, code: "invalid_type"},
		{name: "blank value", path: "/v1/profiles/user_id/%20", status: 400, code: "invalid_value"},
		{name: "no value", path: "/v1/profiles/user_id", status: 400, code: "invalid_path"},
		{name: "too many parts", path: "/v1/profiles/user_id/a/b", status: 400, code: "invalid_path"},
		{name: "dots are a value, no path", path: "/v1/profiles/user_id/..", status: 400, code: "invalid_value"},
		{name: "a blocked value", path: "/v1/profiles/user_id/undefined", status: 400, code: "invalid_value"},
		{name: "elsewhere", path: "/v2/profiles/user_id/1", status: 404, code: "unknown_path"},
		{name: "root", path: "/", status: 404, code: "unknown_path"},
		{name: "post", method: "POST", path: "/v1/profiles/user_id/1", status: 405, code: "method_not_allowed"},
		{name: "no key", auth: "-", path: "/v1/profiles/user_id/1", status: 401, code: "unauthorized"},
		{name: "wrong key", auth: "Bearer k3", path: "/v1/profiles/user_id/1", status: 401, code: "unauthorized"},
		{name: "empty key", auth: "Bearer ", path: "/v1/profiles/user_id/1", status: 401, code: "unauthorized"},
		{name: "basic", auth: "Basic k1", path: "/v1/profiles/user_id/1", status: 401, code: "unauthorized"},
		{name: "any of the keys", auth: "bearer k1", path: "/v1/profiles/user_id/1", status: 404, code: "unknown_profile"},
		{name: "no keys configured", keys: []string{}, path: "/v1/profiles/user_id/1", status: 403, code: "no_access_keys"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.method == "" {
				tc.method = http.MethodGet
			}
			if tc.keys == nil {
				tc.keys = []string{"k1", "k2"}
			}
			req := httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, nil)
			if tc.auth == "" {
				tc.auth = "Bearer k2"
			}
			if tc.auth != "-" {
				req.Header.Set("Authorization", tc.auth)
			}
			w := httptest.NewRecorder()
			testAPI(t, tc.finder, tc.keys...).ServeHTTP(w, req)
			require.Equal(t, tc.status, w.Code, w.Body)
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			require.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"))
			switch tc.status {
			case http.StatusUnauthorized:
				require.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
			case http.StatusMethodNotAllowed:
				require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
			case http.StatusServiceUnavailable:
				require.NotContains(t, w.Body.String(), "dial", "what is inside stays inside")
			}
			if tc.method == http.MethodHead {
				require.Empty(t, w.Body.String())
				return
			}
			var body struct{ ID, Profile, Code, Message string }
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			require.Equal(t, tc.code, body.Code)
			require.Equal(t, tc.code != "", body.Message != "")
			wantOrders := strings.Count(tc.path, "/") == 5
			require.Equal(t, tc.status == 200 && !wantOrders, body.ID != "")
			require.Equal(t, tc.status == 200 && wantOrders, body.Profile != "")
		})
	}
}

func TestEndsAreReadOncePerWhile(t *testing.T) {
	reads := 0
	var fail error
	e := &ends{read: func(context.Context) ([]int64, error) {
		reads++
		return []int64{5, 7}, fail
	}}
	end, ok := e.of(t.Context(), 1)
	require.True(t, ok)
	require.EqualValues(t, 7, end)
	_, ok = e.of(t.Context(), 2)
	require.False(t, ok, "no such partition")
	require.Equal(t, 1, reads)
	fail = errors.New("away")
	e.at = time.Time{}
	for range 3 {
		_, ok = e.of(t.Context(), 0)
		require.False(t, ok)
	}
	require.Equal(t, 2, reads, "a failure is not asked for again at once")
}

func TestTheShippedAudiencesCompile(t *testing.T) {
	as, err := loadAudiences("")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(as.List), 4)
	for _, a := range as.List {
		require.NotEmpty(t, a.Description, a.Name)
	}
}
