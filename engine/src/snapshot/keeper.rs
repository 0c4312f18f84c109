//! Makes manifests of what the workers wrote, once ClickHouse has what came before it.
//!
//! A state as of an epoch is of use only if the epoch's rows are marked: after a restart nothing up
//! to it is computed again. A pipeline that cannot write keeps its last good state in the manifest, and
//! its newer runs wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter},
    time::Duration,
};

use citycell_operators::{lateness::Horizon, restored::Reading, saved::Entry};
use citycell_schemas::Epoch;
use tokio::{runtime::Handle, sync::mpsc, time::Instant};

use crate::{alarm::Alarm, binding::Binding, crash_point::crash_point, metrics::Metrics};

use super::{
    SnapshotError,
    manifest::{self, Manifest, PipelineState, Reached, Written},
    merge::Merge,
    run::{Run, RunWriter},
    storage::{Storage, local_failed},
};

/// How many manifests are kept.
const MANIFESTS: usize = 2;
/// More runs than this are merged, however small they are.
const RUNS_MAX: usize = 64;
/// After there is something to say, so that one manifest serves all pipelines of an epoch.
const SETTLE: Duration = Duration::from_millis(100);
/// After the storage failed.
const PAUSE: Duration = Duration::from_secs(5);

/// What the keeper hears of; pipelines by their index.
pub enum KeeperNotice {
    /// An epoch at whose end a snapshot is taken is decoded.
    Begun {
        /// The epoch.
        epoch: Epoch,
        /// Its binding as it is kept in the log.
        json: serde_json::Value,
        /// Where it stands there.
        binding_offset: i64,
        /// What the partitions of each pipeline that is handed these bindings had shown by its end.
        reached: BTreeMap<usize, Reached>,
    },
    /// All workers' runs of an epoch are durable.
    Written {
        /// The pipeline.
        pipeline: usize,
        /// The epoch.
        epoch: Epoch,
        /// The runs.
        runs: Vec<Run>,
    },
    /// A pipeline runs no more.
    Retired {
        /// The pipeline.
        pipeline: usize,
    },
    /// An epoch is marked.
    Marked {
        /// The pipeline.
        pipeline: usize,
        /// The epoch.
        epoch: Epoch,
    },
}

/// What a keeper starts with.
pub struct KeeperParts {
    /// Where it runs.
    pub runtime: Handle,
    /// Where manifests go.
    pub storage: Storage,
    /// What it shows of itself.
    pub metrics: Metrics,
    /// Rings if it panics.
    pub alarm: Alarm,
    /// The number of the newest manifest, which is ours.
    pub manifest: u64,
    /// The pipelines.
    pub pipelines: Vec<KeptPipeline>,
}

/// A pipeline as its state is kept.
#[derive(Clone, Debug)]
pub struct KeptPipeline {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When its windows close.
    pub horizon: Horizon,
    /// Whether it serves: those that do are handed the same bindings, and so are those that are built.
    pub serves: bool,
    /// Its state at the start.
    pub state: Option<PipelineState>,
    /// The last epoch that was marked at the start.
    pub marked: Option<Epoch>,
}

struct Begun {
    json: serde_json::Value,
    binding_offset: i64,
    reached: BTreeMap<usize, Reached>,
}

struct Keeper {
    storage: Storage,
    metrics: Metrics,
    manifest: u64,
    pipelines: Vec<KeptPipeline>,
    marked: Vec<Option<Epoch>>,
    /// By whether the pipelines serve that it is of.
    begun: BTreeMap<(bool, Epoch), Begun>,
    /// Runs that wait for their epoch's mark, by pipeline.
    waiting: Vec<BTreeMap<Epoch, Vec<Run>>>,
    /// The pipelines that run no more.
    retired: BTreeSet<usize>,
    /// Whether there is more to say than the last manifest says.
    changed: bool,
}

/// Another engine writes manifests of this deployment.
struct Fenced;

/// Starts the keeper; `written` is called with each epoch of which the runs of all pipelines are
/// durable that serve, or of all that do not.
#[must_use]
pub fn start(
    parts: KeeperParts,
    written: impl Fn(bool, Epoch) + Send + Sync + 'static,
) -> mpsc::UnboundedSender<KeeperNotice> {
    let (sender, mut notices) = mpsc::unbounded_channel();
    let KeeperParts { runtime, storage, metrics, alarm, manifest, pipelines } = parts;
    let mut keeper = Keeper {
        storage,
        metrics,
        manifest,
        marked: pipelines.iter().map(|pipeline| pipeline.marked).collect(),
        waiting: pipelines.iter().map(|_| BTreeMap::new()).collect(),
        begun: BTreeMap::new(),
        retired: BTreeSet::new(),
        changed: false,
        pipelines,
    };
    runtime.spawn(async move {
        let _rings_on_panic = alarm;
        let mut due = None;
        loop {
            if keeper.changed && due.is_none() {
                due = Some(Instant::now() + SETTLE);
            }
            // Marks come at every tick: waiting for a silence might be waiting for ever.
            let time = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                () = time, if due.is_some() => {}
                notice = notices.recv() => {
                    let Some(notice) = notice else { return };
                    if let Some((serves, epoch)) = keeper.hear(notice) {
                        written(serves, epoch);
                    }
                    continue;
                }
            }
            due = None;
            match keeper.keep().await {
                Ok(Ok(())) => {}
                Ok(Err(Fenced)) => {
                    tracing::warn!("another engine keeps this deployment's snapshots now");
                    return;
                }
                Err(error) => {
                    keeper.metrics.snapshot_failed();
                    due = Some(Instant::now() + PAUSE);
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "no snapshot is complete, trying again");
                }
            }
        }
    });
    sender
}

