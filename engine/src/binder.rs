//! Cuts the streams into epochs.
//!
//! At each tick the binder fixes how far every partition is read, what lateness is judged by and
//! what timers run on, makes that durable, and only then lets the dataflow see it. After a restart
//! it first hands out the epochs that were bound before, as they were bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use citycell_schemas::{Epoch, EventTime};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    binding::{Binding, PartitionRange},
    clickhouse::{backlog::Backlog, moments::Turn},
    clock::now_ms,
    crash_point::crash_point,
    dataflow::source::Waker,
    http::Readiness,
    kafka::{
        TopicPartition,
        binding_log::{BindingLog, BindingLogError, LoggedBinding},
        partitions::PartitionEnds,
        reader::{Fetched, Reader},
    },
    metrics::Metrics,
    snapshot::{KeeperNotice, PipelineState, Reached},
};

/// What the binder hears from the rest of the engine.
#[derive(Debug)]
pub enum Notice {
    /// All records of an epoch are decoded.
    Decoded {
        /// The epoch.
        epoch: Epoch,
        /// The newest accepted event time by pipeline and partition.
        reached: Vec<(usize, TopicPartition, EventTime)>,
        /// How far partitions were read ahead, where other processes share the work.
        fetched: Vec<(TopicPartition, Fetched)>,
    },
    /// A pipeline's mark of an epoch is acknowledged.
    Marked(Epoch, usize),
    /// A pipeline no longer holds the others back, or does again.
    Turned(Turn),
    /// All workers' files of a snapshot at the end of this epoch are durable.
    SnapshotWritten(Epoch),
    /// Partitions that exist.
    Found(BTreeMap<TopicPartition, PartitionEnds>),
    /// Stop once everything in the topics is bound and marked.
    Drain,
    /// Stop now; what is bound and not marked is done again at the next start.
    Stop,
}

/// A pipeline as far as binding is concerned.
#[derive(Clone, Debug)]
pub struct BoundPipeline {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The indices of its topics.
    pub topics: BTreeSet<u16>,
    /// The shortest interval between two versions of a row.
    pub publish_every_ms: i64,
}

/// The binder's settings.
#[derive(Clone, Copy, Debug)]
pub struct BinderLimits {
    /// From one epoch to the next.
    pub tick: Duration,
    /// How long a partition is silent at its end before it no longer holds the watermark back.
    pub idle_after: Duration,
    /// Epochs that may be bound and not yet marked by the pipelines that can write: beyond this the
    /// binder waits.
    pub unmarked_max: usize,
}

/// Epochs of one pipeline that cannot write: beyond this everybody waits for it.
const STALE_EPOCHS_MAX: usize = 100_000;
/// An engine is ready if no epoch waits longer than this for its marks.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// When snapshots are taken, and where the engine started from.
pub struct SnapshotPace {
    /// From one to the next.
    pub every: Duration,
    /// Makes manifests of them.
    pub keeper: UnboundedSender<KeeperNotice>,
}

/// Cuts epochs until it is told to stop.
pub struct Binder {
    /// Where bindings are kept.
    pub log: BindingLog,
    /// The topics' names, sorted.
    pub topics: Arc<[Arc<str>]>,
    /// The pipelines; notices name them by index.
    pub pipelines: Vec<BoundPipeline>,
    /// The grid's version.
    pub grid: String,
    /// Settings.
    pub limits: BinderLimits,
    /// Workers in all processes.
    pub workers: usize,
    /// The readers of this process's workers, which come first.
    pub readers: Vec<Arc<Reader>>,
    /// What the rest of the engine says.
    pub notices: Receiver<Notice>,
    /// The way into the dataflow.
    pub hand_out: HandOut,
    /// What we show of ourselves.
    pub metrics: Metrics,
    /// Whether we keep up.
    pub readiness: Readiness,
    /// When snapshots are taken; never if not said.
    pub snapshots: Option<SnapshotPace>,
    /// What waits for ClickHouse.
    pub backlog: Backlog,
    /// The pipelines that start behind the others.
    pub stale: BTreeSet<usize>,
    /// The state of each pipeline that was known at the start, by index.
    pub known: BTreeMap<usize, PipelineState>,
}

/// Hands durable bindings to the dataflow, which ends when this is dropped.
pub struct HandOut {
    /// To worker 0; taken when this is dropped.
    pub bindings: Option<Sender<Binding>>,
    /// Wakes worker 0.
    pub waker: Waker,
}

impl HandOut {
    fn send(&self, binding: Binding) {
        if let Some(bindings) = &self.bindings {
            // The workers are gone only when the engine is stopping.
            let _ = bindings.send(binding);
        }
        self.waker.wake();
    }
}

