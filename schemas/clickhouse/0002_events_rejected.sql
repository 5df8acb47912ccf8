-- One row per record of events.rejected, and one per record of any other topic that journey-writer cannot
-- read (service 'journey-writer'): nothing is lost silently.
--
-- Every topic can write here, so the window of tokens is wider than that of the other tables.
CREATE TABLE IF NOT EXISTS ${database}.events_rejected
(
    brand       LowCardinality(String),
    source      LowCardinality(String),
    reason      LowCardinality(String) COMMENT 'stable code, such as invalid_json or duplicate',
    error       String COMMENT 'in words, naming the field',
    service     LowCardinality(String) COMMENT 'the stage that rejected it',
    origin      String COMMENT 'topic:partition:offset it came from, or the HTTP path',
    message_id  String,
    received_at DateTime64(3, 'UTC') COMMENT '1970 if unknown',
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    historical  Bool,
    key         String COMMENT 'personal: the record''s key' CODEC(ZSTD(3)),
    body        String COMMENT 'personal: the bytes as they came' CODEC(ZSTD(3)),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (brand, reason, source, received_at)
SETTINGS non_replicated_deduplication_window = 100000;
