-- What stands in for `rows` if the table is not there.
SELECT DISTINCT epoch, concat(toString(rows), ' rows') AS expected, concat('no table ', {history}) AS found
FROM epochs
WHERE {marks} AND rows > 0
