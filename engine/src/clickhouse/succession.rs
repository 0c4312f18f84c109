//! The swap: a version that was built beside the one that serves takes its place, in one step.
//!
//! A row in `versions` says from which moment on it serves, and is there before that moment is: up
//! to it readers see the version before, from it on this one. A crash in between changes nothing of
//! that, since the next moment is later, and this version has marked it.

use std::{sync::Arc, time::Duration};

use citycell_schemas::Epoch;

use crate::{crash_point::crash_point, pipeline::Pipeline};

use super::{
    ClickHouse, ClickHouseError,
    tables::PipelineTable,
    versions,
    views::{self, views},
    writer::TaskParts,
};

/// A version and the versions of its pipeline that have served.
#[derive(Clone, Debug)]
pub struct Successor {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Its table.
    pub table: Arc<PipelineTable>,
    /// The tables of the versions that have served, without this one.
    pub others: Vec<PipelineTable>,
}

impl Successor {
    /// Serves this version from the start on: it served already, or nothing was ever shown.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn serve(&self, clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
        for view in views(&self.table, &self.others, clickhouse.placement()) {
            clickhouse.execute("create a pipeline's view", &view).await?;
        }
        let row =
            versions::serve(&self.pipeline, &self.table, "(SELECT max(epoch) + 1 FROM epochs)");
        clickhouse.execute("record the version that is served", &row).await
    }

    /// Says that this version serves from the moment `epoch` on, which is the next.
    pub(super) async fn succeed(&self, parts: &TaskParts, epoch: Epoch) {
        for view in views(&self.table, &self.others, parts.clickhouse.placement()) {
            execute(parts, "create a pipeline's view", &view).await;
        }
        crash_point("before_version");
        // Of an engine that was frozen here while another went on, nothing is wanted.
        let row = versions::serve(&self.pipeline, &self.table, &epoch.0.to_string());
        let row = format!("{row} AND (SELECT max(epoch) FROM moments) < {}", epoch.0);
        execute(parts, "record the version that is served", &row).await;
        crash_point("after_version");
    }

    /// Has the view of what is known now read this version only, once nothing else can be asked of
    /// it.
    pub(super) async fn settle(&self, parts: &TaskParts) {
        let view = views::now(&self.table, &[], parts.clickhouse.placement());
        execute(parts, "create a pipeline's view", &view).await;
        let (pipeline, version) = (&self.table.pipeline, &self.table.version);
        tracing::info!(pipeline, version, "the new version is complete and served");
    }
}

/// Runs a statement that may run twice, however long ClickHouse takes to come back.
async fn execute(parts: &TaskParts, action: &str, sql: &str) {
    while let Err(error) = parts.clickhouse.execute(action, sql).await {
        tracing::warn!(%error, cause = %error.source, "trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
