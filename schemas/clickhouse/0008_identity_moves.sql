-- identity_moves: which identifier became whose, and when. A merge moves every member of the loser to the winner: one row
-- each, for good, so that one can ask who somebody was at a time, and as it was known at a time (the views of
-- 0065_identity_history). Rows may come in any order and, where a merge was published twice, twice: of the rows of one
-- node, incarnation and person the first known_from counts.
--
-- The order of a node's moves is that of (incarnation, version): the version grows along a chain of merges, because
-- components only grow. A split will begin a new incarnation of a node, whose rows are then its whole history; what was
-- known before is still known as it was, by known_from. There is no such record yet: all rows are of incarnation 0.
CREATE TABLE IF NOT EXISTS ${database}.identity_moves
(
    node        UUID COMMENT 'the identifier',
    incarnation UInt32 COMMENT 'how often it was split off',
    version     UInt64 COMMENT 'size of the person''s component when read',
    person      UUID COMMENT 'whose it is from then on, until its next move',
    valid_from  DateTime64(3, 'UTC') COMMENT 'when the event that made the link was received' CODEC(T64, ZSTD(1)),
    known_from  DateTime64(3, 'UTC') COMMENT 'when the merge was published' CODEC(T64, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(T64, ZSTD(1)),
    topic       LowCardinality(String),
    partition   UInt32 CODEC(T64, ZSTD(1)),
    offset      UInt64 CODEC(T64, ZSTD(1)),
    INDEX person person TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (node, incarnation, version)
SETTINGS non_replicated_deduplication_window = 10000;

-- identities is asked for the links of one person, and for the node of a value.
ALTER TABLE ${database}.identities ADD INDEX IF NOT EXISTS loser loser TYPE bloom_filter(0.01) GRANULARITY 4;
ALTER TABLE ${database}.identities ADD INDEX IF NOT EXISTS node node TYPE bloom_filter(0.01) GRANULARITY 4;
ALTER TABLE ${database}.identities ADD INDEX IF NOT EXISTS value value TYPE bloom_filter(0.01) GRANULARITY 4;
