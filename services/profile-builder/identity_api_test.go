package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// village is two people who are one, and a ClickHouse that may be away.
type village struct {
	winner, loser uuid.UUID
	away          error
}

func newVillage(t *testing.T) village {
	node := func(typ, value string) uuid.UUID {
		n, ok := testRules(t).Node(event.Identifier{Type: typ, Value: value})
		require.True(t, ok)
		return uuid.UUID(n)
	}
	return village{winner: node("user_id", "a/b"), loser: node("email", "a@x.example")}
}

func (v village) CurrentPerson(_ context.Context, node uuid.UUID) (uuid.UUID, error) {
	if node == v.loser {
		return v.winner, v.away
	}
	return node, v.away
}

func (v village) PersonMembers(_ context.Context, person uuid.UUID) ([]uuid.UUID, error) {
	if person == v.winner {
		return []uuid.UUID{v.loser, v.winner}, v.away
	}
	return []uuid.UUID{person}, v.away
}

func (v village) PersonLinks(_ context.Context, person uuid.UUID) ([]warehouse.LinkRow, error) {
	if person != v.winner {
		return nil, v.away
	}
	r := warehouse.LinkRow{Loser: v.loser, Winner: v.winner, Rule: "same_event", Cause: "collector:0:1", MessageID: "m1", Time: time.Unix(1e9, 0), Members: 1}
	first, second := r, r
	first.Type, first.Value, first.Node = "user_id", "a/b", v.winner
	second.N, second.Type, second.Value, second.Node = 1, "email", "a@x.example", v.loser
	return []warehouse.LinkRow{first, second}, v.away
}

func (v village) PersonSetAside(context.Context, uuid.UUID, time.Time, int) ([]warehouse.SetAsideRow, error) {
	return nil, nil
}

func (v village) Suspended(_ context.Context, f warehouse.SuspendedFilter) ([]warehouse.SuspendedRow, error) {
	return []warehouse.SuspendedRow{{A: v.winner, B: v.loser, Cap: f.Cap, Source: f.Source, AType: f.Type, Records: uint64(f.Limit), First: f.Since, Last: f.Since}}, v.away //nolint:gosec // positive
}

func (v village) PersonCauses(context.Context, uuid.UUID) ([]warehouse.CauseRow, error) {
	return nil, v.away
}

func (v village) PersonEvents(context.Context, uuid.UUID) ([]warehouse.ProfileEventsRow, error) {
	return nil, v.away
}

func TestIdentityAPI(t *testing.T) {
	for _, tc := range []struct {
		name, method, path, auth string
		history                  func(v *village)
		none                     bool
		status                   int
		code                     string
	}{
		{name: "show", path: "show/email/A@X.example", status: 200},
		{name: "show, escaped", path: "show/user_id/a%2Fb", status: 200},
		{name: "history", path: "history/user_id/a%2Fb", status: 200},
		{name: "why", path: "why/user_id/a%2Fb/email/a@x.example", status: 200},
		{name: "suspended", path: "suspended?cap=members_per_person&source=web&type=email&since=2026-03-01T00:00:00Z&limit=7", status: 200},
		{name: "suspended, too many", path: "suspended?limit=10001", status: 400, code: "invalid_value"},
		{name: "suspended, no time", path: "suspended?since=yesterday", status: 400, code: "invalid_value"},
		{name: "nobody", path: "show/email/nobody@x.example", status: 404, code: "unknown_identifier"},
		{name: "why of nobody", path: "why/user_id/a%2Fb/email/nobody@x.example", status: 404, code: "unknown_identifier"},
		{name: "a blocked value", path: "show/user_id/null", status: 400, code: "invalid_value"},
		{name: "a bad type", path: "show/e%20mail/x", status: 400, code: "invalid_value"},
		{name: "one too few", path: "why/user_id/a/email", status: 404, code: "unknown_path"},
		{name: "another question", path: "split/user_id/a", status: 404, code: "unknown_path"},
		{name: "nothing", path: "", status: 404, code: "unknown_path"},
		{name: "posted", method: "POST", path: "show/user_id/a", status: 405, code: "method_not_allowed"},
		{name: "a key that reads profiles", path: "show/user_id/a%2Fb", auth: "k1", status: 401, code: "unauthorized"},
		{name: "no clickhouse", path: "show/user_id/a%2Fb", none: true, status: 404, code: "no_history"},
		{name: "clickhouse away", path: "show/user_id/a%2Fb", history: func(v *village) { v.away = errors.New("dial tcp: refused") }, status: 503, code: "unavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newVillage(t)
			if tc.history != nil {
				tc.history(&v)
			}
			a := testAPI(t, known{}, "k1")
			a.people = &identityAPI{keys: hashKeys([]string{"admin"}), people: explain.New(v, testRules(t)), log: zap.NewNop()}
			if tc.none {
				a.people.people = nil
			}
			if tc.method == "" {
				tc.method = http.MethodGet
			}
			if tc.auth == "" {
				tc.auth = "admin"
			}
			req := httptest.NewRequestWithContext(t.Context(), tc.method, "/v1/identity/"+tc.path, nil)
			req.Header.Set("Authorization", "Bearer "+tc.auth)
			w := httptest.NewRecorder()
			a.ServeHTTP(w, req)
			require.Equal(t, tc.status, w.Code, w.Body)
			require.NotContains(t, w.Body.String(), "dial", "what is inside stays inside")
			var body struct {
				Code, ID   string
				SamePerson bool
				Suspended  []explain.SuspendedLink
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			require.Equal(t, tc.code, body.Code)
			if tc.name == "suspended" {
				require.Equal(t, "members_per_person web email 7 open", fmt.Sprint(body.Suspended[0].Cap, " ", body.Suspended[0].Source, " ", body.Suspended[0].Between[0].Type,
					" ", body.Suspended[0].Records, " ", body.Suspended[0].State))
			} else if tc.status == 200 {
				require.True(t, body.SamePerson || body.ID == v.winner.String())
			}
		})
	}
}
