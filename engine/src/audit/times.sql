-- No time goes back from one epoch to the next.
SELECT
    epoch,
    concat(time.1, ' not before ', toString(time.2), ', that of epoch ', toString(epoch_before))
        AS expected,
    concat(time.1, ' ', ifNull(toString(time.3), 'unknown')) AS found
FROM
(
    SELECT
        epoch,
        lagInFrame(epoch) OVER by_epoch AS epoch_before,
        arrayJoin([
            ('committed_at', lagInFrame(committed) OVER by_epoch, committed),
            ('bound_time', lagInFrame(timers) OVER by_epoch, timers),
            ('watermark', lagInFrame(lateness) OVER by_epoch, lateness)]) AS time
    FROM
    (
        SELECT
            epoch,
            toNullable(min(committed_at)) AS committed,
            toNullable(min(bound_time)) AS timers,
            min(watermark) AS lateness
        FROM epochs
        WHERE {marks}
        GROUP BY epoch
    )
    WINDOW by_epoch AS (ORDER BY epoch ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
WHERE time.2 IS NOT NULL AND (time.3 IS NULL OR time.3 < time.2)
