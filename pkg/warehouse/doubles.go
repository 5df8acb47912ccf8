package warehouse

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Double is a record that was stored more than once: the promise of exactly-once is broken.
type Double struct {
	Table     string `ch:"table"`
	Topic     string `ch:"topic"`
	Partition uint32 `ch:"partition"`
	Offset    uint64 `ch:"offset"`
	Rows      uint64 `ch:"rows"`
}

// doublesIn is every table, and what tells the rows of one record apart.
var doublesIn = []struct{ table, key string }{
	{TableEvents, ""}, {TableRejected, ""}, {TableIdentities, ", n"}, {TableRedirects, ", profile_id"}, {TableMoves, ", node"},
	{TableProfiles, ""}, {TableAudiences, ""}, {TableMessages, ""}, {TableReceipts, ""},
	{TableEventParts, ""}, {TableMessageParts, ""}, {TableSuspensions, ""}, {TableCommands, ""},
}

// doublesSettings let a count over a table that is larger than memory go to disk.
const doublesSettings = "SETTINGS max_bytes_before_external_group_by = 1000000000, max_bytes_before_external_sort = 1000000000"

// doublesSQL is the query for all tables.
func doublesSQL() string {
	parts := make([]string, len(doublesIn))
	for i, d := range doublesIn {
		parts[i] = fmt.Sprintf("SELECT '%[1]s' AS table, toString(topic) AS topic, partition, offset, count() AS rows\n"+
			"FROM ${database}.%[1]s GROUP BY topic, partition, offset%[2]s HAVING rows > 1", d.table, d.key)
	}
	return "SELECT * FROM\n(\n" + strings.Join(parts, "\nUNION ALL\n") + "\n)\nORDER BY table, topic, partition, offset LIMIT ?\n" + doublesSettings
}

// Doubles finds records that were stored more than once, at most limit of them; none is as it should be.
func (c *Client) Doubles(ctx context.Context, limit int) ([]Double, error) {
	var out []Double
	if err := c.Select(ctx, &out, doublesSQL(), limit); err != nil {
		return nil, fmt.Errorf("audit: look for double rows: %w", err)
	}
	return out, nil
}

// Extra is one row too many: a copy of a row that was stored before it.
type Extra struct {
	Table      string    `ch:"table"`
	Topic      string    `ch:"topic"`
	Partition  uint32    `ch:"partition"`
	Offset     uint64    `ch:"offset"`
	InsertedAt time.Time `ch:"inserted_at"`
	Part       string    `ch:"part"` // where the row stands, until that part is merged with others
	At         uint64    `ch:"at"`
}

// extrasSQL finds the rows too many of one table: of the copies of a row all but the one that was inserted
// first, and of equals the one that stands first.
func extrasSQL(table, key string) string {
	return fmt.Sprintf(`SELECT '%[1]s' AS table, toString(topic) AS topic, partition, offset, inserted_at, part, at FROM
(
    SELECT topic, partition, offset, inserted_at, _part AS part, _part_offset AS at,
        row_number() OVER (PARTITION BY topic, partition, offset%[2]s ORDER BY inserted_at, _part, _part_offset) AS copy
    FROM ${database}.%[1]s
    WHERE (topic, partition, offset) IN
        (SELECT topic, partition, offset FROM ${database}.%[1]s GROUP BY topic, partition, offset%[2]s HAVING count() > 1)
)
WHERE copy > 1
ORDER BY topic, partition, offset, inserted_at, part, at LIMIT ?
%[3]s`, table, key, doublesSettings)
}

// Extras finds rows too many, at most limit in each table.
func (c *Client) Extras(ctx context.Context, limit int) ([]Extra, error) {
	var all []Extra
	for _, d := range doublesIn {
		var out []Extra
		if err := c.Select(ctx, &out, extrasSQL(d.table, d.key), limit); err != nil {
			return nil, fmt.Errorf("audit: look for the double rows of %s: %w", d.table, err)
		}
		all = append(all, out...)
	}
	return all, nil
}

// RemoveExtras deletes rows that Extras found, and waits until it is done. A row is named by the place where it
// stands: one that was moved by a merge in the meantime stays, to be found again, and no other is ever deleted
// in its stead. So it is safe while journey-writer runs.
func (c *Client) RemoveExtras(ctx context.Context, extras []Extra) error {
	places := map[string][]string{}
	for _, e := range extras {
		places[e.Table] = append(places[e.Table], fmt.Sprintf("('%s', %d)", sqlEscaper.Replace(e.Part), e.At))
	}
	for table, all := range places {
		// Places are written out: a mutation asks a subquery again for each part, and by then others are gone.
		sql := "DELETE FROM ${database}." + table + " WHERE (_part, _part_offset) IN (" + strings.Join(all, ", ") + ")" +
			" SETTINGS lightweight_deletes_sync = 2"
		if err := c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("audit: remove %d double rows of %s: %w", len(all), table, err)
		}
	}
	return nil
}
