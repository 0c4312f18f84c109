-- One row per moment of the city: an epoch that every pipeline has marked which can write. Views show
-- the newest; a pipeline that could not write then shows what it had marked by then.
CREATE TABLE IF NOT EXISTS moments{on_cluster}
(
    epoch           UInt64                     COMMENT 'the epoch, ms since 1970, never going back; again when a pipeline has caught up with it',
    committed_at    DateTime64(3, 'UTC')       COMMENT 'when it became the moment, by the engine''s clock, never going back',
    stale           Array(String)              COMMENT 'the pipelines that do not hold it back: they cannot write, or are still catching up'
)
ENGINE = {MergeTree}
ORDER BY (epoch, committed_at)
