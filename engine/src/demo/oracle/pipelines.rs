//! What the shipped pipelines should compute, said again in ClickHouse's SQL over JSON text.
//!
//! This is written from the pipelines' files, by hand: nothing of it comes from their plans, which
//! would carry an error of ours into its own test.

/// One pipeline in SQL over the rows of `oracle_records`.
pub(super) struct PipelineOracle {
    /// Its name.
    pub(super) pipeline: &'static str,
    /// The column it groups by.
    pub(super) group: &'static str,
    /// Whether a readable record is an event of its schema.
    pub(super) decodes: &'static str,
    /// Whether it wants an event.
    pub(super) wanted: &'static str,
    /// The watermark at which an event can no longer change anything.
    pub(super) closes_at: &'static str,
    /// What counts, as rows of `window_start_ms`, `cell`, `group_value` and numbers.
    pub(super) contributions: &'static str,
    /// The published numbers, from the contributions of one row.
    pub(super) values: &'static str,
    /// The columns of the same numbers in its view.
    pub(super) published: &'static str,
}

/// The shipped pipelines.
pub(super) const PIPELINES: [PipelineOracle; 4] = [
    PipelineOracle {
        pipeline: "crowd_flow",
        group: "category",
        decodes: "JSONType(payload, 'sensorId') = 'String' \
            AND JSONType(payload, 'peopleCount') IN ('Int64', 'UInt64') \
            AND JSONExtractInt(payload, 'peopleCount') BETWEEN 0 AND 1000000",
        wanted: "ifNull(JSONExtract(payload, 'status', 'Nullable(String)'), 'actual') = 'actual'",
        closes_at: "intDiv(time_ms, 60000) * 60000 + 60000 + 600000",
        contributions: "SELECT window_start_ms, cell, group_value, last.1 AS people, \
            toInt64(round(last.1 / last.2 * 1e6)) AS load_millionths \
            FROM (SELECT intDiv(time_ms, 60000) * 60000 AS window_start_ms, cell, \
            JSONExtractString(payload, 'category') AS group_value, \
            argMax((JSONExtractInt(payload, 'peopleCount'), JSONExtractInt(payload, 'capacity')), \
            (time_ms, position)) AS last \
            FROM oracle_crowd_flow WHERE counts \
            GROUP BY window_start_ms, cell, group_value, JSONExtractString(payload, 'sensorId'))",
        values: "toFloat64(sum(people)), toFloat64(max(people)), \
            sum(load_millionths) / (count() * 1e6), toFloat64(count()), \
            sum(people) / any(area_m2)",
        published: "people, peak, mean_load, sensors, density",
    },
    PipelineOracle {
        pipeline: "environment",
        group: "pollutant",
        decodes: "JSONType(payload, 'stationId') = 'String' \
            AND JSONType(payload, 'value') IN ('Int64', 'UInt64', 'Double') \
            AND JSONExtractFloat(payload, 'value') BETWEEN 0 AND 100000 \
            AND JSONExtractString(payload, 'pollutant') \
            IN ('pm25', 'pm10', 'no2', 'so2', 'o3', 'co')",
        wanted: "ifNull(JSONExtract(payload, 'quality', 'Nullable(String)'), 'valid') = 'valid'",
        closes_at: "intDiv(time_ms, 600000) * 600000 + 600000 + 7200000",
        // The mean of a station, rounded half away from zero.
        contributions: "SELECT window_start_ms, cell, group_value, \
            intDiv(2 * sum(millionths) + count(), 2 * count()) AS mean_millionths \
            FROM (SELECT intDiv(time_ms, 600000) * 600000 AS window_start_ms, cell, \
            JSONExtractString(payload, 'pollutant') AS group_value, \
            JSONExtractString(payload, 'stationId') AS station, \
            toInt64(round(JSONExtractFloat(payload, 'value') \
            * if(JSONExtractString(payload, 'unit') = 'mg/m3', 1000, 1) * 1e6)) AS millionths \
            FROM oracle_environment WHERE counts) \
            GROUP BY window_start_ms, cell, group_value, station",
        values: "sum(mean_millionths) / (count() * 1e6), min(mean_millionths) / 1e6, \
            max(mean_millionths) / 1e6, toFloat64(count())",
        published: "mean_ug_m3, min_ug_m3, max_ug_m3, stations",
    },
    PipelineOracle {
        pipeline: "traffic",
        group: "vehicleType",
        decodes: "JSONType(payload, 'sensorId') = 'String' \
            AND JSONType(payload, 'intensity') IN ('Int64', 'UInt64') \
            AND JSONExtractInt(payload, 'intensity') BETWEEN 0 AND 100000",
        wanted: "true",
        closes_at: "intDiv(time_ms, 60000) * 60000 + 60000 + 300000",
        contributions: "SELECT intDiv(time_ms, 60000) * 60000 AS window_start_ms, cell, \
            JSONExtractString(payload, 'vehicleType') AS group_value, \
            JSONExtractInt(payload, 'intensity') AS vehicles, \
            toInt64(round(JSONExtractFloat(payload, 'averageVehicleSpeed') * vehicles * 1e6)) \
            AS speed_millionths, \
            toInt64(round(JSONExtractFloat(payload, 'occupancy') * 1e6)) AS occupancy_millionths, \
            JSONExtractBool(payload, 'congested') AS is_congested \
            FROM oracle_traffic WHERE counts",
        values: "toFloat64(sum(vehicles)), \
            if(sum(vehicles) = 0, NULL, sum(speed_millionths) / 1e6 / sum(vehicles)), \
            sum(occupancy_millionths) / (count() * 1e6), toFloat64(countIf(is_congested)), \
            toFloat64(count())",
        published: "vehicles, mean_speed, mean_occupancy, congested_reports, reports",
    },
    PipelineOracle {
        pipeline: "parking",
        group: "category",
        decodes: "JSONType(payload, 'spaceId') = 'String' \
            AND JSONType(payload, 'siteId') = 'String' \
            AND JSONExtractString(payload, 'status') \
            IN ('free', 'occupied', 'closed', 'unknown')",
        wanted: "true",
        closes_at: "time_ms + 3600000",
        // A space that is silent for six hours of bound time counts without a status.
        contributions: "SELECT toInt64(0) AS window_start_ms, latest.1 AS cell, \
            latest.2 AS group_value, \
            if(latest_ms + 21600000 <= (SELECT toUnixTimestamp64Milli(max(bound_time)) FROM epochs), \
            NULL, latest.3) AS status \
            FROM (SELECT max(time_ms) AS latest_ms, argMax((cell, \
            JSONExtractString(payload, 'category'), JSONExtractString(payload, 'status')), \
            (time_ms, position)) AS latest \
            FROM oracle_parking WHERE counts GROUP BY JSONExtractString(payload, 'spaceId'))",
        values: "toFloat64(count()), toFloat64(countIf(status = 'free')), \
            toFloat64(countIf(status = 'occupied')), toFloat64(count(status)), \
            if(countIf(status IN ('free', 'occupied')) = 0, NULL, 100. \
            * countIf(status = 'occupied') / countIf(status IN ('free', 'occupied')))",
        published: "spaces, free, occupied, known, occupancy_percent",
    },
];