impl Keeper {
    /// Takes notice; yields an epoch of which everything is durable now, and of which pipelines.
    fn hear(&mut self, notice: KeeperNotice) -> Option<(bool, Epoch)> {
        let mut complete = None;
        match notice {
            KeeperNotice::Begun { epoch, json, binding_offset, reached } => {
                let first = reached.keys().next().copied().unwrap_or_default();
                let key = (self.serves(first), epoch);
                self.begun.insert(key, Begun { json, binding_offset, reached });
            }
            KeeperNotice::Written { pipeline, epoch, runs } => {
                if !self.retired.contains(&pipeline) {
                    self.waiting[pipeline].insert(epoch, runs);
                }
                complete = self.is_written(self.serves(pipeline), epoch);
            }
            KeeperNotice::Retired { pipeline } => {
                self.retired.insert(pipeline);
                self.waiting[pipeline].clear();
                self.changed |= self.pipelines[pipeline].state.take().is_some();
                let last = self.begun.keys().rfind(|(serves, _)| *serves == self.serves(pipeline));
                complete = last.and_then(|(serves, epoch)| self.is_written(*serves, *epoch));
            }
            KeeperNotice::Marked { pipeline, epoch } => {
                self.marked[pipeline] = self.marked[pipeline].max(Some(epoch));
            }
        }
        for pipeline in 0..self.pipelines.len() {
            while self.advance(pipeline) {}
        }
        for line in [true, false] {
            let waiting = self.of_line(line).filter_map(|index| self.waiting[index].keys().next());
            let newest = self.begun.keys().rfind(|(serves, _)| *serves == line);
            let needed = waiting.min().copied().or(newest.map(|(_, epoch)| *epoch));
            self.begun.retain(|(serves, epoch), _| *serves != line || Some(*epoch) >= needed);
        }
        complete
    }

    fn serves(&self, pipeline: usize) -> bool {
        self.pipelines.get(pipeline).is_some_and(|kept| kept.serves)
    }

    /// The pipelines that serve and run, or the others.
    fn of_line(&self, serves: bool) -> impl Iterator<Item = usize> {
        let all = 0..self.pipelines.len();
        all.filter(move |index| self.serves(*index) == serves && !self.retired.contains(index))
    }

    /// Yields what it was asked for if all runs of it are durable.
    fn is_written(&self, serves: bool, epoch: Epoch) -> Option<(bool, Epoch)> {
        let is_written = |index: usize| {
            let state = self.pipelines[index].state.as_ref();
            self.waiting[index].contains_key(&epoch)
                || state.is_some_and(|state| state.epoch >= epoch)
        };
        self.of_line(serves).all(is_written).then_some((serves, epoch))
    }

    /// Adds the oldest waiting runs of a pipeline to its state, if their epoch is marked.
    fn advance(&mut self, pipeline: usize) -> bool {
        let Some(entry) = self.waiting[pipeline].first_entry() else { return false };
        let epoch = *entry.key();
        let serves = self.pipelines[pipeline].serves;
        let Some(begun) = self.begun.get(&(serves, epoch)) else { return false };
        if self.marked[pipeline] < Some(epoch) {
            return false;
        }
        let kept = &mut self.pipelines[pipeline];
        let mut runs = kept.state.take().map_or_else(Vec::new, |state| state.runs);
        runs.extend(entry.remove());
        kept.state = Some(PipelineState {
            version: kept.version.clone(),
            epoch,
            binding_offset: begun.binding_offset,
            binding: begun.json.clone(),
            reached: begun.reached.get(&pipeline).cloned().unwrap_or_default(),
            runs,
        });
        self.changed = true;
        true
    }