impl Drop for HandOut {
    fn drop(&mut self) {
        self.bindings = None;
        self.waker.wake();
    }
}

/// What changes from epoch to epoch.
#[derive(Default)]
struct Progress {
    reached: BTreeMap<(usize, TopicPartition), EventTime>,
    decoded: Option<Epoch>,
    unmarked: BTreeMap<Epoch, (Instant, BTreeSet<usize>)>,
    found: BTreeMap<TopicPartition, i64>,
    elsewhere: BTreeMap<TopicPartition, Fetched>,
    accepted: BTreeMap<(usize, TopicPartition), Instant>,
    live_since: Option<Instant>,
    last: Option<Binding>,
    /// The pipelines that hold nobody back, each with its unmarked epochs.
    stale: BTreeMap<usize, BTreeSet<Epoch>>,
    /// The snapshot that is being taken.
    snapshot: Option<Taking>,
    snapshot_since: Option<Instant>,
    drain_since_ms: Option<i64>,
    draining: bool,
    stopped: bool,
}

/// A snapshot on its way.
struct Taking {
    logged: LoggedBinding,
    /// Whether the keeper knows of it.
    begun: bool,
}

impl Binder {
    /// Hands out what was bound before, from the oldest state on that a pipeline starts with, then
    /// binds a new epoch at every tick.
    ///
    /// # Errors
    /// When the log cannot be read or written; [`BindingLogError::Fenced`] when another engine has
    /// taken over.
    pub fn run(self) -> Result<(), BindingLogError> {
        let mut progress = Progress {
            reached: self.known_reached(),
            stale: self.stale.iter().map(|pipeline| (*pipeline, BTreeSet::new())).collect(),
            ..Progress::default()
        };
        let start = self.start();
        let bindings = match start {
            Some(state) => self.log.read_from(state.epoch, state.binding_offset)?,
            None => self.log.read()?,
        };
        for logged in bindings {
            let logged = logged?;
            if start.is_some_and(|state| logged.binding.epoch <= state.epoch) {
                progress.decoded = Some(logged.binding.epoch);
                progress.last = Some(logged.binding);
                continue;
            }
            self.wait_for_room(&mut progress);
            if progress.stopped {
                return Ok(());
            }
            self.release(logged, &mut progress);
        }
        progress.live_since = Some(Instant::now());
        while !progress.stopped {
            self.wait_for_tick(&mut progress);
            self.wait_for_room(&mut progress);
            if progress.stopped {
                break;
            }
            if self.drained(&mut progress) {
                self.wait_for_marks(&mut progress);
                break;
            }
            let binding = self.bind(&progress);
            crash_point("before_binding");
            let offset = self.log.append(&binding)?;
            crash_point("after_binding");
            self.release(LoggedBinding { binding, offset }, &mut progress);
            let oldest = progress.unmarked.values().next();
            self.readiness.set(oldest.is_none_or(|(since, _)| since.elapsed() < READY_WITHIN));
        }
        self.readiness.set(false);
        Ok(())
    }

    /// The oldest state that a pipeline starts with: what was bound after it is handed out again.
    /// None if a pipeline starts with nothing.
    fn start(&self) -> Option<&PipelineState> {
        let all = self.known.len() == self.pipelines.len();
        self.known.values().filter(|_| all).min_by_key(|state| state.epoch)
    }

    /// What the partitions had shown each pipeline by the epoch of its state.
    fn known_reached(&self) -> BTreeMap<(usize, TopicPartition), EventTime> {
        let mut reached = BTreeMap::new();
        for (index, state) in &self.known {
            for (topic, name) in (0u16..).zip(self.topics.iter()) {
                for (partition, time) in state.reached.get(&**name).into_iter().flatten() {
                    let partition = TopicPartition { topic, partition: *partition };
                    reached.insert((*index, partition), *time);
                }
            }
        }
        reached
    }

    /// The same as it stands now.
    fn reached(&self, pipeline: usize, progress: &Progress) -> Reached {
        let mut by_topic = Reached::new();
        for ((index, partition), time) in &progress.reached {
            if *index == pipeline {
                let topic = self.topics[usize::from(partition.topic)].to_string();
                by_topic.entry(topic).or_default().push((partition.partition, *time));
            }
        }
        by_topic
    }

