//! Cuts the streams into epochs.
//!
//! At each tick the binder fixes how far every partition is read, what lateness is judged by and
//! what timers run on, makes that durable, and only then lets the dataflow see it. After a restart
//! it first hands out the epochs that were bound before, as they were bound.

mod hand_out;
mod lost;
mod reached;
mod snapshots;
mod watch;
mod watermarks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use citycell_schemas::{Epoch, EventTime};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::{
    binding::{Binding, PartitionRange},
    clickhouse::{backlog::Backlog, moments::Turn},
    clock::now_ms,
    crash_point::crash_point,
    engine::EngineError,
    http::Readiness,
    kafka::{
        TopicIds, TopicPartition,
        binding_log::{BindingLog, LoggedBinding},
        partitions::Found,
        reader::{Fetched, Reader},
    },
    metrics::Metrics,
    snapshot::PipelineState,
};

pub use hand_out::HandOut;
pub use lost::{LostOffsets, OnLostOffsets};
pub(crate) use reached::ReachedTimes;
pub use snapshots::SnapshotPace;
pub(crate) use snapshots::Snapshots;
use watch::Watch;
use watermarks::Watermarks;

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
    /// A version that was built serves from now on.
    Succeeded(usize),
    /// The newest accepted event time by pipeline and partition, of versions that are built.
    Followed(Vec<(usize, TopicPartition, EventTime)>),
    /// The versions that are built have marked everything up to this epoch.
    FollowedTo(Epoch),
    /// All workers' files of a snapshot at the end of this epoch are durable.
    SnapshotWritten(Epoch),
    /// Partitions that exist.
    Found(Found),
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
    /// What becomes of records that Kafka has removed before they were read.
    pub on_lost_offsets: OnLostOffsets,
}

/// Epochs of one pipeline that cannot write: beyond this everybody waits for it.
const STALE_EPOCHS_MAX: usize = 100_000;
/// An engine is ready if no epoch waits longer than this for its marks.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Cuts epochs until it is told to stop.
pub struct Binder {
    /// Where bindings are kept.
    pub log: BindingLog,
    /// The topics' names, sorted.
    pub topics: Arc<[Arc<str>]>,
    /// The pipelines, those that serve first; notices name them by index.
    pub pipelines: Vec<BoundPipeline>,
    /// How many of them serve. The others follow by the log of bindings.
    pub serving: usize,
    /// To the one who hands bindings to the others; none without others.
    pub follower: Option<Sender<Notice>>,
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
    /// The epoch of each version's state that this engine started with.
    pub started_at: Arc<BTreeMap<String, Epoch>>,
    /// The state of each pipeline that serves, as it was known at the start, by index.
    pub known: BTreeMap<usize, PipelineState>,
}

/// What changes from epoch to epoch.
struct Progress {
    snapshots: Snapshots,
    reached: ReachedTimes,
    decoded: Option<Epoch>,
    unmarked: BTreeMap<Epoch, (Instant, BTreeSet<usize>)>,
    found: BTreeMap<TopicPartition, i64>,
    /// What other processes' readers have fetched, and when we heard of it.
    elsewhere: BTreeMap<TopicPartition, (Instant, Fetched)>,
    topic_ids: TopicIds,
    accepted: BTreeMap<(usize, TopicPartition), Instant>,
    watch: Watch,
    last: Option<Binding>,
    /// The pipelines that hold nobody back, each with its unmarked epochs.
    stale: BTreeMap<usize, BTreeSet<Epoch>>,
    /// The versions whose place others have taken.
    retired: Arc<BTreeSet<usize>>,
    /// The versions that were built and serve now.
    succeeded: BTreeSet<usize>,
    /// What the versions that are built have marked.
    followed: Option<Epoch>,
    drain_since_ms: Option<i64>,
    /// Since when everything is to be read to its end.
    draining: Option<Instant>,
    stopped: bool,
}

