//! Which versions of pipelines an engine runs: those that serve, and those that are built beside them
//! to take their place.
//!
//! A pipeline whose version is another than the one that serves is built anew from its first record,
//! while the version that serves goes on. That one is made again from its definition in ClickHouse; if
//! this program or the grid computes other numbers from it, its views stand still instead.

use std::{collections::BTreeMap, sync::Arc};

use citycell_schemas::{Epoch, Grid};

use crate::{
    clickhouse::{succession::Successor, tables::PipelineTable, versions::ServedVersion},
    pipeline::Pipeline,
};

/// The versions that run.
pub(super) struct Deployed {
    /// The pipelines, those that serve first.
    pub(super) pipelines: Vec<Arc<Pipeline>>,
    /// Each one's table.
    pub(super) tables: Vec<Arc<PipelineTable>>,
    /// How many of them serve.
    pub(super) serving: usize,
    /// The names and versions that serve and cannot be computed.
    pub(super) standing_still: Vec<(String, String)>,
    /// The versions that served each pipeline.
    served: BTreeMap<String, Vec<ServedVersion>>,
}

impl Deployed {
    /// Decides what runs of the pipelines that are `wanted`, given the versions that served and the
    /// moment that was shown last.
    pub(super) fn new(
        wanted: &[Arc<Pipeline>],
        grid: &Grid,
        served: BTreeMap<String, Vec<ServedVersion>>,
        moment: Epoch,
    ) -> Self {
        let (mut serving, mut building, mut standing_still) = (Vec::new(), Vec::new(), Vec::new());
        for pipeline in wanted {
            let (name, version) = (&pipeline.plan.name, pipeline.version(grid));
            let last = served.get(name).and_then(|versions| versions.last());
            // Where nothing was ever shown there is nothing to build beside.
            if moment == Epoch::default() || last.is_some_and(|last| last.version == version) {
                serving.push(Arc::clone(pipeline));
                continue;
            }
            tracing::info!(pipeline = name, version, "a new version is built");
            building.push(Arc::clone(pipeline));
            let Some(last) = last else { continue };
            match last.pipeline() {
                Ok(before) if before.version(grid) == last.version => {
                    serving.push(Arc::new(before));
                }
                other => {
                    let reason = other.err().map(|error| error.to_string());
                    tracing::warn!(
                        pipeline = name,
                        version = last.version,
                        reason,
                        "the version that serves cannot be computed with this program and grid: \
                         its views stand still until the new version is complete"
                    );
                    standing_still.push((name.clone(), last.version.clone()));
                }
            }
        }
        let count = serving.len();
        let pipelines: Vec<_> = serving.into_iter().chain(building).collect();
        let table = |pipeline: &Arc<Pipeline>| {
            let (version, groups) = (pipeline.version(grid), pipeline.groups.clone());
            Arc::new(PipelineTable::new(&pipeline.plan, &version, groups, grid))
        };
        let tables = pipelines.iter().map(table).collect();
        Self { pipelines, tables, serving: count, standing_still, served }
    }

    /// The versions that serve, each among those that served before.
    pub(super) fn serving(&self) -> impl Iterator<Item = Successor> {
        (0..self.serving).map(|index| self.successor(index))
    }

    /// The versions that are built, by index.
    pub(super) fn successors(&self) -> BTreeMap<usize, Successor> {
        let built = self.serving..self.pipelines.len();
        built.map(|index| (index, self.successor(index))).collect()
    }

    fn successor(&self, index: usize) -> Successor {
        let table = &self.tables[index];
        let served = self.served.get(&table.pipeline).into_iter().flatten();
        let others = served.filter(|other| other.version != table.version);
        let others = others.filter_map(|other| match other.table() {
            Ok(table) => Some(table),
            Err(error) => {
                let (pipeline, version) = (&other.pipeline, &other.version);
                tracing::warn!(pipeline, version, %error, "what it showed cannot be shown again");
                None
            }
        });
        Successor {
            pipeline: Arc::clone(&self.pipelines[index]),
            table: Arc::clone(table),
            others: others.collect(),
        }
    }
}
