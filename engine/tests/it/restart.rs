//! Crashes change nothing: not a row, not an epoch, not a line of the books.

use std::{num::NonZeroUsize, time::Duration};

use citycell::{
    binding::Binding,
    clickhouse::ClickHouseSettings,
    engine::{self, EngineConfig, RunningEngine},
    kafka::{KafkaSettings, binding_log::BindingLog},
};

use crate::{
    broker::{self, create_topic, unique},
    city::{config, crowd_flow},
    crowd::{Crowd, PARTITIONS},
    store::TestStore,
};

/// What a run leaves behind beside its rows, and a replay must leave behind too.
const LEFT_BEHIND: [(&str, &str); 3] = [
    ("epochs", "SELECT DISTINCT * EXCEPT committed_at"),
    ("rejects", "SELECT DISTINCT *"),
    ("late", "SELECT DISTINCT *"),
];

fn with_workers(topic: &str, clickhouse: ClickHouseSettings, workers: usize) -> EngineConfig {
    let workers = NonZeroUsize::new(workers).unwrap();
    EngineConfig { workers, ..config(topic, clickhouse, vec![crowd_flow(topic)]) }
}

pub(crate) async fn wait(engine: RunningEngine) {
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();
}

/// The deployment's bindings, read as the engine that comes next would.
pub(crate) async fn bindings(topic: &str) -> Vec<Binding> {
    bindings_at(&broker::settings().brokers, topic).await
}

/// The same on another broker.
pub(crate) async fn bindings_at(brokers: &str, topic: &str) -> Vec<Binding> {
    let kafka = KafkaSettings::new(brokers);
    let log = BindingLog::take_over(&kafka, topic).await.unwrap();
    log.with_topics(vec![topic.to_owned()])
        .read()
        .unwrap()
        .map(|logged| logged.unwrap().binding)
        .collect()
}

/// What a run left in `database` up to `epoch`, by table.
pub(crate) async fn left_behind(
    store: &TestStore,
    database: &str,
    histories: &[&str],
    epoch: u64,
) -> Vec<(String, Vec<String>)> {
    let histories = histories.iter().map(|table| (*table, "SELECT DISTINCT *"));
    let mut left = Vec::new();
    for (table, select) in histories.chain(LEFT_BEHIND) {
        let sql = format!("{select} FROM {database}.{table} WHERE epoch <= {epoch} ORDER BY ALL");
        left.push((table.to_owned(), store.lines(&sql).await));
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_and_other_numbers_of_workers_change_no_row() {
    let store = TestStore::start();
    let topic = unique("restart");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 7, 30 * 60_000);
    for (workers, batches) in [(1, 5), (2, 9), (2, 2), (1, 7)] {
        let engine = engine::start(with_workers(&topic, store.settings(), workers)).await.unwrap();
        for _ in 0..batches {
            crowd.send(120);
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
        engine.abandon();
        wait(engine).await;
    }
    let engine = engine::start(with_workers(&topic, store.settings(), 2)).await.unwrap();
    crowd.send(500);
    engine.drain();
    wait(engine).await;

    let bindings = bindings(&topic).await;
    books_balance(&store, &crowd, &bindings).await;
    nothing_is_said_twice_differently(&store).await;
    let last_epoch = bindings.last().unwrap().epoch.0;
    let elsewhere = ClickHouseSettings { database: "replayed".into(), ..store.settings() };
    let engine = engine::start(with_workers(&topic, elsewhere, 1)).await.unwrap();
    engine.drain();
    wait(engine).await;
    let run = left_behind(&store, "city", &["crowd_flow_history"], last_epoch).await;
    let replayed = left_behind(&store, "replayed", &["crowd_flow_history"], last_epoch).await;
    for ((table, run), (_, replayed)) in run.iter().zip(&replayed) {
        assert!(!run.is_empty(), "{table} is empty");
        assert_eq!(run, replayed, "{table}");
    }
}

/// Each epoch's books say what became of exactly the records that its binding names.
async fn books_balance(store: &TestStore, crowd: &Crowd, bindings: &[Binding]) {
    let books =
        store.lines("SELECT DISTINCT epoch, records FROM epochs ORDER BY epoch, records").await;
    let bound = |binding: &Binding| -> i64 {
        binding.partitions.values().map(|range| range.next_offset - range.from_offset).sum()
    };
    let expected: Vec<String> =
        bindings.iter().map(|binding| format!("{}\t{}", binding.epoch.0, bound(binding))).collect();
    assert_eq!(books, expected);
    assert_eq!(bindings.iter().map(bound).sum::<i64>(), crowd.sent() as i64);
    let outcomes = "SELECT min(c), min(f), min(r), min(d), min(u), min(w) FROM (SELECT \
                    sum(counted) AS c, sum(filtered) AS f, sum(rejected) AS r, sum(diverted) AS d, \
                    sum(duplicates) AS u, sum(withdrawals) AS w FROM epochs)";
    let outcomes = store.lines(outcomes).await.remove(0);
    assert!(outcomes.split('\t').all(|count| count != "0"), "an outcome is not tried: {outcomes}");
}

pub(crate) async fn nothing_is_said_twice_differently(store: &TestStore) {
    let twice = "SELECT window_start, level, cell, category, epoch \
                 FROM (SELECT DISTINCT * FROM crowd_flow_history) \
                 GROUP BY ALL HAVING count() > 1";
    assert_eq!(store.lines(twice).await, Vec::<String>::new());
}
