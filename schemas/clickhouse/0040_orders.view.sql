-- orders: one row per (brand, order), whoever reported it: the browser's and the shop system's report of
-- one order are one order. Money is that of the newest report that has any; the amount is total, else
-- revenue. An order that names no currency is in USD, as the Segment spec has it.
CREATE OR REPLACE VIEW ${database}.orders
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, id AS order_id,
    argMin(r.person_id, (r.action != 'order completed', not r.trusted, r.time, r.message_id)) AS person_id,
    minIf(r.time, r.action = 'order completed') AS ordered_at,
    min(r.received_at) AS first_received_at,
    argMax(r.action, (r.time, r.action != 'order completed', r.message_id)) AS last_action,
    last_action = 'order cancelled' AS cancelled,
    argMaxIf(coalesce(r.total, r.revenue), (r.time, r.message_id), r.has_money) AS amount,
    argMaxIf(coalesce(r.revenue, r.total), (r.time, r.message_id), r.has_money) AS revenue,
    argMaxIf(if(r.currency = '', 'USD', r.currency), (r.time, r.message_id), r.has_money) AS currency,
    argMinIf(r.device_type, (r.time, r.message_id), r.action = 'order completed') AS device,
    max(r.cart_id) AS cart_id,
    max(r.historical) AS historical,
    count() AS reports
FROM
(
    SELECT
        brand, multiIf(order_id != '', order_id, checkout_id != '', checkout_id, message_id) AS id,
        person_id, action, trusted, time, received_at, message_id, total, revenue, currency, device_type,
        cart_id, historical,
        (total IS NOT NULL OR revenue IS NOT NULL) AND action IN ('order completed', 'order updated') AS has_money
    FROM ${database}.events_by_person
    WHERE action IN ('order completed', 'order updated', 'order cancelled', 'order refunded')
) AS r
GROUP BY brand, id
HAVING countIf(r.action = 'order completed') > 0;

-- carts: one row per armed cart: the cart activity of a person in a brand under one cart id (none: '')
-- between two of the person's orders in that brand. "within" is in seconds: features say a day.
-- status: ordered (an order within that time of the last cart activity), abandoned (none), emptied (nothing
-- was left in it), open (that time is not over). value is that of the last checkout, else what was added
-- less what was removed.
--   SELECT status, count() FROM carts(within = 86400) GROUP BY status
CREATE OR REPLACE VIEW ${database}.carts
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, person_id, cart_id, device, category, currency, armed_at, last_activity_at, ordered_at, checkout, historical,
    if(stated > 0, toDecimal128(stated, 4), toDecimal128(greatest(arraySum(o -> o.3 * o.4, left), 0), 4)) AS cart_value,
    multiIf(
        ordered_at IS NOT NULL AND ordered_at <= last_activity_at + toIntervalSecond({within:UInt32}), 'ordered',
        cleared_at = last_activity_at OR (NOT seen_whole AND arraySum(o -> o.3, left) <= 0), 'emptied',
        ordered_at IS NOT NULL OR now64(3, 'UTC') > last_activity_at + toIntervalSecond({within:UInt32}), 'abandoned',
        'open') AS status
FROM
(
    SELECT
        brand, person_id, cart_id, next_order AS ordered_at,
        argMax(e.device_type, (e.time, e.message_id)) AS device,
        argMaxIf(e.category, (e.time, e.message_id), e.category != '') AS category,
        argMaxIf(e.currency, (e.time, e.message_id), e.currency != '') AS named,
        if(named = '', 'USD', named) AS currency,
        min(e.time) AS armed_at, max(e.time) AS last_activity_at,
        maxIf(e.time, e.action = 'cart cleared') AS cleared_at,
        countIf(e.action = 'checkout started') > 0 AS checkout,
        max(e.historical) AS historical,
        argMaxIf(e.worth, (e.time, e.message_id), e.worth > 0 AND e.action IN ('checkout started', 'cart viewed')) AS stated,
        countIf(e.action IN ('checkout started', 'cart viewed')) > 0 AS seen_whole,
        arrayFilter(o -> o.1 > cleared_at, groupArray((e.time, e.action,
            multiIf(e.action = 'product added', e.pieces, e.action = 'product removed', -e.pieces, toDecimal64(0, 4)), e.price))) AS left
    FROM
    (
        SELECT
            c.brand AS brand, c.person_id AS person_id, c.cart_id AS cart_id, c.action AS action, c.time AS time,
            c.message_id AS message_id, c.device_type AS device_type, c.category AS category, c.currency AS currency,
            coalesce(c.price, toDecimal64(0, 4)) AS price, coalesce(c.quantity, toDecimal64(1, 4)) AS pieces,
            coalesce(c.value, c.total, c.revenue, toDecimal64(0, 4)) AS worth, c.historical AS historical,
            arrayFirstOrNull(t -> t >= c.time, o.times) AS next_order
        FROM ${database}.events_by_person AS c
        LEFT JOIN
        (
            SELECT brand, person_id, arraySort(groupArray(ordered_at)) AS times
            FROM ${database}.orders WHERE NOT cancelled GROUP BY brand, person_id
        ) AS o ON o.brand = c.brand AND o.person_id = c.person_id
        WHERE c.action IN ('product added', 'product removed', 'cart viewed', 'cart cleared', 'checkout started')
    ) AS e
    GROUP BY brand, person_id, cart_id, next_order
);

-- cart_abandonment: armed carts without an order within "within" seconds of their last activity, divided by
-- armed carts, by brand, device and currency, for carts armed in [from, to). Open and emptied carts are not
-- counted. brand '' is all brands.
--   SELECT * FROM cart_abandonment(from = '2026-01-01', to = '2026-02-01', brand = '', within = 86400)
CREATE OR REPLACE VIEW ${database}.cart_abandonment
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, device, currency,
    count() AS carts,
    countIf(status = 'abandoned') AS abandoned,
    round(abandoned / carts, 4) AS rate,
    sumIf(cart_value, status = 'abandoned') AS value_at_risk,
    countIf(checkout) AS checkouts,
    countIf(checkout AND status = 'abandoned') AS checkouts_abandoned
FROM ${database}.carts(within = {within:UInt32})
WHERE status IN ('ordered', 'abandoned')
    AND armed_at >= parseDateTime64BestEffort({from:String}, 3, 'UTC')
    AND armed_at < parseDateTime64BestEffort({to:String}, 3, 'UTC')
    AND ({brand:String} = '' OR brand = {brand:String})
GROUP BY brand, device, currency
ORDER BY brand, carts DESC;
