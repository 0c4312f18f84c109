-- No epoch up to the last mark has rows and no mark: once a later epoch is marked, nobody will mark it.
SELECT
    epoch,
    'no rows of an epoch without a mark' AS expected,
    concat(toString(count()), ' rows in ', place) AS found
FROM
(
    SELECT epoch, {history} AS place FROM {table} WHERE {epochs}
    UNION ALL
    SELECT epoch, 'rejects' FROM rejects WHERE {marks}
    UNION ALL
    SELECT epoch, 'late' FROM late WHERE {marks}
)
WHERE epoch NOT IN (SELECT epoch FROM epochs WHERE {marks})
GROUP BY epoch, place
