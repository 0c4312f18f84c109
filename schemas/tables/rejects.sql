-- Records that could not be counted, with their bytes. Read once per (pipeline, topic, partition,
-- record_offset): a row sent again after a crash is the same row.
CREATE TABLE IF NOT EXISTS rejects{on_cluster}
(
    pipeline        LowCardinality(String)     COMMENT 'the pipeline that rejected it',
    version         LowCardinality(String)     COMMENT 'its version',
    topic           LowCardinality(String)     COMMENT 'the Kafka topic',
    partition       Int32                      COMMENT 'the Kafka partition',
    record_offset   Int64                      COMMENT 'the Kafka offset',
    epoch           UInt64                     COMMENT 'the epoch it was read in',
    broker_time     DateTime64(3, 'UTC')       COMMENT 'Kafka''s timestamp of the record',
    reason          LowCardinality(String)     COMMENT 'one word of a fixed list, e.g. not_json, outside_grid',
    field           LowCardinality(String)     COMMENT 'the field at fault; empty if the whole record is',
    detail          String                     COMMENT 'a sentence for a human',
    payload         String                     COMMENT 'the bytes as received, without what is personal',
    sealed          String                     COMMENT 'what is personal, encrypted under the key of the UTC day of broker_time; empty if nothing is'
)
ENGINE = {MergeTree}
ORDER BY (pipeline, topic, partition, record_offset)
