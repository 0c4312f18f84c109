-- Events that came after their window could no longer change. Read once per (pipeline, topic,
-- partition, record_offset).
CREATE TABLE IF NOT EXISTS late{on_cluster}
(
    pipeline        LowCardinality(String)     COMMENT 'the pipeline that set it aside',
    version         LowCardinality(String)     COMMENT 'its version',
    topic           LowCardinality(String)     COMMENT 'the Kafka topic',
    partition       Int32                      COMMENT 'the Kafka partition',
    record_offset   Int64                      COMMENT 'the Kafka offset',
    epoch           UInt64                     COMMENT 'the epoch it was read in',
    event_time      DateTime64(3, 'UTC')       COMMENT 'when it happened',
    watermark       DateTime64(3, 'UTC')       COMMENT 'the watermark it was judged by'
)
ENGINE = {MergeTree}
ORDER BY (pipeline, topic, partition, record_offset)
