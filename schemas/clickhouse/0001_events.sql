-- One row per event of events.identified, exactly once: (topic, partition, offset) is unique.
--
-- profile_id is the profile of the time the row was written. Today's person is in the views, by the
-- dictionary "person". Ids are never compared by order: ClickHouse sorts UUIDs by their second half.
--
-- Personal fields stand in columns of their own (traits, ip, address, context), so that they can be erased,
-- or sealed, without touching the rest. properties is the text as it came: with the JSON type a duplicate
-- key or a 30-digit number in one event would fail the whole insert.
--
-- The window of deduplication tokens must exceed all inserts into the table, over all partitions, within
-- an insert's deadline and its server-side time limit: journey-writer checks that at start.
CREATE TABLE IF NOT EXISTS ${database}.events
(
    brand              LowCardinality(String),
    source             LowCardinality(String),
    type               LowCardinality(String) COMMENT 'track, identify, page, screen, group, alias',
    name               LowCardinality(String) COMMENT 'event of a track, name of a page or screen',
    action             LowCardinality(String) MATERIALIZED if(type != 'track', '', transform(
                           trim(BOTH ' ' FROM replaceRegexpAll(lower(name), '[ _\\-\\t]+', ' ')),
                           ['product viewed', 'viewed product', 'product added', 'added product',
                            'product removed', 'removed product', 'cart viewed', 'viewed cart',
                            'cart cleared', 'cleared cart',
                            'checkout started', 'started checkout', 'started order',
                            'order completed', 'completed order', 'order updated', 'updated order',
                            'order cancelled', 'order canceled', 'cancelled order', 'canceled order',
                            'order refunded', 'refunded order'],
                           ['product viewed', 'product viewed', 'product added', 'product added',
                            'product removed', 'product removed', 'cart viewed', 'cart viewed',
                            'cart cleared', 'cart cleared',
                            'checkout started', 'checkout started', 'checkout started',
                            'order completed', 'order completed', 'order updated', 'order updated',
                            'order cancelled', 'order cancelled', 'order cancelled', 'order cancelled',
                            'order refunded', 'order refunded'], ''))
                           COMMENT 'what a track means to a shop: one name, whatever its letter case, V1 names included; empty if nothing',
    profile_id         UUID,
    user_id            String,
    anonymous_id       String,
    previous_id        String,
    group_id           String,
    message_id         String,
    time               DateTime64(3, 'UTC') COMMENT 'when it happened; clamped to received_at if it said to be later than that by over five minutes',
    time_clamped       Bool,
    original_timestamp Nullable(DateTime64(3, 'UTC')) COMMENT 'the sender''s own clock, as it said',
    sent_at            Nullable(DateTime64(3, 'UTC')),
    received_at        DateTime64(3, 'UTC'),
    inserted_at        DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    trusted            Bool,
    historical         Bool,
    order_id           String,
    checkout_id        String,
    cart_id            String,
    product_id         String,
    category           LowCardinality(String),
    price              Nullable(Decimal(18, 4)),
    quantity           Nullable(Decimal(18, 4)),
    value              Nullable(Decimal(18, 4)),
    revenue            Nullable(Decimal(18, 4)) COMMENT 'without shipping and tax',
    total              Nullable(Decimal(18, 4)) COMMENT 'with shipping and tax',
    currency           LowCardinality(String) COMMENT 'upper case; empty if the event names none',
    url                String CODEC(ZSTD(1)),
    path               String CODEC(ZSTD(1)),
    referrer           String CODEC(ZSTD(1)),
    title              String CODEC(ZSTD(1)),
    utm_source         LowCardinality(String),
    utm_medium         LowCardinality(String),
    utm_campaign       LowCardinality(String),
    utm_term           String,
    utm_content        String,
    device_type        LowCardinality(String) COMMENT 'context.device.type, else mobile, tablet or desktop by the user agent; empty if unknown',
    os                 LowCardinality(String),
    app                LowCardinality(String),
    locale             LowCardinality(String),
    library            LowCardinality(String) COMMENT 'name/version of the SDK',
    faults             Array(LowCardinality(String)) COMMENT 'fields whose value fits no column; it is in properties as it came',
    properties         String CODEC(ZSTD(3)),
    traits             String COMMENT 'personal' CODEC(ZSTD(3)),
    ip                 String COMMENT 'personal' CODEC(ZSTD(1)),
    address            String COMMENT 'personal: traits.address' CODEC(ZSTD(3)),
    context            String COMMENT 'personal: holds IP, traits and user agent as they came' CODEC(ZSTD(3)),
    topic              LowCardinality(String),
    partition          UInt32,
    offset             UInt64,
    INDEX profile profile_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX message message_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (brand, toDate(time), name, profile_id, time, message_id)
SETTINGS non_replicated_deduplication_window = 10000;
