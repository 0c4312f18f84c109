-- No epoch has more records than its ranges have offsets. It may have fewer: a transaction's control
-- records and what compaction removed are offsets without a record.
SELECT DISTINCT
    epoch,
    concat('at most ', toString(arraySum(range -> range.4 - range.3, ranges)),
        ' records, the length of the ranges') AS expected,
    concat(toString(records), ' records') AS found
FROM epochs
WHERE {marks} AND toInt64(records) > arraySum(range -> range.4 - range.3, ranges)
