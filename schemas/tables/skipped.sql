-- Offsets that Kafka no longer had when they were to be read, and that `--on-lost-offsets skip` let
-- go: from_offset <= offset < next_offset. Nobody knows what stood there. Read once per (pipeline,
-- version, topic, partition, from_offset).
CREATE TABLE IF NOT EXISTS skipped{on_cluster}
(
    pipeline        LowCardinality(String)     COMMENT 'the pipeline that would have read them',
    version         LowCardinality(String)     COMMENT 'its version',
    topic           LowCardinality(String)     COMMENT 'the Kafka topic',
    partition       Int32                      COMMENT 'the Kafka partition',
    from_offset     Int64                      COMMENT 'the first offset that was skipped',
    next_offset     Int64                      COMMENT 'the first one that was read again',
    epoch           UInt64                     COMMENT 'the epoch that skipped them',
    skipped_at      DateTime64(3, 'UTC')       COMMENT 'when that was, by the engine''s clock: the epoch as a time'
)
ENGINE = {MergeTree}
ORDER BY (pipeline, version, topic, partition, from_offset)