impl Progress {
    fn new(binder: &Binder) -> Self {
        let pace = binder.snapshots.clone();
        Self {
            snapshots: Snapshots::new(pace, 0..binder.serving, &binder.known),
            reached: ReachedTimes::of_states(&binder.known, &binder.topics),
            decoded: None,
            unmarked: BTreeMap::new(),
            found: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            accepted: BTreeMap::new(),
            topic_ids: TopicIds::default(),
            watch: Watch::default(),
            last: None,
            stale: binder.stale.iter().map(|pipeline| (*pipeline, BTreeSet::new())).collect(),
            retired: Arc::default(),
            succeeded: BTreeSet::new(),
            followed: None,
            drain_since_ms: None,
            draining: None,
            stopped: false,
        }
    }

    fn reach(&mut self, reached: Vec<(usize, TopicPartition, EventTime)>) {
        for (pipeline, partition, time) in reached {
            self.reached.raise(pipeline, partition, time);
            self.accepted.insert((pipeline, partition), Instant::now());
        }
    }
}

impl Binder {
    /// Hands out what was bound before, from the oldest state on that a pipeline starts with, then
    /// binds a new epoch at every tick.
    ///
    /// # Errors
    /// When the log cannot be read or written, also when another engine has taken over; when
    /// records are lost and not to be skipped.
    pub fn run(self) -> Result<(), EngineError> {
        let outcome = self.bind_until_stopped();
        self.readiness.set(false);
        if let Some(follower) = &self.follower {
            // One that is gone needs no telling.
            let _ = follower.send(Notice::Stop);
        }
        outcome
    }

    fn bind_until_stopped(&self) -> Result<(), EngineError> {
        let mut progress = Progress::new(self);
        let start = oldest(&self.known, self.serving);
        let bindings = match start {
            Some((epoch, offset)) => self.log.read_from(epoch, offset)?,
            None => self.log.read()?,
        };
        for logged in bindings {
            let logged = logged?;
            if start.is_some_and(|(epoch, _)| logged.binding.epoch <= epoch) {
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
            let binding = self.bind(&mut progress)?;
            crash_point("before_binding");
            let offset = self.log.append(&binding)?;
            crash_point("after_binding");
            self.release(LoggedBinding { binding, offset }, &mut progress);
            let oldest = progress.unmarked.values().next();
            self.readiness.set(oldest.is_none_or(|(since, _)| since.elapsed() < READY_WITHIN));
        }
        Ok(())
    }

    /// The versions that decide on watermarks: those that serve, and those that are built where none
    /// serves.
    fn leading<'a>(
        &'a self,
        progress: &'a Progress,
    ) -> impl Iterator<Item = (usize, &'a BoundPipeline)> {
        let (serving, built) = self.pipelines.split_at(self.serving);
        let leads = move |(index, pipeline): &(usize, &BoundPipeline)| {
            let served = |other: &BoundPipeline| other.name == pipeline.name;
            match *index < self.serving {
                true => !progress.retired.contains(index),
                false => progress.succeeded.contains(index) || !serving.iter().any(served),
            }
        };
        serving.iter().chain(built).enumerate().filter(leads)
    }

