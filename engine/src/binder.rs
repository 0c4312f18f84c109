//! Cuts the streams into epochs.
//!
//! At each tick the binder fixes how far every partition is read, what lateness is judged by and
//! what timers run on, makes that durable, and only then lets the dataflow see it. After a restart
//! it first hands out the epochs that were bound before, as they were bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use citycell_schemas::{Epoch, EventTime};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::{
    binding::{Binding, PartitionRange},
    dataflow::source::Waker,
    http::Readiness,
    kafka::{
        TopicPartition,
        binding_log::{BindingLog, BindingLogError},
        reader::{Fetched, Reader},
    },
    metrics::Metrics,
};

/// What the binder hears from the rest of the engine.
#[derive(Debug)]
pub enum Notice {
    /// All records of an epoch are decoded: the newest accepted event time by pipeline and
    /// partition.
    Decoded(Epoch, Vec<(usize, TopicPartition, EventTime)>),
    /// A pipeline's mark of an epoch is acknowledged.
    Marked(Epoch, usize),
    /// Partitions that exist, each with its first readable offset.
    Found(BTreeMap<TopicPartition, i64>),
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
    /// Epochs that may be bound and not yet marked: beyond this the binder waits.
    pub unmarked_max: usize,
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
    /// The readers of all workers.
    pub readers: Vec<Arc<Reader>>,
    /// What the rest of the engine says.
    pub notices: Receiver<Notice>,
    /// The way into the dataflow.
    pub hand_out: HandOut,
    /// What we show of ourselves.
    pub metrics: Metrics,
    /// Whether we keep up.
    pub readiness: Readiness,
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
    active: BTreeMap<TopicPartition, Instant>,
    last: Option<Binding>,
    drain_since_ms: Option<i64>,
    draining: bool,
    stopped: bool,
}

impl Binder {
    /// Hands out what was bound before, then binds a new epoch at every tick.
    ///
    /// # Errors
    /// When the log cannot be read or written; [`BindingLogError::Fenced`] when another engine has
    /// taken over.
    pub fn run(self) -> Result<(), BindingLogError> {
        let mut progress = Progress::default();
        for binding in self.log.read()? {
            self.wait_for_room(&mut progress);
            if progress.stopped {
                return Ok(());
            }
            self.release(binding?, &mut progress);
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
            let binding = self.bind(&mut progress);
            self.log.append(&binding)?;
            self.release(binding, &mut progress);
            self.readiness.set(progress.unmarked.len() < self.limits.unmarked_max);
        }
        self.readiness.set(false);
        Ok(())
    }

    fn release(&self, binding: Binding, progress: &mut Progress) {
        let waiting = (0..self.pipelines.len()).collect();
        progress.unmarked.insert(binding.epoch, (Instant::now(), waiting));
        progress.last = Some(binding.clone());
        self.metrics.bound(progress.unmarked.len());
        self.hand_out.send(binding);
    }

    /// Sleeps to the next multiple of the tick and until the epoch before is decoded, whose event
    /// times this epoch's lateness is judged by.
    fn wait_for_tick(&self, progress: &mut Progress) {
        let tick_ms = u64::try_from(self.limits.tick.as_millis()).unwrap_or(u64::MAX).max(1);
        let due = Instant::now() + Duration::from_millis(tick_ms - now_ms() % tick_ms);
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
        while !progress.stopped && progress.unmarked.len() >= self.limits.unmarked_max {
            self.listen(progress, Duration::from_millis(50));
        }
        self.listen(progress, Duration::ZERO);
    }

