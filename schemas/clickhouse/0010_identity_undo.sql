-- What a split of a person has changed, what caps have stopped, and what operators have said.
--
-- event_parts: to which part of a split person an event went. An event is stored once, under the profile of its time; a
-- split tells it again under its part, and that record becomes a row here. An event that was in several splits has a row of
-- each: the highest version is today's, and known_from says what was known when. brand, time, cart and cart_id are the
-- event's, to find whose a message is.
CREATE TABLE IF NOT EXISTS ${database}.event_parts
(
    event_topic     LowCardinality(String) COMMENT 'where the event stands first: topic, partition and offset of its row in events',
    event_partition UInt32 CODEC(T64, ZSTD(1)),
    event_offset    UInt64 CODEC(T64, ZSTD(1)),
    event           UInt64 MATERIALIZED bitXor(cityHash64(event_topic), bitShiftLeft(toUInt64(event_partition), 48) + event_offset)
                        COMMENT 'the same as one number: a topic has less than 2^48 records in a partition',
    person          UUID COMMENT 'the part''s node: the profile id of its person then',
    command         String COMMENT 'the split',
    version         UInt64 COMMENT 'place of the split among all commands; only grows' CODEC(T64, ZSTD(1)),
    brand           LowCardinality(String),
    time            DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)),
    cart            Bool COMMENT 'it changed a cart',
    cart_id         String,
    known_from      DateTime64(3, 'UTC') COMMENT 'when it was told again' CODEC(T64, ZSTD(1)),
    inserted_at     DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(T64, ZSTD(1)),
    topic           LowCardinality(String),
    partition       UInt32 CODEC(T64, ZSTD(1)),
    offset          UInt64 CODEC(T64, ZSTD(1)),
    INDEX person person TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX command command TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (event, version)
SETTINGS non_replicated_deduplication_window = 10000;

-- message_parts: the requests and receipts that a split has told every part of. Whose a message is, the dictionary
-- part_of_message says.
CREATE TABLE IF NOT EXISTS ${database}.message_parts
(
    receipt            String,
    decision_topic     LowCardinality(String) COMMENT 'where the request or receipt stands first',
    decision_partition UInt32,
    decision_offset    UInt64,
    person             UUID COMMENT 'a part that was told of it, as all of the split were',
    command            String COMMENT 'the split',
    version            UInt64 COMMENT 'place of the split among all commands; only grows',
    brand              LowCardinality(String),
    cart_id            String,
    armed_at           DateTime64(3, 'UTC') COMMENT 'time of the event that armed the cart',
    ended_at           DateTime64(3, 'UTC') COMMENT 'when it was decided or settled',
    known_from         DateTime64(3, 'UTC'),
    inserted_at        DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    topic              LowCardinality(String),
    partition          UInt32,
    offset             UInt64,
    INDEX command command TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (receipt, version)
SETTINGS non_replicated_deduplication_window = 10000;

-- identity_suspensions: links that a cap of the governor has stopped, one row per record of identities.linked. A pair that
-- is stopped again may have more of them, or not: a stitcher publishes what it remembers to have published only once.
CREATE TABLE IF NOT EXISTS ${database}.identity_suspensions
(
    brand       LowCardinality(String) COMMENT 'of the event; empty if an older version stopped it',
    source      LowCardinality(String) COMMENT 'of the event; empty if an older version stopped it',
    a           UUID COMMENT 'the pair, in the order of nodes',
    b           UUID,
    a_type      LowCardinality(String),
    b_type      LowCardinality(String),
    a_value     String COMMENT 'personal' CODEC(ZSTD(3)),
    b_value     String COMMENT 'personal' CODEC(ZSTD(3)),
    cap         LowCardinality(String),
    rule        LowCardinality(String) COMMENT 'what in the event would have made the link',
    cause       String COMMENT 'source position of the event',
    message_id  String,
    time        DateTime64(3, 'UTC') COMMENT 'when the event was received',
    known_from  DateTime64(3, 'UTC') COMMENT 'when the suspension was published',
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX a a TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX b b TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (a, b, time)
SETTINGS non_replicated_deduplication_window = 10000;

-- identity_commands: what operators have said of identities, with how it ended; one row per record of identities.linked. Of
-- one command the row of the highest offset counts, should there be several.
CREATE TABLE IF NOT EXISTS ${database}.identity_commands
(
    command     String COMMENT 'its id',
    kind        LowCardinality(String) COMMENT 'split, link, block, unblock, release, reject, erase',
    actor       String COMMENT 'who said so',
    reason      String COMMENT 'and why' CODEC(ZSTD(3)),
    at          DateTime64(3, 'UTC') COMMENT 'when it was said',
    person      UUID COMMENT 'as it was shown; of a split or an erasure',
    a           UUID COMMENT 'of a pair in the order of nodes; of block and unblock the one',
    b           UUID,
    a_type      LowCardinality(String),
    b_type      LowCardinality(String),
    a_value     String COMMENT 'personal' CODEC(ZSTD(3)),
    b_value     String COMMENT 'personal' CODEC(ZSTD(3)),
    split       String COMMENT 'the command that a release takes back',
    outcome     LowCardinality(String) COMMENT 'done or refused',
    error       String COMMENT 'why it was refused',
    known_from  DateTime64(3, 'UTC') COMMENT 'when it had ended',
    details     String COMMENT 'personal: the record as published' CODEC(ZSTD(3)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    INDEX inserted inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY command
SETTINGS non_replicated_deduplication_window = 10000;

-- identities also has the links between the members of a split person and their parts: rule split, cause the command.
ALTER TABLE ${database}.identities ADD COLUMN IF NOT EXISTS actor String COMMENT 'who said so, of rule split' AFTER node;
ALTER TABLE ${database}.identities ADD COLUMN IF NOT EXISTS reason String COMMENT 'and why' CODEC(ZSTD(3)) AFTER actor;

-- A split begins the history of a node anew. The versions of its moves only grow, over splits, too.
ALTER TABLE ${database}.identity_moves MODIFY COLUMN incarnation COMMENT 'of a split, which begins the node''s history anew: above 0; of a merge 0';
