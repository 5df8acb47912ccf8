-- identities: the evidence of merges, one row per identifier that caused one; at least one row per merge
-- record. (topic, partition, offset, n) is unique. A merge may be published more than once, always with
-- the same cause.
CREATE TABLE IF NOT EXISTS ${database}.identities
(
    brand       LowCardinality(String) COMMENT 'of the event that caused it',
    loser       UUID,
    winner      UUID,
    members     UInt32 COMMENT 'identifiers of the loser at that time',
    version     UInt64 COMMENT 'size of the winner''s component when read',
    rule        LowCardinality(String),
    cause       String COMMENT 'source position or message id of the event that caused it',
    message_id  String,
    time        DateTime64(3, 'UTC'),
    received_at DateTime64(3, 'UTC'),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    n           UInt16 COMMENT 'number of the evidence row in its record, from 0',
    type        LowCardinality(String) COMMENT 'type of the identifier; empty if the record has no evidence',
    value       String COMMENT 'personal' CODEC(ZSTD(3)),
    node        UUID,
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (brand, winner, loser, time)
SETTINGS non_replicated_deduplication_window = 10000;

-- profile_redirects: where each member of a merged profile went. Flat, by one writer per partition and
-- without reading: a merge record lists all members of the loser, and a member's version only grows along
-- its chain of merges, because its component only grows. So the row of the highest version is today's
-- person, in whatever order the rows come. Not partitioned, so that older versions fall away in merges.
-- People have no brand: this table and "profiles" are the ones whose key does not begin with it.
CREATE TABLE IF NOT EXISTS ${database}.profile_redirects
(
    profile_id  UUID,
    current     UUID,
    version     UInt64,
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX current current TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
ORDER BY profile_id
SETTINGS non_replicated_deduplication_window = 10000;
