//! How far each pipeline has come in event time, by partition.

use std::{collections::BTreeMap, sync::Arc};

use citycell_schemas::EventTime;

use crate::{
    kafka::TopicPartition,
    snapshot::{PipelineState, Reached},
};

/// The newest accepted event time of each pipeline and partition; pipelines by their index.
#[derive(Debug, Default)]
pub(crate) struct ReachedTimes(BTreeMap<(usize, TopicPartition), EventTime>);

impl ReachedTimes {
    /// What the partitions had shown each pipeline by the epoch of its state.
    pub(crate) fn of_states(states: &BTreeMap<usize, PipelineState>, topics: &[Arc<str>]) -> Self {
        let mut reached = BTreeMap::new();
        for (index, state) in states {
            for (topic, name) in (0u16..).zip(topics) {
                for (partition, time) in state.reached.get(&**name).into_iter().flatten() {
                    let partition = TopicPartition { topic, partition: *partition };
                    reached.insert((*index, partition), *time);
                }
            }
        }
        Self(reached)
    }

    pub(crate) fn raise(&mut self, pipeline: usize, partition: TopicPartition, time: EventTime) {
        let newest = self.0.entry((pipeline, partition)).or_insert(EventTime::MIN);
        *newest = time.max(*newest);
    }

    pub(crate) fn get(&self, pipeline: usize, partition: TopicPartition) -> Option<EventTime> {
        self.0.get(&(pipeline, partition)).copied()
    }

    /// What a pipeline's partitions have shown, by the topics' names.
    pub(crate) fn by_topic(&self, pipeline: usize, topics: &[Arc<str>]) -> Reached {
        let mut by_topic = Reached::new();
        for ((index, partition), time) in &self.0 {
            if *index == pipeline {
                let topic = topics[usize::from(partition.topic)].to_string();
                by_topic.entry(topic).or_default().push((partition.partition, *time));
            }
        }
        by_topic
    }
}
