package warehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// currentSQL is whose a node is today; no row if it was never moved.
const currentSQL = `SELECT argMax(person, version) AS person FROM ${database}.identity_moves
WHERE node = toUUID('%s') GROUP BY node`

// membersSQL is the nodes of a person today, itself included.
const membersSQL = `SELECT node FROM ${database}.identity_moves
WHERE node IN (SELECT node FROM ${database}.identity_moves WHERE person = toUUID('%[1]s'))
GROUP BY node HAVING argMax(person, version) = toUUID('%[1]s')
UNION DISTINCT SELECT toUUID('%[1]s')`

// losersSQL is the losers of all merges and splits that have to do with a person: those of its members, and those whose
// evidence names one. After a split these differ.
const losersSQL = `%[1]s
UNION ALL SELECT loser FROM ${database}.identities WHERE node IN (%[1]s)`

// linksSQL reads the evidence of the merges and splits that have to do with a person: each piece of each once, however
// often that was published, with when that was first known.
const linksSQL = `SELECT i.loser AS loser, i.winner AS winner, i.n AS n, any(i.type) AS type, any(i.value) AS value, any(i.node) AS node,
    any(i.rule) AS rule, i.cause AS cause, any(i.message_id) AS message_id, min(i.time) AS time, max(i.members) AS members,
    any(m.known_from) AS known_from, any(if(i.rule = 'operator', c.actor, i.actor)) AS actor, any(if(i.rule = 'operator', c.reason, i.reason)) AS reason
FROM ${database}.identities AS i
LEFT JOIN
(
    SELECT node, person, min(known_from) AS known_from FROM ${database}.identity_moves
    WHERE node IN (%[1]s) GROUP BY node, person
) AS m ON i.loser = m.node AND i.winner = m.person
LEFT JOIN
(
    SELECT command, argMax(actor, offset) AS actor, argMax(reason, offset) AS reason FROM ${database}.identity_commands GROUP BY command
) AS c ON i.message_id = c.command
WHERE i.loser IN (%[1]s)
GROUP BY loser, winner, cause, n
ORDER BY time, loser, cause, n`

// causesSQL finds the stored events that made a person's links.
const causesSQL = `SELECT message_id, received_at, brand, source, type, name, topic, partition, offset FROM ${database}.events
WHERE message_id IN (SELECT message_id FROM ${database}.identities WHERE loser IN (%[1]s))
    AND received_at IN (SELECT time FROM ${database}.identities WHERE loser IN (%[1]s))`

// profileEventsSQL counts a person's events under the profile ids that they were stored with.
const profileEventsSQL = `SELECT profile_id, count() AS events, min(received_at) AS first, max(received_at) AS last,
    anyLastIf(user_id, user_id != '') AS user_id, anyLastIf(anonymous_id, anonymous_id != '') AS anonymous_id
FROM ${database}.events WHERE %s
GROUP BY profile_id ORDER BY profile_id`

// setAsideSQL counts what was set aside of a person's events.
const setAsideSQL = `SELECT splitByChar(':', pair)[1] AS type, splitByChar(':', pair)[-1] AS reason, count() AS events, max(e.received_at) AS last,
    argMax(e.named, (e.received_at, e.at)) AS source,
    argMax(e.log, (e.received_at, e.at)) AS topic, argMax(e.part, (e.received_at, e.at)) AS partition, argMax(e.at, (e.received_at, e.at)) AS offset
FROM
(
    SELECT arrayJoin(set_aside) AS pair, toString(source) AS named, received_at, toString(topic) AS log, partition AS part, offset AS at FROM ${database}.events
    WHERE %s
        AND received_at >= fromUnixTimestamp64Milli(?, 'UTC') AND notEmpty(set_aside)
) AS e
GROUP BY type, reason ORDER BY last DESC, type, reason LIMIT ?`

// SetAsideRow is identifiers of one type that were set aside of a person's events, for one reason.
type SetAsideRow struct {
	Type      string    `ch:"type"`
	Reason    string    `ch:"reason"`
	Events    uint64    `ch:"events"`
	Last      time.Time `ch:"last"`
	Source    string    `ch:"source"` // of the last event
	Topic     string    `ch:"topic"`
	Partition uint32    `ch:"partition"`
	Offset    uint64    `ch:"offset"`
}

// LinkRow is one piece of evidence of a merge, or a member of a split person with its part.
type LinkRow struct {
	Loser     uuid.UUID `ch:"loser"`
	Winner    uuid.UUID `ch:"winner"`
	N         uint16    `ch:"n"`
	Type      string    `ch:"type"` // empty: the merge has no evidence
	Value     string    `ch:"value"`
	Node      uuid.UUID `ch:"node"`
	Rule      string    `ch:"rule"`
	Cause     string    `ch:"cause"`
	MessageID string    `ch:"message_id"`
	Time      time.Time `ch:"time"`
	Members   uint32    `ch:"members"`    // of the loser
	KnownFrom time.Time `ch:"known_from"` // 1970: stored before that was kept
	Actor     string    `ch:"actor"`      // who said so: of a split, and of a link by an operator
	Reason    string    `ch:"reason"`
}

