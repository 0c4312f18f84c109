//! What each pipeline's partitions have all reached.

use std::collections::BTreeMap;

use citycell_schemas::EventTime;

use crate::kafka::TopicPartition;

use super::{Binder, Progress};

/// The watermarks of the epoch that is bound next.
///
/// A partition at its end that brought a pipeline no accepted event for a while is idle for it: it
/// does not hold the pipeline back. Rejects and withdrawals are no sign of life, or a partition of
/// nothing else would stop the watermark for good.
///
/// Of two versions of a pipeline the one that serves decides.
pub(super) struct Watermarks<'a> {
    binder: &'a Binder,
    progress: &'a Progress,
    reached: Vec<Option<EventTime>>,
}

impl<'a> Watermarks<'a> {
    pub(super) fn new(binder: &'a Binder, progress: &'a Progress) -> Self {
        Self { binder, progress, reached: vec![None; binder.pipelines.len()] }
    }

    /// Lets `partition` hold back the pipelines that read it; true if it holds back none.
    pub(super) fn hold_back(&mut self, partition: TopicPartition, at_end: bool) -> bool {
        let mut idle = true;
        for (index, pipeline) in self.binder.leading(self.progress) {
            if !pipeline.topics.contains(&partition.topic)
                || (at_end && self.is_silent(index, partition))
            {
                continue;
            }
            idle = false;
            let newest = self.progress.reached.get(index, partition).unwrap_or(EventTime::MIN);
            let lowest = self.reached[index].get_or_insert(newest);
            *lowest = newest.min(*lowest);
        }
        idle
    }

    fn is_silent(&self, pipeline: usize, partition: TopicPartition) -> bool {
        let accepted = self.progress.accepted.get(&(pipeline, partition)).copied();
        self.progress.watch.is_silent(partition, accepted, self.binder.limits.idle_after)
    }

    /// The watermark of each pipeline; it never goes back, nor while a pipeline does not run.
    pub(super) fn finish(self) -> BTreeMap<String, EventTime> {
        let last = self.progress.last.as_ref();
        let mut watermarks = last.map_or_else(BTreeMap::new, |last| last.watermarks.clone());
        for (index, pipeline) in self.binder.leading(self.progress) {
            let watermark = watermarks.entry(pipeline.name.clone()).or_insert(EventTime::MIN);
            *watermark = self.reached[index].unwrap_or(*watermark).max(*watermark);
        }
        watermarks
    }
}
