//! From a manifest back to the state of each worker.

use std::{collections::BTreeMap, sync::Arc};

use citycell_operators::{
    lateness::Horizon,
    restored::{Reading, Restored, route},
};
use citycell_schemas::Epoch;
use object_store::Error as StorageError;

use crate::{
    binding::Binding,
    clickhouse::{ClickHouse, ClickHouseError, marks::last_marked, versions::Marked},
    pipeline::Pipeline,
};

use super::{
    SnapshotError, keeper,
    manifest::{self, Manifest, PipelineState, Written},
    merge::Merge,
    storage::Storage,
};

/// Whose state is wanted.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The pipelines.
    pub pipelines: &'a [WantedPipeline],
    /// The number of this process's first worker among all.
    pub first_worker: usize,
    /// This process's workers.
    pub workers: usize,
    /// All processes' workers.
    pub peers: usize,
    /// Where rows are marked.
    pub clickhouse: &'a ClickHouse,
}

/// A pipeline whose state is wanted.
#[derive(Clone, Debug)]
pub struct WantedPipeline {
    /// It.
    pub pipeline: Arc<Pipeline>,
    /// Its version: a state of another is of no use.
    pub version: String,
}

/// What an engine starts with.
#[derive(Debug, Default)]
pub struct StartingPoint {
    /// The number of the newest manifest there is, usable or not.
    pub manifest: u64,
    /// The versions of pipelines whose state is known, by `pipeline@version`.
    pub pipelines: BTreeMap<String, RestoredPipeline>,
}

/// The state of one version of a pipeline.
#[derive(Debug)]
pub struct RestoredPipeline {
    /// The pipeline's name.
    pub name: String,
    /// As the manifest has it.
    pub state: PipelineState,
    /// The part of each worker of this process.
    pub workers: Vec<Restored>,
}

impl StartingPoint {
    /// The epoch of each version's state.
    #[must_use]
    pub fn epochs(&self) -> BTreeMap<String, Epoch> {
        let pipelines = self.pipelines.iter();
        pipelines.map(|(name, restored)| (name.clone(), restored.state.epoch)).collect()
    }

    /// Enters into `marked` what the states take as marked, which is more than what was read before
    /// the deployment was ours.
    pub fn raise(&self, marked: &mut Marked) {
        for RestoredPipeline { name, state, .. } in self.pipelines.values() {
            let epoch = marked.entry((name.clone(), state.version.clone())).or_default();
            *epoch = state.epoch.max(*epoch);
        }
    }
}

/// Takes the snapshots over for the process that holds the deployment: it says what it starts with in
/// a manifest of its own, so that whoever wrote them before, thawed after a pause perhaps, writes
/// none any more. False if somebody wrote one since `start` was read: then there is a newer state.
///
/// # Errors
/// The storage's.
pub async fn claim(storage: &Storage, start: &mut StartingPoint) -> Result<bool, SnapshotError> {
    let pipelines = start.pipelines.iter();
    let states = pipelines.map(|(name, restored)| (name.clone(), restored.state.clone()));
    let ours = Manifest::after(start.manifest, storage.writer(), states.collect());
    if ours.write(storage).await? != Written::This {
        return Ok(false);
    }
    start.manifest = ours.number;
    keeper::delete_orphans(storage).await?;
    Ok(true)
}

/// Why no state can be read.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshots' storage.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// ClickHouse does not say what is marked.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
}

