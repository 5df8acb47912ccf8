package warehouse

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Rows is a block of rows of any table: a *Block.
type Rows interface {
	Table() string
	Rows() int
	// Row is row i, its values as ClickHouse prints them, by column; NULL is left out. It is slow: for
	// pkg/warehouse/memory and tests.
	Row(i int) map[string]string
	statement() string
	appendTo(driver.Batch) error
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
	batch, err := c.conn.PrepareBatch(clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings(t))), c.fill(rows.statement()))
	if err != nil {
		return wrap(err)
	}
	defer func() { _ = batch.Close() }() // a batch that was sent ignores it; of one that was not, nothing is stored
	if err := rows.appendTo(batch); err != nil {
		return wrap(fmt.Errorf("%w: %w", ErrPermanent, err))
	}
	if !t.Deadline.IsZero() && now().After(t.Deadline) {
		return wrap(ErrDeadline)
	}
	if err := batch.Send(); err != nil {
		return wrap(err)
	}
	return nil
}

// insertSettings are what deduplication by token rests on (architecture section 8): they are set, not
// trusted to be the server's defaults, some of which differ between versions.
func insertSettings(t Token) clickhouse.Settings {
	limit := max(int(t.Limit/time.Second), 1)
	return clickhouse.Settings{
		"insert_deduplicate":                                 1,
		"insert_deduplication_token":                         t.Text,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"async_insert":                                       0, // 1 by default on newer servers, and then without deduplication
		"max_execution_time":                                 limit,
		// One block per insert: a block is never split below these, nor joined with another.
		"max_insert_block_size":       maxBlockRows,
		"min_insert_block_size_rows":  maxBlockRows,
		"min_insert_block_size_bytes": 0,
		"max_insert_threads":          1,
		// A batch is not cut by month, whatever its rows' times say.
		"max_partitions_per_insert_block": 0,
	}
}

// maxBlockRows is above every batch that journey-writer makes.
const maxBlockRows = 1 << 20
