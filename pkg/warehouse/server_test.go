//go:build integration

package warehouse

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// serverAddress is the native protocol of the ClickHouse that the integration tests run against.
func serverAddress(t testing.TB) string {
	addr := os.Getenv("WEFT_TEST_CLICKHOUSE")
	require.NotEmpty(t, addr, "WEFT_TEST_CLICKHOUSE must name host:port of a ClickHouse (make test sets it)")
	return addr
}

// newDatabase opens a client on a database of the test's own, migrated, and drops it afterwards.
func newDatabase(t testing.TB) *Client {
	c := newClient(t)
	require.NoError(t, c.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	return c
}

// newClient is newDatabase without the tables.
func newClient(t testing.TB) *Client {
	c, err := Open(config.ClickHouse{
		Addresses: []string{serverAddress(t)}, Username: "default",
		Database: "weft_test_" + strings.ReplaceAll(uuid.NewString(), "-", ""),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, c.Exec(ctx, "DROP DATABASE IF EXISTS ${database} SYNC"))
		require.NoError(t, c.Close())
	})
	return c
}

// scalar reads one value.
func scalar[T any](t testing.TB, c *Client, sql string, args ...any) T {
	t.Helper()
	var out T
	require.NoError(t, c.conn.QueryRow(t.Context(), c.fill(sql), args...).Scan(&out))
	return out
}

func id(n int) uuid.UUID { return uuid.MustParse(fmt.Sprintf("00000000-0000-8000-8000-%012d", n)) }

// token is one for an insert without a deadline.
func token(text string) Token { return Token{Text: text, Limit: time.Minute} }

func configAt(addr string) config.ClickHouse {
	return config.ClickHouse{Addresses: []string{addr}, Username: "default", Database: "weft"}
}
