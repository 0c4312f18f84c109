//! `citycell run` and the store, killed as the kernel kills: the numbers are right all the same.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use crate::{
    broker::{self, create_topic, unique},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    program::Program,
    restart::{bindings, nothing_is_said_twice_differently},
    store::TestStore,
};

fn start(program: &Program, workers: &str, more: &[&str]) -> Child {
    program
        .command(&broker::settings().brokers)
        .args(["--listen", "127.0.0.1:0", "--workers", workers])
        .args(more)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_program_and_the_store_changes_no_number() {
    let mut store = TestStore::start();
    let topic = unique("killed");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 23, 30 * 60_000);
    let program = Program::new(&topic, &store.settings().url);
    for (workers, batches) in [("1", 25), ("2", 18)] {
        let mut running = start(&program, workers, &[]);
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
    let ended = start(&program, "1", &["--until-end"]).wait().unwrap();
    assert!(ended.success(), "{ended}");

    let bindings = bindings(&topic).await;
    assert_right(&store, &crowd, &bindings).await;
    nothing_is_said_twice_differently(&store).await;
    let counted =
        store.lines("SELECT sum(records) FROM (SELECT DISTINCT epoch, records FROM epochs)");
    assert_eq!(counted.await, [crowd.sent().to_string()]);
}
