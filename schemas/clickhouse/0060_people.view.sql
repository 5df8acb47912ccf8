-- people: today's profiles, without their traits.
CREATE OR REPLACE VIEW ${database}.people
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    profile_id AS person_id,
    argMax(p.first_seen, p.version) AS first_seen, argMax(p.last_seen, p.version) AS last_seen,
    argMax(p.orders, p.version) AS orders, argMax(p.units, p.version) AS units, argMax(p.revenue, p.version) AS revenue,
    argMax(p.audiences, p.version) AS audiences, argMax(p.as_of, p.version) AS as_of
FROM ${database}.profiles AS p
GROUP BY profile_id
HAVING NOT argMax(p.tombstone, p.version);

-- merges: which profiles became one, by which rule and what kind of evidence; each merge once.
CREATE OR REPLACE VIEW ${database}.merges
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    loser, winner, any(i.rule) AS rule, any(i.brand) AS brand, any(i.message_id) AS message_id,
    min(i.time) AS merged_at, max(i.members) AS members, max(i.version) AS version,
    arraySort(groupUniqArrayIf(i.type, i.type != '')) AS evidence
FROM ${database}.identities AS i
GROUP BY loser, winner;

-- audience_members: who is in which audience now, under today's person.
CREATE OR REPLACE VIEW ${database}.audience_members
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT brand, audience, person_id, argMax(time, (time, version)) AS since
FROM
(
    SELECT
        brand, audience, change, time, version,
        dictGetOrDefault('${database}.person', 'current', tuple(profile_id), profile_id) AS person_id
    FROM ${database}.audience_changes
)
GROUP BY brand, audience, person_id
HAVING argMax(change, (time, version)) = 'entered';

-- person_timeline: all that is known of one person, in order; any id the person ever had will do.
--   SELECT * FROM person_timeline(person = '...')
CREATE OR REPLACE VIEW ${database}.person_timeline
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
WITH
    dictGetOrDefault('${database}.person', 'current', tuple({person:UUID}), {person:UUID}) AS today,
    ids AS
    (
        SELECT profile_id FROM ${database}.profile_redirects
        WHERE profile_id IN (SELECT profile_id FROM ${database}.profile_redirects WHERE current = today)
        GROUP BY profile_id HAVING argMax(current, version) = today
        UNION ALL SELECT today
    )
SELECT time, kind, brand, what, detail, device, amount, currency, profile_id, topic, partition, offset
FROM
(
    SELECT time, 'event' AS kind, toString(brand) AS brand,
        if(type = 'track', toString(name), trim(concat(type, ' ', name))) AS what, properties AS detail,
        toString(device_type) AS device, coalesce(total, revenue, value) AS amount, toString(currency) AS currency,
        profile_id, toString(topic) AS topic, partition, offset
    FROM ${database}.events WHERE profile_id IN (SELECT profile_id FROM ids)
    UNION ALL
    SELECT time, 'merge', toString(brand), concat('merged into ', toString(winner)), toString(rule), '', NULL, '',
        loser, toString(topic), partition, offset
    FROM ${database}.identities WHERE n = 0 AND loser IN (SELECT profile_id FROM ids)
    UNION ALL
    SELECT time, 'audience', toString(brand), concat(change, ' ', audience), reason, '', NULL, '',
        profile_id, toString(topic), partition, offset
    FROM ${database}.audience_changes WHERE profile_id IN (SELECT profile_id FROM ids)
    UNION ALL
    SELECT decided_at, 'message', toString(brand), concat('requested ', channel, ' of ', journey), message, '', cart_value, toString(currency),
        profile_id, toString(topic), partition, offset
    FROM ${database}.messages_requested WHERE profile_id IN (SELECT profile_id FROM ids)
    UNION ALL
    SELECT settled_at, 'receipt', toString(brand), concat(outcome, ' ', channel, ' of ', journey), toString(reason), '', cart_value, toString(currency),
        profile_id, toString(topic), partition, offset
    FROM ${database}.receipts WHERE profile_id IN (SELECT profile_id FROM ids)
)
ORDER BY time, topic, partition, offset;