    fn wait_for_marks(&self, progress: &mut Progress) {
        while !progress.stopped && !progress.unmarked.is_empty() {
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
            Notice::Decoded(epoch, reached) => {
                progress.decoded = progress.decoded.max(Some(epoch));
                for (pipeline, partition, time) in reached {
                    let newest =
                        progress.reached.entry((pipeline, partition)).or_insert(EventTime::MIN);
                    *newest = time.max(*newest);
                }
            }
            Notice::Marked(epoch, pipeline) => {
                let Some((since, waiting)) = progress.unmarked.get_mut(&epoch) else { return };
                waiting.remove(&pipeline);
                if waiting.is_empty() {
                    let took = since.elapsed();
                    progress.unmarked.remove(&epoch);
                    self.metrics.epoch_marked(took, progress.unmarked.len());
                }
            }
            Notice::Found(partitions) => progress.found.extend(partitions),
            Notice::Drain => progress.draining = true,
            Notice::Stop => progress.stopped = true,
        }
    }

    fn bind(&self, progress: &mut Progress) -> Binding {
        let fetched = self.fetched(progress);
        let previous = progress.last.as_ref();
        let epoch = Epoch(now_ms().max(previous.map_or(0, |binding| binding.epoch.0 + 1)));
        let previous_bound_time_ms = previous.map_or(i64::MIN, |binding| binding.bound_time_ms);
        let mut partitions = BTreeMap::new();
        let mut bound_time_ms = i64::try_from(epoch.0).unwrap_or(i64::MAX);
        for (partition, from_offset) in starts(progress) {
            let state = fetched.get(&partition);
            let next_offset = state.map_or(from_offset, |state| state.next_offset.max(from_offset));
            let at_end = state.is_some_and(|state| state.at_end);
            if next_offset > from_offset || !at_end {
                progress.active.insert(partition, Instant::now());
            }
            if !at_end {
                let oldest = state.and_then(|state| state.last_broker_time_ms);
                bound_time_ms = bound_time_ms.min(oldest.unwrap_or(i64::MIN));
            }
            let active = progress.active.get(&partition);
            let idle =
                at_end && active.is_none_or(|active| active.elapsed() >= self.limits.idle_after);
            partitions.insert(partition, PartitionRange { from_offset, next_offset, idle });
        }
        Binding {
            epoch,
            bound_time_ms: bound_time_ms.max(previous_bound_time_ms),
            previous_bound_time_ms,
            watermarks: self.watermarks(&partitions, progress),
            partitions,
            versions: self
                .pipelines
                .iter()
                .map(|pipeline| (pipeline.name.clone(), pipeline.version.clone()))
                .collect(),
            grid: self.grid.clone(),
        }
    }

    /// How far each partition is read ahead; newly found ones begin to be read.
    fn fetched(&self, progress: &Progress) -> BTreeMap<TopicPartition, Fetched> {
        for (partition, from_offset) in starts(progress) {
            self.readers[owner(partition, self.readers.len())].assign(partition, from_offset);
        }
        let fetched: BTreeMap<_, _> =
            self.readers.iter().flat_map(|reader| reader.fetched()).collect();
        self.metrics.buffered(self.readers.iter().map(|reader| reader.buffered_bytes()).sum());
        fetched
    }

    /// What each pipeline's partitions have all reached; a watermark never goes back.
    fn watermarks(
        &self,
        partitions: &BTreeMap<TopicPartition, PartitionRange>,
        progress: &Progress,
    ) -> BTreeMap<String, EventTime> {
        let watermark = |(index, pipeline): (usize, &BoundPipeline)| {
            let before = progress
                .last
                .as_ref()
                .and_then(|binding| binding.watermarks.get(&pipeline.name).copied())
                .unwrap_or(EventTime::MIN);
            let reached = partitions
                .iter()
                .filter(|(partition, range)| {
                    pipeline.topics.contains(&partition.topic) && !range.idle
                })
                .map(|(partition, _)| {
                    progress.reached.get(&(index, *partition)).copied().unwrap_or(EventTime::MIN)
                })
                .min();
            (pipeline.name.clone(), reached.unwrap_or(before).max(before))
        };
        self.pipelines.iter().enumerate().map(watermark).collect()
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
        let published = self.pipelines.iter().all(|pipeline| {
            let every = pipeline.publish_every_ms.max(1);
            last.bound_time_ms.div_euclid(every) > since.div_euclid(every)
        });
        published
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

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
