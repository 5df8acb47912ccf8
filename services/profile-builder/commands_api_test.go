package builder

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/undo"
)

// A command over HTTP is a record of identities.commands, once for each id, and its state can be asked for; what is none is
// refused by the field that is wrong, and nothing is published.
func TestCommandsOverHTTP(t *testing.T) {
	e := newEnv(t)
	e.cfg.Builder.AdminKeys = []string{"admin"}
	s, _ := e.start()
	ask := func(method, path, key, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr()+identityPrefix+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	const reject = `{"id":"r1","kind":"reject","actor":"eve","reason":"ticket 9","identifiers":["email:Ann@example.com","user_id:bob"]}`
	for _, tc := range []struct {
		name, method, path, key, body string
		status                        int
		says                          string
	}{
		{"a key that reads profiles", http.MethodPost, "commands", testKey, reject, 401, "unauthorized"},
		{"no JSON", http.MethodPost, "commands", "admin", "no", 400, "invalid_body"},
		{"a field that is none", http.MethodPost, "commands", "admin", `{"kin":"link"}`, 400, "kin"},
		{"an identifier without a type", http.MethodPost, "commands", "admin", `{"kind":"link","identifiers":["ann"]}`, 400, "identifiers[0]"},
		{"another kind", http.MethodPost, "commands", "admin", strings.Replace(reject, `"reject"`, `"join"`, 1), 400, "kind: "},
		{"nobody", http.MethodPost, "commands", "admin", strings.Replace(reject, `"eve"`, `""`, 1), 400, "actor: "},
		{"no reason", http.MethodPost, "commands", "admin", strings.Replace(reject, `"ticket 9"`, `""`, 1), 400, "reason: "},
		{"one identifier", http.MethodPost, "commands", "admin", strings.Replace(reject, `,"user_id:bob"`, ``, 1), 400, "identifiers: "},
		{"a split without parts", http.MethodPost, "commands", "admin", `{"kind":"split","actor":"eve","reason":"x"}`, 400, "person: "},
		{"an unknown command", http.MethodGet, "commands/none", "admin", "", 404, "unknown_command"},
		{"another method", http.MethodPut, "commands", "admin", reject, 405, "method_not_allowed"},
		{"a preview without ClickHouse", http.MethodPost, "preview", "admin", `{"identifiers":["user_id:bob"]}`, 404, "no_history"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body := ask(tc.method, tc.path, tc.key, tc.body)
			require.Equal(t, tc.status, status, body)
			require.Contains(t, body, tc.says)
		})
	}
	require.Empty(t, e.read(e.topics.IdentitiesCommands()))

	status, body := ask(http.MethodPost, "commands", "admin", reject)
	require.Equal(t, 200, status, body)
	status, body = ask(http.MethodGet, "commands/r1", "admin", "")
	require.Equal(t, 200, status, body)
	var told undo.Status
	require.NoError(t, json.Unmarshal([]byte(body), &told))
	require.Equal(t, undo.Queued, told.State)
	recs := e.read(e.topics.IdentitiesCommands())
	require.Len(t, recs, 1)
	c, err := identity.ParseCommand(recs[0].Value)
	require.NoError(t, err)
	require.Equal(t, []string{"r1", "reject", "eve", "ticket 9"}, []string{c.ID, string(c.Kind), c.Actor, c.Reason})
	require.Equal(t, []identity.Evidence{
		{Type: event.Email, Value: "ann@example.com", Node: e.node(event.Email, "ann@example.com")},
		{Type: event.UserID, Value: "bob", Node: e.node(event.UserID, "bob")},
	}, c.Identifiers)
}
