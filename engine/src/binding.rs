//! A binding fixes an epoch: which records it holds and what was decided on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, EventTime};
use serde::{Deserialize, Serialize};

use crate::kafka::{TopicIds, TopicPartition};

/// The records of one partition that belong to one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// The first offset that may belong to it.
    pub from_offset: i64,
    /// The first offset that does not.
    pub next_offset: i64,
    /// Whether the partition had nothing to say and does not hold the watermark back.
    pub idle: bool,
    /// If offsets before `from_offset` were lost and skipped, the first of them.
    #[serde(default)]
    pub skipped_from: Option<i64>,
}

/// One epoch, fixed before any row of it leaves the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The epoch.
    pub epoch: Epoch,
    /// Timers run on this: min(epoch, broker time of the oldest unread record), never going back.
    pub bound_time_ms: i64,
    /// The bound time of the epoch before; `i64::MIN` at the first.
    pub previous_bound_time_ms: i64,
    /// Which records of each partition.
    pub partitions: BTreeMap<TopicPartition, PartitionRange>,
    /// How far each partition was read of topics that no pipeline reads now: whoever comes back to
    /// one reads on from there.
    pub left: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Which topics these are, also those that are not read now; unknown of a broker that has no ids.
    pub topic_ids: TopicIds,
    /// What each pipeline had seen of event time in all epochs before this one, also those that do
    /// not run now.
    pub watermarks: BTreeMap<String, EventTime>,
    /// The version of each pipeline: a hash over its plan, its schema and the grid.
    pub versions: BTreeMap<String, String>,
    /// The version of the grid.
    pub grid: String,
    /// Whether a snapshot is taken at its end. This is no part of what is kept: it is decided anew
    /// each time the epoch is handed out, and changes no number.
    pub snapshot: bool,
    /// The epoch of each pipeline's state that this engine started with: all processes must have
    /// started with the same. No part of what is kept either.
    pub started_at: Arc<BTreeMap<String, Epoch>>,
    /// The versions that run no more since others have taken their place, by index. No part of what
    /// is kept either.
    pub retired: Arc<BTreeSet<usize>>,
}

impl Binding {
    /// What the operators of `pipeline` learn of this epoch.
    #[must_use]
    pub fn tick(&self, pipeline: &str) -> Tick {
        Tick {
            epoch: self.epoch,
            bound_time_ms: self.bound_time_ms,
            previous_bound_time_ms: self.previous_bound_time_ms,
            watermark: self.watermarks.get(pipeline).copied().unwrap_or(EventTime::MIN),
            snapshot: self.snapshot,
        }
    }

    /// The binding as JSON, topics by name.
    #[must_use]
    pub fn to_value(&self, topics: &[impl AsRef<str>]) -> serde_json::Value {
        let mut by_topic: BTreeMap<&str, Vec<(i32, PartitionRange)>> = BTreeMap::new();
        for (partition, range) in &self.partitions {
            let name = topics[usize::from(partition.topic)].as_ref();
            by_topic.entry(name).or_default().push((partition.partition, *range));
        }
        let record = Record {
            epoch: self.epoch,
            bound_time_ms: self.bound_time_ms,
            previous_bound_time_ms: self.previous_bound_time_ms,
            partitions: by_topic
                .into_iter()
                .map(|(topic, ranges)| (topic.to_owned(), ranges))
                .collect(),
            left: self.left.clone(),
            topic_ids: self.topic_ids.clone(),
            watermarks: self.watermarks.clone(),
            versions: self.versions.clone(),
            grid: self.grid.clone(),
        };
        serde_json::to_value(&record).expect("maps with text keys are always JSON")
    }

    /// Reads what [`Self::to_value`] made as text; of topics that are not read it keeps only how far
    /// they were.
    ///
    /// # Errors
    /// When the bytes are no binding.
    pub fn from_json(bytes: &[u8], topics: &[impl AsRef<str>]) -> Result<Self, serde_json::Error> {
        Self::from_value(&serde_json::from_slice(bytes)?, topics)
    }

    /// Reads what [`Self::to_value`] made; of topics that are not read it keeps only how far they
    /// were.
    ///
    /// # Errors
    /// When the value is no binding.
    pub fn from_value(
        value: &serde_json::Value,
        topics: &[impl AsRef<str>],
    ) -> Result<Self, serde_json::Error> {
        let mut record = Record::deserialize(value)?;
        let mut partitions = BTreeMap::new();
        let mut left = record.left;
        for (topic, index) in topics.iter().zip(0u16..) {
            let at = |partition| TopicPartition { topic: index, partition };
            for (partition, next) in left.remove(topic.as_ref()).into_iter().flatten() {
                let nothing = PartitionRange {
                    from_offset: next,
                    next_offset: next,
                    idle: true,
                    skipped_from: None,
                };
                partitions.insert(at(partition), nothing);
            }
            for (partition, range) in record.partitions.remove(topic.as_ref()).unwrap_or_default() {
                partitions.insert(at(partition), range);
            }
        }
        for (topic, ranges) in record.partitions {
            let ends = ranges.into_iter().map(|(partition, range)| (partition, range.next_offset));
            left.insert(topic, ends.collect());
        }
        Ok(Self {
            epoch: record.epoch,
            bound_time_ms: record.bound_time_ms,
            previous_bound_time_ms: record.previous_bound_time_ms,
            partitions,
            left,
            topic_ids: record.topic_ids,
            watermarks: record.watermarks,
            versions: record.versions,
            grid: record.grid,
            snapshot: false,
            started_at: Arc::default(),
            retired: Arc::default(),
        })
    }
}

/// The form that is kept: topics by name, since their numbers change with the pipelines.
#[derive(Serialize, Deserialize)]
struct Record {
    epoch: Epoch,
    bound_time_ms: i64,
    previous_bound_time_ms: i64,
    partitions: BTreeMap<String, Vec<(i32, PartitionRange)>>,
    /// Bindings were kept without before there was a reader who left.
    #[serde(default)]
    left: BTreeMap<String, BTreeMap<i32, i64>>,
    #[serde(default)]
    topic_ids: TopicIds,
    watermarks: BTreeMap<String, EventTime>,
    versions: BTreeMap<String, String>,
    grid: String,
}
