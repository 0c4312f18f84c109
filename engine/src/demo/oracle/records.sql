-- Every record of the broker with the pipeline that reads it and the epoch it is bound to
-- (0 if to none). {topics} and {pipelines} are arrays of equal length.
CREATE OR REPLACE VIEW demo_records AS
SELECT
    raw.pipeline AS pipeline,
    raw.partition AS partition,
    raw.record_offset AS record_offset,
    raw.broker_time_ms AS broker_time_ms,
    raw.payload AS payload,
    raw.is_null AS is_null,
    raw.ce_id AS ce_id,
    raw.ce_source AS ce_source,
    raw.ce_type = raw.topic AS is_of_this_type,
    if(raw.record_offset < bound.next_offset, bound.epoch, 0) AS epoch
FROM
(
    SELECT *, transform(toString(topic), {topics}, {pipelines}, '') AS pipeline FROM raw_events
) AS raw
ASOF LEFT JOIN
(
    SELECT toString(pipeline) AS pipeline, epoch, range.1 AS topic, range.2 AS partition,
        range.3 AS from_offset, range.4 AS next_offset
    FROM epochs ARRAY JOIN ranges AS range
) AS bound
ON raw.pipeline = bound.pipeline AND raw.topic = bound.topic AND raw.partition = bound.partition
    AND raw.record_offset >= bound.from_offset
