-- The ranges of a partition join: each begins where the one before ended. Marks leave out partitions
-- without records, so the one before may be many epochs back. What was lost and skipped is a range
-- of its own.
SELECT
    epoch,
    concat(topic, '/', toString(partition), ' from offset ', toString(ifNull(before, from_offset)),
        if(before IS NULL, ' on', concat(', where epoch ', toString(epoch_before), ' ended'))) AS expected,
    multiIf(
        next_offset <= from_offset, 'an empty range',
        from_offset < before, 'an overlap',
        'a gap') AS fault,
    concat(fault, ': offsets ', toString(from_offset), ' to before ', toString(next_offset)) AS found
FROM
(
    SELECT
        epoch,
        range.1 AS topic,
        range.2 AS partition,
        range.3 AS from_offset,
        range.4 AS next_offset,
        lagInFrame(toNullable(next_offset)) OVER of_partition AS before,
        lagInFrame(epoch) OVER of_partition AS epoch_before
    FROM
    (
        SELECT epoch, arrayJoin(ranges) AS range
        FROM (SELECT DISTINCT epoch, ranges FROM epochs WHERE {marks})
        UNION ALL
        SELECT DISTINCT epoch, (topic, partition, from_offset, next_offset)
        FROM skipped
        WHERE {marks}
    )
    WINDOW of_partition AS
    (
        PARTITION BY topic, partition ORDER BY epoch, from_offset
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
)
WHERE from_offset != ifNull(before, from_offset) OR next_offset <= from_offset
