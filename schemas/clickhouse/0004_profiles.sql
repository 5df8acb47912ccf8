-- profiles: each change of a profile (profiles.changed), newest version last; older versions fall away in
-- merges. A tombstone is the end of a profile that was merged into another.
CREATE TABLE IF NOT EXISTS ${database}.profiles
(
    profile_id  UUID,
    version     UInt64 COMMENT 'sequence of the source position; only grows per profile',
    tombstone   Bool,
    first_seen  Nullable(DateTime64(3, 'UTC')),
    last_seen   Nullable(DateTime64(3, 'UTC')),
    orders      UInt64,
    revenue     Map(LowCardinality(String), Decimal(18, 4)) COMMENT 'by currency',
    audiences   Array(LowCardinality(String)),
    as_of       Nullable(DateTime64(3, 'UTC')),
    faults      Array(LowCardinality(String)) COMMENT 'fields whose value fits no column; it is in profile as it came',
    traits      String COMMENT 'personal' CODEC(ZSTD(3)),
    profile     String COMMENT 'personal: the whole profile as published' CODEC(ZSTD(3)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
ORDER BY profile_id
SETTINGS non_replicated_deduplication_window = 10000;

-- audience_changes: an audience entered or left, and why.
CREATE TABLE IF NOT EXISTS ${database}.audience_changes
(
    brand       LowCardinality(String),
    audience    LowCardinality(String),
    change      LowCardinality(String) COMMENT 'entered or left',
    reason      String,
    profile_id  UUID,
    time        DateTime64(3, 'UTC'),
    received_at DateTime64(3, 'UTC') COMMENT 'of the event that caused it, else time',
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    version     UInt64 COMMENT 'sequence of the source position; only grows per profile',
    details     String COMMENT 'the whole record as published' CODEC(ZSTD(3)),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX profile profile_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (brand, audience, time)
SETTINGS non_replicated_deduplication_window = 10000;
