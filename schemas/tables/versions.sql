-- Which version of a pipeline its views read, from which epoch on.
CREATE TABLE IF NOT EXISTS versions{on_cluster}
(
    pipeline        LowCardinality(String)     COMMENT 'the pipeline',
    version         LowCardinality(String)     COMMENT 'hash over its plan, its schema and the grid',
    from_epoch      UInt64                     COMMENT 'the first epoch it serves',
    program         LowCardinality(String)     COMMENT 'the program''s version',
    grid            LowCardinality(String)     COMMENT 'the grid''s version',
    plan            String                     COMMENT 'the validated pipeline as JSON'
)
ENGINE = {MergeTree}
ORDER BY (pipeline, from_epoch)
