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
WHERE i.rule != 'split'
GROUP BY loser, winner;

-- splits: the parts that each split has made of a person, with how many of its identifiers each has.
CREATE OR REPLACE VIEW ${database}.splits
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    cause AS command, winner AS part, any(i.actor) AS actor, min(i.time) AS split_at, uniqExact(i.loser) AS members,
    dictGetOrDefault('${database}.person', 'current', tuple(winner), winner) AS person_id
FROM ${database}.identities AS i
WHERE i.rule = 'split'
GROUP BY cause, winner;

-- suspended_links: pairs of identifiers that a cap of the governor keeps apart, each once. Values are personal and not in it.
CREATE OR REPLACE VIEW ${database}.suspended_links
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    a, b, any(s.a_type) AS a_type, any(s.b_type) AS b_type, argMax(s.cap, s.time) AS cap, argMax(s.source, s.time) AS source,
    argMax(s.brand, s.time) AS brand, min(s.time) AS first_seen, max(s.time) AS last_seen, count() AS records
FROM ${database}.identity_suspensions AS s
GROUP BY a, b;

-- audience_members: who is in which audience now, under today's person. What was said of a profile id before it was split
-- off counts no more: of the parts it is said anew.
CREATE OR REPLACE VIEW ${database}.audience_members
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT brand, audience, person_id, argMax(time, (time, version)) AS since
FROM
(
    SELECT
        brand, audience, change, time, version,
        dictGetOrDefault('${database}.person', 'current', tuple(profile_id), profile_id) AS person_id
    FROM ${database}.audience_changes
    WHERE profile_id NOT IN (SELECT loser FROM ${database}.identities WHERE rule = 'split')
)
GROUP BY brand, audience, person_id
HAVING argMax(change, (time, version)) = 'entered';

-- person_timeline: all that is known of one person, in order; any id the person ever had will do. Of somebody who was split
-- off it is what went along.
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
    ),
    -- under which ids rows may stand: those, and all of whomever they were split off from, over as many splits as there were
    stored AS
    (
        SELECT loser AS profile_id FROM ${database}.identities WHERE rule = 'split' AND cause IN
        (
            WITH RECURSIVE splits AS
            (
                SELECT DISTINCT cause FROM ${database}.identities WHERE rule = 'split' AND winner IN (SELECT profile_id FROM ids)
                UNION ALL
                SELECT DISTINCT before.cause AS cause FROM splits
                INNER JOIN ${database}.identities AS i ON i.cause = splits.cause
                INNER JOIN ${database}.identities AS before ON before.winner = i.loser
                WHERE i.rule = 'split' AND before.rule = 'split'
            )
            SELECT cause FROM splits
        )
        UNION ALL SELECT profile_id FROM ids
    )
SELECT time, kind, brand, what, detail, device, amount, currency, profile_id, topic, partition, offset
FROM
(
    SELECT time, 'event' AS kind, toString(brand) AS brand,
        if(type = 'track', toString(name), trim(concat(type, ' ', name))) AS what, properties AS detail,
        toString(device_type) AS device, coalesce(total, revenue, value) AS amount, toString(currency) AS currency,
        profile_id, toString(topic) AS topic, partition, offset
    FROM ${database}.events WHERE profile_id IN (SELECT profile_id FROM stored)
        AND dictGetOrDefault('${database}.person', 'current', tuple(dictGetOrDefault('${database}.part_of_event', 'person', bitXor(cityHash64(events.topic), bitShiftLeft(toUInt64(events.partition), 48) + events.offset), events.profile_id) AS owner), owner) = today
    UNION ALL
    SELECT time, if(rule = 'split', 'split', 'merge'), toString(brand), concat(if(rule = 'split', 'split off into ', 'merged into '), toString(winner)),
        if(rule = 'split', trim(concat(actor, ': ', reason)), toString(rule)), '', NULL, '',
        loser, toString(topic), partition, offset
    FROM ${database}.identities WHERE n = 0 AND loser IN (SELECT profile_id FROM ids)
    UNION ALL
    SELECT time, 'audience', toString(brand), concat(change, ' ', audience), reason, '', NULL, '',
        profile_id, toString(topic), partition, offset
    FROM ${database}.audience_changes WHERE profile_id IN (SELECT profile_id FROM ids)
    UNION ALL
    SELECT decided_at, 'message', toString(brand), concat('requested ', channel, ' of ', journey), message, '', cart_value, toString(currency),
        profile_id, toString(topic), partition, offset
    FROM ${database}.messages_requested WHERE profile_id IN (SELECT profile_id FROM stored)
        AND dictGetOrDefault('${database}.person', 'current', tuple(dictGetOrDefault('${database}.part_of_message', 'person', tuple(receipt), profile_id) AS owner), owner) = today
    UNION ALL
    SELECT settled_at, 'receipt', toString(brand), concat(outcome, ' ', channel, ' of ', journey), toString(reason), '', cart_value, toString(currency),
        profile_id, toString(topic), partition, offset
    FROM ${database}.receipts WHERE profile_id IN (SELECT profile_id FROM stored)
        AND dictGetOrDefault('${database}.person', 'current', tuple(dictGetOrDefault('${database}.part_of_message', 'person', tuple(receipt), profile_id) AS owner), owner) = today
)
ORDER BY time, topic, partition, offset;
