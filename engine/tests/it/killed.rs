//! `citycell run` and the store, killed as the kernel kills: the numbers are right all the same.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    broker::{self, create_topic, unique},
    city::{grid_file, text},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    restart::{bindings, nothing_is_said_twice_differently},
    store::TestStore,
};

/// The program with its files.
struct Program {
    folder: TempDir,
    topic: String,
    clickhouse: String,
}

impl Program {
    fn new(topic: &str, store: &TestStore) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("grid.geojson"), grid_file()).unwrap();
        std::fs::write(folder.path().join("crowd.yaml"), text("crowd_flow", topic)).unwrap();
        Self { folder, topic: topic.to_owned(), clickhouse: store.settings().url }
    }

    fn run(&self, workers: &str, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_citycell"))
            .current_dir(&self.folder)
            .args(["run", "crowd.yaml", "--grid", "grid.geojson", "--listen", "127.0.0.1:0"])
            .args(["--tick", "100ms", "--idle-after", "2s", "--workers", workers])
            .args(["--deployment", &self.topic, "--clickhouse", &self.clickhouse])
            .args(["--brokers", &broker::settings().brokers])
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_program_and_the_store_changes_no_number() {
    let mut store = TestStore::start();
    let topic = unique("killed");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 23, 30 * 60_000);
    let program = Program::new(&topic, &store);
    for (workers, batches) in [("1", 25), ("2", 18)] {
        let mut running = program.run(workers, &[]);
        for batch in 0..batches {
            crowd.send(80);
            tokio::time::sleep(Duration::from_millis(80)).await;
            if batch == batches - 8 {
                store.kill_and_restart();
            }
        }
        running.kill().unwrap();
        running.wait().unwrap();
    }
    crowd.send(300);
    let ended = program.run("1", &["--until-end"]).wait().unwrap();
    assert!(ended.success(), "{ended}");

    let bindings = bindings(&topic).await;
    assert_right(&store, &crowd, &bindings).await;
    nothing_is_said_twice_differently(&store).await;
    let counted =
        store.lines("SELECT sum(records) FROM (SELECT DISTINCT epoch, records FROM epochs)");
    assert_eq!(counted.await, [crowd.sent().to_string()]);
}
