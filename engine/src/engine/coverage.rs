//! Whether Kafka still has the records of the bound epochs that must be read again.
//!
//! Without a usable state a pipeline is computed from the first bound epoch on. If retention removed
//! records of such an epoch, its numbers would come out wrong, so the engine stops before it has
//! changed anything and says what is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use citycell_operators::lateness::Horizon;
use citycell_schemas::{Epoch, EventTime};
use jiff::Timestamp;

use crate::{
    binding::Binding,
    clickhouse::tables::PipelineTable,
    kafka::{
        TopicPartition,
        binding_log::BindingLog,
        partitions::{PartitionEnds, PartitionFinder},
    },
    pipeline::Pipeline,
    snapshot::{self, PipelineState, StartingPoint},
};

use super::{EngineConfig, EngineError, deployed::Deployed, start::kafka_error};

/// Records of bound epochs that Kafka no longer has and that must be read again.
#[derive(Debug, thiserror::Error)]
pub struct LostRecords {
    /// Where they were.
    pub partitions: Vec<LostPartition>,
    /// Whose numbers they belong to.
    pub pipelines: Vec<LostPipeline>,
    /// The pipelines that no usable state is known of.
    pub without_state: Vec<String>,
}

/// Offsets of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is needed.
    pub first_missing: i64,
    /// The first offset that there is.
    pub first_available: i64,
}

/// A pipeline that read some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPipeline {
    /// Its name.
    pub name: String,
    /// The start of the first window that they may count in; none if it began with them.
    pub from: Option<EventTime>,
    /// The end of the last one.
    pub to: EventTime,
}

/// Fails if records are missing that the engine would read again from `start` on, for the versions that
/// serve or for those that are built.
///
/// # Errors
/// [`EngineError::Uncovered`] if they are; Kafka's if it does not answer.
pub(super) fn check(
    config: &EngineConfig,
    log: &BindingLog,
    (deployed, start): (&Deployed, &StartingPoint),
) -> Result<(), EngineError> {
    let finder =
        PartitionFinder::new(&config.kafka).map_err(|source| kafka_error(config, source))?;
    let ends = finder.find(log.topics()).map_err(|source| kafka_error(config, source))?.partitions;
    let running: Vec<Running<'_>> = deployed.pipelines.iter().zip(&deployed.tables).collect();
    let (serving, building) = running.split_at(deployed.serving);
    for line in [serving, building].into_iter().filter(|line| !line.is_empty()) {
        let known = oldest_state(line, start);
        let mut lost = Lost::new(&ends);
        let bindings = match known {
            Some(state) => log.read_from(state.epoch, state.binding_offset)?,
            None => log.read()?,
        };
        for logged in bindings {
            let binding = logged?.binding;
            if known.is_none_or(|state| binding.epoch > state.epoch) {
                lost.look_at(&binding);
            }
            if lost.is_past(&binding) {
                break;
            }
        }
        if !lost.ranges.is_empty() {
            return Err(lost.describe(line, log.topics(), start).into());
        }
    }
    Ok(())
}

/// A version with its table.
type Running<'a> = (&'a Arc<Pipeline>, &'a Arc<PipelineTable>);

fn state_of<'a>((_, table): &Running<'_>, start: &'a StartingPoint) -> Option<&'a PipelineState> {
    let key = snapshot::key(&table.pipeline, &table.version);
    start.pipelines.get(&key).map(|restored| &restored.state)
}

/// The state from whose epoch on everything is read again; none if it is from the beginning.
fn oldest_state<'a>(line: &[Running<'_>], start: &'a StartingPoint) -> Option<&'a PipelineState> {
    let states: Option<Vec<_>> = line.iter().map(|running| state_of(running, start)).collect();
    states?.into_iter().min_by_key(|state| state.epoch)
}

/// What is missing, as the bindings go by.
struct Lost<'a> {
    ends: &'a BTreeMap<TopicPartition, PartitionEnds>,
    /// The first offset that is missing, the first that is not, and the epochs from the first to
    /// the last that miss some.
    ranges: BTreeMap<TopicPartition, (i64, i64, Epoch, Epoch)>,
    /// What each pipeline had seen of time before an epoch that misses something.
    watermarks: BTreeMap<Epoch, BTreeMap<String, EventTime>>,
}

