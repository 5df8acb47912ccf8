//go:build integration

package warehouse

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// The analyst of schemas/clickhouse/users.d, which the server under test must have been given, reads views
// and dictionary and nothing else. The users file names the database weft, so this test works in that one
// and leaves it there; it writes nothing but the schema.
func TestAnalystReadsViewsAndNothingElse(t *testing.T) {
	cfg := config.ClickHouse{Addresses: []string{serverAddress(t)}, Username: "default", Database: "weft"}
	admin, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, admin.Close()) })
	require.NoError(t, admin.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	cfg.Username = "analyst"
	analyst, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, analyst.Close()) })
	run := func(sql string) error {
		_, err := analyst.Query(context.Background(), sql)
		return err
	}
	between := "(from = '2020-01-01', to = '2030-01-01', brand = '', "
	for _, view := range grantedViews(t) {
		args := map[string]string{
			"funnel": between + "window = 86400)", "carts": "(within = 60)", "cart_abandonment": between + "within = 60)",
			"recovered_carts": between + "within = 60)", "recovery": between + "within = 60)",
			"identity_intervals": "(known = '')", "identity_at": "(at = '2026-01-01', known = '')",
			"person_of":           "(type = 'email', value = 'a@example.org', at = '2026-01-01', known = '')",
			"events_by_person_at": "(at = '2026-01-01', known = '2026-01-01')", "events_by_person_then": "(known = '')",
			"person_timeline": "(person = '00000000-0000-8000-8000-000000000001')",
		}[view]
		require.NoError(t, run("SELECT * FROM ${database}."+view+args+" LIMIT 1"), view)
	}
	require.NoError(t, run("SELECT dictGetOrDefault('${database}.person', 'current', tuple(generateUUIDv4()), generateUUIDv4())"))
	require.NoError(t, run("SELECT 1 SETTINGS max_threads = 1"), "clients set settings")

	for _, table := range []string{TableEvents, TableRejected, TableIdentities, TableRedirects, TableMoves, TableProfiles, TableAudiences,
		TableMessages, TableReceipts, TableEventParts, TableMessageParts, TableSuspensions, TableCommands, "schema_migrations"} {
		denied(t, run("SELECT count() FROM ${database}."+table))
		denied(t, analyst.Exec(t.Context(), "TRUNCATE TABLE ${database}."+table))
	}
	for _, sql := range []string{
		"SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
		"SELECT * FROM file('/etc/passwd', 'CSV', 'a String')",
		"SELECT * FROM remote('127.0.0.1', 'weft', 'events')",
		"SELECT * FROM system.users", "SELECT * FROM system.processes", "SELECT * FROM system.settings_profiles", "SELECT * FROM system.parts",
		"INSERT INTO ${database}.events (brand) VALUES ('x')",
		"INSERT INTO FUNCTION url('http://127.0.0.1:1/', 'CSV', 'a String') VALUES ('x')",
		"CREATE TABLE ${database}.x (a UInt8) ENGINE = Memory",
		"CREATE TEMPORARY TABLE x (a UInt8)",
		"CREATE VIEW ${database}.x AS SELECT * FROM ${database}.events",
		"ALTER TABLE ${database}.events DELETE WHERE 1",
		"DROP VIEW ${database}.sessions", "DROP DATABASE ${database}",
		"SYSTEM RELOAD DICTIONARY ${database}.person",
		"KILL QUERY WHERE 1", "GRANT SELECT ON ${database}.events TO analyst",
		"SET max_memory_usage = 100000000000", "SET allow_ddl = 1",
		"SELECT 1 SETTINGS max_memory_usage = 100000000000",
	} {
		denied(t, analyst.Exec(t.Context(), sql), sql)
	}
	// Of the server's own tables only what the grants show through: not one row about a raw table.
	tables, err := analyst.Query(t.Context(), "SELECT name FROM system.tables WHERE database = 'weft'")
	require.NoError(t, err)
	for _, row := range tables.Rows {
		require.NotContains(t, []string{TableEvents, TableRejected, TableProfiles}, row[0])
	}
	columns, err := analyst.Query(t.Context(), "SELECT name FROM system.columns WHERE database = 'weft' AND name IN ('traits', 'ip', 'address', 'context', 'content', 'body')")
	require.NoError(t, err)
	require.Empty(t, columns.Rows, "no personal column in any view")
}

// denied wants a refusal for want of a right, not any other error.
func denied(t *testing.T, err error, what ...any) {
	t.Helper()
	require.Error(t, err, what...)
	code, ok := serverCode(err)
	// ACCESS_DENIED, READONLY, SETTING_CONSTRAINT_VIOLATION, QUERY_IS_PROHIBITED
	require.True(t, ok && (code == 497 || code == 164 || code == 452 || code == 392), "%v: %v", what, err)
	require.False(t, errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "UNKNOWN_TABLE"))
}