    /// Whether a snapshot is taken at the end of this epoch: it is time, the one before is written,
    /// and no pipeline starts later.
    fn is_snapshot_due(&self, epoch: Epoch, progress: &Progress) -> bool {
        let Some(pace) = &self.snapshots else { return false };
        progress.snapshot.is_none()
            && progress.snapshot_since.is_none_or(|since| since.elapsed() >= pace.every)
            && self.known.values().all(|state| epoch > state.epoch)
    }

    fn release(&self, logged: LoggedBinding, progress: &mut Progress) {
        let LoggedBinding { mut binding, offset } = logged;
        let epochs = self.known.iter();
        let epochs =
            epochs.map(|(index, state)| (self.pipelines[*index].name.clone(), state.epoch));
        binding.started_at = Arc::new(epochs.collect());
        binding.snapshot = self.is_snapshot_due(binding.epoch, progress);
        if binding.snapshot {
            let logged = LoggedBinding { binding: binding.clone(), offset };
            progress.snapshot = Some(Taking { logged, begun: false });
            progress.snapshot_since = Some(Instant::now());
        }
        let healthy = |pipeline: &usize| !progress.stale.contains_key(pipeline);
        let waiting: BTreeSet<_> = (0..self.pipelines.len()).filter(healthy).collect();
        for unmarked in progress.stale.values_mut() {
            unmarked.insert(binding.epoch);
        }
        // Nobody would say that it is marked if all are stale.
        if !waiting.is_empty() {
            progress.unmarked.insert(binding.epoch, (Instant::now(), waiting));
        }
        progress.last = Some(binding.clone());
        self.metrics.bound(progress.unmarked.len());
        self.hand_out.send(binding);
    }

    /// Sleeps to the next multiple of the tick and until the epoch before is decoded, whose event
    /// times this epoch's lateness is judged by.
    fn wait_for_tick(&self, progress: &mut Progress) {
        let tick_ms = u64::try_from(self.limits.tick.as_millis()).unwrap_or(u64::MAX).max(1);
        let due =
            Instant::now() + Duration::from_millis(tick_ms - now_ms().unsigned_abs() % tick_ms);
        loop {
            let decoded = progress.last.as_ref().map(|binding| binding.epoch) <= progress.decoded;
            let left = due.saturating_duration_since(Instant::now());
            if progress.stopped || (decoded && left.is_zero()) {
                return;
            }
            self.listen(progress, if decoded { left } else { Duration::from_millis(50) });
        }
    }

    fn wait_for_room(&self, progress: &mut Progress) {
        let is_full = |progress: &Progress| {
            progress.unmarked.len() >= self.limits.unmarked_max
                || progress.stale.values().any(|unmarked| unmarked.len() >= STALE_EPOCHS_MAX)
                || !self.backlog.has_room()
        };
        while !progress.stopped && is_full(progress) {
            self.listen(progress, Duration::from_millis(50));
        }
        self.listen(progress, Duration::ZERO);
    }

    fn wait_for_marks(&self, progress: &mut Progress) {
        let waits =
            |progress: &Progress| !progress.unmarked.is_empty() || !progress.stale.is_empty();
        while !progress.stopped && waits(progress) {
            self.listen(progress, Duration::from_millis(50));
        }
    }

    fn listen(&self, progress: &mut Progress, timeout: Duration) {
        let mut next = self.notices.recv_timeout(timeout);
        loop {
            match next {
                Ok(notice) => self.hear(notice, progress),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    progress.stopped = true;
                    return;
                }
            }
            next = self.notices.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
    }

    fn hear(&self, notice: Notice, progress: &mut Progress) {
        match notice {
            Notice::Decoded { epoch, reached, fetched } => {
                progress.elsewhere.extend(fetched);
                progress.decoded = progress.decoded.max(Some(epoch));
                for (pipeline, partition, time) in reached {
                    let newest =
                        progress.reached.entry((pipeline, partition)).or_insert(EventTime::MIN);
                    *newest = time.max(*newest);
                    progress.accepted.insert((pipeline, partition), Instant::now());
                }
                self.begin_snapshot(epoch, progress);
            }
            Notice::SnapshotWritten(epoch) => {
                progress.snapshot.take_if(|taking| taking.logged.binding.epoch <= epoch);
            }
            Notice::Marked(epoch, pipeline) => {
                if let Some(unmarked) = progress.stale.get_mut(&pipeline) {
                    unmarked.remove(&epoch);
                }
                self.need_no_mark(progress, pipeline, |unmarked| unmarked == epoch);
            }
            Notice::Turned(Turn { pipeline, stale }) => {
                let name = &self.pipelines[pipeline].name;
                self.metrics.stale(name, stale);
                if stale {
                    tracing::warn!(
                        pipeline = name,
                        "cannot write: it is stale and holds nobody back"
                    );
                    let unmarked = progress.unmarked.iter();
                    let unmarked = unmarked.filter(|(_, (_, waiting))| waiting.contains(&pipeline));
                    let unmarked = unmarked.map(|(epoch, _)| *epoch).collect();
                    progress.stale.insert(pipeline, unmarked);
                    self.need_no_mark(progress, pipeline, |_| true);
                } else {
                    tracing::info!(pipeline = name, "has caught up");
                    for epoch in progress.stale.remove(&pipeline).into_iter().flatten() {
                        let new = || (Instant::now(), BTreeSet::new());
                        progress.unmarked.entry(epoch).or_insert_with(new).1.insert(pipeline);
                    }
                }
            }
            Notice::Found(partitions) => self.find(&partitions, progress),
            Notice::Drain => progress.draining = true,
            Notice::Stop => progress.stopped = true,
        }
    }