impl<'a> Lost<'a> {
    fn new(ends: &'a BTreeMap<TopicPartition, PartitionEnds>) -> Self {
        Self { ends, ranges: BTreeMap::new(), watermarks: BTreeMap::new() }
    }

    fn look_at(&mut self, binding: &Binding) {
        for (partition, range) in &binding.partitions {
            let Some(ends) = self.ends.get(partition) else { continue };
            let first = ends.first_offset;
            if range.from_offset < range.next_offset && range.from_offset < first {
                let new = (range.from_offset, first, binding.epoch, binding.epoch);
                let lost = self.ranges.entry(*partition).or_insert(new);
                lost.3 = binding.epoch;
                if lost.2 == binding.epoch {
                    self.watermarks.insert(binding.epoch, binding.watermarks.clone());
                }
            }
        }
    }

    /// Whether nothing bound after this can be missing.
    fn is_past(&self, binding: &Binding) -> bool {
        self.ends.iter().all(|(partition, ends)| {
            let range = binding.partitions.get(partition);
            range.map_or(0, |range| range.next_offset) >= ends.first_offset
        })
    }

    fn describe(
        self,
        line: &[Running<'_>],
        topics: &[String],
        start: &StartingPoint,
    ) -> LostRecords {
        let partitions = self.ranges.iter();
        let partitions =
            partitions.map(|(partition, (first_missing, first_available, ..))| LostPartition {
                topic: topics[usize::from(partition.topic)].clone(),
                partition: partition.partition,
                first_missing: *first_missing,
                first_available: *first_available,
            });
        let mut pipelines = Vec::new();
        for (pipeline, _) in line {
            let name = &pipeline.plan.name;
            let read: BTreeSet<&str> = pipeline.plan.topics.iter().map(String::as_str).collect();
            let ours = self.ranges.iter().filter(|(partition, _)| {
                read.contains(topics[usize::from(partition.topic)].as_str())
            });
            let epochs = ours.map(|(_, (_, _, first, last))| (*first, *last));
            let Some((first, last)) =
                epochs.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
            else {
                continue;
            };
            let watermark = self.watermarks.get(&first).and_then(|all| all.get(name)).copied();
            // Whatever was read in an epoch was sent by then.
            let sent_ms = i64::try_from(last.0).unwrap_or(i64::MAX);
            let (from, to) = Horizon::of(&pipeline.plan)
                .times_in_time(watermark.unwrap_or(EventTime::MIN), sent_ms);
            pipelines.push(LostPipeline { name: name.clone(), from, to });
        }
        let without_state = line.iter().filter(|running| state_of(running, start).is_none());
        LostRecords {
            partitions: partitions.collect(),
            pipelines,
            without_state: without_state.map(|(pipeline, _)| pipeline.plan.name.clone()).collect(),
        }
    }
}

impl fmt::Display for LostRecords {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Kafka no longer has records that must be read again")?;
        if !self.without_state.is_empty() {
            let pipelines = self.without_state.join(", ");
            write!(to, ", since there is no usable snapshot of {pipelines}")?;
        }
        for lost in &self.partitions {
            let LostPartition { topic, partition, first_missing, first_available } = lost;
            write!(
                to,
                "; topic {topic} partition {partition} begins at offset {first_available}, \
                 needed from {first_missing} on"
            )?;
        }
        for LostPipeline { name, from, to: last } in &self.pipelines {
            let from = from.map_or_else(|| "the beginning".to_owned(), time);
            write!(to, "; {name}: windows from {from} to {} are at stake", time(*last))?;
        }
        write!(
            to,
            ". Nothing was changed. Put the snapshots back, or all of a backup (citycell restore), \
             or start under another --deployment and --database, which begins with what Kafka has"
        )
    }
}

fn time(time: EventTime) -> String {
    let known = Timestamp::from_millisecond(time.0);
    known.map_or_else(|_| format!("{} ms", time.0), |time| time.to_string())
}
