-- Views run with the rights of who made them (SQL SECURITY DEFINER), so that an analyst needs no right on
-- the tables; personal columns are left out. None needs FINAL.

-- events_by_person: every event under today's person: that of its profile id, or of the part that it went to in a split.
CREATE OR REPLACE VIEW ${database}.events_by_person
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    dictGetOrDefault('${database}.person', 'current', tuple(dictGetOrDefault('${database}.part_of_event', 'person', bitXor(cityHash64(topic), bitShiftLeft(toUInt64(partition), 48) + offset), profile_id) AS owner), owner) AS person_id,
    brand, source, type, name, action, profile_id, user_id, anonymous_id, group_id, message_id,
    time, time_clamped, original_timestamp, sent_at, received_at, inserted_at, trusted, historical,
    order_id, checkout_id, cart_id, product_id, category, price, quantity, value, revenue, total, currency,
    url, path, referrer, title, utm_source, utm_medium, utm_campaign, utm_term, utm_content,
    device_type, os, app, locale, library, faults, flags, set_aside, properties, topic, partition, offset
FROM ${database}.events;

-- sessions: runs of one person's events in one brand on one type of device, 30 minutes of silence apart.
-- Till and back-office events, whose device is unknown, make sessions of device ''.
CREATE OR REPLACE VIEW ${database}.sessions
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, person_id, device, session,
    min(time) AS started_at, max(time) AS ended_at,
    dateDiff('second', started_at, ended_at) AS seconds,
    count() AS events,
    countIf(type IN ('page', 'screen')) AS pages,
    argMin(url, (time, message_id)) AS entry_url,
    argMin(referrer, (time, message_id)) AS entry_referrer,
    argMin(utm_source, (time, message_id)) AS utm_source,
    argMin(utm_medium, (time, message_id)) AS utm_medium,
    argMin(utm_campaign, (time, message_id)) AS utm_campaign,
    countIf(action = 'product viewed') AS products_viewed,
    countIf(action = 'product added') AS products_added,
    countIf(action = 'checkout started') AS checkouts_started,
    countIf(action = 'order completed') AS orders_completed
FROM
(
    SELECT *, 1 + sum(toUInt32(gap > 1800000)) OVER (
        PARTITION BY brand, person_id, device ORDER BY time, message_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS session
    FROM
    (
        SELECT
            brand, person_id, device_type AS device, time, message_id, type, action, url, referrer,
            utm_source, utm_medium, utm_campaign,
            toUnixTimestamp64Milli(time) - toUnixTimestamp64Milli(lagInFrame(time, 1, time) OVER (
                PARTITION BY brand, person_id, device_type ORDER BY time, message_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS gap
        FROM ${database}.events_by_person
    )
)
GROUP BY brand, person_id, device, session;

-- funnel: people by the furthest step they reached in order, each step within "window" seconds of the
-- first: product viewed -> added -> checkout started -> ordered. A person counts once per brand, under the
-- device on which they first viewed a product, whatever they ordered on. brand '' is all brands.
--   SELECT * FROM funnel(from = '2026-01-01 00:00:00', to = '2026-02-01 00:00:00', brand = '', window = 86400)
CREATE OR REPLACE VIEW ${database}.funnel
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, device,
    countIf(level >= 1) AS viewed,
    countIf(level >= 2) AS added,
    countIf(level >= 3) AS checkout,
    countIf(level >= 4) AS ordered,
    round(if(viewed = 0, 0, ordered / viewed), 4) AS conversion
FROM
(
    SELECT
        brand, person_id,
        argMinIf(device_type, (time, message_id), action = 'product viewed') AS device,
        windowFunnel({window:UInt64} * 1000)(toUInt64(greatest(toUnixTimestamp64Milli(time), 0)),
            action = 'product viewed', action = 'product added',
            action = 'checkout started', action = 'order completed') AS level
    FROM ${database}.events_by_person
    WHERE action IN ('product viewed', 'product added', 'checkout started', 'order completed')
        AND time >= parseDateTime64BestEffort({from:String}, 3, 'UTC')
        AND time < parseDateTime64BestEffort({to:String}, 3, 'UTC')
        AND ({brand:String} = '' OR brand = {brand:String})
    GROUP BY brand, person_id
)
WHERE level > 0
GROUP BY brand, device
ORDER BY brand, viewed DESC;
