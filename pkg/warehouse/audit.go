package warehouse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
)

// Balance is what became of the events of one source in one minute of receipt, as far as ClickHouse knows.
// Every accepted event is in exactly one of Stored, Duplicate and Rejected.
type Balance struct {
	Brand     string    `ch:"brand"`
	Source    string    `ch:"source"`
	Minute    time.Time `ch:"minute"`
	Stored    uint64    `ch:"stored"`
	Duplicate uint64    `ch:"duplicate"` // dropped by identity-stitcher: seen before
	Rejected  uint64    `ch:"rejected"`  // never stored as an event
	Later     uint64    `ch:"later"`     // stored, and then refused by a stage behind identity-stitcher
}

// balanceSQL counts by minute of receipt. A record that a stage behind the stitcher refuses is stored as an
// event all the same, so it is not counted as rejected. What was of people who were erased counts as what it was.
const balanceSQL = `SELECT brand, source, minute, sum(s) AS stored, sum(d) AS duplicate, sum(r) AS rejected, sum(l) AS later
FROM
(
    SELECT brand, source, toStartOfMinute(received_at) AS minute, count() AS s, 0 AS d, 0 AS r, 0 AS l
    FROM ${database}.events
    WHERE received_at >= fromUnixTimestamp64Milli(?, 'UTC') AND received_at < fromUnixTimestamp64Milli(?, 'UTC')
    GROUP BY brand, source, minute
    UNION ALL
    SELECT brand, source, toStartOfMinute(received_at) AS minute, 0,
        countIf(reason = 'duplicate'),
        countIf(reason != 'duplicate' AND lost),
        countIf(reason != 'duplicate' AND NOT lost)
    FROM
    (
        SELECT brand, source, received_at, reason,
            service IN (?, ?) OR (service = ? AND topic = ?) AS lost
        FROM ${database}.events_rejected
        WHERE received_at >= fromUnixTimestamp64Milli(?, 'UTC') AND received_at < fromUnixTimestamp64Milli(?, 'UTC')
    )
    GROUP BY brand, source, minute
    UNION ALL
    SELECT brand, source, minute,
        uniqExactIf((topic, partition, offset), from_table = 'events'),
        uniqExactIf((topic, partition, offset), from_table = 'events_rejected' AND reason = 'duplicate'),
        uniqExactIf((topic, partition, offset), from_table = 'events_rejected' AND reason != 'duplicate' AND lost),
        uniqExactIf((topic, partition, offset), from_table = 'events_rejected' AND reason != 'duplicate' AND NOT lost)
    FROM
    (
        SELECT brand, source, minute, from_table, topic, partition, offset, reason,
            service IN (?, ?) OR (service = ? AND topic = ?) AS lost
        FROM ${database}.erased_rows
        WHERE minute >= fromUnixTimestamp64Milli(?, 'UTC') AND minute < fromUnixTimestamp64Milli(?, 'UTC')
    )
    GROUP BY brand, source, minute
)
GROUP BY brand, source, minute
ORDER BY brand, source, minute`

// Balances counts what was received in [from, to), by brand, source and minute. Rows without a time of
// receipt are counted as of 1970.
func (c *Client) Balances(ctx context.Context, t topic.Set, from, to time.Time) ([]Balance, error) {
	var out []Balance
	lo, hi := from.UnixMilli(), to.UnixMilli()
	lost := []any{topic.StageCollector, topic.StageStitcher, topic.StageWriter, t.EventsIdentified(), lo, hi}
	err := c.Select(ctx, &out, balanceSQL, append(append([]any{lo, hi}, lost...), lost...)...)
	if err != nil {
		return nil, fmt.Errorf("audit: count events: %w", err)
	}
	return out, nil
}

// Rejection is how often something was refused for one reason.
type Rejection struct {
	Brand   string `ch:"brand"`
	Source  string `ch:"source"`
	Service string `ch:"service"`
	Reason  string `ch:"reason"`
	Rows    uint64 `ch:"rows"`
	Example string `ch:"example"` // one of the errors, in words
}

