-- What a marked epoch set aside by name is there, one row per record.
SELECT
    epoch,
    concat(toString(marked_records), ' {entry}') AS expected,
    concat(toString(records_there), ' in {place}') AS found
FROM
(
    SELECT epoch, max(marked) AS marked_records, sum(there) AS records_there,
        max(is_mark) AS is_marked
    FROM
    (
        SELECT epoch, {entry} AS marked, 0 AS there, 1 AS is_mark FROM epochs WHERE {marks}
        UNION ALL
        SELECT epoch, 0, count(), 0
        FROM
        (
            SELECT topic, partition, record_offset, epoch
            FROM {place}
            WHERE {marks}
            GROUP BY ALL
        )
        GROUP BY epoch
    )
    GROUP BY epoch
)
WHERE is_marked = 1 AND marked_records != records_there
