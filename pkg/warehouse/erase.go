package warehouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// erasedAtOnce is how many nodes, or rows, stand in one statement, which has a limit of 256 KiB: nodes up to three times.
	erasedAtOnce = 1000
	// mutationPoll is the pause between looks at a deletion: parts of gigabytes are written anew by it.
	mutationPoll = 200 * time.Millisecond
)

// ErrMutation means that ClickHouse could not delete rows; system.mutations has the rest.
var ErrMutation = errors.New("clickhouse cannot delete rows")

// eventNumber is the number under which event_parts knows a row of events.
const eventNumber = `bitXor(cityHash64(topic), bitShiftLeft(toUInt64(partition), 48) + offset)`

// personTable is how a person's rows are found in a table; %[1]s is a list of the person's nodes, %[2]s the topic of commands.
type personTable struct{ name, where string }

// personTables is every table with rows of a person but events_rejected, in the order in which they are emptied: those by which
// others are found come last. An event, or a message, of which a split has told a part is that part's.
var personTables = []personTable{
	{TableEvents, `profile_id IN (%[1]s) AND ` + eventNumber + ` NOT IN (SELECT event FROM ${database}.event_parts)
OR ` + eventNumber + ` IN (SELECT event FROM ${database}.event_parts WHERE event IN (SELECT event FROM ${database}.event_parts WHERE person IN (%[1]s))
    GROUP BY event HAVING argMax(person, version) IN (%[1]s))`},
	{TableProfiles, `profile_id IN (%[1]s)`},
	{TableAudiences, `profile_id IN (%[1]s)`},
	{TableMessages, messagesOf},
	{TableReceipts, messagesOf},
	{TableMessageParts, `person IN (%[1]s)`},
	{TableEventParts, `person IN (%[1]s)`},
	{TableIdentities, `loser IN (%[1]s) OR winner IN (%[1]s) OR node IN (%[1]s)`},
	{TableSuspensions, `a IN (%[1]s) OR b IN (%[1]s)`},
	{TableCommands, `a IN (%[1]s) OR b IN (%[1]s)`},
	// Where the identifiers lead if they come again, the erasure itself says: hashes, and no link among them.
	{TableMoves, `(node IN (%[1]s) OR person IN (%[1]s)) AND topic != '%[2]s'`},
	{TableRedirects, `(profile_id IN (%[1]s) OR current IN (%[1]s)) AND topic != '%[2]s'`},
}

// Erasure names a person whose rows are counted or deleted.
type Erasure struct {
	Command       string      // the id of the command
	CommandsTopic string      // identities.commands: of its rows, see personTables
	Members       []uuid.UUID // all nodes of the person
}

// TableCount is how many rows of a person a table has.
type TableCount struct {
	Table string `json:"table"`
	Rows  uint64 `json:"rows"`
}

// each calls f for some members at a time with the condition of a table.
func (e *Erasure) each(t personTable, f func(where string) error) error {
	for some := range slices.Chunk(e.Members, erasedAtOnce) {
		list := make([]string, len(some))
		for i, n := range some {
			list[i] = "toUUID('" + n.String() + "')"
		}
		// A condition takes one or two of them.
		where := strings.ReplaceAll(strings.ReplaceAll(t.where, "%[1]s", strings.Join(list, ", ")), "%[2]s", sqlEscaper.Replace(e.CommandsTopic))
		if err := f(where); err != nil {
			return err
		}
	}
	return nil
}

// Lead is where an erased identifier leads if it comes again.
type Lead struct {
	Origin
	Node, To   uuid.UUID
	Generation uint64 // of To
	At         time.Time
}

// LeadOn keeps where the identifiers lead, so that they are found if they come again. It may be called again.
func (c *Client) LeadOn(ctx context.Context, e *Erasure, to []Lead, limit time.Duration) error {
	for i := 0; i < len(to); i += erasedAtOnce {
		moves, redirects := Moves().NewBlock(), Redirects().NewBlock()
		for _, l := range to[i:min(i+erasedAtOnce, len(to))] {
			version := l.Generation << 32                                                                                                        // as that of a split
			moves.Add(&Move{Origin: l.Origin, Node: l.Node, Incarnation: uint32(l.Generation), Version: version, Person: l.To, KnownFrom: l.At}) //nolint:gosec // below 2^24
			redirects.Add(&Redirect{Origin: l.Origin, Profile: l.Node, Current: l.To, Version: version})
		}
		token := Token{Text: fmt.Sprintf("erase:%s:%d", e.Command, i), Limit: limit}
		if err := c.Insert(ctx, moves, token, time.Now); err != nil {
			return fmt.Errorf("keep where identifiers lead: %w", err)
		}
		if err := c.Insert(ctx, redirects, token, time.Now); err != nil {
			return fmt.Errorf("keep where identifiers lead: %w", err)
		}
	}
	return nil
}