    /// Some unmarked epochs no longer wait for this pipeline.
    fn need_no_mark(
        &self,
        progress: &mut Progress,
        pipeline: usize,
        concerns: impl Fn(Epoch) -> bool,
    ) {
        let mut done = Vec::new();
        for (epoch, (since, waiting)) in &mut progress.unmarked {
            if concerns(*epoch) && waiting.remove(&pipeline) && waiting.is_empty() {
                done.push((*epoch, since.elapsed()));
            }
        }
        for (epoch, took) in done {
            progress.unmarked.remove(&epoch);
            self.metrics.epoch_marked(took, progress.unmarked.len());
        }
    }

    /// Tells the keeper what an epoch's snapshot is as of, once the epoch is decoded and nothing
    /// later is.
    fn begin_snapshot(&self, decoded: Epoch, progress: &mut Progress) {
        let Some(pace) = &self.snapshots else { return };
        let due = |taking: &&Taking| !taking.begun && taking.logged.binding.epoch == decoded;
        let Some(Taking { logged, .. }) = progress.snapshot.as_ref().filter(due) else { return };
        let notice = KeeperNotice::Begun {
            json: logged.binding.to_value(self.log.topics()),
            binding: Arc::new(logged.binding.clone()),
            binding_offset: logged.offset,
            reached: (0..self.pipelines.len()).map(|index| self.reached(index, progress)).collect(),
        };
        // A keeper that is gone was fenced out, and then no snapshot of ours is wanted.
        let _ = pace.keeper.send(notice);
        if let Some(taking) = &mut progress.snapshot {
            taking.begun = true;
        }
    }

    fn find(&self, partitions: &BTreeMap<TopicPartition, PartitionEnds>, progress: &mut Progress) {
        for (partition, ends) in partitions {
            // What was there first stays the beginning: retention may move it, a binding may not.
            progress.found.entry(*partition).or_insert(ends.first_offset);
        }
        let starts = starts(progress);
        for (partition, ends) in partitions {
            let topic = &self.topics[usize::from(partition.topic)];
            let bound = starts.get(partition).copied().unwrap_or(ends.first_offset);
            self.metrics.lag(topic, partition.partition, ends.end_offset - bound);
        }
    }

    fn bind(&self, progress: &Progress) -> Binding {
        let fetched = self.fetched(progress);
        let previous = progress.last.as_ref();
        let epoch =
            Epoch(now_ms().unsigned_abs().max(previous.map_or(0, |binding| binding.epoch.0 + 1)));
        let previous_bound_time_ms = previous.map_or(i64::MIN, |binding| binding.bound_time_ms);
        let mut partitions = BTreeMap::new();
        let mut bound_time_ms = i64::try_from(epoch.0).unwrap_or(i64::MAX);
        let mut watermarks = Watermarks::new(self, progress);
        for (partition, from_offset) in starts(progress) {
            let state = fetched.get(&partition);
            let next_offset = state.map_or(from_offset, |state| state.next_offset.max(from_offset));
            let at_end = state.is_some_and(|state| state.at_end);
            if !at_end {
                let oldest = state.and_then(|state| state.last_broker_time_ms);
                bound_time_ms = bound_time_ms.min(oldest.unwrap_or(i64::MIN));
            }
            let idle = watermarks.hold_back(partition, at_end);
            partitions.insert(partition, PartitionRange { from_offset, next_offset, idle });
        }
        let versions = self.pipelines.iter();
        Binding {
            epoch,
            bound_time_ms: bound_time_ms.max(previous_bound_time_ms),
            previous_bound_time_ms,
            watermarks: watermarks.finish(),
            partitions,
            left: previous.map_or_else(BTreeMap::new, |binding| binding.left.clone()),
            versions: versions
                .map(|pipeline| (pipeline.name.clone(), pipeline.version.clone()))
                .collect(),
            grid: self.grid.clone(),
            snapshot: false,
            started_at: Arc::default(),
        }
    }

