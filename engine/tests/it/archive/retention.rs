//! What is no longer there by rule is no hole: records that the archive kept long enough, and those
//! that Kafka's compaction removed.

use std::time::{Duration, Instant};

use citycell::{
    audit::{Audit, Outcome},
    clickhouse::ClickHouse,
    engine::{self, EngineConfig},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use super::{ASKING_KAFKA, Deployment};
use crate::{
    broker::{self, unique},
    city::{crowd_flow, event},
    crowd::Crowd,
    restart::wait,
    store::TestStore,
};

const DAY: Duration = Duration::from_secs(86_400);

/// What `archive verify` finds; Kafka is asked, the log of bindings is not.
async fn faults(store: &TestStore) -> Vec<Outcome> {
    let audit = Audit::begin_archive(ClickHouse::new(&store.settings())).await.unwrap();
    let mut outcomes = Vec::new();
    let kafka = broker::settings();
    audit.check_archive(Some(&kafka), |outcome| outcomes.push(outcome)).await.unwrap();
    assert_eq!(outcomes.len(), 4);
    outcomes.retain(|outcome| outcome.first.is_some());
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_kept_long_enough_are_no_hole() {
    let deployment = Deployment::new("archive-expired").await;
    let Deployment { topic, store, .. } = &deployment;
    let mut crowd = Crowd::new(topic, 15, 30 * 60_000);
    for _ in 0..2 {
        let engine = engine::start(deployment.config(2)).await.unwrap();
        crowd.send(400);
        engine.drain();
        wait(engine).await;
    }

    // What an engine had left that read the first half of it two days ago.
    let split = store.lines("SELECT quantileExactLow(0.5)(epoch) FROM archive").await.remove(0);
    for (table, condition) in [("archive", "1"), ("epochs", "pipeline = 'archive'")] {
        let old = format!("{condition} AND epoch <= {split}");
        let two_days_ago = format!(
            "INSERT INTO {table} SELECT * REPLACE (epoch - 2 * 86400000 AS epoch) \
             FROM (SELECT * FROM {table} WHERE {old})"
        );
        store.execute(&two_days_ago).await;
        let moved = format!(
            "ALTER TABLE {table} DELETE WHERE {old} AND epoch > {split} - 86400000 \
             SETTINGS mutations_sync = 1"
        );
        store.execute(&moved).await;
    }
    assert_eq!(faults(store).await, []);
    let count = "SELECT count() FROM archive";
    let all: usize = store.lines(count).await[0].parse().unwrap();
    assert_eq!(all, crowd.sent());

    // From now on for a day only: what is older goes, and nobody misses it.
    let engine = engine::start(EngineConfig { archive: Some(DAY), ..deployment.config(1) });
    let engine = engine.await.unwrap();
    crowd.send(50);
    engine.drain();
    wait(engine).await;
    store.execute("OPTIMIZE TABLE archive FINAL").await;
    let old = format!("SELECT count() FROM archive WHERE epoch <= {split}");
    store.until(&old, "0").await;
    let left: usize = store.lines(count).await[0].parse().unwrap();
    assert!(left < all && left > 50, "{left} of {all}");
    assert_eq!(faults(store).await, []);
    deployment.is_whole(&[]);

    // A record that should still be there is missed all the same.
    let first = "SELECT min((partition, record_offset)) FROM archive";
    let delete = format!(
        "ALTER TABLE archive DELETE WHERE (partition, record_offset) = ({first}) \
         SETTINGS mutations_sync = 1"
    );
    store.execute(&delete).await;
    let found = faults(store).await;
    let checks: Vec<_> = found.iter().map(|outcome| outcome.check).collect();
    assert_eq!(checks, ["records", "offsets"], "{found:?}");

    // Where all of it has expired, there is nothing to miss.
    let earlier = "ALTER TABLE archive MODIFY TTL toDateTime(intDiv(epoch, 1000), 'UTC') \
                   + toIntervalSecond(1)";
    store.execute(earlier).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    store.execute("OPTIMIZE TABLE archive FINAL").await;
    store.until(count, "0").await;
    assert_eq!(faults(store).await, []);
}

/// A topic of which Kafka keeps the last record of each key.
async fn create_compacted(topic: &str) {
    let brokers = broker::settings().brokers;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("segment.ms", "100")
        .set("min.cleanable.dirty.ratio", "0.001")
        .set("delete.retention.ms", "0");
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

/// Sends this many events of five keys, a few at a time: a segment must be full before Kafka
/// compacts it.
async fn send_keyed(topic: &str, numbers: std::ops::Range<usize>) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker::settings().brokers)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for number in numbers {
        let payload = event(&number.to_string(), 0, 0, &format!("s{number}"), 1);
        let key = format!("key{}", number % 5);
        let record = BaseRecord::to(topic).partition(0).key(&key).payload(&payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        if number % 20 == 19 {
            producer.flush(Duration::from_secs(30)).unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// The offsets that Kafka still has.
fn offsets(topic: &str) -> Vec<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker::settings().brokers)
        .set("group.id", topic)
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let mut offsets = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(record)) => offsets.push(record.offset()),
            Some(Err(KafkaError::PartitionEOF(_))) => return offsets,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

/// Waits until Kafka has fewer than `most` records.
async fn compacted_below(topic: &str, most: usize) -> Vec<i64> {
    let started = Instant::now();
    loop {
        let left = offsets(topic);
        if left.len() < most {
            return left;
        }
        assert!(started.elapsed() < Duration::from_secs(150), "Kafka still has {}", left.len());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compaction_removed_is_no_hole_and_what_it_removes_later_is_kept() {
    let topic = unique("archive-compacted");
    create_compacted(&topic).await;
    let snapshots = tempfile::tempdir().unwrap();
    let deployment = Deployment { topic: topic.clone(), snapshots, store: TestStore::start() };
    let store = &deployment.store;
    let run = async || {
        let pipelines = vec![crowd_flow(&topic)];
        let engine = engine::start(EngineConfig { pipelines, ..deployment.config(2) });
        let engine = engine.await.unwrap();
        engine.drain();
        wait(engine).await;
    };
    let archived = "SELECT DISTINCT record_offset FROM archive ORDER BY ALL";

    // 1. Removed before it was read.
    send_keyed(&topic, 0..200).await;
    let left = compacted_below(&topic, 150).await;
    run().await;
    let first: Vec<i64> =
        store.lines(archived).await.iter().map(|offset| offset.parse().unwrap()).collect();
    // Kafka may have removed more of it meanwhile.
    assert!(first.len() < 200 && first.iter().all(|offset| left.contains(offset)), "{first:?}");
    deployment.is_whole(&[]);
    deployment.is_whole(&[ASKING_KAFKA]);

    // 2. Removed after it was read.
    send_keyed(&topic, 200..400).await;
    run().await;
    compacted_below(&topic, 150).await;
    let second = store.lines(archived).await;
    assert!(second.len() > first.len() + 100, "{}", second.len());
    deployment.is_whole(&[]);
    deployment.is_whole(&[ASKING_KAFKA]);

    // 3. Lost, though Kafka has it.
    let last = second.last().unwrap();
    let delete = format!("ALTER TABLE archive DELETE WHERE record_offset = {last}");
    store.execute(&format!("{delete} SETTINGS mutations_sync = 1")).await;
    let line = deployment.fault("offsets", &[ASKING_KAFKA]);
    assert!(line.contains(&format!("/0 offset {last}; found Kafka has it")), "{line}");
}
