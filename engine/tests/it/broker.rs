//! The real broker that tests run against.

use std::time::Duration;

use citycell::kafka::{KafkaSettings, partitions::PartitionFinder};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

/// The broker named in `CITYCELL_KAFKA`.
pub(crate) fn settings() -> KafkaSettings {
    let brokers = std::env::var("CITYCELL_KAFKA")
        .expect("CITYCELL_KAFKA names no broker: run `make kafka-start` and `make test`");
    KafkaSettings::new(brokers)
}

/// A name that no other test and no earlier run uses.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:016x}", rand::random::<u64>())
}

/// Creates a topic that keeps its records, however old they say they are, and takes large ones.
pub(crate) async fn create_topic(topic: &str, partitions: i32) {
    create_topic_at(&settings().brokers, topic, partitions).await;
}

/// The same on another broker.
pub(crate) async fn create_topic_at(brokers: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
        .set("retention.ms", "-1")
        .set("max.message.bytes", "16777216");
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", settings().brokers).create().unwrap()
}

/// Removes the records of a partition before this offset, as retention would.
pub(crate) async fn delete_before(topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
}

/// Deletes a topic and waits until it is gone.
pub(crate) async fn delete_topic(topic: &str) {
    admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    let finder = PartitionFinder::new(&settings()).unwrap();
    while !finder.find(&[topic.to_owned()]).unwrap().partitions.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Gives a topic this many partitions.
pub(crate) async fn add_partitions(topic: &str, partitions: usize) {
    let new = NewPartitions::new(topic, partitions);
    let made = admin().create_partitions([&new], &AdminOptions::new()).await.unwrap();
    made[0].as_ref().unwrap();
}

/// Sends payloads to partitions and waits until the broker has them.
pub(crate) struct Sender(ThreadedProducer<DefaultProducerContext>);

impl Sender {
    pub(crate) fn new() -> Self {
        Self::at(&settings().brokers)
    }

    pub(crate) fn at(brokers: &str) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("queue.buffering.max.messages", "1000000")
            .set("message.max.bytes", "16000000")
            // Retries keep the order of records, and with it their offsets.
            .set("enable.idempotence", "true")
            .create()
            .unwrap();
        Self(producer)
    }

    pub(crate) fn send(&self, topic: &str, partition: i32, payload: Option<&[u8]>) {
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
        record.payload = payload;
        self.post(record);
    }

    /// Sends a record with whatever it carries.
    pub(crate) fn post(&self, record: BaseRecord<'_, (), [u8]>) {
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    pub(crate) fn flush(&self) {
        self.0.flush(Duration::from_secs(60)).unwrap();
    }
}
