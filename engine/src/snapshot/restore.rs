//! From a manifest back to the state of each worker.

use std::{collections::BTreeMap, sync::Arc};

use citycell_operators::{
    lateness::Horizon,
    restored::{Reading, Restored, route},
};
use citycell_schemas::Epoch;
use object_store::Error as StorageError;

use crate::{binding::Binding, pipeline::Pipeline};

use super::{
    SnapshotError, keeper,
    manifest::{self, Manifest, PipelineState},
    merge::Merge,
    storage::Storage,
};

/// Whose state is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The pipelines.
    pub pipelines: &'a [WantedPipeline],
    /// The number of this process's first worker among all.
    pub first_worker: usize,
    /// This process's workers.
    pub workers: usize,
    /// All processes' workers.
    pub peers: usize,
    /// Whether this process holds the deployment.
    pub is_first: bool,
}

/// A pipeline whose state is wanted.
#[derive(Clone, Debug)]
pub struct WantedPipeline {
    /// It.
    pub pipeline: Arc<Pipeline>,
    /// Its version: a state of another is of no use.
    pub version: String,
    /// The last epoch that ClickHouse has of it. A state as of a later one would leave a gap.
    pub marked: Option<Epoch>,
}

/// What an engine starts with.
#[derive(Debug, Default)]
pub struct StartingPoint {
    /// The number of the newest manifest there is, usable or not.
    pub manifest: u64,
    /// The pipelines whose state is known.
    pub pipelines: BTreeMap<String, RestoredPipeline>,
}

/// One pipeline's state.
#[derive(Debug)]
pub struct RestoredPipeline {
    /// As the manifest has it.
    pub state: PipelineState,
    /// The part of each worker of this process.
    pub workers: Vec<Restored>,
}

impl StartingPoint {
    /// The epoch of each pipeline's state.
    #[must_use]
    pub fn epochs(&self) -> BTreeMap<String, Epoch> {
        let pipelines = self.pipelines.iter();
        pipelines.map(|(name, restored)| (name.clone(), restored.state.epoch)).collect()
    }
}

/// The newest usable state of the pipelines that are wanted.
///
/// # Errors
/// When the storage does not answer; a manifest or run that is damaged or gone is passed over for
/// the manifest before.
pub async fn restore(
    storage: &Storage,
    wanted: Wanted<'_>,
) -> Result<StartingPoint, SnapshotError> {
    if wanted.is_first {
        keeper::delete_orphans(storage).await?;
    }
    let files = manifest::list(storage).await?;
    let number = files.first().and_then(|file| manifest::number_of(file)).unwrap_or_default();
    for file in &files {
        match load(storage, file, wanted).await {
            Ok(pipelines) => return Ok(StartingPoint { manifest: number, pipelines }),
            Err(error) if is_unusable(&error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(file, %error, cause, "a snapshot is unusable, trying the one before");
            }
            Err(error) => return Err(error),
        }
    }
    if !files.is_empty() {
        tracing::warn!("no snapshot is usable: everything is computed from Kafka again");
    }
    Ok(StartingPoint { manifest: number, pipelines: BTreeMap::new() })
}

/// Whether waiting cannot help.
fn is_unusable(error: &SnapshotError) -> bool {
    matches!(
        error,
        SnapshotError::Damaged { .. }
            | SnapshotError::Storage { source: StorageError::NotFound { .. }, .. }
    )
}

async fn load(
    storage: &Storage,
    file: &str,
    wanted: Wanted<'_>,
) -> Result<BTreeMap<String, RestoredPipeline>, SnapshotError> {
    let mut manifest = Manifest::read(storage, file).await?;
    let mut pipelines = BTreeMap::new();
    for WantedPipeline { pipeline, version, marked } in wanted.pipelines {
        let name = &pipeline.plan.name;
        let Some(state) = manifest.pipelines.remove(name) else { continue };
        if state.version != *version {
            continue;
        }
        if *marked < Some(state.epoch) {
            tracing::warn!(
                pipeline = name,
                "ClickHouse lacks rows that the snapshot takes as written: they are computed again"
            );
            continue;
        }
        let workers = workers(storage, file, &state, pipeline, wanted).await?;
        pipelines.insert(name.clone(), RestoredPipeline { state, workers });
    }
    Ok(pipelines)
}

/// Reads all entries and keeps those of this process's workers.
async fn workers(
    storage: &Storage,
    file: &str,
    state: &PipelineState,
    pipeline: &Pipeline,
    wanted: Wanted<'_>,
) -> Result<Vec<Restored>, SnapshotError> {
    let damaged = |reason: String| SnapshotError::Damaged { file: file.to_owned(), reason };
    let binding = Binding::from_value(&state.binding, &[""; 0])
        .map_err(|error| damaged(error.to_string()))?;
    let tick = binding.tick(&pipeline.plan.name);
    if tick.epoch != state.epoch {
        return Err(damaged(format!("the binding of {} is not its own", pipeline.plan.name)));
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
