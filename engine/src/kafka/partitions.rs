//! Which partitions there are.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    metadata::MetadataTopic,
    types::RDKafkaRespErr,
};

use super::{
    BrokerKind, KafkaSettings,
    ask::{TopicIds, topic_ids},
    complaints::Complaints,
};

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

/// What there is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The partitions.
    pub partitions: BTreeMap<TopicPartition, PartitionEnds>,
    /// Which topics they are of.
    pub topic_ids: TopicIds,
}

/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// No broker answers, or none lets us in: its operators' to correct, or ours.
#[derive(Debug, thiserror::Error)]
#[error("{complaint}")]
pub struct Unreachable {
    /// What librdkafka says of a broker, by its address.
    pub complaint: String,
    /// What the call that needed it says.
    #[source]
    pub source: KafkaError,
}

/// Asks the brokers for partitions and their ends.
pub struct PartitionFinder {
    consumer: BaseConsumer<Complaints>,
    complaints: Complaints,
    broker: BrokerKind,
}

impl PartitionFinder {
    /// A client that only asks.
    ///
    /// # Errors
    /// When a setting is wrong; an unreachable broker shows at the first question.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let complaints = Complaints::default();
        let defaults = [("group.id", "citycell-finder"), ("allow.auto.create.topics", "false")];
        let consumer = settings.create(&defaults, complaints.clone())?;
        Ok(Self { consumer, complaints, broker: settings.broker })
    }

    /// Waits until a broker answers.
    ///
    /// # Errors
    /// When none does within a few seconds.
    pub fn reach(&self) -> Result<(), Unreachable> {
        let answer = self.consumer.fetch_metadata(Some("__consumer_offsets"), TIMEOUT);
        answer.map(drop).map_err(|source| {
            self.hear_complaints();
            let complaint = self.complaints.first().unwrap_or_else(|| "no broker answers".into());
            Unreachable { complaint, source }
        })
    }

    /// Complaints wait in the client's queue until somebody looks, among whatever else is logged.
    fn hear_complaints(&self) {
        const LOOKS_MAX: usize = 100;
        for _ in 0..LOOKS_MAX {
            // What it returns was said in a complaint.
            let _ = self.consumer.poll(Duration::from_millis(2));
            if self.complaints.first().is_some() {
                return;
            }
        }
    }

    /// The first of these topics that we may not even see; one that is not there may come later.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn forbidden<'topic>(
        &self,
        topics: impl IntoIterator<Item = &'topic str>,
    ) -> Result<Option<&'topic str>, KafkaError> {
        for topic in topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT)?;
            let error = metadata.topics().first().and_then(MetadataTopic::error);
            if error == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
                return Ok(Some(topic));
            }
        }
        Ok(None)
    }

    /// The partitions of those topics that exist, each with its ends.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn find(&self, topics: &[String]) -> Result<Found, KafkaError> {
        let before = self.ids(topics)?;
        let mut partitions = BTreeMap::new();
        for (index, topic) in (0u16..).zip(topics) {
            let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT)?;
            let Some(topic_metadata) = metadata.topics().first() else { continue };
            if topic_metadata.error().is_some() {
                continue;
            }
            for partition in topic_metadata.partitions().iter().map(|partition| partition.id()) {
                let (first_offset, end_offset) =
                    self.consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
                let ends = PartitionEnds { first_offset, end_offset };
                partitions.insert(TopicPartition { topic: index, partition }, ends);
            }
        }
        // Of a topic that is made again just now, the next look finds one thing.
        let topic_ids = self.ids(topics)?;
        partitions.retain(|partition, _| {
            let topic = &topics[usize::from(partition.topic)];
            before.get(topic) == topic_ids.get(topic)
        });
        Ok(Found { partitions, topic_ids })
    }

    /// The ids of those topics that exist, if the broker knows any.
    fn ids(&self, topics: &[String]) -> Result<TopicIds, KafkaError> {
        if self.broker == BrokerKind::Embedded {
            return Ok(TopicIds::new());
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ids = topic_ids(self.consumer.client(), &names)?.into_iter();
        Ok(ids.filter_map(|(topic, id)| Some((topic, id?))).collect())
    }
}