const rejectionsSQL = `SELECT brand, source, service, reason, count() AS rows, any(error) AS example
FROM ${database}.events_rejected
WHERE received_at >= fromUnixTimestamp64Milli(?, 'UTC') AND received_at < fromUnixTimestamp64Milli(?, 'UTC')
GROUP BY brand, source, service, reason
ORDER BY rows DESC, brand, source, service, reason`

// Rejections counts what was refused in [from, to) of receipt, the most frequent first.
func (c *Client) Rejections(ctx context.Context, from, to time.Time) ([]Rejection, error) {
	var out []Rejection
	if err := c.Select(ctx, &out, rejectionsSQL, from.UnixMilli(), to.UnixMilli()); err != nil {
		return nil, fmt.Errorf("audit: count rejections: %w", err)
	}
	return out, nil
}

// storedSQL reads offsets. Rows are not sorted by them; what keeps this from reading a whole table is the
// skip index on inserted_at.
const storedSQL = `SELECT DISTINCT offset FROM ${database}.%s
WHERE topic = ? AND partition = ? AND offset >= ? AND offset < ? AND inserted_at >= fromUnixTimestamp64Milli(?, 'UTC')`

// StoredOffsets is which records of [from, to) have a row in the table that was inserted since a time.
func (c *Client) StoredOffsets(ctx context.Context, table, topicName string, partition int, from, to int64, since time.Time) (map[uint64]bool, error) {
	var rows []struct {
		Offset uint64 `ch:"offset"`
	}
	if err := c.Select(ctx, &rows, fmt.Sprintf(storedSQL, table), topicName, partition, from, to, since.UnixMilli()); err != nil {
		return nil, fmt.Errorf("look for offsets %d to %d of %s/%d in %s: %w", from, to, topicName, partition, table, err)
	}
	out := make(map[uint64]bool, len(rows))
	for _, r := range rows {
		out[r.Offset] = true
	}
	return out, nil
}

// offsetTables is every table that has rows of a topic's records.
var offsetTables = []string{
	TableEvents, TableRejected, TableIdentities, TableRedirects, TableMoves, TableProfiles, TableAudiences, TableMessages,
	TableReceipts, TableEventParts, TableMessageParts, TableSuspensions, TableCommands, TableErased,
}

// highestSQL is the highest stored offset of a partition over tables; it takes topic and partition once per
// table.
func highestSQL(tables []string) string {
	parts := make([]string, len(tables))
	for i, t := range tables {
		parts[i] = "SELECT max(offset) AS highest, count() AS rows FROM ${database}." + t + " WHERE topic = ? AND partition = ?"
	}
	return "SELECT max(highest) AS highest, sum(rows) AS rows FROM\n(\n" + strings.Join(parts, "\nUNION ALL\n") + "\n)"
}

// HighestOffset is the highest offset of a partition that one of the tables, all if none is named, holds a
// row of; false: they hold none.
func (c *Client) HighestOffset(ctx context.Context, topicName string, partition int, tables ...string) (int64, bool, error) {
	var out []struct {
		Highest uint64 `ch:"highest"`
		Rows    uint64 `ch:"rows"`
	}
	if len(tables) == 0 {
		tables = offsetTables
	}
	args := make([]any, 0, 2*len(tables))
	for range tables {
		args = append(args, topicName, partition)
	}
	if err := c.Select(ctx, &out, highestSQL(tables), args...); err != nil {
		return 0, false, fmt.Errorf("look for the highest offset of %s/%d: %w", topicName, partition, err)
	}
	if len(out) == 0 || out[0].Rows == 0 {
		return 0, false, nil
	}
	return int64(out[0].Highest), true, nil //nolint:gosec // offsets are Kafka's, below 2^63
}
