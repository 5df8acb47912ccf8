//go:build integration

package warehouse_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/pkg/warehouse/conformance"
)

// windowHere is small enough to be filled in a test; the tables' own is 10,000.
const windowHere = 20

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Subject {
		addr := os.Getenv("WEFT_TEST_CLICKHOUSE")
		require.NotEmpty(t, addr, "WEFT_TEST_CLICKHOUSE must name host:port of a ClickHouse (make test sets it)")
		c, err := warehouse.Open(config.ClickHouse{
			Addresses: []string{addr}, Username: "default", Database: "weft_test_" + strings.ReplaceAll(uuid.NewString(), "-", ""),
		})
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			require.NoError(t, c.Exec(ctx, "DROP DATABASE IF EXISTS ${database} SYNC"))
			require.NoError(t, c.Close())
		})
		column := func(t *testing.T, sql string) []string {
			t.Helper()
			res, err := c.Query(t.Context(), sql)
			require.NoError(t, err)
			out := make([]string, len(res.Rows))
			for i, r := range res.Rows {
				out[i] = r[0]
			}
			return out
		}
		others := 0
		return conformance.Subject{
			Warehouse: c, Window: windowHere,
			Offsets: func(t *testing.T, table string) (out []uint64) {
				for _, text := range column(t, "SELECT offset FROM ${database}."+table+" ORDER BY offset") {
					n, err := strconv.ParseUint(text, 10, 64)
					require.NoError(t, err)
					out = append(out, n)
				}
				return out
			},
			Values: func(t *testing.T, table, name string) []string {
				return column(t, "SELECT ifNull(toString("+name+"), '') FROM ${database}."+table+" ORDER BY offset")
			},
			LoseMonth: func(t *testing.T, table string, month time.Time) {
				require.NoError(t, c.Exec(t.Context(), "ALTER TABLE ${database}."+table+" DROP PARTITION "+month.Format("200601")))
			},
			Others: func(t *testing.T, table string, n int) {
				require.NoError(t, c.Exec(t.Context(), fmt.Sprintf("ALTER TABLE ${database}.%s MODIFY SETTING non_replicated_deduplication_window = %d", table, windowHere)))
				for range n {
					others++
					b := warehouse.Events().NewBlock()
					at := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
					b.Add(&warehouse.Event{Origin: warehouse.Origin{Topic: "others", Offset: uint64(1000 + others)}, Time: at, ReceivedAt: at}) //nolint:gosec // small
					require.NoError(t, c.Insert(t.Context(), b, warehouse.Token{Text: fmt.Sprint("others", others), Limit: time.Minute}, time.Now))
				}
			},
		}
	})
}
