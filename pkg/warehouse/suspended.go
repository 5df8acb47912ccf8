package warehouse

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// suspendedSQL lists the pairs that caps have stopped, with what an operator has said of each since.
const suspendedSQL = `SELECT s.a AS a, s.b AS b, any(s.a_type) AS a_type, any(s.b_type) AS b_type, any(s.a_value) AS a_value, any(s.b_value) AS b_value,
    argMax(s.cap, s.time) AS cap, argMax(s.source, s.time) AS source, argMax(s.brand, s.time) AS brand, argMax(s.message_id, s.time) AS message_id,
    min(s.time) AS first_seen, max(s.time) AS last_seen, count() AS records, any(c.said) AS answer, any(c.by) AS actor,
    dictGetOrDefault('${database}.person', 'current', tuple(s.a), s.a) = dictGetOrDefault('${database}.person', 'current', tuple(s.b), s.b) AS joined
FROM ${database}.identity_suspensions AS s
LEFT JOIN
(
    SELECT a, b, argMax(kind, (known_from, offset)) AS said, argMax(actor, (known_from, offset)) AS by
    FROM ${database}.identity_commands WHERE kind IN ('link', 'reject') AND outcome = 'done' GROUP BY a, b
) AS c ON s.a = c.a AND s.b = c.b
GROUP BY a, b
HAVING (? = '' OR cap = ?) AND (? = '' OR source = ?) AND (? = '' OR a_type = ? OR b_type = ?) AND last_seen >= fromUnixTimestamp64Milli(?, 'UTC')
ORDER BY last_seen DESC, toString(a), toString(b) LIMIT ?`

// SuspendedFilter says which suspended links are asked for; empty fields ask for all.
type SuspendedFilter struct {
	Cap, Source string
	Type        string    // of one of the two
	Since       time.Time // stopped again since
	Limit       int
}

// SuspendedRow is a pair that a cap has stopped.
type SuspendedRow struct {
	A         uuid.UUID `ch:"a"`
	B         uuid.UUID `ch:"b"`
	AType     string    `ch:"a_type"`
	BType     string    `ch:"b_type"`
	AValue    string    `ch:"a_value"`
	BValue    string    `ch:"b_value"`
	Cap       string    `ch:"cap"` // of the last time
	Source    string    `ch:"source"`
	Brand     string    `ch:"brand"`
	MessageID string    `ch:"message_id"`
	First     time.Time `ch:"first_seen"`
	Last      time.Time `ch:"last_seen"`
	Records   uint64    `ch:"records"`
	Answer    string    `ch:"answer"` // link or reject: what an operator has said of the pair last; empty: nothing
	Actor     string    `ch:"actor"`
	Joined    bool      `ch:"joined"` // they are one person
}

// Suspended lists pairs that caps have stopped, the last first.
func (c *Client) Suspended(ctx context.Context, f SuspendedFilter) ([]SuspendedRow, error) {
	since := int64(0)
	if !f.Since.IsZero() {
		since = f.Since.UnixMilli()
	}
	var rows []SuspendedRow
	if err := c.ask(ctx, &rows, suspendedSQL, f.Cap, f.Cap, f.Source, f.Source, f.Type, f.Type, f.Type, since, f.Limit); err != nil {
		return nil, fmt.Errorf("list suspended links: %w", err)
	}
	return rows, nil
}
