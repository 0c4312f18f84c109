-- What every pipeline has to know of a record: when it happened, where, and what lateness is
-- judged by. The place is the code that the sensor says, not the point that the engine looks up.
CREATE TABLE oracle_records ENGINE = MergeTree ORDER BY (pipeline, partition, record_offset) AS
SELECT
    records.*,
    toInt64(partition) * 1000000000000 + record_offset AS position,
    toUnixTimestamp64Milli(marks.committed_at) - broker_time_ms AS freshness_ms,
    ifNull(toUnixTimestamp64Milli(marks.watermark), toInt64(-9000000000000000)) AS watermark_ms,
    is_null = 1 AND ce_id != '' AS is_withdrawal,
    is_null = 0 AND isValidUTF8(payload) AND isValidJSON(payload) AS is_json,
    if(is_json, JSONExtractKeys(payload), []) AS keys,
    parseDateTime64BestEffortOrNull(JSONExtractString(payload, 'dateObserved'), 3, 'UTC') AS observed,
    ifNull(toUnixTimestamp64Milli(observed), 0) AS time_ms,
    is_json AND is_of_this_type AND ce_id != '' AND JSONType(payload) = 'Object'
        AND length(keys) = length(arrayDistinct(keys)) AND observed IS NOT NULL
        AND match(JSONExtractString(payload, 'dateObserved'), '(Z|[+-][0-9]{2}:[0-9]{2})$')
        AS is_readable,
    JSONExtractString(payload, 'gridCode') AS cell
FROM demo_records AS records
LEFT JOIN (SELECT pipeline, epoch, any(committed_at) AS committed_at, any(watermark) AS watermark
           FROM epochs GROUP BY pipeline, epoch) AS marks
ON records.pipeline = marks.pipeline AND records.epoch = marks.epoch