    fn release(&self, mut logged: LoggedBinding, progress: &mut Progress) {
        logged.binding.started_at = Arc::clone(&self.started_at);
        logged.binding.retired = Arc::clone(&progress.retired);
        progress.snapshots.decide(&mut logged);
        let LoggedBinding { binding, .. } = logged;
        let healthy = |pipeline: &usize| !progress.stale.contains_key(pipeline);
        let waiting: BTreeSet<_> = (0..self.serving).filter(healthy).collect();
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
        let last = progress.last.as_ref().map(|binding| binding.epoch);
        let waits = |progress: &Progress| {
            let follows = self.follower.is_some() && progress.followed < last;
            !progress.unmarked.is_empty() || !progress.stale.is_empty() || follows
        };
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
                let heard = Instant::now();
                let fetched = fetched.into_iter();
                progress.elsewhere.extend(fetched.map(|(partition, of)| (partition, (heard, of))));
                progress.decoded = progress.decoded.max(Some(epoch));
                progress.reach(reached);
                progress.snapshots.decoded(epoch, &progress.reached, &self.topics);
            }
            Notice::Followed(reached) => progress.reach(reached),
            Notice::FollowedTo(epoch) => progress.followed = Some(epoch),
            Notice::SnapshotWritten(epoch) => progress.snapshots.written(epoch),
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
            Notice::Succeeded(pipeline) => self.succeed(pipeline, progress),
            Notice::Found(found) => self.find(found, progress),
            Notice::Drain => progress.draining = Some(Instant::now()),
            Notice::Stop => progress.stopped = true,
        }
    }

    /// A version that was built serves: the one before runs no more.
    fn succeed(&self, successor: usize, progress: &mut Progress) {
        progress.succeeded.insert(successor);
        let name = &self.pipelines[successor].name;
        let before = self.pipelines[..self.serving].iter().position(|other| other.name == *name);
        if let Some(before) = before {
            let mut retired = BTreeSet::clone(&progress.retired);
            retired.insert(before);
            progress.retired = Arc::new(retired);
            progress.stale.remove(&before);
            progress.snapshots.retire(before);
            self.need_no_mark(progress, before, |_| true);
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

    fn find(&self, found: Found, progress: &mut Progress) {
        // What was there first stays: retention may move a beginning and a topic may be made again,
        // a binding may not change.
        for (topic, id) in found.topic_ids {
            progress.topic_ids.entry(topic).or_insert(id);
        }
        for (partition, ends) in &found.partitions {
            progress.found.entry(*partition).or_insert(ends.first_offset);
        }
        let starts = starts(progress);
        for (partition, ends) in &found.partitions {
            let topic = &self.topics[usize::from(partition.topic)];
            let bound = starts.get(partition).copied().unwrap_or(ends.first_offset);
            self.metrics.lag(topic, partition.partition, (ends.end_offset - bound).max(0));
        }
    }

    fn bind(&self, progress: &mut Progress) -> Result<Binding, LostOffsets> {
        let fetched = self.fetched(progress);
        progress.watch.look(&fetched, self.limits.tick + self.limits.idle_after);
        let progress = &*progress;
        let previous = progress.last.as_ref();
        let epoch =
            Epoch(now_ms().unsigned_abs().max(previous.map_or(0, |binding| binding.epoch.0 + 1)));
        let previous_bound_time_ms = previous.map_or(i64::MIN, |binding| binding.bound_time_ms);
        let mut partitions = BTreeMap::new();
        let mut bound_time_ms = i64::try_from(epoch.0).unwrap_or(i64::MAX);
        let mut watermarks = Watermarks::new(self, progress);
        for (partition, from_offset) in starts(progress) {
            let state = fetched.get(&partition);
            let skipped_from = self.skip_lost(partition, from_offset, state)?;
            let lost_until = state.and_then(|state| state.lost_until);
            let from_offset = skipped_from.and(lost_until).unwrap_or(from_offset);
            let next_offset = state.map_or(from_offset, |state| state.next_offset.max(from_offset));
            let at_end = state.is_some_and(|state| state.at_end);
            let is_back = progress.watch.is_back(partition, self.limits.idle_after);
            let oldest = match state {
                // Whatever is unread came to the broker since.
                Some(state) if at_end && !is_back => state.age_ms.map(|age_ms| {
                    i64::try_from(epoch.0.saturating_sub(age_ms)).unwrap_or(i64::MAX)
                }),
                Some(state) => state.last_broker_time_ms,
                None => None,
            };
            bound_time_ms = bound_time_ms.min(oldest.unwrap_or(i64::MIN));
            let idle = watermarks.hold_back(partition, at_end);
            let range = PartitionRange { from_offset, next_offset, idle, skipped_from };
            partitions.insert(partition, range);
        }
        let versions = self.leading(progress).map(|(_, pipeline)| pipeline);
        Ok(Binding {
            epoch,
            bound_time_ms: bound_time_ms.max(previous_bound_time_ms),
            previous_bound_time_ms,
            watermarks: watermarks.finish(),
            partitions,
            left: previous.map_or_else(BTreeMap::new, |binding| binding.left.clone()),
            topic_ids: topic_ids(progress),
            versions: versions
                .map(|pipeline| (pipeline.name.clone(), pipeline.version.clone()))
                .collect(),
            grid: self.grid.clone(),
            snapshot: false,
            started_at: Arc::default(),
            retired: Arc::default(),
        })
    }

    /// How far each partition is read ahead; newly found ones begin to be read.
    fn fetched(&self, progress: &Progress) -> BTreeMap<TopicPartition, Fetched> {
        let topic_ids = topic_ids(progress);
        for (partition, from_offset) in starts(progress) {
            if let Some(reader) = self.readers.get(owner(partition, self.workers)) {
                reader.assign(partition, from_offset, &topic_ids);
            }
        }
        let mut fetched: BTreeMap<_, _> = progress.elsewhere.iter().map(heard_of).collect();
        fetched.extend(self.readers.iter().flat_map(|reader| reader.fetched()));
        self.metrics.buffered(self.readers.iter().map(|reader| reader.buffered_bytes()).sum());
        fetched
    }

    /// Whether everything in the topics is bound and published.
    fn drained(&self, progress: &mut Progress) -> bool {
        // A version that is built takes its place at an epoch, which must be bound.
        let is_built = self.pipelines.len() - self.serving == progress.succeeded.len();
        let draining = progress.draining.filter(|_| !progress.found.is_empty() && is_built);
        let Some(draining) = draining else {
            return false;
        };
        let is_asked_since = |age_ms| Duration::from_millis(age_ms) < draining.elapsed();
        let Some(last) = progress.last.clone() else { return false };
        let fetched = self.fetched(progress);
        let all_bound = starts(progress).iter().all(|(partition, next_offset)| {
            fetched.get(partition).is_some_and(|state| {
                let is_at_end = state.at_end && state.age_ms.is_some_and(is_asked_since);
                is_at_end && state.next_offset <= *next_offset
            })
        });
        if !all_bound {
            progress.drain_since_ms = None;
            return false;
        }
        let since = *progress.drain_since_ms.get_or_insert(last.bound_time_ms);
        self.leading(progress).all(|(_, pipeline)| {
            let every = pipeline.publish_every_ms.max(1);
            last.bound_time_ms.div_euclid(every) > since.div_euclid(every)
        })
    }
}

/// The epoch of the oldest state that one of `pipelines` starts with, and where its binding stands in
/// the log: what was bound after it is handed out again. None if one starts with nothing.
pub(crate) fn oldest(
    known: &BTreeMap<usize, PipelineState>,
    pipelines: usize,
) -> Option<(Epoch, i64)> {
    let all = known.len() == pipelines;
    let oldest = known.values().filter(|_| all).min_by_key(|state| state.epoch)?;
    Some((oldest.epoch, oldest.binding_offset))
}

/// Every known partition and the first offset that is not bound yet. A topic that is bound already
/// has shown all that it had: a partition that it did not have then is read from its first record,
/// also if Kafka has removed that since.
fn starts(progress: &Progress) -> BTreeMap<TopicPartition, i64> {
    let mut starts = progress.found.clone();
    let bound = || progress.last.iter().flat_map(|binding| &binding.partitions);
    let topics: BTreeSet<u16> = bound().map(|(partition, _)| partition.topic).collect();
    for (partition, first_offset) in &mut starts {
        if topics.contains(&partition.topic) {
            *first_offset = 0;
        }
    }
    starts.extend(bound().map(|(partition, range)| (*partition, range.next_offset)));
    starts
}

/// What another process fetched has aged since we heard of it.
fn heard_of(
    (partition, (heard, fetched)): (&TopicPartition, &(Instant, Fetched)),
) -> (TopicPartition, Fetched) {
    let since_ms = u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX);
    let age_ms = fetched.age_ms.map(|age_ms| age_ms.saturating_add(since_ms));
    (*partition, Fetched { age_ms, ..*fetched })
}

/// Which topics are read: those that are bound, whatever is there now.
fn topic_ids(progress: &Progress) -> TopicIds {
    let mut topic_ids = progress.topic_ids.clone();
    topic_ids.extend(progress.last.iter().flat_map(|binding| binding.topic_ids.clone()));
    topic_ids
}

/// The worker that reads a partition: partitions of one topic spread over all workers.
#[must_use]
pub fn owner(partition: TopicPartition, workers: usize) -> usize {
    let number = usize::try_from(partition.partition).unwrap_or_default();
    (number + usize::from(partition.topic)) % workers
}
