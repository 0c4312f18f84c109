-- The offsets of one partition that marks name and the archive does not have, as ranges. Each record
-- is as long as 1, each end of a marked range as 0: whatever begins later than the one before ended
-- leaves a hole.
SELECT ended AS from_offset, starts AS next_offset
FROM
(
    SELECT starts, lagInFrame(toNullable(ends)) OVER by_offset AS ended
    FROM
    (
        SELECT record_offset AS starts, record_offset + 1 AS ends
        FROM
        (
            SELECT record_offset
            FROM archive
            WHERE topic = {topic} AND partition = {partition} AND {epochs}
            GROUP BY record_offset
        )
        UNION ALL
        SELECT arrayJoin([range.3, range.4]) AS starts, starts AS ends
        FROM (SELECT DISTINCT arrayJoin(ranges) AS range FROM epochs WHERE {marks})
        WHERE range.1 = {topic} AND range.2 = {partition}
    )
    WINDOW by_offset AS
        (ORDER BY starts, ends ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
WHERE ended < starts AND ended >= {from_offset}
ORDER BY from_offset
LIMIT {holes_max}
