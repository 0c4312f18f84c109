-- The last epoch that every serving pipeline has marked: what "now" means to all views.
CREATE OR REPLACE VIEW city_moment AS
SELECT min(marked) AS epoch
FROM
(
    SELECT pipeline, max(epoch) AS marked
    FROM epochs
    WHERE (pipeline, version) IN
    (
        SELECT pipeline, argMax(version, from_epoch) AS serving
        FROM versions
        GROUP BY pipeline
        HAVING serving != ''
    )
    GROUP BY pipeline
)
