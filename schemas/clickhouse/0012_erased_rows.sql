-- erased_rows: that a row of events or events_rejected was there, and was of a person who was erased: what the audit must know
-- of it, and nothing of the person. One row per record, or several that are the same.
CREATE TABLE IF NOT EXISTS ${database}.erased_rows
(
    from_table  LowCardinality(String) COMMENT 'events or events_rejected',
    brand       LowCardinality(String),
    source      LowCardinality(String),
    reason      LowCardinality(String) COMMENT 'of events_rejected',
    service     LowCardinality(String) COMMENT 'of events_rejected',
    minute      DateTime64(3, 'UTC') COMMENT 'of receipt',
    command     String COMMENT 'the erasure',
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
ORDER BY (from_table, topic, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000;
