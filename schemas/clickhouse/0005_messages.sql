-- messages_requested: each message that was decided (activations.requested), before its delivery.
CREATE TABLE IF NOT EXISTS ${database}.messages_requested
(
    brand       LowCardinality(String),
    journey     LowCardinality(String),
    version     LowCardinality(String),
    channel     LowCardinality(String),
    message     String,
    receipt     String,
    profile_id  UUID,
    cart_id     String,
    cart_value  Nullable(Decimal(18, 4)),
    currency    LowCardinality(String),
    decided_at  DateTime64(3, 'UTC'),
    received_at DateTime64(3, 'UTC') COMMENT 'decided_at, for want of another',
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    faults      Array(LowCardinality(String)),
    address     String COMMENT 'personal: the recipient' CODEC(ZSTD(3)),
    content     String COMMENT 'personal: the whole message as published' CODEC(ZSTD(3)),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX profile profile_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (brand, journey, decided_at, receipt)
SETTINGS non_replicated_deduplication_window = 10000;

-- receipts: the end of each eligible cart (activations.settled), sent or not, and why.
CREATE TABLE IF NOT EXISTS ${database}.receipts
(
    brand       LowCardinality(String),
    journey     LowCardinality(String),
    version     LowCardinality(String),
    channel     LowCardinality(String),
    outcome     LowCardinality(String) COMMENT 'delivered, failed, suppressed, held_out, unknown',
    reason      LowCardinality(String),
    detail      String CODEC(ZSTD(3)),
    receipt     String COMMENT 'unique per eligible cart',
    message     String COMMENT 'empty if none was requested',
    profile_id  UUID,
    cart_id     String,
    cart_value  Nullable(Decimal(18, 4)),
    currency    LowCardinality(String),
    cart_items  Nullable(Decimal(18, 4)),
    armed_at    Nullable(DateTime64(3, 'UTC')),
    due_at      Nullable(DateTime64(3, 'UTC')),
    settled_at  DateTime64(3, 'UTC'),
    received_at DateTime64(3, 'UTC') COMMENT 'settled_at, for want of another',
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    faults      Array(LowCardinality(String)),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX profile profile_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (brand, journey, settled_at, receipt)
SETTINGS non_replicated_deduplication_window = 10000;
