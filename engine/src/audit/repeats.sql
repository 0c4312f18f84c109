-- A row sent twice is the same row: no key of an epoch has two values.
SELECT
    epoch,
    'one row per key, however often it was sent' AS expected,
    concat(toString(count()), ' keys with rows that differ in ', {history}) AS found
FROM
(
    SELECT {key}
    FROM {table}
    WHERE {epochs}
    GROUP BY {key}
    HAVING min(sipHash64(*)) != max(sipHash64(*))
)
GROUP BY epoch
