-- Every place of every grid version that was ever served: cells and the levels above them.
CREATE TABLE IF NOT EXISTS cells{on_cluster}
(
    grid            LowCardinality(String)     COMMENT 'the grid''s version',
    level           LowCardinality(String)     COMMENT 'cell, community, street, district or city',
    cell            String                     COMMENT 'the place''s code on that level',
    name            String                     COMMENT 'its name; empty if it has none',
    community       String                     COMMENT 'the community it lies in; empty above',
    street          String                     COMMENT 'the street it lies in; empty above',
    district        String                     COMMENT 'the district it lies in; empty above',
    area_m2         Float64                    COMMENT 'its area in square metres'
)
ENGINE = {ReplacingMergeTree}
ORDER BY (grid, level, cell)
