-- person: profile id -> today's profile id, for ids that were merged into another; others are their own.
--
-- Loaded again every few seconds, only what was inserted since: UPDATE_LAG must exceed the time from the
-- evaluation of inserted_at to the row's visibility, which is an insert's time limit. A changed id is looked
-- up in the whole table, because an older version may arrive after a newer one. A server looks by itself,
-- every five seconds; libchdb does not; so journey-writer also reloads it after it wrote redirects.
CREATE OR REPLACE DICTIONARY ${database}.person
(
    profile_id UUID,
    current    UUID
)
PRIMARY KEY profile_id
SOURCE(CLICKHOUSE(
    USER '${user}' PASSWORD '${password}'
    QUERY 'SELECT profile_id, argMax(current, version) AS current FROM ${database}.profile_redirects WHERE profile_id IN (SELECT profile_id FROM ${database}.profile_redirects WHERE {condition}) GROUP BY profile_id'
    UPDATE_FIELD 'inserted_at' UPDATE_LAG 120
))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 1 MAX 2)
COMMENT 'Today''s person of a profile id: dictGetOrDefault(''${database}.person'', ''current'', tuple(id), id)';

-- part_of_event: an event of a person who was split -> the part that it went to; others are their profile's. The key is the
-- event's topic, partition and offset as one number, so that looking for it costs next to nothing where nothing was split.
CREATE OR REPLACE DICTIONARY ${database}.part_of_event
(
    event  UInt64,
    person UUID
)
PRIMARY KEY event
SOURCE(CLICKHOUSE(
    USER '${user}' PASSWORD '${password}'
    QUERY 'SELECT event, argMax(person, version) AS person FROM ${database}.event_parts WHERE event IN (SELECT event FROM ${database}.event_parts WHERE {condition}) GROUP BY event'
    UPDATE_FIELD 'inserted_at' UPDATE_LAG 120
))
LAYOUT(HASHED())
LIFETIME(MIN 1 MAX 2)
COMMENT 'Part of a split person, by event: its person of today is that part''s, by the dictionary person';

-- part_of_message: the receipt id of a request or receipt of a person who was split -> the part whose it is: that of the event
-- which armed the cart, and where that cannot be found (it was armed as two people became one), of the last event that
-- changed the cart before it was decided. Without such an event it stays with its profile id, which went to a part itself.
CREATE OR REPLACE DICTIONARY ${database}.part_of_message
(
    receipt String,
    person  UUID
)
PRIMARY KEY receipt
SOURCE(CLICKHOUSE(
    USER '${user}' PASSWORD '${password}'
    QUERY 'WITH changed AS (SELECT command FROM (SELECT command, inserted_at FROM ${database}.message_parts UNION ALL SELECT command, inserted_at FROM ${database}.event_parts) WHERE {condition})
        SELECT m.receipt AS receipt, argMax(e.person, (m.place, e.time = m.armed, e.time)) AS person
        FROM (SELECT receipt, command, brand, cart_id, max(version) AS place, max(armed_at) AS armed, greatest(armed, max(ended_at)) AS ended
            FROM ${database}.message_parts
            WHERE receipt IN (SELECT receipt FROM ${database}.message_parts WHERE command IN (SELECT command FROM changed))
            GROUP BY receipt, command, brand, cart_id) AS m
        INNER JOIN (SELECT command, brand, cart_id, time, person FROM ${database}.event_parts
            WHERE cart AND command IN (SELECT command FROM ${database}.message_parts WHERE receipt IN
                (SELECT receipt FROM ${database}.message_parts WHERE command IN (SELECT command FROM changed)))) AS e
        ON m.command = e.command AND m.brand = e.brand AND m.cart_id = e.cart_id
        WHERE e.time <= m.ended
        GROUP BY receipt'
    UPDATE_FIELD 'inserted_at' UPDATE_LAG 120
))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 1 MAX 2)
COMMENT 'Part of a split person, by receipt: its person of today is that part''s, by the dictionary person';
