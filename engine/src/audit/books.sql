-- Every record that was read became exactly one thing.
SELECT DISTINCT
    epoch,
    concat(toString(counted + filtered + rejected + diverted + duplicates + withdrawals),
        ' records, the sum of what became of them') AS expected,
    concat(toString(records), ' records') AS found
FROM epochs
WHERE {marks}
    AND records != counted + filtered + rejected + diverted + duplicates + withdrawals
