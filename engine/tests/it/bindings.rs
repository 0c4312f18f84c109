//! Bindings are durable, and only one engine writes them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use citycell::{
    binding::{Binding, PartitionRange},
    kafka::{
        TopicId, TopicPartition,
        binding_log::{BindingLog, BindingLogError},
        reader::Reader,
        witness,
    },
};
use citycell_schemas::{Epoch, EventTime};

use crate::broker::{Sender, create_topic, settings, unique};

fn binding(epoch: u64) -> Binding {
    let range = PartitionRange {
        from_offset: 3,
        next_offset: 7,
        idle: epoch.is_multiple_of(2),
        skipped_from: (epoch == 2).then_some(1),
    };
    Binding {
        epoch: Epoch(epoch),
        bound_time_ms: 17,
        previous_bound_time_ms: i64::MIN,
        partitions: BTreeMap::from([(TopicPartition { topic: 0, partition: 2 }, range)]),
        left: BTreeMap::new(),
        topic_ids: BTreeMap::from([("crowd".to_owned(), TopicId("an id".to_owned()))]),
        watermarks: BTreeMap::from([("crowd".to_owned(), EventTime::MIN)]),
        versions: BTreeMap::from([("crowd".to_owned(), "v1".to_owned())]),
        grid: "grid".to_owned(),
        snapshot: false,
        started_at: Default::default(),
        retired: Default::default(),
    }
}

#[tokio::test]
async fn a_restart_reads_what_was_bound_and_fences_the_engine_before() {
    let deployment = unique("fencing");
    let topics = vec!["crowd".to_owned()];
    let kafka = settings();
    let take_over = || BindingLog::take_over(&kafka, &deployment);
    let first = take_over().await.unwrap().with_topics(topics.clone());
    assert_eq!(first.read().unwrap().count(), 0);
    for epoch in 1..=3 {
        first.append(&binding(epoch)).unwrap();
    }

    let second = take_over().await.unwrap().with_topics(topics);
    let fenced = first.append(&binding(4)).unwrap_err();
    assert!(matches!(fenced, BindingLogError::Fenced(_)), "{fenced:?}");
    second.append(&binding(5)).unwrap();

    let read = second.read().unwrap().map(|logged| logged.unwrap().binding);
    let read: Vec<Binding> = read.collect();
    assert_eq!(read, [1, 2, 3, 5].map(binding));
}

#[tokio::test]
async fn a_reader_hands_over_exactly_what_is_asked_for() {
    let topic = unique("reader");
    create_topic(&topic, 2).await;
    let sender = Sender::new();
    for number in 0..10_000 {
        sender.send(&topic, number % 2, Some(number.to_string().as_bytes()));
    }
    sender.flush();

    let topics: Arc<[Arc<str>]> = Arc::from([Arc::from(topic.as_str())]);
    let reader = Arc::new(Reader::start(&settings(), topics, 4_000, || {}).unwrap());
    witness::start(&settings(), &[Arc::clone(&reader)]).unwrap();
    let one = TopicPartition { topic: 0, partition: 1 };
    reader.assign(one, 10, &BTreeMap::new());
    let mut read = Vec::new();
    for next_offset in [10, 11, 4_999, 5_000] {
        loop {
            let (records, complete) = reader.take(one, next_offset).unwrap();
            for records in records {
                read.extend(records.offsets.iter().map(|offset| offset.0));
                assert_eq!(records.payload(0).unwrap(), payload(records.offsets[0].0).as_bytes());
            }
            if complete {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(read, (10..next_offset).collect::<Vec<_>>());
    }
    while !reader.fetched()[0].1.at_end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(reader.fetched()[0].1.next_offset, 5_000);
}

fn payload(offset: i64) -> String {
    (2 * offset + 1).to_string()
}
