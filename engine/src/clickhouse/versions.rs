//! Which versions of pipelines have served the readers, and from which epoch on.

use std::{collections::BTreeMap, sync::Arc};

use citycell_schemas::{Epoch, Grid};
use serde::Deserialize;

use crate::pipeline::{DefinitionError, Pipeline};

use super::{ClickHouse, ClickHouseError, sql::literal, tables::PipelineTable};

/// The last marked epoch of each (pipeline, version).
pub type Marked = BTreeMap<(String, String), Epoch>;

/// A version that serves, or has served.
#[derive(Clone, Debug, Deserialize)]
pub struct ServedVersion {
    /// The pipeline.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// The grid's version.
    pub grid: String,
    /// See [`Pipeline::definition`].
    pub definition: String,
}

impl ServedVersion {
    /// The pipeline of this version as this program understands it.
    ///
    /// # Errors
    /// When this program no longer takes its file.
    pub fn pipeline(&self) -> Result<Pipeline, DefinitionError> {
        Pipeline::from_definition(&self.definition)
    }

    /// Its table.
    ///
    /// # Errors
    /// When this program no longer takes its file.
    pub fn table(&self) -> Result<PipelineTable, DefinitionError> {
        let Pipeline { plan, groups, .. } = self.pipeline()?;
        let grid = Grid::new(self.grid.clone(), Vec::new());
        Ok(PipelineTable::new(&plan, &self.version, groups, &grid))
    }
}

/// The versions that have served each pipeline; the one that serves now, or served last, comes last.
///
/// # Errors
/// ClickHouse's.
pub async fn served(
    clickhouse: &ClickHouse,
) -> Result<BTreeMap<String, Vec<ServedVersion>>, ClickHouseError> {
    let sql = "SELECT pipeline, version, argMax(grid, recorded_at) AS grid, \
               argMax(definition, recorded_at) AS definition FROM versions WHERE version != '' \
               GROUP BY pipeline, version ORDER BY pipeline, max((from_epoch, recorded_at))";
    let answer = clickhouse.query("read the versions that served", sql, "JSONEachRow").await?;
    let mut served: BTreeMap<String, Vec<ServedVersion>> = BTreeMap::new();
    for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: ServedVersion = serde_json::from_slice(line)
            .map_err(|error| clickhouse.unreadable("read the versions that served", error))?;
        served.entry(row.pipeline.clone()).or_default().push(row);
    }
    Ok(served)
}

/// Takes down that the pipelines which no longer run do not.
///
/// # Errors
/// ClickHouse's.
pub async fn retire_others(
    clickhouse: &ClickHouse,
    running: &[Arc<Pipeline>],
) -> Result<(), ClickHouseError> {
    let names: Vec<String> = running.iter().map(|pipeline| literal(&pipeline.plan.name)).collect();
    let sql = format!(
        "INSERT INTO versions (pipeline, version, from_epoch) \
         SELECT pipeline, '', (SELECT max(epoch) + 1 FROM epochs) \
         FROM versions WHERE pipeline NOT IN ({}) \
         GROUP BY pipeline HAVING argMax(version, (from_epoch, recorded_at)) != ''",
        names.join(", ")
    );
    clickhouse.execute("retire pipelines that no longer run", &sql).await
}

/// The statement that has a version serve from an epoch on; nothing if it serves already.
#[must_use]
pub(super) fn serve(pipeline: &Pipeline, table: &PipelineTable, from_epoch: &str) -> String {
    let plan = serde_json::to_string(&pipeline.plan).expect("a plan is always JSON");
    format!(
        "INSERT INTO versions (pipeline, version, from_epoch, program, grid, plan, definition) \
         SELECT {name}, {version}, {from_epoch}, {program}, {grid}, {plan}, {definition} \
         WHERE (SELECT argMax(version, (from_epoch, recorded_at)) FROM versions \
         WHERE pipeline = {name}) != {version}",
        name = literal(&table.pipeline),
        version = literal(&table.version),
        program = literal(env!("CARGO_PKG_VERSION")),
        grid = literal(&table.grid),
        plan = encoded(&plan),
        definition = encoded(&pipeline.definition()),
    )
}

/// A text of any words: the embedded ClickHouse refuses some, wherever they stand.
fn encoded(text: &str) -> String {
    format!("unhex({})", literal(&hex::encode(text)))
}
