-- What becomes of each record of one pipeline, and which of them count in the end: of the copies
-- of one id the one with the smallest position, unless it was withdrawn while it could still change.
CREATE TABLE `oracle_{pipeline}` ENGINE = MergeTree ORDER BY position AS
SELECT
    *,
    outcome = 'in_time' AND position = first_position
        AND NOT (withdrawals > 0 AND first_withdrawn_at_ms < closes_at_ms) AS counts
FROM
(
    SELECT
        *,
        minIf(position, outcome = 'in_time') OVER identity AS first_position,
        countIf(is_withdrawal) OVER identity AS withdrawals,
        minIf(watermark_ms, is_withdrawal) OVER identity AS first_withdrawn_at_ms
    FROM
    (
        SELECT
            *,
            {closes_at} AS closes_at_ms,
            multiIf(
                is_withdrawal, 'withdrawal',
                NOT is_readable OR NOT ({decodes}), 'rejected',
                time_ms > broker_time_ms + {future_ms}, 'rejected',
                NOT ({wanted}), 'filtered',
                cell NOT IN (SELECT cell FROM cells WHERE level = 'cell'), 'rejected',
                closes_at_ms <= watermark_ms, 'diverted',
                'in_time') AS outcome
        FROM oracle_records
        WHERE pipeline = '{pipeline}'
    )
    WINDOW identity AS (PARTITION BY ce_source, ce_id)
)
