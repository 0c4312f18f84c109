-- One row per key that is expected or published, and whether both say the same. Numbers are equal
-- to a thousand-millionth, which forgives the order of floating-point operations and no more.
CREATE TABLE `oracle_{pipeline}_compared` ENGINE = MergeTree ORDER BY tuple() AS
SELECT
    level,
    place,
    window_start_ms,
    group_value,
    groupArrayIf(numbers, is_expected) AS expected,
    groupArrayIf(numbers, NOT is_expected) AS published,
    length(expected) = 1 AND length(published) = 1 AND arrayAll(
        (a, b) -> if(a IS NULL OR b IS NULL, (a IS NULL) = (b IS NULL),
            abs(ifNull(a, 0) - ifNull(b, 0)) <= 1e-9 * greatest(1, abs(ifNull(a, 0)))),
        arrayElement(expected, 1), arrayElement(published, 1)) AS agrees
FROM
(
    SELECT level, place, window_start_ms, toString(group_value) AS group_value,
        CAST(numbers, 'Array(Nullable(Float64))') AS numbers, true AS is_expected
    FROM `oracle_{pipeline}_rows`
    UNION ALL
    SELECT toString(level), cell, toUnixTimestamp64Milli(window_start), toString(`{group}`),
        CAST([toFloat64(events), {published}], 'Array(Nullable(Float64))'), false
    FROM `{pipeline}`
)
GROUP BY level, place, window_start_ms, group_value
