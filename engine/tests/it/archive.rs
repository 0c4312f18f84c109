//! The archive holds every record once, whatever crashes, and a hole in it is named.

mod retention;

use std::{
    num::NonZeroUsize,
    process::{Command, Output, Stdio},
    time::Duration,
};

use citycell::{
    audit::Audit,
    clickhouse::ClickHouse,
    crash_point::CRASH_POINTS,
    engine::{self, Cluster, EngineConfig},
    snapshot::SnapshotSettings,
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tempfile::TempDir;

use crate::{
    broker::{self, create_topic, unique},
    city::{config, crowd_flow, event, grid_file, text},
    crash::run_until_it_crashes,
    crowd::{Crowd, PARTITIONS},
    processes::free_addresses,
    restart::wait,
    snapshots::slow,
    store::TestStore,
};

/// A deployment of two pipelines that keeps records and snapshots.
struct Deployment {
    topic: String,
    snapshots: TempDir,
    store: TestStore,
}

impl Deployment {
    async fn new(name: &str) -> Self {
        let topic = unique(name);
        create_topic(&topic, PARTITIONS as i32).await;
        Self { topic, snapshots: tempfile::tempdir().unwrap(), store: TestStore::start() }
    }

    fn config(&self, workers: usize) -> EngineConfig {
        let pipelines = vec![crowd_flow(&self.topic), slow(&self.topic)];
        EngineConfig {
            workers: NonZeroUsize::new(workers).unwrap(),
            archive: Some(Duration::from_secs(30 * 86_400)),
            snapshots: Some(SnapshotSettings {
                location: self.snapshots.path().to_str().unwrap().to_owned(),
                every: Duration::from_millis(300),
            }),
            ..config(&self.topic, self.store.settings(), pipelines)
        }
    }

    fn verify(&self, more: &[&str]) -> Output {
        let brokers = broker::settings().brokers;
        let asking = ["--brokers", &brokers, "--deployment", &self.topic];
        Command::new(env!("CARGO_BIN_EXE_citycell"))
            .args(["archive", "verify", "--clickhouse", &self.store.settings().url])
            .args(more.iter().filter(|argument| **argument != ASKING_KAFKA))
            .args(asking.iter().filter(|_| more.contains(&ASKING_KAFKA)))
            .output()
            .unwrap()
    }

    fn is_whole(&self, more: &[&str]) {
        let output = self.verify(more);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("OK     offsets") && text.contains("1 versions"), "{text}");
    }

    /// What was produced and what is archived are the same.
    async fn holds_what_was_produced(&self, crowd: &Crowd) {
        crowd.write_raw(&self.store).await;
        let produced = "SELECT partition, offset, payload FROM raw ORDER BY ALL";
        let archived =
            "SELECT DISTINCT partition, record_offset, payload FROM archive ORDER BY ALL";
        assert_eq!(self.store.lines(archived).await, self.store.lines(produced).await);
        let twice = "SELECT count() FROM (SELECT DISTINCT * FROM archive) \
                     GROUP BY topic, partition, record_offset HAVING count() > 1";
        assert_eq!(self.store.lines(twice).await, Vec::<String>::new());
    }

    /// The line of the check that names a hole.
    fn fault(&self, check: &str, more: &[&str]) -> String {
        let output = self.verify(more);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let line = text.lines().find(|line| line.starts_with(&format!("FAULT  {check}")));
        line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
            .to_owned()
    }
}

/// Stands for the arguments that have Kafka asked.
const ASKING_KAFKA: &str = "--asking-kafka";

