-- A mark sent twice is the same mark: only committed_at may differ, and the earliest counts.
SELECT
    epoch,
    'one mark, however often it was sent' AS expected,
    concat('marks that differ in ', arrayStringConcat(arrayMap(column -> column.1,
        arrayFilter(column -> column.2 > 1, [
            ('bound_time', uniqExact(bound_time)),
            ('watermark', uniqExact(tuple(watermark))),
            ('keyframe', uniqExact(keyframe)),
            ('rows', uniqExact(rows)),
            ('records', uniqExact(records)),
            ('counted', uniqExact(counted)),
            ('filtered', uniqExact(filtered)),
            ('rejected', uniqExact(rejected)),
            ('diverted', uniqExact(diverted)),
            ('duplicates', uniqExact(duplicates)),
            ('withdrawals', uniqExact(withdrawals)),
            ('ranges', uniqExact(ranges))])), ', ')) AS found
FROM epochs
WHERE {marks} AND epoch IN
(
    SELECT epoch
    FROM (SELECT DISTINCT * EXCEPT committed_at FROM epochs WHERE {marks})
    GROUP BY epoch
    HAVING count() > 1
)
GROUP BY epoch
