//! At the end of which epochs snapshots are taken.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use citycell_schemas::Epoch;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    kafka::binding_log::LoggedBinding,
    snapshot::{KeeperNotice, PipelineState},
};

use super::reached::ReachedTimes;

/// How often snapshots are taken, and who makes manifests of them.
#[derive(Clone)]
pub struct SnapshotPace {
    /// From one to the next.
    pub every: Duration,
    /// Makes manifests of them.
    pub keeper: UnboundedSender<KeeperNotice>,
}

/// The snapshots of the pipelines that are handed the same bindings.
pub(crate) struct Snapshots {
    pace: Option<SnapshotPace>,
    pipelines: Range<usize>,
    /// The epoch of the newest state that one of them starts with.
    after: Option<Epoch>,
    taking: Option<Taking>,
    since: Option<Instant>,
}

/// A snapshot on its way.
struct Taking {
    logged: LoggedBinding,
    /// Whether the keeper knows of it.
    begun: bool,
}

impl Snapshots {
    pub(crate) fn new(
        pace: Option<SnapshotPace>,
        pipelines: Range<usize>,
        known: &BTreeMap<usize, PipelineState>,
    ) -> Self {
        let after = known.values().map(|state| state.epoch).max();
        let pace = pace.filter(|_| !pipelines.is_empty());
        Self { pace, pipelines, after, taking: None, since: None }
    }

    /// Decides whether a snapshot is taken at the end of an epoch that is handed out: it is time, the
    /// one before is written, and no pipeline starts later.
    pub(crate) fn decide(&mut self, logged: &mut LoggedBinding) {
        let Some(pace) = &self.pace else { return };
        logged.binding.snapshot = self.taking.is_none()
            && self.since.is_none_or(|since| since.elapsed() >= pace.every)
            && Some(logged.binding.epoch) > self.after;
        if logged.binding.snapshot {
            self.taking = Some(Taking { logged: logged.clone(), begun: false });
            self.since = Some(Instant::now());
        }
    }

    /// Tells the keeper what an epoch's snapshot is as of, once the epoch is decoded and nothing
    /// later is.
    pub(crate) fn decoded(&mut self, epoch: Epoch, reached: &ReachedTimes, topics: &[Arc<str>]) {
        let Some(pace) = &self.pace else { return };
        let due = |taking: &&mut Taking| !taking.begun && taking.logged.binding.epoch == epoch;
        let Some(Taking { logged, begun }) = self.taking.as_mut().filter(due) else { return };
        let of_pipeline = |index| (index, reached.by_topic(index, topics));
        let notice = KeeperNotice::Begun {
            epoch,
            json: logged.binding.to_value(topics),
            binding_offset: logged.offset,
            reached: self.pipelines.clone().map(of_pipeline).collect(),
        };
        // A keeper that is gone was fenced out, and then no snapshot of ours is wanted.
        let _ = pace.keeper.send(notice);
        *begun = true;
    }

    /// All workers' files of the snapshot at the end of this epoch are durable.
    pub(crate) fn written(&mut self, epoch: Epoch) {
        self.taking.take_if(|taking| taking.logged.binding.epoch <= epoch);
    }

    /// A pipeline that runs no more: its state is not kept any longer.
    pub(crate) fn retire(&self, pipeline: usize) {
        if let Some(pace) = &self.pace {
            // As above.
            let _ = pace.keeper.send(KeeperNotice::Retired { pipeline });
        }
    }
}
