-- Who somebody was. Times are text; known = '' is all that is known today. A link holds from the receipt of the event that
-- made it (valid), and is known from its publication on. An identifier belongs to a person at a time if every link on its
-- way there holds: a chain's later move does not hold before its earlier ones do, although their events may have been
-- received in another order.
--
-- A split begins the history of each member anew: as known from then on, it is the part's and always was.

-- identity_intervals: per identifier that was ever moved by a merge its time under each person, in order and without gaps,
-- as it was known at a time. Its first interval, under its own id, begins in 1900; the last one ends in 2299.
--   SELECT * FROM identity_intervals(known = '')
CREATE OR REPLACE VIEW ${database}.identity_intervals
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT node, step.1 AS person_id, step.2 AS valid_from, step.3 AS valid_to, step.4 AS known_from
FROM
(
    SELECT
        node,
        toDateTime64('1900-01-01 00:00:00', 3, 'UTC') AS always,
        toDateTime64('2299-12-31 23:59:59', 3, 'UTC') AS forever,
        arraySort(groupArray((version, incarnation, valid_from, known_from, person))) AS every,
        -- those behind its last split, with that
        arrayFilter((m, i) -> i >= arrayLastIndex(x -> x.2 > 0, every), every, arrayEnumerate(every)) AS moves,
        -- not before the moves that lead there: the greatest so far
        arrayMap(i -> arrayMax(arrayMap(m -> if(m.2 > 0, always, m.3), arraySlice(moves, 1, i))), arrayEnumerate(moves)) AS since,
        arrayZip(
            arrayConcat([node], moves.5),
            arrayConcat([always], since),
            arrayConcat(since, [forever]),
            arrayConcat([always], moves.4)) AS steps
    FROM
    (
        SELECT node, incarnation, person, max(m.version) AS version, min(m.valid_from) AS valid_from, min(m.known_from) AS known_from
        FROM ${database}.identity_moves AS m
        WHERE m.known_from <= parseDateTime64BestEffort(if({known:String} = '', '2299-12-31 23:59:59', {known:String}), 3, 'UTC')
        GROUP BY node, incarnation, person
    )
    GROUP BY node
)
ARRAY JOIN arrayFilter(s -> s.2 < s.3, steps) AS step;

-- identity_at: whose each identifier was at a time, as it was known at a time. One that is not in it was its own.
--   SELECT * FROM identity_at(at = '2026-03-01 12:00:00', known = '')
CREATE OR REPLACE VIEW ${database}.identity_at
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT node, person_id, valid_from, valid_to, known_from
FROM ${database}.identity_intervals(known = {known:String})
WHERE valid_from <= parseDateTime64BestEffort({at:String}, 3, 'UTC') AND valid_to > parseDateTime64BestEffort({at:String}, 3, 'UTC');

-- person_of: who an identifier was at a time, as it was known at a time. No row: it was never linked to another. The value
-- as it is kept: an e-mail in lower case, a phone number as +48...
--   SELECT person_id FROM person_of(type = 'email', value = 'ann@example.com', at = '2026-03-01', known = '')
CREATE OR REPLACE VIEW ${database}.person_of
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
WITH nodes AS
(
    SELECT DISTINCT node FROM ${database}.identities
    WHERE type = {type:String} AND value = if({type:String} = 'email', lower({value:String}), {value:String})
)
SELECT node, if(p.person_id = toUUID('00000000-0000-0000-0000-000000000000'), node, p.person_id) AS person_id
FROM nodes
LEFT JOIN
(
    SELECT node, person_id FROM ${database}.identity_at(at = {at:String}, known = {known:String})
    WHERE node IN (SELECT node FROM nodes)
) AS p USING (node);

-- identifiers: what is known of each linked identifier, but for its value.
CREATE OR REPLACE VIEW ${database}.identifiers
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    node, any(i.type) AS type, min(i.time) AS linked_at,
    dictGetOrDefault('${database}.person', 'current', tuple(node), node) AS person_id
FROM ${database}.identities AS i
WHERE i.type != ''
GROUP BY node;

-- events_by_person_at: every event under the person of one time, as it was known at a time: the numbers of a report as
-- they were, or would have been, on that day. An event that a split gave to a part is the part's, once that was known.
--   SELECT uniqExact(person_id) FROM events_by_person_at(at = '2026-03-01', known = '2026-03-01')
CREATE OR REPLACE VIEW ${database}.events_by_person_at
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    if(p.person_id = toUUID('00000000-0000-0000-0000-000000000000'), e.owner, p.person_id) AS person_id,
    e.brand AS brand, e.source AS source, e.type AS type, e.name AS name, e.action AS action, e.profile_id AS profile_id,
    e.message_id AS message_id, e.time AS time, e.received_at AS received_at, e.device_type AS device_type,
    e.order_id AS order_id, e.revenue AS revenue, e.total AS total, e.currency AS currency,
    e.topic AS topic, e.partition AS partition, e.offset AS offset
FROM (
    SELECT x.*, x.action, if(s.person = toUUID('00000000-0000-0000-0000-000000000000'), x.profile_id, s.person) AS owner
    FROM ${database}.events AS x
    LEFT JOIN
    (
        SELECT event, argMax(person, version) AS person FROM ${database}.event_parts
        WHERE known_from <= parseDateTime64BestEffort(if({known:String} = '', '2299-12-31 23:59:59', {known:String}), 3, 'UTC')
        GROUP BY event
    ) AS s ON s.event = bitXor(cityHash64(x.topic), bitShiftLeft(toUInt64(x.partition), 48) + x.offset)
) AS e
LEFT JOIN ${database}.identity_at(at = {at:String}, known = {known:String}) AS p ON e.owner = p.node;

-- events_by_person_then: every event under the person of its own time, which is when it was received.
--   SELECT * FROM events_by_person_then(known = '')
CREATE OR REPLACE VIEW ${database}.events_by_person_then
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    if(p.person_id = toUUID('00000000-0000-0000-0000-000000000000'), e.owner, p.person_id) AS person_id,
    e.brand AS brand, e.source AS source, e.type AS type, e.name AS name, e.action AS action, e.profile_id AS profile_id,
    e.message_id AS message_id, e.time AS time, e.received_at AS received_at, e.device_type AS device_type,
    e.order_id AS order_id, e.revenue AS revenue, e.total AS total, e.currency AS currency,
    e.topic AS topic, e.partition AS partition, e.offset AS offset
FROM (
    SELECT x.*, x.action, if(s.person = toUUID('00000000-0000-0000-0000-000000000000'), x.profile_id, s.person) AS owner
    FROM ${database}.events AS x
    LEFT JOIN
    (
        SELECT event, argMax(person, version) AS person FROM ${database}.event_parts
        WHERE known_from <= parseDateTime64BestEffort(if({known:String} = '', '2299-12-31 23:59:59', {known:String}), 3, 'UTC')
        GROUP BY event
    ) AS s ON s.event = bitXor(cityHash64(x.topic), bitShiftLeft(toUInt64(x.partition), 48) + x.offset)
) AS e
ASOF LEFT JOIN
(
    SELECT node, person_id, valid_from FROM ${database}.identity_intervals(known = {known:String})
) AS p ON e.owner = p.node AND e.received_at >= p.valid_from;
