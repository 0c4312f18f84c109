-- The rows that one pipeline should have published: its contributions added up on every level.
CREATE TABLE `oracle_{pipeline}_rows` ENGINE = MergeTree ORDER BY tuple() AS
SELECT
    level,
    place,
    window_start_ms,
    group_value,
    [toFloat64(count()), {values}] AS numbers
FROM
(
    SELECT *, on_level.1 AS level, on_level.2 AS place
    FROM ({contributions}) AS contributions
    ARRAY JOIN
    [
        ('cell', cell),
        ('community', substring(cell, 1, 12)),
        ('street', substring(cell, 1, 9)),
        ('district', substring(cell, 1, 6)),
        ('city', concat(substring(cell, 1, 4), '00'))
    ] AS on_level
) AS contributions
INNER JOIN (SELECT toString(level) AS level, cell AS place, area_m2 FROM cells) AS places
USING (level, place)
GROUP BY level, place, window_start_ms, group_value
