package warehouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"go.uber.org/zap"
)

// ErrNewerSchema means that a newer binary has migrated the database: this one must not touch it.
var ErrNewerSchema = errors.New("database has a newer schema than this binary knows")

// ErrEditedMigration means that a file that was applied once reads differently now.
var ErrEditedMigration = errors.New("migration was edited after it had been applied")

const (
	// migrateAttempts is how often a file is tried: two processes that replace the same view at once can
	// get in each other's way, once.
	migrateAttempts = 5
	// migratePause is the pause between attempts.
	migratePause = 200 * time.Millisecond
	// ledgerWindow deduplicates the notes of processes that migrate at once.
	ledgerWindow = 1000
)

// migration is one numbered file.
type migration struct {
	number   int
	name     string // the file's
	repeated bool   // *.view.sql: holds no data, applied again when changed
	text     string
	checksum string
}

var migrationName = regexp.MustCompile(`^(\d{4})_[a-z0-9_]+(\.view)?\.sql$`)

// loadMigrations reads the numbered files, in order.
func loadMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []migration
	for _, name := range names {
		m := migrationName.FindStringSubmatch(name)
		if m == nil {
			return nil, fmt.Errorf("migration %s: name is not NNNN_name.sql or NNNN_name.view.sql", name)
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		if len(out) > 0 && out[len(out)-1].number == n {
			return nil, fmt.Errorf("migrations %s and %s have the same number", out[len(out)-1].name, name)
		}
		sum := sha256.Sum256(b)
		out = append(out, migration{number: n, name: name, repeated: m[2] != "", text: string(b), checksum: hex.EncodeToString(sum[:])})
	}
	if len(out) == 0 {
		return nil, errors.New("there are no migrations")
	}
	return out, nil
}

// ledgerSQL makes the table of what was applied; the row of the latest applied_at per number counts.
var ledgerSQL = `CREATE TABLE IF NOT EXISTS ${database}.schema_migrations
(
    version    UInt32,
    name       String,
    checksum   String,
    applied_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY version
SETTINGS non_replicated_deduplication_window = ` + strconv.Itoa(ledgerWindow)

// Migrate makes the database if it is missing and applies the numbered files that were not applied yet, in
// order, and the repeated ones that have changed. It may run in several processes at once: there is no lock
// in ClickHouse to hold, so every statement can be run twice without harm, and who comes second does.
func (c *Client) Migrate(ctx context.Context, files fs.FS, log *zap.Logger) error {
	all, err := loadMigrations(files)
	if err != nil {
		return fmt.Errorf("migrate clickhouse: %w", err)
	}
	// Atomic is the default of a server, and named for libchdb, whose default does not survive a restart.
	for _, sql := range []string{"CREATE DATABASE IF NOT EXISTS ${database} ENGINE = Atomic", ledgerSQL} {
		if err := c.retryDDL(ctx, sql); err != nil {
			return fmt.Errorf("migrate clickhouse: %w", err)
		}
	}
	applied, err := c.applied(ctx)
	if err != nil {
		return fmt.Errorf("migrate clickhouse: %w", err)
	}
	last := uint32(all[len(all)-1].number) //nolint:gosec // four digits
	for version := range applied {
		if version > last {
			return fmt.Errorf("migrate clickhouse: %w: version %d, known %d", ErrNewerSchema, version, last)
		}
	}
	for _, m := range all {
		before, done := applied[uint32(m.number)] //nolint:gosec // four digits
		switch {
		case done && before == m.checksum:
			continue
		case done && !m.repeated:
			return fmt.Errorf("migrate clickhouse: %w: %s", ErrEditedMigration, m.name)
		}
		if err := c.apply(ctx, m); err != nil {
			return fmt.Errorf("migrate clickhouse: %s: %w", m.name, err)
		}
		log.Info("clickhouse migration applied", zap.String("file", m.name), zap.String("database", c.database))
	}
	return c.repairPersons(ctx, all)
}

// applied reads the checksums of what was applied, by number.
func (c *Client) applied(ctx context.Context) (map[uint32]string, error) {
	var rows []struct {
		Version  uint32 `ch:"version"`
		Checksum string `ch:"checksum"`
	}
	const sql = `SELECT version, argMax(m.checksum, m.applied_at) AS checksum FROM ${database}.schema_migrations AS m GROUP BY version`
	if err := c.Select(ctx, &rows, sql); err != nil {
		return nil, err
	}
	out := make(map[uint32]string, len(rows))
	for _, r := range rows {
		out[r.Version] = r.Checksum
	}
	return out, nil
}

// apply runs a file's statements and notes that.
func (c *Client) apply(ctx context.Context, m migration) error {
	for i, sql := range splitStatements(m.text) {
		if err := c.retryDDL(ctx, sql); err != nil {
			return fmt.Errorf("statement %d: %w", i+1, err)
		}
	}
	token := "migration:" + strconv.Itoa(m.number) + ":" + m.checksum
	if m.repeated { // a text that comes back must be noted again
		token += ":" + time.Now().UTC().Format(time.RFC3339Nano)
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token,
	}))
	return c.Exec(ctx, "INSERT INTO ${database}.schema_migrations (version, name, checksum) VALUES (?, ?, ?)",
		m.number, m.name, m.checksum)
}

// retryDDL runs one statement, with database, user and password filled in.
func (c *Client) retryDDL(ctx context.Context, sql string) error {
	sql = strings.NewReplacer("${user}", sqlEscaper.Replace(c.user), "${password}", sqlEscaper.Replace(c.password)).Replace(sql)
	var err error
	for range migrateAttempts {
		if err = c.Exec(ctx, sql); err == nil || errors.Is(err, ErrPermanent) && !concurrentDDL(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(migratePause):
		}
	}
	return err
}

// concurrentDDL says that two processes got in each other's way over one object.
func concurrentDDL(err error) bool {
	code, ok := serverCode(err)
	return ok && (code == 60 || code == 57) // UNKNOWN_TABLE, TABLE_ALREADY_EXISTS
}

// repairPersons replaces the dictionaries if one cannot load: the password they were made with may have changed,
// which no checksum of a file shows.
func (c *Client) repairPersons(ctx context.Context, all []migration) error {
	i := slices.IndexFunc(all, func(m migration) bool { return strings.Contains(m.text, "DICTIONARY ${database}.person") })
	if i < 0 || c.ReloadPersons(ctx) == nil {
		return nil
	}
	if err := c.apply(ctx, all[i]); err != nil {
		return fmt.Errorf("migrate clickhouse: %s: %w", all[i].name, err)
	}
	return c.ReloadPersons(ctx)
}
