-- messages: each receipt under today's person: what became of every eligible cart, and why.
CREATE OR REPLACE VIEW ${database}.messages
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    dictGetOrDefault('${database}.person', 'current', tuple(dictGetOrDefault('${database}.part_of_message', 'person', tuple(receipt), profile_id) AS owner), owner) AS person_id,
    brand, journey, version, channel, outcome, reason, receipt, message, profile_id,
    cart_id, cart_value, currency, cart_items, armed_at, due_at, settled_at, topic, partition, offset
FROM ${database}.receipts;

-- messages_by_outcome: how many carts ended how, and why.
CREATE OR REPLACE VIEW ${database}.messages_by_outcome
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, journey, channel, outcome, reason,
    count() AS carts, uniqExact(person_id) AS people, min(settled_at) AS first_at, max(settled_at) AS last_at
FROM ${database}.messages
GROUP BY brand, journey, channel, outcome, reason
ORDER BY brand, journey, carts DESC;

-- recovered_carts: delivered messages followed by an order of the same person in the same brand within
-- "within" seconds. An order counts for the last message before it only, a message for its first order
-- only. revenue is without shipping and tax if the order said so. Cancelled orders do not count.
--   SELECT * FROM recovered_carts(from = '2026-01-01', to = '2026-02-01', brand = '', within = 259200)
CREATE OR REPLACE VIEW ${database}.recovered_carts
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, journey, version, receipt, person_id, cart_id, settled_at,
    min(ordered_at) AS recovered_at,
    argMin(order_id, (ordered_at, order_id)) AS recovered_order,
    argMin(order_currency, (ordered_at, order_id)) AS recovered_currency,
    argMin(order_revenue, (ordered_at, order_id)) AS recovered_revenue
FROM
(
    SELECT
        o.brand AS brand, m.journey AS journey, m.version AS version, m.receipt AS receipt, o.person_id AS person_id,
        m.cart_id AS cart_id, m.settled_at AS settled_at,
        o.ordered_at AS ordered_at, o.order_id AS order_id, o.currency AS order_currency, coalesce(o.revenue, 0) AS order_revenue
    FROM (SELECT * FROM ${database}.orders WHERE NOT cancelled) AS o
    ASOF INNER JOIN (SELECT * FROM ${database}.messages WHERE outcome = 'delivered') AS m
        ON m.brand = o.brand AND m.person_id = o.person_id AND o.ordered_at > m.settled_at
    WHERE o.ordered_at <= m.settled_at + toIntervalSecond({within:UInt32})
        AND m.settled_at >= parseDateTime64BestEffort({from:String}, 3, 'UTC')
        AND m.settled_at < parseDateTime64BestEffort({to:String}, 3, 'UTC')
        AND ({brand:String} = '' OR o.brand = {brand:String})
)
GROUP BY brand, journey, version, receipt, person_id, cart_id, settled_at;

-- recovery: carts and revenue recovered, per brand, journey and currency.
--   SELECT * FROM recovery(from = '2026-01-01', to = '2026-02-01', brand = '', within = 259200)
CREATE OR REPLACE VIEW ${database}.recovery
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    brand, journey, recovered_currency AS currency,
    count() AS recovered, sum(recovered_revenue) AS revenue
FROM ${database}.recovered_carts(from = {from:String}, to = {to:String}, brand = {brand:String}, within = {within:UInt32})
GROUP BY brand, journey, currency
ORDER BY brand, journey, currency;

-- false_sends: messages delivered although the person had ordered in that brand since the cart was armed.
-- order_known says whether the order had reached us by then: if not, the source was late; if so, we failed.
CREATE OR REPLACE VIEW ${database}.false_sends
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
    m.brand AS brand, m.journey AS journey, m.receipt AS receipt, m.person_id AS person_id, m.cart_id AS cart_id,
    m.armed_at AS armed_at, m.settled_at AS settled_at,
    o.order_id AS order_id, o.ordered_at AS ordered_at, o.first_received_at AS order_received_at,
    o.first_received_at < m.settled_at AS order_known
FROM (SELECT * FROM ${database}.messages WHERE outcome IN ('delivered', 'unknown')) AS m
INNER JOIN ${database}.orders AS o ON o.brand = m.brand AND o.person_id = m.person_id
WHERE o.ordered_at >= m.armed_at AND o.ordered_at < m.settled_at;
