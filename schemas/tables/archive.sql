-- The records as Kafka delivered them, if they are kept (`citycell run --archive`). Read once per
-- (topic, partition, record_offset): a row sent again after a crash is the same row.
CREATE TABLE IF NOT EXISTS archive{on_cluster}
(
    topic           LowCardinality(String)     COMMENT 'the Kafka topic',
    partition       Int32                      COMMENT 'the Kafka partition',
    record_offset   Int64                      COMMENT 'the Kafka offset' CODEC(Delta, ZSTD(3)),
    epoch           UInt64                     COMMENT 'the epoch it was read in' CODEC(Delta, ZSTD(3)),
    broker_time     DateTime64(3, 'UTC')       COMMENT 'Kafka''s timestamp of the record' CODEC(Delta, ZSTD(3)),
    headers         Map(LowCardinality(String), String) COMMENT 'the CloudEvents headers, ce_id and its like; others are not read' CODEC(ZSTD(3)),
    is_null         UInt8                      COMMENT '1 if the value was null, which takes an event back' CODEC(ZSTD(3)),
    payload         String                     COMMENT 'the bytes as received, without what is personal' CODEC(ZSTD(3)),
    sealed          String                     COMMENT 'what is personal, encrypted under the key of the UTC day of broker_time; empty if nothing is' CODEC(NONE)
)
ENGINE = {MergeTree}
PARTITION BY toDate(toDateTime(intDiv(epoch, 1000), 'UTC'))
ORDER BY (topic, partition, record_offset)
TTL toDateTime(intDiv(epoch, 1000), 'UTC') + toIntervalSecond({keep_seconds})
SETTINGS fsync_after_insert = 1, ttl_only_drop_parts = 1
