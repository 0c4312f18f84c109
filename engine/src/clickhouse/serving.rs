//! Which version of a pipeline the readers see.
//!
//! A new version computes its history anew into its own table. Readers stay with the version
//! before until the new one has marked everything that one had.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use citycell_schemas::Epoch;

use crate::pipeline::Pipeline;

use super::{ClickHouse, ClickHouseError, marks::last_marked, sql::literal, tables::PipelineTable};

/// The last marked epoch of each (pipeline, version).
pub type Marked = BTreeMap<(String, String), Epoch>;

/// A version that is to be served.
pub struct Candidate {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Its table.
    pub table: Arc<PipelineTable>,
}

/// Takes pipelines that no longer run out of the city's moment.
///
/// # Errors
/// ClickHouse's.
pub async fn retire_others(
    clickhouse: &ClickHouse,
    running: &[Arc<Pipeline>],
) -> Result<(), ClickHouseError> {
    let names: Vec<String> = running.iter().map(|pipeline| literal(&pipeline.plan.name)).collect();
    let sql = format!(
        "INSERT INTO versions SELECT pipeline, '', (SELECT max(epoch) + 1 FROM epochs), '', '', '' \
         FROM versions WHERE pipeline NOT IN ({}) \
         GROUP BY pipeline HAVING argMax(version, from_epoch) != ''",
        names.join(", ")
    );
    clickhouse.execute("retire pipelines that no longer run", &sql).await
}

/// Serves this version now, or in the background as soon as it has caught up.
///
/// # Errors
/// ClickHouse's, when it is served now.
pub async fn serve_when_complete(
    clickhouse: &ClickHouse,
    candidate: Candidate,
    marked: &Marked,
) -> Result<(), ClickHouseError> {
    let Some(needed) = to_catch_up(&candidate.table, marked) else {
        return serve(clickhouse, &candidate).await;
    };
    let clickhouse = clickhouse.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let key = (candidate.table.pipeline.clone(), candidate.table.version.clone());
            let caught_up = last_marked(&clickhouse)
                .await
                .is_ok_and(|marked| marked.get(&key).is_some_and(|epoch| *epoch >= needed));
            if caught_up && serve(&clickhouse, &candidate).await.is_ok() {
                let (pipeline, version) = key;
                tracing::info!(pipeline, version, "the new version is complete and served");
                return;
            }
        }
    });
    Ok(())
}

/// The epoch that another version has marked and this one has not.
fn to_catch_up(table: &PipelineTable, marked: &Marked) -> Option<Epoch> {
    let of_pipeline = marked.iter().filter(|((name, _), _)| *name == table.pipeline);
    let needed = of_pipeline.map(|(_, epoch)| *epoch).max()?;
    let own = marked.get(&(table.pipeline.clone(), table.version.clone()));
    own.is_none_or(|own| *own < needed).then_some(needed)
}

async fn serve(clickhouse: &ClickHouse, candidate: &Candidate) -> Result<(), ClickHouseError> {
    for view in candidate.table.views(clickhouse.placement()) {
        clickhouse.execute("create a pipeline's view", &view).await?;
    }
    let (name, version) = (&candidate.table.pipeline, &candidate.table.version);
    let plan = serde_json::to_string(&candidate.pipeline.plan).unwrap_or_default();
    let sql = format!(
        "INSERT INTO versions SELECT {name}, {version}, \
         (SELECT max(epoch) + 1 FROM epochs), {program}, {grid}, {plan} \
         WHERE (SELECT argMax(version, from_epoch) FROM versions WHERE pipeline = {name}) != {version}",
        name = literal(name),
        version = literal(version),
        program = literal(env!("CARGO_PKG_VERSION")),
        grid = literal(&candidate.table.grid),
        plan = literal(&plan),
    );
    clickhouse.execute("record the version that is served", &sql).await
}
