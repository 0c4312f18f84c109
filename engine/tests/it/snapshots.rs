//! Snapshots: after a crash an engine goes on from one, and its rows are what they would have been.

use std::{
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use citycell::{
    clickhouse::ClickHouseSettings,
    engine::{self, EngineConfig, RunningEngine},
    snapshot::SnapshotSettings,
};
use tempfile::TempDir;

use crate::{
    broker::{create_topic, unique},
    city::{config, crowd_flow, pipeline},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    restart::{bindings, left_behind, nothing_is_said_twice_differently, wait},
    store::TestStore,
};

/// A deployment that keeps snapshots in a folder.
pub(crate) struct Deployment {
    pub(crate) topic: String,
    pub(crate) folder: TempDir,
    pub(crate) store: TestStore,
}

impl Deployment {
    pub(crate) async fn new(name: &str) -> Self {
        let topic = unique(name);
        create_topic(&topic, PARTITIONS as i32).await;
        Self { topic, folder: tempfile::tempdir().unwrap(), store: TestStore::start() }
    }

    pub(crate) fn config(&self, workers: usize) -> EngineConfig {
        let pipelines = vec![crowd_flow(&self.topic), latest(&self.topic), slow(&self.topic)];
        EngineConfig {
            workers: NonZeroUsize::new(workers).unwrap(),
            snapshots: Some(SnapshotSettings {
                location: self.folder.path().to_str().unwrap().to_owned(),
                every: Duration::from_millis(250),
            }),
            ..config(&self.topic, self.store.settings(), pipelines)
        }
    }

    fn manifests(&self) -> Vec<std::path::PathBuf> {
        let folder = self.folder.path().join(&self.topic).join("manifests");
        files(&folder)
    }
}

pub(crate) fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The latest of each sensor.
pub(crate) fn latest(topic: &str) -> std::sync::Arc<citycell::pipeline::Pipeline> {
    pipeline(&format!(
        "
pipeline: latest
source:
  topic: {topic}
  schema: crowd_flow
  event_time: dateObserved
  location: {{lon: lon, lat: lat, crs: wgs84}}
  late: {{allow: 10m}}
latest: {{by: [sensorId], expire: 3650d, forget: 7300d}}
group_by: [category]
aggregate:
  sensors: count(*)
  people: sum(peopleCount)
  most: max(peopleCount)
roll_up: [community, city]
"
    ))
}

/// Extremes per cell, without entities, published every minute.
pub(crate) fn slow(topic: &str) -> std::sync::Arc<citycell::pipeline::Pipeline> {
    pipeline(&format!(
        "
pipeline: slow
source:
  topic: {topic}
  schema: crowd_flow
  event_time: dateObserved
  location: {{lon: lon, lat: lat, crs: wgs84}}
  late: {{allow: 10m}}
window: {{tumbling: 5m}}
aggregate:
  reports: count(*)
  fewest: min(peopleCount)
  most: max(peopleCount)
roll_up: [street]
publish: {{every: 2s}}
"
    ))
}

/// Runs an engine, feeds it and has it end as a crash would; says whether it went on from a
/// snapshot.
pub(crate) async fn run_and_crash(
    deployment: &Deployment,
    crowd: &mut Crowd,
    workers: usize,
) -> bool {
    let engine = engine::start(deployment.config(workers)).await.unwrap();
    let went_on = engine.started_at.len() == 3;
    for batch in 0..14 {
        crowd.send(60);
        tokio::time::sleep(Duration::from_millis(70)).await;
        if batch == 10 {
            // The first may be of a time before there was anything to keep, and two are kept.
            snapshots_are_kept(&engine, 3).await;
        }
    }
    engine.abandon();
    wait(engine).await;
    went_on
}

async fn snapshots_are_kept(engine: &RunningEngine, times: usize) {
    let kept = || {
        let metrics = engine.metrics.encode();
        let kept = metrics.lines().find(|line| line.starts_with("citycell_snapshot_epoch_ms{"));
        kept.map(str::to_owned)
    };
    let started = Instant::now();
    for _ in 0..times {
        let before = kept();
        while kept() == before {
            assert!(started.elapsed() < Duration::from_secs(60), "no snapshot is kept");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_on_from_snapshots_changes_no_row() {
    let deployment = Deployment::new("snapshots").await;
    let mut crowd = Crowd::new(&deployment.topic, 41, 30 * 60_000);
    let mut went_on = Vec::new();
    for workers in [1, 3, 2] {
        went_on.push(run_and_crash(&deployment, &mut crowd, workers).await);
    }
    assert_eq!(went_on, [false, true, true]);
    let engine = engine::start(deployment.config(2)).await.unwrap();
    crowd.send(300);
    engine.drain();
    wait(engine).await;
    // Two are kept, and the oldest is deleted only after the newest is written.
    assert!((2..=3).contains(&deployment.manifests().len()));

    let bindings = bindings(&deployment.topic).await;
    assert_right(&deployment.store, &crowd, &bindings).await;
    nothing_is_said_twice_differently(&deployment.store).await;
    as_a_fresh_run(&deployment, bindings.last().unwrap().epoch.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_passed_over_and_without_any_all_is_computed_again() {
    let deployment = Deployment::new("damaged").await;
    let mut crowd = Crowd::new(&deployment.topic, 43, 30 * 60_000);
    run_and_crash(&deployment, &mut crowd, 2).await;
    // 1. The newest manifest is cut short: the one before is used.
    let manifests = deployment.manifests();
    let newest = manifests.last().unwrap();
    let text = std::fs::read(newest).unwrap();
    std::fs::write(newest, &text[..text.len() - 2]).unwrap();
    assert!(run_and_crash(&deployment, &mut crowd, 1).await, "the older snapshot was not used");
    // 2. A byte of every run is another: nothing is usable, everything comes from Kafka.
    for run in files(&deployment.folder.path().join(&deployment.topic).join("runs")) {
        for file in files(&run) {
            let mut bytes = std::fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        }
    }
    let engine = engine::start(deployment.config(2)).await.unwrap();
    assert!(engine.started_at.is_empty(), "{:?}", engine.started_at);
    crowd.send(300);
    engine.drain();
    wait(engine).await;
    let bindings = bindings(&deployment.topic).await;
    assert_right(&deployment.store, &crowd, &bindings).await;
    nothing_is_said_twice_differently(&deployment.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_another_deployments_log_are_refused() {
    let deployment = Deployment::new("other-log").await;
    let mut crowd = Crowd::new(&deployment.topic, 44, 60_000);
    run_and_crash(&deployment, &mut crowd, 1).await;
    // The folder of snapshots of a deployment whose log has other bindings.
    let other = unique("other-log");
    let from = deployment.folder.path().join(&deployment.topic);
    std::fs::rename(from, deployment.folder.path().join(&other)).unwrap();
    let config = EngineConfig { deployment: other.clone(), ..deployment.config(1) };
    let Err(refused) = engine::start(config).await else { panic!("it started") };
    let text = refused.to_string();
    assert!(text.contains(&other) && text.contains("another deployment"), "{text}");
}

/// A run without snapshots over the same bindings leaves the same behind.
pub(crate) async fn as_a_fresh_run(deployment: &Deployment, last_epoch: u64) {
    let store = &deployment.store;
    let elsewhere = ClickHouseSettings { database: "replayed".into(), ..store.settings() };
    let fresh = EngineConfig { snapshots: None, clickhouse: elsewhere, ..deployment.config(1) };
    let engine = engine::start(fresh).await.unwrap();
    engine.drain();
    wait(engine).await;
    let tables = ["crowd_flow_history", "latest_history", "slow_history"];
    let run = left_behind(store, "city", &tables, last_epoch).await;
    let replayed = left_behind(store, "replayed", &tables, last_epoch).await;
    for ((table, run), (_, replayed)) in run.iter().zip(&replayed) {
        assert!(!run.is_empty(), "{table} is empty");
        assert_eq!(run, replayed, "{table}");
    }
}
