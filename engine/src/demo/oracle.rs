//! The oracle: every row of every pipeline again, by ClickHouse over the records as they were sent.
//!
//! It decides itself what can be read, what is late, which copy counts, what is withdrawn and which
//! value of a sensor stands, from the raw records and what the marks say of each epoch: its records and its watermark. It
//! reads neither `late` nor `rejects`. Its working tables stay in the demo's database, so that a
//! disagreement can be looked into: `oracle_<pipeline>`, `oracle_<pipeline>_rows`,
//! `oracle_<pipeline>_compared`.

mod pipelines;

use crate::{
    clickhouse::{ClickHouse, ClickHouseError, sql::literal},
    pipeline::Pipeline,
};

use pipelines::{PIPELINES, PipelineOracle};

/// How many disagreements are told in full.
const TOLD_MAX: usize = 5;

/// What the oracle found.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// Rows that were expected or published, of all pipelines.
    pub(super) rows_compared: u64,
    /// Rows that differ or are on one side only, and entries of the books that differ.
    pub(super) mismatches: u64,
    /// What was compared, a line per pipeline, and the first disagreements.
    pub(super) lines: Vec<String>,
}

/// Creates the view of records with their pipelines and epochs.
pub(super) async fn create_records(
    clickhouse: &ClickHouse,
    pipelines: &[std::sync::Arc<Pipeline>],
) -> Result<(), ClickHouseError> {
    let topics = pipelines.iter().map(|pipeline| pipeline.plan.topics.concat());
    let names = pipelines.iter().map(|pipeline| pipeline.plan.name.clone());
    let sql = include_str!("oracle/records.sql")
        .replace("{topics}", &literals(topics))
        .replace("{pipelines}", &literals(names));
    clickhouse.execute("create the view demo_records", &sql).await
}

/// Computes all rows again and compares them with what the views show.
pub(super) async fn judge(clickhouse: &ClickHouse) -> Result<Verdict, ClickHouseError> {
    clickhouse.execute("read the raw records", include_str!("oracle/read.sql")).await?;
    let mut verdict = Verdict::default();
    for oracle in &PIPELINES {
        for (action, template) in [
            ("judge the raw records", include_str!("oracle/judge.sql")),
            ("compute the rows", include_str!("oracle/expect.sql")),
            ("compare the rows", include_str!("oracle/compare.sql")),
        ] {
            clickhouse.execute(action, &oracle.fill(template)).await?;
        }
        compare_rows(clickhouse, oracle, &mut verdict).await?;
        compare_books(clickhouse, oracle, &mut verdict).await?;
    }
    Ok(verdict)
}

/// The middle and the slowest hundredth of what lies between an event's arrival at the broker and
/// the mark of its epoch, in ms; of records that arrived since `since_ms`.
pub(super) async fn freshness(
    clickhouse: &ClickHouse,
    since_ms: i64,
) -> Result<Option<(i64, i64)>, ClickHouseError> {
    let sql = format!(
        "SELECT quantileExact(0.5)(ms), quantileExact(0.99)(ms) FROM \
         (SELECT toUnixTimestamp64Milli(committed_at) - broker_time_ms AS ms FROM \
         (SELECT pipeline, epoch, broker_time_ms FROM demo_records \
         WHERE broker_time_ms >= {since_ms} AND epoch > 0) AS records \
         INNER JOIN (SELECT pipeline, epoch, committed_at FROM epochs) AS marks \
         USING (pipeline, epoch)) HAVING count() > 0"
    );
    let numbers = numbers(clickhouse, "measure the freshness", &sql).await?;
    Ok(numbers.first().map(|row| (row[0], row[1])))
}

/// The rows of a query of whole numbers.
pub(super) async fn numbers(
    clickhouse: &ClickHouse,
    action: &str,
    sql: &str,
) -> Result<Vec<Vec<i64>>, ClickHouseError> {
    let text = clickhouse.query(action, sql, "TabSeparated").await?;
    let text = String::from_utf8_lossy(&text);
    let row = |line: &str| line.split('\t').map(|field| field.parse().unwrap_or(0)).collect();
    Ok(text.lines().map(row).collect())
}

