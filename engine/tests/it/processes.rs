//! Several processes compute what one computes, epoch by epoch.

use std::{net::TcpListener, num::NonZeroUsize, time::Duration};

use citycell::{
    clickhouse::ClickHouseSettings,
    engine::{self, Cluster, EngineConfig, RunningEngine},
    snapshot::SnapshotSettings,
};
use tempfile::TempDir;

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, crowd_flow, event, withdrawal},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    restart::{bindings, left_behind, nothing_is_said_twice_differently, wait},
    snapshots::{latest, slow},
    store::TestStore,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_what_one_process_writes() {
    write_what_one_process_writes(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_write_what_one_process_writes() {
    write_what_one_process_writes(3).await;
}

async fn write_what_one_process_writes(processes: usize) {
    let store = TestStore::start();
    let topic = unique("cluster");
    create_topic(&topic, 4).await;
    produce(&topic);
    let database = |name: &str| ClickHouseSettings { database: name.into(), ..store.settings() };

    let addresses = free_addresses(processes);
    let mut engines = Vec::new();
    for process in 0..processes {
        let mut config = config(&topic, database("city"), vec![crowd_flow(&topic)]);
        config.cluster = Some(Cluster { process, addresses: addresses.clone() });
        engines.push(engine::start(config).await.unwrap());
    }
    engines[0].drain();
    for engine in engines {
        wait(engine).await;
    }

    // The same deployment: its bindings are there, so this one replays the same epochs.
    let alone =
        engine::start(config(&topic, database("one"), vec![crowd_flow(&topic)])).await.unwrap();
    alone.drain();
    wait(alone).await;

    let last = &store.lines("SELECT max(epoch) FROM city.epochs").await[0];
    for sql in [
        format!("SELECT * FROM DB.crowd_flow_history WHERE epoch <= {last} ORDER BY ALL"),
        format!("SELECT * EXCEPT committed_at FROM DB.epochs WHERE epoch <= {last} ORDER BY epoch"),
        format!("SELECT * FROM DB.rejects WHERE epoch <= {last} ORDER BY ALL"),
    ] {
        let several = store.lines(&sql.replace("DB", "city")).await;
        let one = store.lines(&sql.replace("DB", "one")).await;
        assert!(!one.is_empty(), "{sql}");
        assert_eq!(several, one, "{sql}");
    }
    let books = "SELECT sum(records), sum(duplicates), sum(withdrawals) FROM city.epochs";
    assert_eq!(store.lines(books).await, ["2310\t200\t100"]);
}

/// 2,000 events, every tenth sent twice, every twentieth withdrawn, and ten bad records.
fn produce(topic: &str) {
    let sender = Sender::new();
    let say = |number: i64, payload: &str| {
        sender.send(topic, (number % 4) as i32, Some(payload.as_bytes()))
    };
    for number in 0..2_000 {
        let (cell, sensor) = ((number % 4) as u32, format!("s{}", number % 7));
        let payload = event(&number.to_string(), number % 300, cell, &sensor, number % 50);
        say(number, &payload);
        if number % 10 == 0 {
            say(number + 1, &payload);
        }
        if number % 20 == 0 {
            say(number + 2, &withdrawal(&number.to_string()));
        }
        if number % 200 == 0 {
            say(number + 3, "{broken");
        }
    }
    sender.flush();
}

pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// A deployment whose processes and workers are more or fewer at each start.
struct Rescaled {
    topic: String,
    store: TestStore,
    folder: TempDir,
}

impl Rescaled {
    async fn start(&self, processes: usize, workers: usize) -> Vec<RunningEngine> {
        let addresses = free_addresses(processes);
        let mut engines = Vec::new();
        for process in 0..processes {
            let cluster = Cluster { process, addresses: addresses.clone() };
            let config = EngineConfig {
                workers: NonZeroUsize::new(workers).unwrap(),
                cluster: (processes > 1).then_some(cluster),
                ..self.config()
            };
            engines.push(engine::start(config).await.unwrap());
        }
        engines
    }

    fn config(&self) -> EngineConfig {
        let pipelines = vec![crowd_flow(&self.topic), latest(&self.topic), slow(&self.topic)];
        EngineConfig {
            snapshots: Some(SnapshotSettings {
                location: self.folder.path().to_str().unwrap().to_owned(),
                every: Duration::from_millis(250),
            }),
            ..config(&self.topic, self.store.settings(), pipelines)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_or_fewer_workers_and_processes_change_no_row() {
    let topic = unique("rescaled");
    create_topic(&topic, PARTITIONS as i32).await;
    let folder = tempfile::tempdir().unwrap();
    let deployment = Rescaled { topic, store: TestStore::start(), folder };
    let mut crowd = Crowd::new(&deployment.topic, 51, 30 * 60_000);
    let shapes = [(1, 1), (1, 4), (1, 2), (2, 1), (3, 1), (2, 2), (1, 1)];
    for (index, (processes, workers)) in shapes.into_iter().enumerate() {
        let engines = deployment.start(processes, workers).await;
        for engine in &engines {
            let states = engine.started_at.len();
            assert_eq!(states, if index == 0 { 0 } else { 3 }, "{processes} x {workers}");
        }
        for _ in 0..14 {
            crowd.send(60);
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
        let newest = "SELECT max(epoch) FROM epochs WHERE records > 0";
        let marked = deployment.store.lines(newest).await;
        assert_ne!(marked, ["0"], "{processes} x {workers} marked nothing");
        if index + 1 < shapes.len() {
            // A crash of all.
            engines.iter().for_each(RunningEngine::abandon);
        } else {
            engines[0].drain();
        }
        for engine in engines {
            wait(engine).await;
        }
    }
    let (store, bindings) = (&deployment.store, bindings(&deployment.topic).await);
    assert_right(store, &crowd, &bindings).await;
    nothing_is_said_twice_differently(store).await;

    let elsewhere = ClickHouseSettings { database: "fresh".into(), ..store.settings() };
    let config = EngineConfig { snapshots: None, clickhouse: elsewhere, ..deployment.config() };
    let fresh = engine::start(config).await.unwrap();
    fresh.drain();
    wait(fresh).await;
    let tables = ["crowd_flow_history", "latest_history", "slow_history"];
    let last = bindings.last().unwrap().epoch.0;
    let run = left_behind(store, "city", &tables, last).await;
    let fresh = left_behind(store, "fresh", &tables, last).await;
    for ((table, run), (_, fresh)) in run.iter().zip(&fresh) {
        assert!(!run.is_empty(), "{table} is empty");
        assert_eq!(run, fresh, "{table}");
    }
}
