//! Everything but Kafka's events is lost, and a backup put back: every number is right again.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use citycell::{engine, kafka::binding_log::topic_of};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    broker,
    crowd::Crowd,
    oracle::assert_right,
    restart::{bindings, nothing_is_said_twice_differently, wait},
    snapshots::{Deployment, as_a_fresh_run, files, run_and_crash},
    store::TestStore,
};

/// `citycell backup --to` or `citycell restore --from` this folder.
fn command(deployment: &Deployment, words: [&str; 2], place: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_citycell"))
        .args(words)
        .arg(place)
        .args(["--deployment", &deployment.topic, "--brokers", &broker::settings().brokers])
        .args(["--clickhouse", &deployment.store.settings().url, "--snapshots"])
        .arg(deployment.folder.path())
        .output()
        .unwrap()
}

fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "{words} is not in {output:?}");
}

/// Deletes a topic and waits until it is gone.
async fn delete_topic(topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker::settings().brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let consumer: BaseConsumer = config.create().unwrap();
    let exists = || {
        let all = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
        all.topics().iter().any(|known| known.name() == topic)
    };
    while exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_goes_on_and_changes_no_row() {
    let mut deployment = Deployment::new("backup").await;
    let place = tempfile::tempdir().unwrap();
    let mut crowd = Crowd::new(&deployment.topic, 81, 30 * 60_000);
    run_and_crash(&deployment, &mut crowd, 2).await;
    // 1. It is taken while the engine goes on.
    let engine = engine::start(deployment.config(2)).await.unwrap();
    let (mut taken, mut before) = (String::new(), Vec::new());
    for batch in 0..20 {
        crowd.send(60);
        tokio::time::sleep(Duration::from_millis(70)).await;
        if batch == 12 {
            before = deployment.store.lines("SELECT max(epoch) FROM moments").await;
            taken = succeeds(command(&deployment, ["backup", "--to"], place.path()));
        }
    }
    assert!(taken.contains("the state of 3 pipelines"), "{taken}");
    engine.abandon();
    wait(engine).await;
    let again = command(&deployment, ["backup", "--to"], place.path());
    is_refused(&again, "nothing is written over what exists");
    // 2. Over what exists nothing is put back: each of the three is enough.
    let log = topic_of(&deployment.topic);
    let restore =
        |deployment: &Deployment| command(deployment, ["restore", "--from"], place.path());
    is_refused(&restore(&deployment), "the database has the table");
    deployment.store = TestStore::start();
    is_refused(&restore(&deployment), &format!("the topic {log} has bindings"));
    delete_topic(&log).await;
    is_refused(&restore(&deployment), "the place of the snapshots has");
    fs::remove_dir_all(deployment.folder.path().join(&deployment.topic)).unwrap();
    // 3. Nor anything of a backup that is not whole.
    let backed_up = place.path().join(&deployment.topic);
    let rows = files(&backed_up.join("tables"));
    let of_rows = |name: &str| {
        let is_it = |path: &&std::path::PathBuf| path.to_str().unwrap().contains(name);
        rows.iter().find(is_it).unwrap()
    };
    for file in [of_rows("crowd_flow_history_"), &backed_up.join("bindings")] {
        let whole = fs::read(file).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(file, damaged).unwrap();
        is_refused(&restore(&deployment), "its checksum is another");
        fs::write(file, whole).unwrap();
    }
    assert!(deployment.store.lines("SHOW TABLES FROM city").await.is_empty());

    // 4. Put back, it shows what it showed, before any engine runs.
    assert!(succeeds(restore(&deployment)).contains("the state of 3 pipelines"));
    let now = deployment.store.lines("SELECT epoch FROM city_moment").await;
    assert!(now >= before, "{now:?} is shown, {before:?} was when it was taken");
    let shown = deployment.store.lines("SELECT count() > 100 FROM crowd_flow").await;
    assert_eq!(shown, ["1"]);
    let rows = "SELECT (SELECT sum(rows) FROM epochs WHERE pipeline = 'crowd_flow') \
                = (SELECT count() FROM (SELECT DISTINCT * FROM crowd_flow_history \
                WHERE epoch IN (SELECT epoch FROM epochs WHERE pipeline = 'crowd_flow')))";
    assert_eq!(deployment.store.lines(rows).await, ["1"]);
    // 5. The engine goes on from the state, and every number is right.
    let engine = engine::start(deployment.config(1)).await.unwrap();
    assert_eq!(engine.started_at.len(), 3);
    crowd.send(300);
    engine.drain();
    wait(engine).await;
    let bindings = bindings(&deployment.topic).await;
    assert_right(&deployment.store, &crowd, &bindings).await;
    nothing_is_said_twice_differently(&deployment.store).await;
    let audit = Command::new(env!("CARGO_BIN_EXE_citycell"))
        .args(["audit", "--deployment", &deployment.topic])
        .args(["--brokers", &broker::settings().brokers])
        .args(["--clickhouse", &deployment.store.settings().url])
        .output();
    succeeds(audit.unwrap());
    as_a_fresh_run(&deployment, bindings.last().unwrap().epoch.0).await;
}