async fn compare_rows(
    clickhouse: &ClickHouse,
    oracle: &PipelineOracle,
    verdict: &mut Verdict,
) -> Result<(), ClickHouseError> {
    let name = oracle.pipeline;
    let sql = format!("SELECT count(), countIf(NOT agrees) FROM `oracle_{name}_compared`");
    let found = numbers(clickhouse, "count what disagrees", &sql).await?;
    let (compared, differing) = found.first().map_or((0, 0), |row| (row[0], row[1]));
    verdict.rows_compared += compared.unsigned_abs();
    verdict.mismatches += differing.unsigned_abs();
    verdict.lines.push(format!("{name}: {compared} rows compared, {differing} differ"));
    if differing > 0 {
        let sql = format!(
            "SELECT level, place, window_start_ms, group_value, expected, published \
             FROM `oracle_{name}_compared` WHERE NOT agrees \
             ORDER BY level, place, window_start_ms, group_value LIMIT {TOLD_MAX}"
        );
        let rows = clickhouse.query("read what disagrees", &sql, "TSVWithNames").await?;
        verdict.lines.extend(String::from_utf8_lossy(&rows).lines().map(str::to_owned));
    }
    Ok(())
}

/// Compares the books over all epochs, and in each epoch the number of records.
async fn compare_books(
    clickhouse: &ClickHouse,
    oracle: &PipelineOracle,
    verdict: &mut Verdict,
) -> Result<(), ClickHouseError> {
    let name = oracle.pipeline;
    let expected = format!(
        "SELECT count(), uniqExactIf((ce_source, ce_id), outcome = 'in_time'), \
         countIf(outcome = 'filtered'), countIf(outcome = 'rejected'), \
         countIf(outcome = 'diverted'), countIf(outcome = 'in_time') \
         - uniqExactIf((ce_source, ce_id), outcome = 'in_time'), \
         countIf(outcome = 'withdrawal') FROM `oracle_{name}`"
    );
    let written = format!(
        "SELECT sum(records), sum(counted), sum(filtered), sum(rejected), sum(diverted), \
         sum(duplicates), sum(withdrawals) FROM epochs WHERE pipeline = '{name}'"
    );
    let expected = numbers(clickhouse, "count the raw records", &expected).await?.concat();
    let written = numbers(clickhouse, "read the books", &written).await?.concat();
    let entries =
        ["records", "counted", "filtered", "rejected", "diverted", "duplicates", "withdrawals"];
    for (entry, (expected, written)) in entries.iter().zip(expected.iter().zip(&written)) {
        if expected != written {
            verdict.mismatches += 1;
            verdict
                .lines
                .push(format!("{name}: {written} {entry} in the books, {expected} expected"));
        }
    }
    let by_epoch = format!(
        "SELECT count() FROM (SELECT epoch, count() AS records FROM `oracle_{name}` \
         GROUP BY epoch) AS sent FULL JOIN (SELECT epoch, records FROM epochs \
         WHERE pipeline = '{name}' AND records > 0) AS marks USING (epoch) \
         WHERE sent.records != marks.records"
    );
    let differing = numbers(clickhouse, "compare the epochs", &by_epoch).await?.concat();
    let differing = differing.first().copied().unwrap_or(0);
    if differing > 0 {
        verdict.mismatches += differing.unsigned_abs();
        verdict
            .lines
            .push(format!("{name}: {differing} epochs have other records than were bound"));
    }
    Ok(())
}

impl PipelineOracle {
    fn fill(&self, template: &str) -> String {
        [
            ("{pipeline}", self.pipeline),
            ("{group}", self.group),
            ("{decodes}", self.decodes),
            ("{wanted}", self.wanted),
            ("{closes_at}", self.closes_at),
            ("{future_ms}", "300000"),
            ("{contributions}", self.contributions),
            ("{values}", self.values),
            ("{published}", self.published),
        ]
        .iter()
        .fold(template.to_owned(), |sql, (name, value)| sql.replace(name, value))
    }
}

fn literals(texts: impl Iterator<Item = String>) -> String {
    let quoted: Vec<String> = texts.map(|text| literal(&text)).collect();
    format!("[{}]", quoted.join(", "))
}