/// The newest usable state of the pipelines that are wanted.
///
/// # Errors
/// When the storage does not answer; a manifest or run that is damaged or gone is passed over for
/// the manifest before.
pub async fn newest(storage: &Storage, wanted: Wanted<'_>) -> Result<StartingPoint, RestoreError> {
    let files = manifest::list(storage).await?;
    let number = files.first().and_then(|file| manifest::number_of(file)).unwrap_or_default();
    for file in &files {
        let loaded = match Manifest::read(storage, file).await {
            Ok(manifest) => {
                // Read after the manifest: what it takes as marked was marked before it was written.
                let marked = last_marked(wanted.clickhouse).await?;
                load(storage, manifest, wanted, &marked).await
            }
            Err(error) => Err(error),
        };
        match loaded {
            Ok(pipelines) => return Ok(StartingPoint { manifest: number, pipelines }),
            Err(error) if is_unusable(&error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(file, %error, cause, "a snapshot is unusable, trying the one before");
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !files.is_empty() {
        tracing::warn!("no snapshot is usable: everything is computed from Kafka again");
    }
    Ok(StartingPoint { manifest: number, pipelines: BTreeMap::new() })
}

/// Whether waiting cannot help.
pub(super) fn is_unusable(error: &SnapshotError) -> bool {
    match error {
        SnapshotError::Damaged { .. } => true,
        SnapshotError::Storage { source, .. } => matches!(**source, StorageError::NotFound { .. }),
        _ => false,
    }
}

async fn load(
    storage: &Storage,
    mut manifest: Manifest,
    wanted: Wanted<'_>,
    marked: &Marked,
) -> Result<BTreeMap<String, RestoredPipeline>, SnapshotError> {
    let mut pipelines = BTreeMap::new();
    for WantedPipeline { pipeline, version } in wanted.pipelines {
        let name = &pipeline.plan.name;
        let key = manifest::key(name, version);
        let Some(state) = manifest.pipelines.remove(&key) else { continue };
        // Of a city whose tables were made anew, or of another database.
        if marked.get(&(name.clone(), version.clone())) < Some(&state.epoch) {
            tracing::warn!(
                pipeline = name,
                "ClickHouse lacks rows that the snapshot takes as written: they are computed again"
            );
            continue;
        }
        let workers = workers(storage, &state, pipeline, wanted).await?;
        pipelines.insert(key, RestoredPipeline { name: name.clone(), state, workers });
    }
    Ok(pipelines)
}

/// Reads all entries and keeps those of this process's workers.
async fn workers(
    storage: &Storage,
    state: &PipelineState,
    pipeline: &Pipeline,
    wanted: Wanted<'_>,
) -> Result<Vec<Restored>, SnapshotError> {
    let damaged = |reason: String| SnapshotError::Damaged {
        file: format!("the state of {}", pipeline.plan.name),
        reason,
    };
    let binding = Binding::from_value(&state.binding, &[""; 0])
        .map_err(|error| damaged(error.to_string()))?;
    let tick = binding.tick(&pipeline.plan.name);
    if tick.epoch != state.epoch {
        return Err(damaged("its binding is of another epoch".to_owned()));
    }
    let reading = Reading { horizon: Horizon::of(&pipeline.plan), watermark: tick.watermark };
    let mut merge = Merge::open(storage, &state.runs).await?;
    let Wanted { first_worker, workers, peers, .. } = wanted;
    let reading = tokio::task::spawn_blocking(move || {
        let mut restored: Vec<Restored> = (0..workers).map(|_| Restored::new(tick)).collect();
        while let Some(entry) = merge.next()? {
            let Some(value) = entry.value else { continue };
            add(&mut restored, (entry.part, &entry.key, &value), &reading, (first_worker, peers))
                .map_err(|error| SnapshotError::Damaged {
                file: "a run".to_owned(),
                reason: error.to_string(),
            })?;
        }
        Ok(restored)
    });
    reading.await.expect("reading a state does not panic")
}

fn add(
    restored: &mut [Restored],
    (part, key, value): (citycell_operators::saved::Part, &[u8], &[u8]),
    reading: &Reading,
    (first_worker, peers): (usize, usize),
) -> Result<(), citycell_operators::restored::UnreadableEntry> {
    // As the exchange of the dataflow does.
    let worker = route(part, key)? % peers as u64;
    let here = usize::try_from(worker).unwrap_or_default().checked_sub(first_worker);
    match here.and_then(|here| restored.get_mut(here)) {
        Some(restored) if !reading.is_over(part, key, value)? => restored.add(part, key, value),
        _ => Ok(()),
    }
}
