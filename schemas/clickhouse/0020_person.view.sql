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
