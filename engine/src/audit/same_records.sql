-- A record sent twice is the same record. Only what is sealed may be missing from one of the two: its
-- key may have been destroyed between them.
SELECT
    epoch,
    'one row per record, however often it was sent' AS expected,
    concat(toString(count()), ' records with rows that differ in ', {history}) AS found
FROM
(
    SELECT {key}
    FROM {table}
    WHERE {epochs}
    GROUP BY {key}
    HAVING min(sipHash64(* EXCEPT sealed)) != max(sipHash64(* EXCEPT sealed))
        OR minIf(sealed, sealed != char(0)) != maxIf(sealed, sealed != char(0))
)
GROUP BY epoch
