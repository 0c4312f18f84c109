//! A topic gets partitions while the engine runs, and while it does not: they are read from their
//! first record, and what they bring is late only if it is.

use std::time::Duration;

use citycell::{audit::Audit, clickhouse::ClickHouse, engine};

use crate::{
    broker::{add_partitions, create_topic, unique},
    city::{config, crowd_flow},
    crowd::Crowd,
    oracle::assert_right,
    restart::{bindings, nothing_is_said_twice_differently, wait},
    store::TestStore,
};

/// Slow enough that a partition is found before its first event is late.
async fn feed(crowd: &mut Crowd, batches: usize) {
    for _ in 0..batches {
        crowd.send(8);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Goes on until records of this partition are marked.
async fn feed_until_read(crowd: &mut Crowd, store: &TestStore, partition: usize) {
    let is_read = format!(
        "SELECT count() > 0 FROM epochs WHERE arrayExists(range -> range.2 = {partition}, ranges)"
    );
    for _ in 0..30 {
        feed(crowd, 5).await;
        if store.lines(&is_read).await == ["1"] {
            return;
        }
    }
    panic!("partition {partition} is not read");
}

/// The newest watermark of a mark, ms since 1970.
async fn watermark(store: &TestStore) -> i64 {
    let newest = "SELECT toUnixTimestamp64Milli(max(watermark)) FROM epochs";
    store.lines(newest).await.concat().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_read_from_their_beginning() {
    let store = TestStore::start();
    let topic = unique("grows");
    create_topic(&topic, 1).await;
    let mut crowd = Crowd::new(&topic, 17, 2 * 60_000);
    crowd.open = 1;
    let start = || engine::start(config(&topic, store.settings(), vec![crowd_flow(&topic)]));
    let engine = start().await.unwrap();
    feed_until_read(&mut crowd, &store, 0).await;
    // 1. While it runs: the second partition has records before it is found.
    add_partitions(&topic, 2).await;
    crowd.open_another();
    feed_until_read(&mut crowd, &store, 1).await;
    engine.stop();
    wait(engine).await;
    // 2. While it does not, beside one that stays empty, which holds nobody back for ever.
    add_partitions(&topic, 4).await;
    crowd.open_another();
    feed(&mut crowd, 10).await;
    let engine = start().await.unwrap();
    feed_until_read(&mut crowd, &store, 2).await;
    let before = watermark(&store).await;
    feed(&mut crowd, 60).await;
    assert!(watermark(&store).await > before, "the watermark stands still");
    engine.drain();
    wait(engine).await;

    let all = bindings(&topic).await;
    let last = all.last().unwrap();
    let partitions: Vec<i32> =
        last.partitions.keys().map(|partition| partition.partition).collect();
    assert_eq!(partitions, [0, 1, 2, 3]);
    assert_eq!(assert_right(&store, &crowd, &all).await, 0, "nothing was late");
    nothing_is_said_twice_differently(&store).await;
    let audit = Audit::begin(ClickHouse::new(&store.settings())).await.unwrap();
    audit.check(|outcome| assert_eq!(outcome.first, None, "{outcome:?}")).await.unwrap();
}
