//! What a demo with a duration says at its end.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    clickhouse::{ClickHouse, ClickHouseError, sql::identifier},
    pipeline::Pipeline,
};

use super::oracle;

/// The figures of all pipelines together, and what the oracle found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Records that the broker took.
    pub events_in: i64,
    /// Events in the numbers, also those withdrawn later.
    pub counted: i64,
    /// Events that a pipeline's `where` does not want.
    pub filtered: i64,
    /// Records that cannot be counted.
    pub rejected: i64,
    /// Events that came too late.
    pub diverted: i64,
    /// Copies of events already counted.
    pub duplicates: i64,
    /// Records that take an event back.
    pub withdrawals: i64,
    /// Rows written, every version of each.
    pub rows_written: i64,
    /// Cells of which some pipeline has a number now.
    pub cells_live: i64,
    /// Rows that the oracle compared, of all pipelines and levels.
    pub rows_compared: u64,
    /// Rows and entries of the books that are not what SQL over the raw records says.
    pub oracle_mismatches: u64,
    /// From the broker to the mark of the event's epoch: the middle.
    pub freshness_ms_p50: i64,
    /// The slowest hundredth of the same.
    pub freshness_ms_p99: i64,
    /// What was compared, and the first disagreements.
    #[serde(skip)]
    pub details: Vec<String>,
}

/// Compares everything and adds it up.
pub(super) async fn report(
    clickhouse: &ClickHouse,
    pipelines: &[Arc<Pipeline>],
) -> Result<Report, ClickHouseError> {
    let verdict = oracle::judge(clickhouse).await?;
    let freshness = oracle::freshness(clickhouse, 0).await?.unwrap_or_default();
    let read = async |action, sql: &str| -> Result<Vec<i64>, ClickHouseError> {
        Ok(oracle::numbers(clickhouse, action, sql).await?.concat())
    };
    let books = read(
        "add up the books",
        "SELECT sum(counted), sum(filtered), sum(rejected), sum(diverted), sum(duplicates), \
         sum(withdrawals), sum(rows) FROM epochs",
    )
    .await?;
    let events_in = read("count the raw records", "SELECT count() FROM raw_events").await?;
    let cells = pipelines.iter().map(|pipeline| {
        let view = identifier(&pipeline.plan.name);
        format!("SELECT toString(cell) AS cell FROM {view} WHERE level = 'cell'")
    });
    let cells: Vec<String> = cells.collect();
    let cells = format!("SELECT uniqExact(cell) FROM ({})", cells.join(" UNION ALL "));
    let cells_live = read("count the live cells", &cells).await?;
    let [counted, filtered, rejected, diverted, duplicates, withdrawals, rows_written] =
        books.try_into().unwrap_or_default();
    Ok(Report {
        events_in: events_in.first().copied().unwrap_or(0),
        counted,
        filtered,
        rejected,
        diverted,
        duplicates,
        withdrawals,
        rows_written,
        cells_live: cells_live.first().copied().unwrap_or(0),
        rows_compared: verdict.rows_compared,
        oracle_mismatches: verdict.mismatches,
        freshness_ms_p50: freshness.0,
        freshness_ms_p99: freshness.1,
        details: verdict.lines,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.details {
            writeln!(out, "  {line}")?;
        }
        writeln!(
            out,
            "{} records in: {} counted, {} filtered, {} rejected, {} too late, {} duplicates, \
             {} withdrawals",
            self.events_in,
            self.counted,
            self.filtered,
            self.rejected,
            self.diverted,
            self.duplicates,
            self.withdrawals
        )?;
        writeln!(
            out,
            "{} rows written; {} cells live; fresh after {} ms, 99 of 100 after {} ms",
            self.rows_written, self.cells_live, self.freshness_ms_p50, self.freshness_ms_p99
        )?;
        write!(
            out,
            "{} rows compared with SQL over the raw records: {} mismatches",
            self.rows_compared, self.oracle_mismatches
        )
    }
}
