//! The tasks that keep snapshots.

use std::sync::Arc;

use citycell_operators::lateness::Horizon;
use crossbeam_channel::Sender;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    binder::{Notice, SnapshotPace},
    clickhouse::{serving::Marked, tables::PipelineTable, writer::TaskParts},
    dataflow::SnapshotWork,
    pipeline::Pipeline,
    snapshot::{self, KeeperNotice, KeeperParts, KeptPipeline, PipelineState, Storage},
};

use super::EngineConfig;

/// Snapshots at work.
#[derive(Default)]
pub(super) struct Snapshots {
    /// For the workers; none if no snapshots are taken.
    pub(super) work: Option<SnapshotWork>,
    /// For the binder; in process 0 only.
    pub(super) pace: Option<SnapshotPace>,
    /// Hears of marks; in process 0 only.
    pub(super) keeper: Option<UnboundedSender<KeeperNotice>>,
}

/// Starts the tasks; `manifest` is the number of the newest manifest.
pub(super) fn start_snapshots(
    config: &EngineConfig,
    (storage, manifest): (Option<Storage>, u64),
    pipelines: Vec<KeptPipeline>,
    parts: &TaskParts,
    notices: &Sender<Notice>,
) -> Snapshots {
    let (Some(storage), Some(settings)) = (storage, &config.snapshots) else {
        return Snapshots::default();
    };
    let keeper = config
        .is_first()
        .then(|| start_keeper(pipelines, (storage.clone(), manifest), parts, notices));
    let TaskParts { runtime, metrics, alarm, .. } = parts;
    let queue = snapshot::start_writer(runtime, storage, metrics.clone(), alarm.clone());
    let pace = |keeper| SnapshotPace { every: settings.every, keeper };
    Snapshots {
        work: Some(SnapshotWork { queue, keeper: keeper.clone() }),
        pace: keeper.clone().map(pace),
        keeper,
    }
}

/// The pipelines as the keeper sees them.
pub(super) fn kept_pipelines(
    config: &EngineConfig,
    tables: &[Arc<PipelineTable>],
    known: &[Option<PipelineState>],
    marked: &Marked,
) -> Vec<KeptPipeline> {
    let pipelines = config.pipelines.iter().zip(tables).zip(known);
    let kept = |((pipeline, table), state): ((&Arc<Pipeline>, &Arc<PipelineTable>), &Option<_>)| {
        KeptPipeline {
            name: table.pipeline.clone(),
            version: table.version.clone(),
            horizon: Horizon::of(&pipeline.plan),
            state: state.clone(),
            marked: marked.get(&(table.pipeline.clone(), table.version.clone())).copied(),
        }
    };
    pipelines.map(kept).collect()
}

fn start_keeper(
    pipelines: Vec<KeptPipeline>,
    (storage, manifest): (Storage, u64),
    parts: &TaskParts,
    notices: &Sender<Notice>,
) -> UnboundedSender<KeeperNotice> {
    let keeper = KeeperParts {
        runtime: parts.runtime.clone(),
        storage,
        metrics: parts.metrics.clone(),
        alarm: parts.alarm.clone(),
        manifest,
        pipelines,
    };
    let notices = notices.clone();
    snapshot::start_keeper(keeper, move |epoch| {
        // Nobody listens once the binder is gone.
        let _ = notices.send(Notice::SnapshotWritten(epoch));
    })
}
