//! Which partitions there are.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::KafkaSettings;

/// A partition of the deployment: the topic as an index into its sorted topic names.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct TopicPartition {
    /// The topic's index among the sorted topic names of the deployment.
    pub topic: u16,
    /// The partition's number.
    pub partition: i32,
}

/// The offsets a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    /// The first readable offset.
    pub first_offset: i64,
    /// The offset that the next record will have.
    pub end_offset: i64,
}

/// Asks the brokers for partitions and their ends.
pub struct PartitionFinder {
    consumer: BaseConsumer,
    timeout: Duration,
}

impl PartitionFinder {
    /// A client that only asks.
    ///
    /// # Errors
    /// When a setting is wrong; an unreachable broker shows at the first question.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let consumer = settings
            .client(&[("group.id", "citycell-finder"), ("allow.auto.create.topics", "false")])
            .create()?;
        Ok(Self { consumer, timeout: Duration::from_secs(5) })
    }

    /// Waits until a broker answers.
    ///
    /// # Errors
    /// When none does within a few seconds.
    pub fn reach(&self) -> Result<(), KafkaError> {
        self.consumer.fetch_metadata(Some("__consumer_offsets"), self.timeout).map(drop)
    }

    /// The partitions of those topics that exist, each with its ends.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn find(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<TopicPartition, PartitionEnds>, KafkaError> {
        let mut found = BTreeMap::new();
        for (index, topic) in (0u16..).zip(topics) {
            let metadata = self.consumer.fetch_metadata(Some(topic), self.timeout)?;
            let Some(topic_metadata) = metadata.topics().first() else { continue };
            if topic_metadata.error().is_some() {
                continue;
            }
            for partition in topic_metadata.partitions().iter().map(|partition| partition.id()) {
                let (first_offset, end_offset) =
                    self.consumer.fetch_watermarks(topic, partition, self.timeout)?;
                let ends = PartitionEnds { first_offset, end_offset };
                found.insert(TopicPartition { topic: index, partition }, ends);
            }
        }
        Ok(found)
    }
}
