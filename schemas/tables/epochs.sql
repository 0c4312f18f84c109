-- One row per pipeline and marked epoch: the commit mark and the books that balance.
-- A row of a pipeline's table is seen only once its epoch is marked here. A mark sent twice is the
-- same mark; the earliest committed_at counts.
CREATE TABLE IF NOT EXISTS epochs{on_cluster}
(
    pipeline        LowCardinality(String)     COMMENT 'the pipeline',
    version         LowCardinality(String)     COMMENT 'hash over its plan, its schema and the grid',
    epoch           UInt64                     COMMENT 'ms since 1970, strictly increasing',
    bound_time      DateTime64(3, 'UTC')       COMMENT 'what timers ran on: min(epoch, broker time of the oldest unread record)',
    watermark       Nullable(DateTime64(3, 'UTC')) COMMENT 'the event time that lateness was judged by; NULL before the first event',
    committed_at    DateTime64(3, 'UTC')       COMMENT 'when all rows of the epoch were acknowledged, by the engine''s clock, never going back',
    keyframe        UInt8                      COMMENT '1 if all live rows were written again in this epoch',
    rows            UInt64                     COMMENT 'rows written to the pipeline''s table',
    records         UInt64                     COMMENT 'records read = counted + filtered + rejected + diverted + duplicates + withdrawals',
    counted         UInt64                     COMMENT 'events in the numbers, also those withdrawn later',
    filtered        UInt64                     COMMENT 'events that the pipeline''s where does not want',
    rejected        UInt64                     COMMENT 'records in rejects',
    diverted        UInt64                     COMMENT 'events in late',
    duplicates      UInt64                     COMMENT 'copies of events already counted',
    withdrawals     UInt64                     COMMENT 'records that take an event back',
    ranges          Array(Tuple(topic String, partition Int32, from_offset Int64, next_offset Int64))
                                               COMMENT 'the records of the epoch: from_offset <= offset < next_offset; partitions without records are left out'
)
ENGINE = {MergeTree}
ORDER BY (pipeline, version, epoch)
