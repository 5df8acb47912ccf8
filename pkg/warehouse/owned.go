package warehouse

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// What stands below is whose a row is today, for those who ask for the rows of one person: by the tables and not by the
// dictionaries, which are some seconds late. In the views it is the dictionaries that say so.

// eventKey is an event's place as one number, as in event_parts and part_of_event.
const eventKey = "bitXor(cityHash64(topic), bitShiftLeft(toUInt64(partition), 48) + offset)"

// storedAsSQL is the profile ids that rows of some members may stand under: their own, and those of all whom they were split
// off from, over as many splits as there were.
const storedAsSQL = `profile_id IN (%[1]s UNION ALL SELECT loser FROM ${database}.identities WHERE rule = 'split' AND cause IN
(
    WITH RECURSIVE splits AS
    (
        SELECT DISTINCT cause FROM ${database}.identities WHERE rule = 'split' AND winner IN (%[1]s)
        UNION ALL
        SELECT DISTINCT before.cause AS cause FROM splits
        INNER JOIN ${database}.identities AS i ON i.cause = splits.cause
        INNER JOIN ${database}.identities AS before ON before.winner = i.loser
        WHERE i.rule = 'split' AND before.rule = 'split'
    )
    SELECT cause FROM splits
))`

// commandsSQL is the splits that members were in.
const commandsSQL = `SELECT cause FROM ${database}.identities WHERE rule = 'split' AND loser IN (%[1]s)`

// eventsOfSQL selects events: those that the latest split they were in gave to a member, and of those that were in none the
// ones under a member's profile id.
const eventsOfSQL = storedAsSQL + `
    AND (` + eventKey + ` IN (SELECT event FROM ${database}.event_parts
            WHERE event IN (SELECT event FROM ${database}.event_parts WHERE person IN (%[1]s))
            GROUP BY event HAVING argMax(person, version) IN (%[1]s))
        OR profile_id IN (%[1]s) AND ` + eventKey + ` NOT IN (SELECT event FROM ${database}.event_parts WHERE command IN (` + commandsSQL + `)))`

// messagesOfSQL selects requests and receipts in the same way, by their receipt.
const messagesOfSQL = storedAsSQL + `
    AND (receipt IN (SELECT receipt FROM (%[2]s) WHERE person IN (%[1]s))
        OR profile_id IN (%[1]s) AND receipt NOT IN (SELECT receipt FROM (%[2]s)))`

// messagePartsSQL is part_of_message for the receipts of a condition; the dictionary's own text is in
// schemas/clickhouse/0020_person.view.sql.
const messagePartsSQL = `SELECT m.receipt AS receipt, argMax(e.person, (m.place, e.time = m.armed, e.time)) AS person
FROM (SELECT receipt, command, brand, cart_id, max(version) AS place, max(armed_at) AS armed, greatest(armed, max(ended_at)) AS ended
    FROM ${database}.message_parts WHERE receipt IN (SELECT receipt FROM ${database}.message_parts WHERE command IN (%[1]s))
    GROUP BY receipt, command, brand, cart_id) AS m
INNER JOIN (SELECT command, brand, cart_id, time, person FROM ${database}.event_parts WHERE cart) AS e
ON m.command = e.command AND m.brand = e.brand AND m.cart_id = e.cart_id
WHERE e.time <= m.ended
GROUP BY receipt`

// EventsOf is a condition on rows of events: those that are a person's today who consists of these nodes, as PersonMembers
// lists them. ${database} is to be filled in. Rows of event_parts and identities must be there as long as it is asked.
func EventsOf(members []uuid.UUID) string { return eventsOf(list(members)) }

// MessagesOf is EventsOf for rows of messages_requested and of receipts.
func MessagesOf(members []uuid.UUID) string {
	in := list(members)
	commands := fmt.Sprintf(commandsSQL+" OR rule = 'split' AND winner IN (%[1]s)", in)
	return fmt.Sprintf(messagesOfSQL, in, fmt.Sprintf(messagePartsSQL, commands))
}

func eventsOf(in string) string { return fmt.Sprintf(eventsOfSQL, in) }

// list writes nodes as a subquery; nobody is in an empty one.
func list(nodes []uuid.UUID) string {
	texts := make([]string, len(nodes))
	for i, n := range nodes {
		texts[i] = "toUUID('" + n.String() + "')"
	}
	return "SELECT arrayJoin(CAST([" + strings.Join(texts, ", ") + "], 'Array(UUID)'))"
}

// PersonTable is a table that says something of people.
type PersonTable struct {
	Name string
	// Nodes are the columns that name an identifier or a profile. A row in which one of them is a member of a person is about
	// that person, but for rows of Stored.
	Nodes []string
	// Stored says that the row belongs to a person by its profile id, unless a split gave it to a part: EventsOf of events,
	// MessagesOf of messages_requested and receipts.
	Stored bool
	// Personal are the columns whose values are personal.
	Personal []string
}

// PersonTables lists every table of people, for those who erase one. events_rejected holds bytes as they came, under the key
// and in the body.
func PersonTables() []PersonTable {
	return []PersonTable{
		{TableEvents, []string{"profile_id"}, true, []string{"user_id", "anonymous_id", "previous_id", "properties", "traits", "ip", "address", "context"}},
		{TableMessages, []string{"profile_id"}, true, []string{"address", "content"}},
		{TableReceipts, []string{"profile_id"}, true, nil},
		{TableRejected, nil, false, []string{"key", "body"}},
		{TableIdentities, []string{"loser", "winner", "node"}, false, []string{"value", "reason"}},
		{TableRedirects, []string{"profile_id", "current"}, false, nil},
		{TableMoves, []string{"node", "person"}, false, nil},
		{TableProfiles, []string{"profile_id"}, false, []string{"traits", "profile"}},
		{TableAudiences, []string{"profile_id"}, false, []string{"details"}},
		{TableEventParts, []string{"person"}, false, nil},
		{TableMessageParts, []string{"person"}, false, nil},
		{TableSuspensions, []string{"a", "b"}, false, []string{"a_value", "b_value"}},
		{TableCommands, []string{"person", "a", "b"}, false, []string{"reason", "a_value", "b_value", "details"}},
	}
}
