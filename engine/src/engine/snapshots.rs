//! The tasks that keep snapshots.

use std::collections::BTreeMap;

use citycell_operators::lateness::Horizon;
use crossbeam_channel::Sender;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    binder::{Notice, SnapshotPace},
    clickhouse::{versions::Marked, writer::TaskParts},
    dataflow::SnapshotWork,
    snapshot::{self, KeeperNotice, KeeperParts, KeptPipeline, PipelineState, Storage},
};

use super::{EngineConfig, deployed::Deployed};

/// Snapshots at work.
#[derive(Default)]
pub(super) struct Snapshots {
    /// For the workers; none if no snapshots are taken.
    pub(super) work: Option<SnapshotWork>,
    /// For those who hand bindings out; in process 0 only.
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
    listeners: [&Sender<Notice>; 2],
) -> Snapshots {
    let (Some(storage), Some(settings)) = (storage, &config.snapshots) else {
        return Snapshots::default();
    };
    let keeper = config
        .is_first()
        .then(|| start_keeper(pipelines, (storage.clone(), manifest), parts, listeners));
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
    deployed: &Deployed,
    known: &BTreeMap<usize, PipelineState>,
    marked: &Marked,
) -> Vec<KeptPipeline> {
    let pipelines = deployed.pipelines.iter().zip(&deployed.tables).enumerate();
    let kept = pipelines.map(|(index, (pipeline, table))| KeptPipeline {
        name: table.pipeline.clone(),
        version: table.version.clone(),
        horizon: Horizon::of(&pipeline.plan),
        serves: index < deployed.serving,
        state: known.get(&index).cloned(),
        marked: marked.get(&(table.pipeline.clone(), table.version.clone())).copied(),
    });
    kept.collect()
}

fn start_keeper(
    pipelines: Vec<KeptPipeline>,
    (storage, manifest): (Storage, u64),
    parts: &TaskParts,
    [binder, follower]: [&Sender<Notice>; 2],
) -> UnboundedSender<KeeperNotice> {
    let keeper = KeeperParts {
        runtime: parts.runtime.clone(),
        storage,
        metrics: parts.metrics.clone(),
        alarm: parts.alarm.clone(),
        manifest,
        pipelines,
    };
    let (binder, follower) = (binder.clone(), follower.clone());
    snapshot::start_keeper(keeper, move |serves, epoch| {
        let notices = if serves { &binder } else { &follower };
        // Nobody listens once the engine is stopping.
        let _ = notices.send(Notice::SnapshotWritten(epoch));
    })
}