    /// How far each partition is read ahead; newly found ones begin to be read.
    fn fetched(&self, progress: &Progress) -> BTreeMap<TopicPartition, Fetched> {
        for (partition, from_offset) in starts(progress) {
            if let Some(reader) = self.readers.get(owner(partition, self.workers)) {
                reader.assign(partition, from_offset);
            }
        }
        let mut fetched = progress.elsewhere.clone();
        fetched.extend(self.readers.iter().flat_map(|reader| reader.fetched()));
        self.metrics.buffered(self.readers.iter().map(|reader| reader.buffered_bytes()).sum());
        fetched
    }

    /// Whether everything in the topics is bound and published.
    fn drained(&self, progress: &mut Progress) -> bool {
        if !progress.draining || progress.found.is_empty() {
            return false;
        }
        let Some(last) = progress.last.clone() else { return false };
        let fetched = self.fetched(progress);
        let all_bound = starts(progress).iter().all(|(partition, next_offset)| {
            fetched
                .get(partition)
                .is_some_and(|state| state.at_end && state.next_offset <= *next_offset)
        });
        if !all_bound {
            progress.drain_since_ms = None;
            return false;
        }
        let since = *progress.drain_since_ms.get_or_insert(last.bound_time_ms);
        self.pipelines.iter().all(|pipeline| {
            let every = pipeline.publish_every_ms.max(1);
            last.bound_time_ms.div_euclid(every) > since.div_euclid(every)
        })
    }
}

/// What each pipeline's partitions have all reached.
///
/// A partition at its end that brought a pipeline no accepted event for a while is idle for it: it
/// does not hold the pipeline back. Rejects and withdrawals are no sign of life, or a partition of
/// nothing else would stop the watermark for good.
struct Watermarks<'a> {
    binder: &'a Binder,
    progress: &'a Progress,
    reached: Vec<Option<EventTime>>,
}

impl<'a> Watermarks<'a> {
    fn new(binder: &'a Binder, progress: &'a Progress) -> Self {
        Self { binder, progress, reached: vec![None; binder.pipelines.len()] }
    }

    /// Lets `partition` hold back the pipelines that read it; true if it holds back none.
    fn hold_back(&mut self, partition: TopicPartition, at_end: bool) -> bool {
        let mut idle = true;
        for (index, pipeline) in self.binder.pipelines.iter().enumerate() {
            if !pipeline.topics.contains(&partition.topic)
                || (at_end && self.is_silent(index, partition))
            {
                continue;
            }
            idle = false;
            let newest = self.progress.reached.get(&(index, partition));
            let newest = newest.copied().unwrap_or(EventTime::MIN);
            let lowest = self.reached[index].get_or_insert(newest);
            *lowest = newest.min(*lowest);
        }
        idle
    }

    fn is_silent(&self, pipeline: usize, partition: TopicPartition) -> bool {
        let accepted = self.progress.accepted.get(&(pipeline, partition));
        let since = accepted.or(self.progress.live_since.as_ref());
        since.is_some_and(|since| since.elapsed() >= self.binder.limits.idle_after)
    }

    /// The watermark of each pipeline; it never goes back, nor while a pipeline does not run.
    fn finish(self) -> BTreeMap<String, EventTime> {
        let last = self.progress.last.as_ref();
        let mut watermarks = last.map_or_else(BTreeMap::new, |last| last.watermarks.clone());
        for (pipeline, reached) in self.binder.pipelines.iter().zip(&self.reached) {
            let watermark = watermarks.entry(pipeline.name.clone()).or_insert(EventTime::MIN);
            *watermark = reached.unwrap_or(*watermark).max(*watermark);
        }
        watermarks
    }
}

/// Every known partition and the first offset that is not bound yet.
fn starts(progress: &Progress) -> BTreeMap<TopicPartition, i64> {
    let mut starts = progress.found.clone();
    let bound = progress.last.iter().flat_map(|binding| &binding.partitions);
    starts.extend(bound.map(|(partition, range)| (*partition, range.next_offset)));
    starts
}

/// The worker that reads a partition: partitions of one topic spread over all workers.
#[must_use]
pub fn owner(partition: TopicPartition, workers: usize) -> usize {
    let number = usize::try_from(partition.partition).unwrap_or_default();
    (number + usize::from(partition.topic)) % workers
}
