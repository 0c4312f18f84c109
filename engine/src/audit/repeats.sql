-- A row sent twice is the same row: no key of an epoch has two values.
SELECT
    epoch,
    concat(toString(keys), ' different rows, one per key') AS expected,
    concat(toString(different), ' different rows in {history}') AS found
FROM
(
    SELECT epoch, sum(by_key) AS keys, sum(by_value) AS different
    FROM
    (
        SELECT epoch, count() AS by_key, 0 AS by_value
        FROM (SELECT DISTINCT {key} FROM `{history}` WHERE {epochs})
        GROUP BY epoch
        UNION ALL
        SELECT epoch, 0, count()
        FROM (SELECT DISTINCT * FROM `{history}` WHERE {epochs})
        GROUP BY epoch
    )
    GROUP BY epoch
)
WHERE keys != different