// CauseRow is a stored event that made a link.
type CauseRow struct {
	MessageID  string    `ch:"message_id"`
	ReceivedAt time.Time `ch:"received_at"`
	Brand      string    `ch:"brand"`
	Source     string    `ch:"source"`
	Type       string    `ch:"type"`
	Name       string    `ch:"name"`
	Topic      string    `ch:"topic"`
	Partition  uint32    `ch:"partition"`
	Offset     uint64    `ch:"offset"`
}

// ProfileEventsRow is what is stored under one profile id.
type ProfileEventsRow struct {
	Profile     uuid.UUID `ch:"profile_id"`
	Events      uint64    `ch:"events"`
	First       time.Time `ch:"first"`
	Last        time.Time `ch:"last"`
	UserID      string    `ch:"user_id"` // one of those in the events
	AnonymousID string    `ch:"anonymous_id"`
}

// CurrentPerson is whose a node is today: its own, unless a merge has moved it.
func (c *Client) CurrentPerson(ctx context.Context, node uuid.UUID) (uuid.UUID, error) {
	var rows []struct {
		Person uuid.UUID `ch:"person"`
	}
	if err := c.ask(ctx, &rows, fmt.Sprintf(currentSQL, node)); err != nil {
		return uuid.Nil, fmt.Errorf("look up a person: %w", err)
	}
	if len(rows) == 0 {
		return node, nil
	}
	return rows[0].Person, nil
}

// PersonMembers is the nodes of a person today, itself included, in no order.
func (c *Client) PersonMembers(ctx context.Context, person uuid.UUID) ([]uuid.UUID, error) {
	var rows []struct {
		Node uuid.UUID `ch:"node"`
	}
	if err := c.ask(ctx, &rows, membersOf(person)); err != nil {
		return nil, fmt.Errorf("list a person's identifiers: %w", err)
	}
	out := make([]uuid.UUID, len(rows))
	for i, r := range rows {
		out[i] = r.Node
	}
	return out, nil
}

// PersonLinks is the evidence of the merges and splits that have to do with a person, by time. After a split some are not
// between two of its members.
func (c *Client) PersonLinks(ctx context.Context, person uuid.UUID) ([]LinkRow, error) {
	var rows []LinkRow
	if err := c.ask(ctx, &rows, fmt.Sprintf(linksSQL, losersOf(person))); err != nil {
		return nil, fmt.Errorf("list a person's links: %w", err)
	}
	return rows, nil
}

// PersonCauses is the stored events that made a person's links. Others of the same message ids may be among them.
func (c *Client) PersonCauses(ctx context.Context, person uuid.UUID) ([]CauseRow, error) {
	var rows []CauseRow
	if err := c.ask(ctx, &rows, fmt.Sprintf(causesSQL, losersOf(person))); err != nil {
		return nil, fmt.Errorf("find the events of a person's links: %w", err)
	}
	return rows, nil
}

// PersonEvents counts a person's events by the profile id that each is stored with.
func (c *Client) PersonEvents(ctx context.Context, person uuid.UUID) ([]ProfileEventsRow, error) {
	var rows []ProfileEventsRow
	if err := c.ask(ctx, &rows, fmt.Sprintf(profileEventsSQL, eventsOf(membersOf(person)))); err != nil {
		return nil, fmt.Errorf("count a person's events: %w", err)
	}
	return rows, nil
}

// PersonSetAside is what was set aside of a person's events that were received since a time, the last first.
func (c *Client) PersonSetAside(ctx context.Context, person uuid.UUID, since time.Time, limit int) ([]SetAsideRow, error) {
	var rows []SetAsideRow
	if err := c.ask(ctx, &rows, fmt.Sprintf(setAsideSQL, eventsOf(membersOf(person))), since.UnixMilli(), limit); err != nil {
		return nil, fmt.Errorf("count what was set aside of a person's events: %w", err)
	}
	return rows, nil
}

func membersOf(person uuid.UUID) string { return fmt.Sprintf(membersSQL, person) }

func losersOf(person uuid.UUID) string { return fmt.Sprintf(losersSQL, membersOf(person)) }

// ErrNoSchema means that journey-writer has not made the tables yet.
var ErrNoSchema = errors.New("the tables are not there yet: journey-writer makes them at its first start")

// ask is Select for questions about people.
func (c *Client) ask(ctx context.Context, dest any, sql string, args ...any) error {
	err := c.Select(ctx, dest, sql, args...)
	if code, ok := serverCode(err); ok && (code == 60 || code == 81) { // UNKNOWN_TABLE, UNKNOWN_DATABASE
		return fmt.Errorf("%w: %s", ErrNoSchema, strings.ToValidUTF8(err.Error(), "?"))
	}
	return err
}