// LinkedKeys is the keys, on identities.linked, of suspended links and of commands that name identifiers of a person.
func (c *Client) LinkedKeys(ctx context.Context, e *Erasure) ([]string, error) {
	var keys []string
	for _, t := range personTables {
		key := map[string]string{TableSuspensions: "concat(toString(a), '+', toString(b))", TableCommands: "command"}[t.name]
		if key == "" {
			continue
		}
		err := e.each(t, func(where string) error {
			var rows []struct {
				Key string `ch:"k"`
			}
			if err := c.Select(ctx, &rows, "SELECT DISTINCT "+key+" AS k FROM ${database}."+t.name+" WHERE "+where+" ORDER BY k"); err != nil {
				return err
			}
			for _, r := range rows {
				keys = append(keys, r.Key)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for a person's suspended links and commands: %w", err)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// CountPerson counts a person's rows, in every table but events_rejected: see EachRejected.
func (c *Client) CountPerson(ctx context.Context, e *Erasure) ([]TableCount, error) {
	if err := c.ReloadPersons(ctx); err != nil { // whose a message of a split is
		return nil, fmt.Errorf("count a person's rows: %w", err)
	}
	out := make([]TableCount, len(personTables))
	for i, t := range personTables {
		out[i].Table = t.name
		err := e.each(t, func(where string) error {
			var rows []struct {
				N uint64 `ch:"n"`
			}
			if err := c.ask(ctx, &rows, "SELECT count() AS n FROM ${database}."+t.name+" WHERE "+where); err != nil {
				return err
			}
			for _, r := range rows {
				out[i].Rows += r.N
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("count a person's rows in %s: %w", t.name, err)
		}
	}
	return out, nil
}

// ErasePerson deletes a person's rows, in every table but events_rejected, and returns when none of them is in a file that
// ClickHouse reads. It may be called again. What the audit must know of events is kept in erased_rows.
func (c *Client) ErasePerson(ctx context.Context, e *Erasure) error {
	if err := c.ReloadPersons(ctx); err != nil {
		return fmt.Errorf("delete a person's rows: %w", err)
	}
	for _, t := range personTables {
		err := e.each(t, func(where string) error {
			if t.name == TableEvents {
				if err := c.noteErased(ctx, e.Command, TableEvents, "'', ''", where); err != nil {
					return err
				}
			}
			return c.deleteWhere(ctx, t.name, where)
		})
		if err != nil {
			return fmt.Errorf("delete a person's rows in %s: %w", t.name, err)
		}
	}
	return nil
}

// noteErased keeps what the audit must know of rows. columns are reason and service.
func (c *Client) noteErased(ctx context.Context, command, table, columns, where string) error {
	return c.Exec(ctx, `INSERT INTO ${database}.erased_rows (from_table, brand, source, reason, service, minute, command, topic, partition, offset)
SELECT '`+table+`', brand, source, `+columns+`, toStartOfMinute(received_at), '`+sqlEscaper.Replace(command)+`', topic, partition, offset
FROM ${database}.`+table+` WHERE `+where)
}

// deleteWhere deletes rows for good: the files they are in are written anew without them, which it waits for. A table without
// such rows is left as it is.
func (c *Client) deleteWhere(ctx context.Context, table, where string) error {
	var rows []struct {
		N uint64 `ch:"n"`
	}
	if err := c.Select(ctx, &rows, "SELECT count() AS n FROM ${database}."+table+" WHERE "+where); err != nil {
		return err
	}
	if len(rows) > 0 && rows[0].N > 0 {
		if err := c.Exec(ctx, "ALTER TABLE ${database}."+table+" DELETE WHERE "+where+" SETTINGS mutations_sync = 0"); err != nil {
			return err
		}
	}
	return c.awaitMutations(ctx, table) // also one that was begun before a crash
}

// awaitMutations waits until a table has no deletion under way.
func (c *Client) awaitMutations(ctx context.Context, table string) error {
	for {
		var open []struct {
			Parts  int64  `ch:"parts_to_do"`
			Reason string `ch:"latest_fail_reason"`
		}
		if err := c.Select(ctx, &open, `SELECT parts_to_do, latest_fail_reason FROM system.mutations
WHERE database = '${database}' AND table = ? AND NOT is_done AND NOT is_killed`, table); err != nil {
			return err
		}
		if len(open) == 0 {
			return nil
		}
		for _, m := range open {
			if m.Reason != "" {
				return fmt.Errorf("%w: %s: %s", ErrMutation, table, m.Reason)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(mutationPoll):
		}
	}
}

// RejectedRow is a row of events_rejected, with what may name somebody.
type RejectedRow struct {
	Origin
	Brand, Reason, Key, Body string
}

// EachRejected calls f with every row of events_rejected that holds anything of a sender, in no order, one at a time.
func (c *Client) EachRejected(ctx context.Context, f func(r *RejectedRow) error) error {
	rows, err := c.conn.Query(ctx, c.fill("SELECT topic, partition, offset, brand, reason, key, body FROM ${database}.events_rejected WHERE body != '' OR key != ''"))
	if err != nil {
		return classify(fmt.Errorf("read events_rejected: %w", err))
	}
	defer func() { _ = rows.Close() }() // its error is that of Err below
	for rows.Next() {
		var r RejectedRow
		if err := rows.Scan(&r.Topic, &r.Partition, &r.Offset, &r.Brand, &r.Reason, &r.Key, &r.Body); err != nil {
			return classify(fmt.Errorf("read events_rejected: %w", err))
		}
		if err := f(&r); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return classify(fmt.Errorf("read events_rejected: %w", err))
	}
	return nil
}

// EraseRejected deletes rows of events_rejected, as ErasePerson does.
func (c *Client) EraseRejected(ctx context.Context, command string, rows []Origin) error {
	for some := range slices.Chunk(rows, erasedAtOnce) {
		list := make([]string, len(some))
		for i, o := range some {
			list[i] = fmt.Sprintf("('%s', %d, %d)", sqlEscaper.Replace(o.Topic), o.Partition, o.Offset)
		}
		where := "(topic, partition, offset) IN (" + strings.Join(list, ", ") + ")"
		if err := c.noteErased(ctx, command, TableRejected, "reason, service", where); err != nil {
			return fmt.Errorf("delete rejected events: %w", err)
		}
		if err := c.deleteWhere(ctx, TableRejected, where); err != nil {
			return fmt.Errorf("delete rejected events: %w", err)
		}
	}
	return nil
}
