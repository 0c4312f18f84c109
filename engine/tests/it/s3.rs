//! Snapshots on S3, kept by a server that runs here: `s3s-fs`, which `scripts/test` installs.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use object_store::{
    Error as StorageError, ObjectStore, ObjectStoreExt, PutMode, aws::AmazonS3Builder,
    path::Path as ObjectPath,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream as Connection},
};

use crate::{
    broker::{self, create_topic, unique},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    processes::free_addresses,
    program::Program,
    restart::{bindings, left_behind, nothing_is_said_twice_differently},
    secrets::{Running, eventually},
    store::TestStore,
};

/// A server with one bucket, in a child process; gone when this is dropped.
struct S3Server {
    child: Child,
    folder: TempDir,
    address: String,
    secret: String,
}

impl S3Server {
    fn start() -> Self {
        // Whoever asks over HTTP needs one, even without TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bucket")).unwrap();
        let (address, secret) = (free_addresses(1).remove(0), unique("storage"));
        let child = serve(&address, &secret, folder.path());
        Self { child, folder, address, secret }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = serve(&self.address, &self.secret, self.folder.path());
    }

    /// Where it keeps what a deployment has in this folder, oldest name first.
    fn files(&self, deployment: &str, folder: &str) -> Vec<PathBuf> {
        let place = self.folder.path().join("bucket/path").join(deployment).join(folder);
        let mut files: Vec<_> =
            fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(address: &str, secret: &str, folder: &Path) -> Child {
    let (host, port) = address.split_once(':').unwrap();
    let child = Command::new("s3s-fs")
        .args(["--host", host, "--port", port, "--access-key", "key-id", "--secret-key", secret])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is no program s3s-fs; `make test` installs it");
    eventually("an S3 server", || TcpStream::connect(address).is_ok());
    child
}

/// A deployment whose engine is a program of its own, with snapshots on S3.
struct Deployment {
    topic: String,
    store: TestStore,
    program: Program,
    crowd: Crowd,
    logs: usize,
}

impl Deployment {
    async fn new(name: &str) -> Self {
        let topic = unique(name);
        create_topic(&topic, PARTITIONS as i32).await;
        let store = TestStore::start();
        let program = Program::new(&topic, &store.settings().url);
        let crowd = Crowd::new(&topic, 61, 30 * 60_000);
        Self { topic, store, program, crowd, logs: 0 }
    }

    /// An engine that reaches S3 at `address` and is told the server's secret.
    fn engine(&mut self, s3: &S3Server, address: &str, more: &[&str]) -> Engine {
        let mut command = self.program.command(&broker::settings().brokers);
        command
            .args(["--listen", "127.0.0.1:0", "--snapshots", "s3://bucket/path"])
            .args(["--snapshot-every", "250ms"])
            .args(more)
            .env("AWS_ACCESS_KEY_ID", "key-id")
            .env("AWS_SECRET_ACCESS_KEY", &s3.secret)
            .env("AWS_REGION", "nowhere")
            .env("AWS_ENDPOINT", format!("http://{address}"))
            .env("AWS_ALLOW_HTTP", "true")
            .env(
                "RUST_LOG",
                "info,object_store=trace,citycell=trace,hyper_util=trace,reqwest=trace",
            )
            .env("CITYCELL_LOG_FORMAT", "json");
        self.logs += 1;
        let log = self.program.folder().join(format!("{}.log", self.logs));
        Engine { running: Running::start(&mut command, log), secret: s3.secret.clone() }
    }

    async fn feed(&mut self, batches: usize) {
        for _ in 0..batches {
            self.crowd.send(60);
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    }

    /// One engine from its start to its crash; what it said.
    async fn run_and_crash(&mut self, s3: &S3Server) -> String {
        let engine = self.engine(s3, &s3.address, &[]);
        self.feed(14).await;
        // The first one may be of a time before there was anything to keep, and two are kept.
        let mut kept = 0;
        for _ in 0..3 {
            kept = engine.snapshot_after(kept).await;
        }
        engine.killed()
    }

    async fn finish(&mut self, s3: &S3Server) -> String {
        self.crowd.send(300);
        let mut engine = self.engine(s3, &s3.address, &["--until-end"]);
        let ended = engine.running.child.wait().unwrap();
        assert!(ended.success(), "{ended}: {}", engine.said());
        engine.said()
    }

    /// What plain SQL says is shown, and a run without snapshots writes the same rows and epochs.
    async fn assert_right(&self) {
        let bindings = bindings(&self.topic).await;
        assert_right(&self.store, &self.crowd, &bindings).await;
        nothing_is_said_twice_differently(&self.store).await;
        let ended = self
            .program
            .command(&broker::settings().brokers)
            .args(["--listen", "127.0.0.1:0", "--snapshots", "none", "--database", "replayed"])
            .arg("--until-end")
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(ended.success(), "{ended}");
        let last_epoch = bindings.last().unwrap().epoch.0;
        let table = ["crowd_flow_history"];
        let run = left_behind(&self.store, "city", &table, last_epoch).await;
        let replayed = left_behind(&self.store, "replayed", &table, last_epoch).await;
        for ((table, run), (_, replayed)) in run.iter().zip(&replayed) {
            assert!(!run.is_empty(), "{table} is empty");
            assert_eq!(run, replayed, "{table}");
        }
    }
}

/// `citycell run`.
struct Engine {
    running: Running,
    secret: String,
}

impl Engine {
    /// What it said so far, which no secret is in.
    fn said(&self) -> String {
        let said = String::from_utf8(self.running.said()).unwrap();
        assert!(!said.contains(&self.secret), "the secret key is in the log");
        said
    }

    fn killed(mut self) -> String {
        self.running.child.kill().unwrap();
        self.running.child.wait().unwrap();
        self.said()
    }

    fn signal(&self, name: &str) {
        let process = self.running.child.id().to_string();
        assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    }

    async fn metric(&self, name: &str) -> u64 {
        let address = self.running.address(r#""metrics and health are served","address":""#);
        let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
        let text = text.text().await.unwrap();
        assert!(!text.contains(&self.secret), "the secret key is in /metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    async fn until(&self, name: &str, holds: impl Fn(u64) -> bool) -> u64 {
        let started = Instant::now();
        loop {
            let value = self.metric(name).await;
            if holds(value) {
                return value;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{name} is still {value}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a later snapshot than that of `epoch` is kept; the epoch of it.
    async fn snapshot_after(&self, epoch: u64) -> u64 {
        let name = r#"citycell_snapshot_epoch_ms{pipeline="crowd_flow"}"#;
        self.until(name, |kept| kept > epoch).await
    }
}

const WENT_ON: &str = "going on from a snapshot";
const PASSED_OVER: &str = "a snapshot is unusable, trying the one before";

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_on_s3_are_gone_on_from_and_passed_over_where_damaged_or_missing() {
    let mut s3 = S3Server::start();
    let mut deployment = Deployment::new("s3").await;
    let went_on = |said: &str| (said.contains(WENT_ON), said.contains(PASSED_OVER));

    let said = deployment.run_and_crash(&s3).await;
    assert_eq!(went_on(&said), (false, false), "{said}");
    let said = deployment.run_and_crash(&s3).await;
    assert_eq!(went_on(&said), (true, false), "{said}");
    // 1. The newest manifest is cut short.
    let newest = s3.files(&deployment.topic, "manifests").pop().unwrap();
    let text = fs::read(&newest).unwrap();
    fs::write(&newest, &text[..text.len() / 2]).unwrap();
    s3.kill();
    s3.restart();
    let said = deployment.run_and_crash(&s3).await;
    assert_eq!(went_on(&said), (true, true), "{said}");
    // 2. It is gone.
    fs::remove_file(s3.files(&deployment.topic, "manifests").pop().unwrap()).unwrap();
    let said = deployment.run_and_crash(&s3).await;
    assert_eq!(went_on(&said), (true, false), "{said}");
    // 3. No run is left: everything is computed from Kafka again.
    for folder in s3.files(&deployment.topic, "runs") {
        for file in fs::read_dir(folder).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    let said = deployment.finish(&s3).await;
    assert_eq!(went_on(&said), (false, true), "{said}");
    deployment.assert_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_s3_is_away_epochs_go_on_and_then_snapshots_do() {
    let mut s3 = S3Server::start();
    let mut deployment = Deployment::new("s3-away").await;
    let engine = deployment.engine(&s3, &s3.address, &[]);
    deployment.feed(8).await;
    let before = engine.snapshot_after(0).await;
    s3.kill();
    engine.until("citycell_snapshot_failures_total", |failures| failures >= 2).await;
    let marked = "SELECT max(epoch) FROM epochs";
    let away = deployment.store.lines(marked).await;
    deployment.feed(20).await;
    assert!(deployment.store.lines(marked).await > away, "no epoch was marked without S3");
    s3.restart();
    let after = engine.snapshot_after(before.max(away[0].parse().unwrap())).await;
    assert!(after > before);
    let said = engine.killed();
    assert!(said.contains("is not written yet, trying again"), "{said}");
    let said = deployment.finish(&s3).await;
    assert!(said.contains(WENT_ON), "{said}");
    deployment.assert_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_answer_is_lost_is_known_for_ours() {
    let s3 = S3Server::start();
    let mut deployment = Deployment::new("s3-answer").await;
    let lose = Arc::new(AtomicBool::new(false));
    let proxy = losing_answers(s3.address.clone(), Arc::clone(&lose)).await;
    let engine = deployment.engine(&s3, &proxy, &[]);
    deployment.feed(8).await;
    let mut kept = engine.snapshot_after(0).await;
    for _ in 0..3 {
        lose.store(true, Ordering::Release);
        deployment.feed(8).await;
        eventually("a lost answer", || !lose.load(Ordering::Acquire));
        kept = engine.snapshot_after(kept).await;
    }
    let said = engine.killed();
    assert!(!said.contains("another engine keeps"), "{said}");
    let said = deployment.finish(&s3).await;
    assert!(said.contains(WENT_ON), "{said}");
    deployment.assert_right().await;
}

/// Passes requests on to `server`; of the next manifest that is put, while `lose` is set, the answer
/// is lost.
async fn losing_answers(server: String, lose: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = Connection::connect(&server).await.unwrap();
            tokio::spawn(pass_on(client, server, Arc::clone(&lose)));
        }
    });
    address
}

/// Both ways, until one side is closed.
async fn pass_on(mut client: Connection, mut server: Connection, lose: Arc<AtomicBool>) {
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut puts_manifest = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(1..) = read else { return };
                let sent = &request[..read.unwrap()];
                let line = sent.split(|byte| *byte == b'\r').next().unwrap_or_default();
                let line = String::from_utf8_lossy(line);
                if line.ends_with("HTTP/1.1") {
                    puts_manifest = line.starts_with("PUT") && line.contains("/manifests/");
                }
                server.write_all(sent).await.unwrap();
            }
            read = server.read(&mut answer) => {
                let Ok(1..) = read else { return };
                if puts_manifest && lose.swap(false, Ordering::AcqRel) {
                    return;
                }
                client.write_all(&answer[..read.unwrap()]).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thawed_engine_neither_binds_nor_replaces_a_manifest_on_s3() {
    let s3 = S3Server::start();
    // The server itself refuses to replace what is there.
    let bucket = AmazonS3Builder::new()
        .with_endpoint(format!("http://{}", s3.address))
        .with_allow_http(true)
        .with_region("nowhere")
        .with_bucket_name("bucket")
        .with_access_key_id("key-id")
        .with_secret_access_key(&s3.secret)
        .build()
        .unwrap();
    let create = async |data: &'static str| {
        bucket.put_opts(&ObjectPath::from("once"), data.into(), PutMode::Create.into()).await
    };
    create("first").await.unwrap();
    let refused = create("second").await.unwrap_err();
    assert!(matches!(refused, StorageError::AlreadyExists { .. }), "{refused}");
    assert_eq!(bucket.get(&"once".into()).await.unwrap().bytes().await.unwrap(), "first");

    let mut deployment = Deployment::new("s3-thawed").await;
    let mut frozen = deployment.engine(&s3, &s3.address, &[]);
    deployment.feed(8).await;
    frozen.snapshot_after(0).await;
    frozen.signal("-STOP");
    let engine = deployment.engine(&s3, &s3.address, &[]);
    deployment.feed(8).await;
    let kept = engine.snapshot_after(0).await;
    frozen.signal("-CONT");
    deployment.feed(8).await;
    let ended = frozen.running.child.wait().unwrap();
    assert!(!ended.success() && frozen.said().contains("another engine"), "{}", frozen.said());
    engine.snapshot_after(kept).await;
    let said = engine.killed();
    assert!(said.contains(WENT_ON) && !said.contains("another engine"), "{said}");
    deployment.finish(&s3).await;
    deployment.assert_right().await;
}
