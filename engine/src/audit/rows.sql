-- A marked epoch has as many rows as its mark says. A row sent twice is one row: rows are told apart
-- by the key of the table, of which the epoch is a part. Grouping, unlike DISTINCT, goes to disk when
-- memory does not hold all keys.
SELECT
    epoch,
    concat(toString(marked_rows), ' rows') AS expected,
    concat(toString(rows_there), ' rows in ', {history}) AS found
FROM
(
    SELECT epoch, max(marked) AS marked_rows, sum(there) AS rows_there, max(is_mark) AS is_marked
    FROM
    (
        SELECT epoch, rows AS marked, 0 AS there, 1 AS is_mark FROM epochs WHERE {marks}
        UNION ALL
        SELECT epoch, 0, count(), 0
        FROM (SELECT {key} FROM {table} WHERE {epochs} GROUP BY {key})
        GROUP BY epoch
    )
    GROUP BY epoch
)
WHERE is_marked = 1 AND marked_rows != rows_there
