-- Which version of a pipeline its views read, from which epoch on. Inserted before the moment of that
-- epoch, so that the row and the moment together are the swap.
CREATE TABLE IF NOT EXISTS versions{on_cluster}
(
    pipeline        LowCardinality(String)     COMMENT 'the pipeline',
    version         LowCardinality(String)     COMMENT 'hash over its plan, its schema and the grid; empty while the pipeline does not run',
    from_epoch      UInt64                     COMMENT 'the first epoch it serves',
    recorded_at     DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'when; of two rows from the same epoch the later holds',
    program         LowCardinality(String)     COMMENT 'the program''s version',
    grid            LowCardinality(String)     COMMENT 'the grid''s version',
    plan            String                     COMMENT 'the validated pipeline as JSON',
    definition      String                     COMMENT 'the pipeline''s YAML and its schema as JSON: what it is made of again while a newer version is built'
)
ENGINE = {MergeTree}
ORDER BY (pipeline, from_epoch)
