//! Hands bindings to the versions that are built beside those that serve.
//!
//! They get what was bound from the log, from the beginning or from their state on, and then what is
//! bound meanwhile, so that they catch up and stay. The binder does not wait for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use citycell_schemas::Epoch;
use crossbeam_channel::{Receiver, Sender};

use crate::{
    alarm::Alarm,
    binder::{BoundPipeline, HandOut, Notice, ReachedTimes, SnapshotPace, Snapshots, oldest},
    kafka::binding_log::{BindingLogError, BindingTail, LoggedBinding},
    snapshot::PipelineState,
};

/// Follows the log of bindings until it is told to stop.
pub struct Follower {
    /// The bindings, from the oldest state on that a version starts with.
    pub log: BindingTail,
    /// The topics' names, sorted.
    pub topics: Arc<[Arc<str>]>,
    /// The versions that are built, by index.
    pub pipelines: BTreeMap<usize, BoundPipeline>,
    /// Epochs that may be handed out and not yet marked.
    pub unmarked_max: usize,
    /// What the rest of the engine says.
    pub notices: Receiver<Notice>,
    /// To the binder.
    pub binder: Sender<Notice>,
    /// The way into the dataflow.
    pub hand_out: HandOut,
    /// When snapshots are taken; never if not said.
    pub snapshots: Option<SnapshotPace>,
    /// The epoch of each version's state that it started with.
    pub started_at: Arc<BTreeMap<String, Epoch>>,
    /// The state of each version that was known at the start, by index.
    pub known: BTreeMap<usize, PipelineState>,
    /// Ends the engine if this panics, and ends this with the engine.
    pub alarm: Alarm,
}

/// What changes from epoch to epoch.
struct Progress {
    reached: ReachedTimes,
    snapshots: Snapshots,
    /// The epochs that wait for marks, and whose.
    unmarked: BTreeMap<Epoch, BTreeSet<usize>>,
    last: Option<Epoch>,
    /// What the binder knows of.
    told: Option<Epoch>,
    stopped: bool,
}

impl Follower {
    /// Follows the log; a log that cannot be read ends the engine.
    pub fn run(mut self) {
        if let Err(error) = self.follow() {
            self.alarm.ring(error.into());
        }
    }

    fn follow(&mut self) -> Result<(), BindingLogError> {
        let indices = self.pipelines.keys();
        let first = indices.clone().next().copied().unwrap_or_default();
        let range = first..first + self.pipelines.len();
        let mut progress = Progress {
            reached: ReachedTimes::of_states(&self.known, &self.topics),
            snapshots: Snapshots::new(self.snapshots.clone(), range, &self.known),
            unmarked: BTreeMap::new(),
            last: oldest(&self.known, self.pipelines.len()).map(|(epoch, _)| epoch),
            told: None,
            stopped: false,
        };
        while !progress.stopped && !self.alarm.is_stopped() {
            if progress.unmarked.len() >= self.unmarked_max {
                self.listen(&mut progress, Duration::from_millis(50));
                continue;
            }
            let next = self.log.poll(Duration::from_millis(20)).transpose()?;
            if let Some(logged) = next.filter(|next| Some(next.binding.epoch) > progress.last) {
                self.release(logged, &mut progress);
            }
            self.listen(&mut progress, Duration::ZERO);
        }
        Ok(())
    }

    fn release(&self, mut logged: LoggedBinding, progress: &mut Progress) {
        let is_read = |topic| self.pipelines.values().any(|one| one.topics.contains(&topic));
        progress.snapshots.decide(&mut logged);
        let LoggedBinding { mut binding, .. } = logged;
        binding.started_at = Arc::clone(&self.started_at);
        binding.partitions.retain(|partition, _| is_read(partition.topic));
        progress.last = Some(binding.epoch);
        progress.unmarked.insert(binding.epoch, self.pipelines.keys().copied().collect());
        self.hand_out.send(binding);
    }

    fn listen(&self, progress: &mut Progress, timeout: Duration) {
        let mut next = self.notices.recv_timeout(timeout).ok();
        while let Some(notice) = next {
            self.hear(notice, progress);
            next = self.notices.try_recv().ok();
        }
        let done = progress.unmarked.first_key_value();
        let done = done.map_or(progress.last, |(oldest, _)| Some(Epoch(oldest.0 - 1)));
        if let Some(done) = done.filter(|_| progress.told < done) {
            progress.told = Some(done);
            self.tell(Notice::FollowedTo(done));
        }
    }

    fn hear(&self, notice: Notice, progress: &mut Progress) {
        match notice {
            Notice::Decoded { epoch, reached, .. } => {
                for (pipeline, partition, time) in &reached {
                    progress.reached.raise(*pipeline, *partition, *time);
                }
                progress.snapshots.decoded(epoch, &progress.reached, &self.topics);
                self.tell(Notice::Followed(reached));
            }
            Notice::Marked(epoch, pipeline) => {
                if let Some(waiting) = progress.unmarked.get_mut(&epoch) {
                    waiting.remove(&pipeline);
                    if waiting.is_empty() {
                        progress.unmarked.remove(&epoch);
                    }
                }
            }
            Notice::SnapshotWritten(epoch) => progress.snapshots.written(epoch),
            Notice::Stop => progress.stopped = true,
            _ => {}
        }
    }

    fn tell(&self, notice: Notice) {
        // A binder that is gone is stopping the engine.
        let _ = self.binder.send(notice);
    }
}
