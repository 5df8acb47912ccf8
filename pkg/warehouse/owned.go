package warehouse

import "fmt"

// What stands below is whose a row is today, for those who ask for the rows of one person: by the tables and not by the
// dictionaries, which are some seconds late. In the views it is the dictionaries that say so.

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
    AND (` + eventNumber + ` IN (SELECT event FROM ${database}.event_parts
            WHERE event IN (SELECT event FROM ${database}.event_parts WHERE person IN (%[1]s))
            GROUP BY event HAVING argMax(person, version) IN (%[1]s))
        OR profile_id IN (%[1]s) AND ` + eventNumber + ` NOT IN (SELECT event FROM ${database}.event_parts WHERE command IN (` + commandsSQL + `)))`

// messagePartsSQL is part_of_message, whose text in schemas/clickhouse/0020_person.view.sql says the rule.
const messagePartsSQL = `SELECT m.receipt AS receipt, argMax(e.person, (m.place, e.time = m.armed, e.time)) AS person
FROM (SELECT receipt, command, brand, cart_id, max(version) AS place, max(armed_at) AS armed, greatest(armed, max(ended_at)) AS ended
    FROM ${database}.message_parts GROUP BY receipt, command, brand, cart_id) AS m
INNER JOIN (SELECT command, brand, cart_id, time, person FROM ${database}.event_parts WHERE cart) AS e
ON m.command = e.command AND m.brand = e.brand AND m.cart_id = e.cart_id
WHERE e.time <= m.ended
GROUP BY receipt`

// messagesOf selects requests and receipts: every part of a split is told of all of them, and only one has each.
const messagesOf = `receipt IN (SELECT receipt FROM (` + messagePartsSQL + `) WHERE person IN (%[1]s))
OR profile_id IN (%[1]s) AND receipt NOT IN (SELECT receipt FROM (` + messagePartsSQL + `))`

// eventsOf is a condition on rows of events: those of a person whose members a subquery lists.
func eventsOf(members string) string { return fmt.Sprintf(eventsOfSQL, members) }
