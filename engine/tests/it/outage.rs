//! ClickHouse takes no rows, of one pipeline or at all: the others go on, nothing is lost, and what
//! waited is written when it does again.

use std::time::{Duration, Instant};

use citycell::{
    clickhouse::backlog::BacklogLimits,
    engine::{self, EngineConfig, RunningEngine, WritingLimits},
    snapshot::SnapshotSettings,
};
use tempfile::TempDir;

use crate::{
    broker::{create_topic, unique},
    city::{config, crowd_flow, named},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    restart::{bindings, nothing_is_said_twice_differently, wait},
    store::TestStore,
};

/// Two pipelines over one topic, with little memory for rows that wait.
fn two_pipelines(topic: &str, store: &TestStore, folder: &TempDir) -> EngineConfig {
    let backlog = BacklogLimits {
        memory_bytes_max: 4096,
        bytes_max: 1 << 30,
        folder: folder.path().to_owned(),
    };
    let mut config =
        config(topic, store.settings(), vec![crowd_flow(topic), named("other", topic)]);
    config.writing = WritingLimits { backlog, stale_after: Duration::from_secs(1) };
    config.limits.unmarked_max = 1_000;
    config.snapshots = Some(SnapshotSettings {
        location: folder.path().join("snapshots").to_str().unwrap().to_owned(),
        every: Duration::from_millis(500),
    });
    config
}

/// From now on ClickHouse takes no rows of this pipeline.
pub(crate) async fn refuse_rows(store: &TestStore, pipeline: &str) {
    alter(store, pipeline, "ADD CONSTRAINT broken CHECK events > 1000000000").await;
}

/// The end of that.
pub(crate) async fn take_rows_again(store: &TestStore, pipeline: &str) {
    alter(store, pipeline, "DROP CONSTRAINT broken").await;
}

async fn alter(store: &TestStore, pipeline: &str, change: &str) {
    let table = format!(
        "SELECT name FROM system.tables \
         WHERE database = 'city' AND name LIKE '{pipeline}\\_history\\_%'"
    );
    let table = store.lines(&table).await.concat();
    store.execute(&format!("ALTER TABLE {table} {change}")).await;
}

async fn feed(crowd: &mut Crowd, batches: usize) {
    for _ in 0..batches {
        crowd.send(50);
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
}

async fn stop(engine: RunningEngine) {
    engine.abandon();
    wait(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_write_holds_nobody_back_and_catches_up() {
    let store = TestStore::start();
    let folder = tempfile::tempdir().unwrap();
    let topic = unique("stale");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 5, 10 * 60_000);
    let start = || engine::start(two_pipelines(&topic, &store, &folder));
    let mut engine = start().await.unwrap();
    feed(&mut crowd, 10).await;
    refuse_rows(&store, "other").await;
    // 1. It becomes stale, and the moment goes on without it.
    feed(&mut crowd, 35).await;
    let moment = "SELECT epoch, stale FROM city_moment";
    let before = store.lines(moment).await.concat();
    feed(&mut crowd, 10).await;
    let after = store.lines(moment).await.concat();
    assert!(before.ends_with("['other']") && before < after, "{before}, then {after}");
    // 2. Readers see what it had marked, and no epoch after that.
    let beyond = "SELECT count() FROM other \
                  WHERE epoch > (SELECT max(epoch) FROM epochs WHERE pipeline = 'other')";
    assert_eq!(store.lines(beyond).await, ["0"]);
    let metrics = engine.metrics.encode();
    assert!(metrics.contains(r#"citycell_stale{pipeline="other"} 1"#), "{metrics}");
    // 3. A crash in this state changes nothing.
    stop(engine).await;
    engine = start().await.unwrap();
    feed(&mut crowd, 20).await;
    // 4. It catches up when it can write again.
    take_rows_again(&store, "other").await;
    feed(&mut crowd, 5).await;
    engine.drain();
    wait(engine).await;
    assert!(store.lines(moment).await.concat().ends_with("[]"));
    assert_right(&store, &crowd, &bindings(&topic).await).await;
    nothing_is_said_twice_differently(&store).await;
    let differing = "SELECT count() FROM (SELECT * FROM crowd_flow EXCEPT SELECT * FROM other)";
    assert_eq!(store.lines(differing).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_clickhouse_is_away_epochs_go_on_and_rows_wait_on_disk() {
    let mut store = TestStore::start();
    let folder = tempfile::tempdir().unwrap();
    let topic = unique("away");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 6, 10 * 60_000);
    let engine = engine::start(two_pipelines(&topic, &store, &folder)).await.unwrap();
    feed(&mut crowd, 10).await;
    store.kill();
    feed(&mut crowd, 60).await;
    let metrics = engine.metrics.encode();
    let on_disk =
        metrics.lines().find_map(|line| line.strip_prefix("citycell_backlog_disk_bytes "));
    assert!(on_disk.is_some_and(|bytes| bytes != "0"), "{metrics}");
    assert!(engine.is_running());
    store.restart();
    feed(&mut crowd, 5).await;
    engine.drain();
    wait(engine).await;
    let all = bindings(&topic).await;
    // Many more than the store could have marked before it went.
    assert!(all.len() > 30, "only {} epochs", all.len());
    assert_right(&store, &crowd, &all).await;
    nothing_is_said_twice_differently(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_behind_the_moment_alone_is_waited_for() {
    let store = TestStore::start();
    let folder = tempfile::tempdir().unwrap();
    let topic = unique("behind");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 8, 10 * 60_000);
    let start = || engine::start(two_pipelines(&topic, &store, &folder));
    let engine = start().await.unwrap();
    feed(&mut crowd, 10).await;
    stop(engine).await;
    // As if the engine before had gone on while this one read its marks.
    let later = "INSERT INTO moments (epoch, committed_at) \
                 SELECT max(epoch) + 1, max(committed_at) + 0.001 FROM epochs";
    store.execute(later).await;
    let engine = start().await.unwrap();
    crowd.send(300);
    engine.drain();
    let started = Instant::now();
    while engine.is_running() && started.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let still_waits = engine.is_running();
    stop(engine).await;
    assert!(!still_waits, "it still waits for marks");
    assert_right(&store, &crowd, &bindings(&topic).await).await;
}
