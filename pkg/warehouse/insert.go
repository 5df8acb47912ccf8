package warehouse

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

// Rows is a block of rows of any table: a *Block.
type Rows interface {
	Table() string
	Rows() int
	// Values is the rows as ClickHouse prints them, by column; NULL is left out. It is slow: for
	// pkg/warehouse/memory and tests.
	Values() []map[string]string
	// Size is how many bytes the values take.
	Size() int
	statement() string
	columns() proto.Input
}

// Token says which insert this is, and until when it may be sent.
type Token struct {
	// Text names the rows: the same text must always mean the same rows.
	Text string
	// Deadline is the last moment at which the insert may be sent; zero: none.
	Deadline time.Time
	// Limit is how long the server may work on it; it gives up and stores nothing after that.
	Limit time.Duration
}

// blockSlack is what a block takes beyond its values: names and types of its columns.
const blockSlack = 8 << 10

// answerSlack is what an answer may take beyond the server's own limit before the connection is given up.
const answerSlack = 10 * time.Second

// Insert stores rows as one block. Nil: ClickHouse has them, now or from an earlier insert with the same
// token. ErrDeadline: it was not sent. ErrPermanent: it was refused. Any other error: whether the rows are
// stored is unknown, and the same call may be made again. now is the caller's clock, read right before the
// rows are sent.
func (c *Client) Insert(ctx context.Context, rows Rows, t Token, now func() time.Time) error {
	n := rows.Rows()
	if n == 0 {
		return nil
	}
	wrap := func(err error) error {
		return classify(fmt.Errorf("insert %d rows into %s: %w", n, rows.Table(), err))
	}
	ctx, cancel := context.WithTimeout(ctx, t.Limit+answerSlack)
	defer cancel()
	size := rows.Size()
	conn, err := c.inserts.get(ctx, size)
	if err != nil {
		return wrap(err)
	}
	if !t.Deadline.IsZero() && now().After(t.Deadline) {
		c.inserts.put(conn, size, nil)
		return wrap(ErrDeadline)
	}
	conn.buf.Buf = slices.Grow(conn.buf.Buf, size+blockSlack)
	err = conn.Do(ctx, ch.Query{Body: c.fill(rows.statement()) + " FORMAT Native", Input: rows.columns(), Settings: insertSettings(t)})
	c.inserts.put(conn, size, err)
	if err != nil {
		return wrap(err)
	}
	return nil
}

// insertSettings are what deduplication by token rests on (architecture section 8): they are set, not
// trusted to be the server's defaults, some of which differ between versions.
func insertSettings(t Token) []ch.Setting {
	return []ch.Setting{
		ch.SettingInt("insert_deduplicate", 1),
		{Key: "insert_deduplication_token", Value: t.Text, Important: true},
		ch.SettingInt("deduplicate_blocks_in_dependent_materialized_views", 1),
		ch.SettingInt("async_insert", 0), // 1 by default on newer servers, and then without deduplication
		ch.SettingInt("max_execution_time", max(int(t.Limit/time.Second), 1)),
		// One block per insert: a block is never split below these, nor joined with another.
		ch.SettingInt("max_insert_block_size", maxBlockRows),
		ch.SettingInt("min_insert_block_size_rows", maxBlockRows),
		ch.SettingInt("min_insert_block_size_bytes", 0),
		ch.SettingInt("max_insert_threads", 1),
		// A batch is not cut by month, whatever its rows' times say.
		ch.SettingInt("max_partitions_per_insert_block", 0),
	}
}

// maxBlockRows is above every batch that journey-writer makes.
const maxBlockRows = 1 << 20
