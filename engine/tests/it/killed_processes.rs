//! Processes that share the work are killed, started otherwise, or come late: all end, or wait, and
//! no number changes.

use std::{
    fs::File,
    io::Write,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use citycell::engine::{self, Cluster, EngineError, RunningEngine};

use crate::{
    broker::{self, create_topic, unique},
    city::{config, crowd_flow, grid_file, text},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    processes::free_addresses,
    program::Program,
    restart::{bindings, nothing_is_said_twice_differently},
    store::TestStore,
};

/// Longer than any process needs to notice that another is gone.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// `citycell run` as several processes.
struct Processes {
    program: Program,
    addresses: Vec<String>,
}

/// One of them, which is killed when it is dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Processes {
    fn new(topic: &str, store: &TestStore, count: usize) -> Self {
        let program = Program::new(topic, &store.settings().url);
        Self { program, addresses: free_addresses(count) }
    }

    fn start_all(&self) -> Vec<Process> {
        (0..self.addresses.len()).map(|process| self.start(process, &[])).collect()
    }

    fn start(&self, process: usize, more: &[&str]) -> Process {
        let log = self.program.folder().join(format!("{process}.log"));
        let child = self
            .program
            .command(&broker::settings().brokers)
            .args(["--listen", "127.0.0.1:0", "--snapshot-every", "300ms"])
            .args(["--process", &process.to_string(), "--peers", &self.addresses.join(",")])
            .args(more)
            .stderr(File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Process { child, log }
    }
}

impl Process {
    /// What it said, once it has ended by itself and not well.
    async fn failed(mut self) -> String {
        let deadline = Instant::now() + ENDS_WITHIN;
        loop {
            let said = std::fs::read_to_string(&self.log).unwrap();
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(!status.success(), "{said}");
                return said;
            }
            assert!(Instant::now() < deadline, "it does not end: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until its log has this.
    async fn says(&self, text: &str) {
        let deadline = Instant::now() + ENDS_WITHIN;
        while !std::fs::read_to_string(&self.log).unwrap().contains(text) {
            assert!(Instant::now() < deadline, "it never says {text:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends some and waits until all that was sent is marked.
async fn feed(crowd: &mut Crowd, store: &TestStore) {
    for _ in 0..8 {
        crowd.send(90);
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    let marked = "SELECT sum(records) FROM (SELECT DISTINCT epoch, records FROM epochs)";
    store.until(marked, &crowd.sent().to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_process_is_killed_all_end_and_go_on_from_the_last_manifest() {
    let mut store = TestStore::start();
    let topic = unique("one-killed");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 61, 30 * 60_000);
    let processes = Processes::new(&topic, &store, 3);
    for killed in [2, 0, 1] {
        let mut all = processes.start_all();
        all[0].says("metrics and health are served").await;
        feed(&mut crowd, &store).await;
        // Some of it is bound and not marked when the process is killed.
        crowd.send(100);
        let mut victim = all.remove(killed);
        victim.child.kill().unwrap();
        victim.child.wait().unwrap();
        for (process, other) in all.into_iter().enumerate() {
            let said = other.failed().await;
            assert!(
                said.contains("is gone, so this one ends too"),
                "{process} of {killed}: {said}"
            );
            if killed != 2 {
                assert!(said.contains("going on from a snapshot"), "{process}: {said}");
            }
        }
        if killed == 0 {
            store.kill_and_restart();
        }
    }
    let all = processes.start_all();
    feed(&mut crowd, &store).await;
    drop(all);
    assert_right(&store, &crowd, &bindings(&topic).await).await;
    nothing_is_said_twice_differently(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_while_others_are_waited_for_is_waited_for_again() {
    let store = TestStore::start();
    let topic = unique("start-up");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 62, 30 * 60_000);
    let processes = Processes::new(&topic, &store, 3);
    let first = processes.start(0, &[]);
    first.says("metrics and health are served").await;
    // A stranger, who says nothing that we know.
    let mut stranger = TcpStream::connect(&processes.addresses[0]).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    first.says("no citycell process").await;
    let mut last = processes.start(2, &[]);
    last.says("metrics and health are served").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    last.child.kill().unwrap();
    last.child.wait().unwrap();
    first.says("a process is gone again").await;
    let last = processes.start(2, &[]);
    let second = processes.start(1, &[]);
    feed(&mut crowd, &store).await;
    drop((first, second, last));
    assert_right(&store, &crowd, &bindings(&topic).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_started_otherwise_is_refused() {
    let store = TestStore::start();
    let topic = unique("otherwise");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 63, 30 * 60_000);
    let processes = Processes::new(&topic, &store, 2);
    let file = |name: &str, text: String| {
        std::fs::write(processes.program.folder().join(name), text).unwrap();
    };
    file("other.yaml", text("other", &topic));
    let first = processes.start(0, &[]);
    first.says("metrics and health are served").await;
    for (options, what) in [
        (["--workers", "2"], "--workers"),
        (["--snapshots", "none"], "--snapshots"),
        (["--archive", "1d"], "--archive"),
        (["other.yaml", "--until-end"], "pipelines"),
        (["--stale-after", "9s"], "grid"),
    ] {
        if what == "grid" {
            file("grid.geojson", grid_file().replace("10000", "10001"));
        }
        let said = processes.start(1, &options).failed().await;
        assert!(said.contains(&format!("process 0 was started with another {what}")), "{said}");
        first.says(&format!("what=\"{what}\"")).await;
    }
    file("grid.geojson", grid_file());
    // One that fits is let in all the same.
    let second = processes.start(1, &[]);
    feed(&mut crowd, &store).await;
    drop((first, second));
    assert_right(&store, &crowd, &bindings(&topic).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_ends_while_others_are_waited_for_ends() {
    let store = TestStore::start();
    let topic = unique("alone");
    create_topic(&topic, 1).await;
    let mut config = config(&topic, store.settings(), vec![crowd_flow(&topic)]);
    config.cluster = Some(Cluster { process: 0, addresses: free_addresses(2) });
    let engine = engine::start(config).await.unwrap();
    engine.stop();
    ended(engine).await.unwrap();
}

async fn ended(engine: RunningEngine) -> Result<(), EngineError> {
    let ended = tokio::task::spawn_blocking(|| engine.wait());
    tokio::time::timeout(ENDS_WITHIN, ended).await.expect("it does not end").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_engine_ends_in_good_order_but_alone_the_others_end_too() {
    let store = TestStore::start();
    let topic = unique("one-ends");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 64, 60_000);
    let addresses = free_addresses(2);
    let start = |process| {
        let mut config = config(&topic, store.settings(), vec![crowd_flow(&topic)]);
        config.cluster = Some(Cluster { process, addresses: addresses.clone() });
        engine::start(config)
    };
    let (first, second) = (start(0).await.unwrap(), start(1).await.unwrap());
    feed(&mut crowd, &store).await;
    second.abandon();
    ended(second).await.unwrap();
    let said = ended(first).await.unwrap_err().to_string();
    assert!(said.starts_with("process 1 is gone"), "{said}");
}
