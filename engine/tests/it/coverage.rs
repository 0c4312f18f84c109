//! Kafka no longer has what must be read again: the engine stops and says which windows are at stake.

use std::{fs, num::NonZeroUsize, path::Path, process::Command, time::Duration};

use citycell::{
    engine::{self, EngineConfig, EngineError, LostPartition, LostRecords},
    snapshot::SnapshotSettings,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

use crate::{
    broker::{self, create_topic, unique},
    city::{config, crowd_flow},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    restart::{bindings, nothing_is_said_twice_differently, wait},
    store::TestStore,
};

/// Removes the records before `offset`, as retention does.
async fn remove_before(topic: &str, partition: i32, offset: i64) {
    let brokers = broker::settings().brokers;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    let removed = admin.delete_records(&offsets, &AdminOptions::new()).await.unwrap();
    removed.elements()[0].error().unwrap();
}

fn with_snapshots(topic: &str, store: &TestStore, folder: &Path) -> EngineConfig {
    EngineConfig {
        workers: NonZeroUsize::MIN,
        snapshots: Some(SnapshotSettings {
            location: folder.to_str().unwrap().to_owned(),
            every: Duration::from_millis(250),
        }),
        ..config(topic, store.settings(), vec![crowd_flow(topic)])
    }
}

/// Starts an engine that must refuse; what it says.
async fn refused(config: EngineConfig) -> (LostRecords, String) {
    let Err(error) = engine::start(config).await else { panic!("it started") };
    let text = error.to_string();
    let EngineError::Uncovered(lost) = error else { panic!("{text}") };
    assert!(text.contains("citycell restore"), "{text}");
    (lost, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_snapshots_and_records_it_stops_and_names_the_windows_at_stake() {
    let store = TestStore::start();
    let folder = tempfile::tempdir().unwrap();
    let [here, old, new] = ["here", "old", "new"].map(|name| folder.path().join(name));
    let topic = unique("lost");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 71, 10 * 60_000);
    let config = || with_snapshots(&topic, &store, &here);
    for copy in [&old, &new] {
        let engine = engine::start(config()).await.unwrap();
        for _ in 0..14 {
            crowd.send(60);
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
        engine.abandon();
        wait(engine).await;
        assert!(Command::new("cp").arg("-r").args([&here, copy]).status().unwrap().success());
    }
    // 1. What the snapshot covers may go: the first run sent fewer to each partition.
    remove_before(&topic, 1, 320).await;
    let engine = engine::start(config()).await.unwrap();
    assert_eq!(engine.started_at.len(), 1);
    engine.abandon();
    wait(engine).await;

    // 2. Without snapshots it is missed, again and again, and nothing is written.
    let marks = "SELECT count() FROM epochs";
    let marked = store.lines(marks).await;
    fs::remove_dir_all(&here).unwrap();
    for _ in 0..2 {
        let (lost, text) = refused(config()).await;
        let gone = LostPartition {
            topic: topic.clone(),
            partition: 1,
            first_missing: 0,
            first_available: 320,
        };
        assert_eq!(lost.partitions, [gone], "{text}");
        for words in [
            "no usable snapshot of crowd_flow",
            &format!("topic {topic} partition 1 begins at offset 320, needed from 0 on"),
            "crowd_flow: windows from the beginning to 20",
        ] {
            assert!(text.contains(words), "{words} is not in: {text}");
        }
    }
    assert!(!here.join(&topic).join("manifests").exists());

    // 3. With those of the first run less is missed, and windows are closed that it is not of.
    fs::rename(&old, &here).unwrap();
    let (lost, text) = refused(config()).await;
    assert!((1..320).contains(&lost.partitions[0].first_missing), "{text}");
    assert!(lost.without_state.is_empty() && text.contains("windows from 2026-11-20T"), "{text}");
    assert!(lost.pipelines[0].from < Some(lost.pipelines[0].to), "{text}");
    assert_eq!(store.lines(marks).await, marked);

    // 4. Put back, the newest are gone on from, and every number is right.
    fs::remove_dir_all(&here).unwrap();
    fs::rename(&new, &here).unwrap();
    let engine = engine::start(config()).await.unwrap();
    assert_eq!(engine.started_at.len(), 1);
    crowd.send(300);
    engine.drain();
    wait(engine).await;
    assert_right(&store, &crowd, &bindings(&topic).await).await;
    nothing_is_said_twice_differently(&store).await;
}