    /// Merges what has grown, writes a manifest and deletes what no manifest needs.
    async fn keep(&mut self) -> Result<Result<(), Fenced>, SnapshotError> {
        for pipeline in 0..self.pipelines.len() {
            self.merge(pipeline).await?;
        }
        let states = self.pipelines.iter();
        let states = states.filter_map(|kept| {
            Some((manifest::key(&kept.name, &kept.version), kept.state.clone()?))
        });
        let manifest = Manifest::after(self.manifest, self.storage.writer(), states.collect());
        crash_point("before_manifest");
        let written = manifest.write(&self.storage).await?;
        if written == Written::Another {
            return Ok(Err(Fenced));
        }
        crash_point("after_manifest");
        self.manifest = manifest.number;
        if written == Written::Earlier {
            // Says less than we know by now: the next one says it.
            return Ok(Ok(()));
        }
        self.changed = false;
        let bytes = |state: &PipelineState| state.runs.iter().map(|run| run.bytes).sum::<u64>();
        for state in &self.pipelines {
            if let Some(kept) = &state.state {
                self.metrics.snapshot_kept(&state.name, kept.epoch, bytes(kept));
            }
        }
        Ok(self.prune(&manifest).await?.ok_or(Fenced))
    }

    /// One run of a pipeline's many, if they have outgrown the one that was merged last.
    async fn merge(&mut self, pipeline: usize) -> Result<(), SnapshotError> {
        let kept = &self.pipelines[pipeline];
        let Some(state) = &kept.state else { return Ok(()) };
        let bytes = |runs: &[Run]| runs.iter().map(|run| run.bytes).sum::<u64>();
        let (first, later) = state.runs.split_at(state.runs.len().min(1));
        let outgrown = state.runs.len() > 2 && bytes(later) >= bytes(first);
        if !outgrown && state.runs.len() <= RUNS_MAX {
            return Ok(());
        }
        let binding = Binding::from_value(&state.binding, &[""; 0]);
        let watermark = binding
            .map_or(citycell_schemas::EventTime::MIN, |binding| binding.tick(&kept.name).watermark);
        let reading = Reading { horizon: kept.horizon, watermark };
        let file = format!(
            "runs/{}-{}/{:013}-{}.merged",
            kept.name, kept.version, state.epoch.0, self.manifest
        );
        let merge = Merge::open(&self.storage, &state.runs).await?;
        let (epoch, name) = (state.epoch, file.clone());
        let merged = tokio::task::spawn_blocking(move || merged(merge, reading, name, epoch)).await;
        let (run, local) = merged.expect("merging does not panic")?;
        self.storage.put_file(&file, local).await?;
        if let Some(state) = &mut self.pipelines[pipeline].state {
            state.runs = vec![run];
        }
        Ok(())
    }

    /// Deletes old manifests and the files that only they named; `None` if somebody else's are newer.
    async fn prune(&self, newest: &Manifest) -> Result<Option<()>, SnapshotError> {
        let files = manifest::list(&self.storage).await?;
        if files.first().and_then(|file| manifest::number_of(file)) > Some(newest.number) {
            return Ok(None);
        }
        let (keep, old) = files.split_at(files.len().min(MANIFESTS));
        let mut needed: BTreeSet<String> = newest.files().map(str::to_owned).collect();
        for file in &keep[1..] {
            // One that cannot be read needs nothing.
            if let Ok(manifest) = Manifest::read(&self.storage, file).await {
                needed.extend(manifest.files().map(str::to_owned));
            }
        }
        for file in old {
            let Ok(manifest) = Manifest::read(&self.storage, file).await else {
                self.storage.delete(file).await?;
                continue;
            };
            for run in manifest.files().filter(|run| !needed.contains(*run)) {
                self.storage.delete(run).await?;
            }
            self.storage.delete(file).await?;
        }
        Ok(Some(()))
    }
}

/// Deletes runs that no manifest names: what an engine wrote that ended before its manifest. Only
/// once nobody else can write manifests.
///
/// # Errors
/// The storage's.
pub(super) async fn delete_orphans(storage: &Storage) -> Result<(), SnapshotError> {
    let mut needed = BTreeSet::new();
    for file in manifest::list(storage).await? {
        if let Ok(manifest) = Manifest::read(storage, &file).await {
            needed.extend(manifest.files().map(str::to_owned));
        }
    }
    for file in storage.list("runs").await? {
        if !needed.contains(&file) {
            storage.delete(&file).await?;
        }
    }
    Ok(())
}

fn merged(
    mut merge: Merge,
    reading: Reading,
    file: String,
    epoch: Epoch,
) -> Result<(Run, std::fs::File), SnapshotError> {
    let local = tempfile::tempfile().map_err(local_failed("merge into", &file))?;
    let out = BufWriter::with_capacity(1 << 16, local);
    let mut writer = RunWriter::new(out).map_err(local_failed("merge into", &file))?;
    while let Some(entry) = merge.next()? {
        // Everything older is in this merge, so what is gone needs no entry.
        let Some(value) = &entry.value else { continue };
        let over = reading.is_over(entry.part, &entry.key, value).map_err(|error| {
            SnapshotError::Damaged { file: file.clone(), reason: error.to_string() }
        })?;
        if !over {
            let entry = Entry { part: entry.part, key: &entry.key, value: Some(value) };
            writer.push(entry).map_err(local_failed("merge into", &file))?;
        }
    }
    let failed = local_failed("merge into", &file);
    let finished = writer.finish(file, epoch).and_then(|(run, out)| {
        let local = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((run, local))
    });
    finished.map_err(failed)
}