#[tokio::test(flavor = "multi_thread")]
async fn after_crashes_the_archive_is_what_was_produced_and_a_hole_is_named() {
    let deployment = Deployment::new("archive").await;
    let Deployment { topic, store, .. } = &deployment;
    let mut crowd = Crowd::new(topic, 5, 30 * 60_000);
    for workers in [1, 2, 3] {
        let engine = engine::start(deployment.config(workers)).await.unwrap();
        for _ in 0..9 {
            crowd.send(100);
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        engine.abandon();
        wait(engine).await;
    }
    let engine = engine::start(deployment.config(2)).await.unwrap();
    crowd.send(200);
    engine.drain();
    wait(engine).await;

    deployment.holds_what_was_produced(&crowd).await;
    deployment.is_whole(&[]);
    deployment.is_whole(&[ASKING_KAFKA]);

    // A transaction leaves an offset without a record. Records are kept for longer from here on.
    let keep = Some(Duration::from_secs(60 * 86_400));
    let config = EngineConfig { archive: keep, ..deployment.config(1) };
    let engine = engine::start(config).await.unwrap();
    send_in_transactions(topic);
    engine.drain();
    wait(engine).await;
    let created = store.lines("SHOW CREATE TABLE archive").await.concat();
    assert!(created.contains("toIntervalSecond(5184000)"), "{created}");
    let headers = "SELECT record_offset, is_null, headers['ce_id'], headers['ce_source'] \
                   FROM archive WHERE is_null = 1";
    let last = crowd.records[0].len();
    let expected = format!("{}\t1\tgone\ttest", last + 2);
    assert_eq!(store.lines(headers).await, [expected]);
    deployment.is_whole(&[]);
    deployment.is_whole(&[ASKING_KAFKA]);

    let delete = "ALTER TABLE archive DELETE WHERE partition = 1 AND record_offset = 137 \
                  SETTINGS mutations_sync = 1";
    store.execute(delete).await;
    let epoch = format!(
        "SELECT epoch FROM epochs WHERE pipeline = 'archive' AND version = '{topic}' AND \
         arrayExists(range -> range.2 = 1 AND range.3 <= 137 AND range.4 > 137, ranges)"
    );
    let epoch = store.lines(&epoch).await.remove(0);
    for (check, more, names) in [
        ("records", &[][..], "rows in archive"),
        ("offsets", &[], "/1 offset 137..138"),
        ("offsets", &[ASKING_KAFKA], "/1 offset 137; found Kafka has it"),
    ] {
        let line = deployment.fault(check, more);
        assert!(line.contains(names) && line.contains(&epoch), "{line}");
        println!("{line}");
    }
}

/// The program, with two pipelines on one topic.
fn program(deployment: &Deployment) -> Command {
    let Deployment { topic, snapshots, store } = deployment;
    let folder = snapshots.path();
    std::fs::write(folder.join("grid.geojson"), grid_file()).unwrap();
    std::fs::write(folder.join("one.yaml"), text("one", topic)).unwrap();
    std::fs::write(folder.join("two.yaml"), text("two", topic)).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_citycell"));
    program
        .current_dir(folder)
        .args(["run", "one.yaml", "two.yaml", "--grid", "grid.geojson", "--archive", "30d"])
        .args(["--tick", "100ms", "--idle-after", "2s", "--workers", "2"])
        .args(["--listen", "127.0.0.1:0", "--snapshot-every", "300ms"])
        .args(["--deployment", topic, "--clickhouse", &store.settings().url])
        .args(["--brokers", &broker::settings().brokers])
        .stderr(Stdio::null());
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_program_is_killed_the_archive_has_no_hole() {
    let deployment = Deployment::new("archive-killed").await;
    let mut crowd = Crowd::new(&deployment.topic, 6, 2 * 60_000);
    for point in CRASH_POINTS {
        run_until_it_crashes((point, 4), program(&deployment), || crowd.send(20)).await;
    }
    crowd.send(100);
    let ended = program(&deployment).arg("--until-end").spawn().unwrap().wait().unwrap();
    assert!(ended.success(), "{ended}");
    deployment.holds_what_was_produced(&crowd).await;
    deployment.is_whole(&[]);
    deployment.is_whole(&[ASKING_KAFKA]);
    let audit = Audit::begin(ClickHouse::new(&deployment.store.settings())).await.unwrap();
    audit.check(|outcome| assert_eq!(outcome.first, None, "{outcome:?}")).await.unwrap();
    let bindings = audit.check_bindings(&broker::settings(), &deployment.topic).await.unwrap();
    assert_eq!(bindings.first, None, "{bindings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_archive_each_record_once() {
    let deployment = Deployment::new("archive-cluster").await;
    let mut crowd = Crowd::new(&deployment.topic, 8, 2 * 60_000);
    crowd.send(600);
    let addresses = free_addresses(2);
    let start = |process: usize| {
        let cluster = Some(Cluster { process, addresses: addresses.clone() });
        engine::start(EngineConfig { cluster, snapshots: None, ..deployment.config(1) })
    };
    let (first, second) = (start(0).await.unwrap(), start(1).await.unwrap());
    first.drain();
    wait(first).await;
    wait(second).await;
    deployment.holds_what_was_produced(&crowd).await;
    let count = deployment.store.lines("SELECT count() FROM archive").await;
    assert_eq!(count, [crowd.sent().to_string()]);
    deployment.is_whole(&[ASKING_KAFKA]);
}

/// Two transactions to partition 0: an event, then a null value with headers.
fn send_in_transactions(topic: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker::settings().brokers)
        .set("transactional.id", topic)
        .create()
        .unwrap();
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).unwrap();
    let payload = event("in a transaction", 0, 0, "s1", 1);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "ce_id", value: Some("gone") })
        .insert(Header { key: "ce_source", value: Some("test") });
    let event = BaseRecord::<(), str>::to(topic).partition(0).payload(payload.as_str());
    let withdrawal = BaseRecord::<(), str>::to(topic).partition(0).headers(headers);
    for record in [event, withdrawal] {
        producer.begin_transaction().unwrap();
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.commit_transaction(wait).unwrap();
    }
}
