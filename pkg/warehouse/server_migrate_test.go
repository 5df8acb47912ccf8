//go:build integration

package warehouse

import (
	"io/fs"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/schemas/clickhouse"
)

func files(t *testing.T, names map[string]string) fs.FS {
	t.Helper()
	out := fstest.MapFS{}
	for name, text := range names {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestMigrateTwiceAndByManyAtOnce(t *testing.T) {
	c := newClient(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := c.Migrate(t.Context(), clickhouse.Files, zap.NewNop()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, c.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	want, err := loadMigrations(clickhouse.Files)
	require.NoError(t, err)
	got, err := c.applied(t.Context())
	require.NoError(t, err)
	require.Len(t, got, len(want))
	for _, m := range want {
		require.Equal(t, m.checksum, got[uint32(m.number)], m.name)
		if !m.repeated {
			require.EqualValues(t, 1, scalar[uint64](t, c, "SELECT count() FROM ${database}.schema_migrations WHERE version = ?", m.number), m.name)
		}
	}
	require.EqualValues(t, len(want), scalar[uint64](t, c, "SELECT uniqExact(version) FROM ${database}.schema_migrations"))
}

func TestMigrateRefusesWhatItMustNotTouch(t *testing.T) {
	c := newClient(t)
	one := "CREATE TABLE IF NOT EXISTS ${database}.a (x UInt8) ENGINE = MergeTree ORDER BY x"
	view := "CREATE OR REPLACE VIEW ${database}.v AS SELECT 'a;--' AS s; -- why\n/* ; */ CREATE OR REPLACE VIEW ${database}.w AS SELECT 2 AS n;"
	require.NoError(t, c.Migrate(t.Context(), files(t, map[string]string{"0001_a.sql": one, "0002_v.view.sql": view}), zap.NewNop()))
	require.Equal(t, "a;--", scalar[string](t, c, "SELECT s FROM ${database}.v"))
	// A view may change, back and forth; a table's file may not.
	for _, s := range []string{"b", "a;--", "b"} {
		text := "CREATE OR REPLACE VIEW ${database}.v AS SELECT '" + s + "' AS s"
		require.NoError(t, c.Migrate(t.Context(), files(t, map[string]string{"0001_a.sql": one, "0002_v.view.sql": text}), zap.NewNop()))
		require.Equal(t, s, scalar[string](t, c, "SELECT s FROM ${database}.v"))
	}
	err := c.Migrate(t.Context(), files(t, map[string]string{"0001_a.sql": one + " "}), zap.NewNop())
	require.ErrorIs(t, err, ErrNewerSchema)
	err = c.Migrate(t.Context(), files(t, map[string]string{"0001_a.sql": one + " ", "0002_v.view.sql": view}), zap.NewNop())
	require.ErrorIs(t, err, ErrEditedMigration)
	err = c.Migrate(t.Context(), files(t, map[string]string{"0001_a.sql": one, "0002_v.view.sql": view, "0003_x.sql": "SELEKT"}), zap.NewNop())
	require.ErrorIs(t, err, ErrPermanent)
	require.ErrorContains(t, err, "0003_x.sql: statement 1")
}

// A password that changed is written into the dictionary anew, without any file having changed.
func TestMigrateRepairsTheDictionary(t *testing.T) {
	c := newDatabase(t)
	require.NoError(t, c.Exec(t.Context(), "DROP DICTIONARY ${database}.person"))
	require.NoError(t, c.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	require.NoError(t, c.ReloadPersons(t.Context()))
}
