//! The embedded broker: librdkafka's in-process cluster, which speaks Kafka's protocol.
//!
//! It keeps 5 MB and 100,000 batches per partition and drops the oldest beyond that; whoever writes
//! to it has to wait for its readers. It cannot be asked to create topics over the protocol, so
//! those that there will be are named at the start.

use rdkafka::{error::KafkaResult, mocking::MockCluster, producer::DefaultProducerContext};

use crate::kafka::{BrokerKind, KafkaSettings};

/// A broker that lives as long as this value, in this process and in memory.
pub(super) struct EmbeddedBroker(MockCluster<'static, DefaultProducerContext>);

impl EmbeddedBroker {
    /// Starts it with these topics and their numbers of partitions.
    pub(super) fn start<'a>(topics: impl IntoIterator<Item = (&'a str, i32)>) -> KafkaResult<Self> {
        let cluster = MockCluster::new(1)?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(Self(cluster))
    }

    /// How to reach it.
    pub(super) fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            broker: BrokerKind::Embedded,
            ..KafkaSettings::new(self.0.bootstrap_servers())
        }
    }
}
