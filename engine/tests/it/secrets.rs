//! Secrets are told to the program and never said by it: wherever it writes, they are searched for.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use axum::{Router, http::HeaderMap, http::StatusCode};
use citycell::clickhouse::{ClickHouse, ClickHouseSettings, placement::Placement};
use tempfile::TempDir;

use crate::{
    broker::{self, Sender, create_topic, unique},
    city::event,
    program::Program,
    secure_kafka::Listener,
};

/// What nobody may read, each to be told from all other text.
struct Secrets {
    kafka: String,
    clickhouse: String,
    reader: String,
    token: String,
    storage: String,
}

impl Secrets {
    fn new() -> Self {
        let [kafka, clickhouse, reader, token, storage] =
            ["kafka", "clickhouse", "reader", "token", "storage"].map(unique);
        Self { kafka, clickhouse, reader, token, storage }
    }

    /// Tells a program everything through its environment, and to say all it can.
    fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("CITYCELL_CLICKHOUSE_PASSWORD", &self.clickhouse)
            .env("CITYCELL_WRITER_PASSWORD", &self.clickhouse)
            .env("CITYCELL_READER_PASSWORD", &self.reader)
            .env("CITYCELL_TOKEN", &self.token)
            .env("AWS_ACCESS_KEY_ID", "key-id")
            .env("AWS_SECRET_ACCESS_KEY", &self.storage)
            .env("AWS_REGION", "nowhere")
            .env("AWS_ALLOW_HTTP", "true")
            .env("RUST_LOG", "trace")
            .env("CITYCELL_LOG_FORMAT", "json")
    }

    fn are_not_in(&self, what: &str, text: &[u8]) {
        let all = [&self.kafka, &self.clickhouse, &self.reader, &self.token, &self.storage];
        for secret in all {
            let found = text.windows(secret.len()).position(|part| part == secret.as_bytes());
            if let Some(place) = found {
                let around = &text[place.saturating_sub(200)..(place + 100).min(text.len())];
                panic!("{secret} is in {what}: {}", String::from_utf8_lossy(around));
            }
        }
    }

    fn are_not_in_folder(&self, folder: &Path) -> usize {
        let mut files = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files += self.are_not_in_folder(&path);
            } else {
                self.are_not_in(&path.display().to_string(), &fs::read(&path).unwrap());
                files += 1;
            }
        }
        files
    }
}

/// A program that is killed in the end; what it says goes to a file.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let (out, err) = (file.try_clone().unwrap(), file);
        let child = command.stdout(out).stderr(err).spawn().unwrap();
        Self { child, log }
    }

    pub(crate) fn said(&self) -> Vec<u8> {
        fs::read(&self.log).unwrap()
    }

    /// The address that is said after `words`.
    pub(crate) fn address(&self, words: &str) -> String {
        let mut address = None;
        eventually(words, || {
            let said = String::from_utf8_lossy(&self.said()).into_owned();
            let rest = said.split_once(words).map(|(_, rest)| rest.to_owned());
            address = rest.and_then(|rest| {
                let end =
                    rest.find(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter));
                Some(rest[..end?].to_owned())
            });
            address.is_some()
        });
        address.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "it never came to {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A store that knows the secrets.
fn store(secrets: &Secrets, folder: &TempDir) -> (Running, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
    secrets.tell(&mut command).args(["store", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("data")).stdin(Stdio::null());
    let store = Running::start(&mut command, folder.path().join("store.log"));
    let address = store.address("ClickHouse answers on http://");
    (store, format!("http://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_at_work_shows_no_secret_anywhere() {
    let mut secrets = Secrets::new();
    let folder = tempfile::tempdir().unwrap();
    let (store, url) = store(&secrets, &folder);
    let topic = unique("crowd");
    create_topic(&topic, 1).await;
    let sender = Sender::new();
    sender.send(&topic, 0, Some(event("1", 0, 0, "a", 10).as_bytes()));
    sender.send(&topic, 0, Some(b"{"));
    sender.flush();

    let program = Program::new(&topic, &url);
    let settings = program.folder().join("kafka.settings");
    let brokers = match Listener::find() {
        Some(listener) => {
            secrets.kafka = listener.setting("sasl.password").to_owned();
            fs::write(&settings, &listener.settings).unwrap();
            listener.address
        }
        None => {
            fs::write(&settings, format!("sasl.password={}", secrets.kafka)).unwrap();
            broker::settings().brokers
        }
    };
    let snapshots = folder.path().join("snapshots");
    let mut command = program.command(&brokers);
    secrets.tell(&mut command).args(["--listen", "127.0.0.1:0", "--kafka", "debug=all"]);
    command.arg("--kafka-settings").arg(settings).arg("--snapshots").arg(&snapshots);
    command.args(["--snapshot-every", "1s"]);
    let running = Running::start(&mut command, folder.path().join("run.log"));

    let address = running.address(r#""metrics and health are served","address":""#);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = format!("http://{address}/metrics");
    let client = reqwest::Client::new();
    let get = async |token: &str| client.get(&metrics).bearer_auth(token).send().await.unwrap();
    assert_eq!(get("a guess").await.status().as_u16(), 401);
    let counted = r#"citycell_records_total{pipeline="crowd_flow",outcome="counted"} 1"#;
    let mut exposition = String::new();
    while !exposition.contains(counted) {
        exposition = get(&secrets.token).await.text().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    secrets.are_not_in("/metrics", exposition.as_bytes());
    eventually("a snapshot", || snapshots.is_dir() && secrets.are_not_in_folder(&snapshots) > 1);

    let clickhouse = ClickHouse::new(&ClickHouseSettings {
        url,
        user: "default".into(),
        password: secrets.clickhouse.clone(),
        database: "city".into(),
        tls: None,
        placement: Placement::OneServer,
    });
    for table in ["versions", "epochs", "rejects", "cells", "crowd_flow"] {
        let sql = format!("SELECT * FROM {table}");
        let rows = clickhouse.query("read", &sql, "JSONEachRow").await.unwrap();
        assert!(!rows.is_empty(), "{table}");
        secrets.are_not_in(table, &rows);
    }
    // It did say a lot, at every level and of every part.
    let said = running.said();
    let text = String::from_utf8_lossy(&said);
    for part in [r#""level":"TRACE""#, r#""level":"DEBUG""#, "librdkafka: CONNECT", &topic] {
        assert!(text.contains(part), "{part} is not in the log");
    }
    secrets.are_not_in("the log", &said);
    secrets.are_not_in("the store's log", &store.said());
    drop((running, store));
    secrets.are_not_in_folder(&folder.path().join("data"));
}

/// An object store that refuses everyone, and repeats all it was told.
async fn refusing_storage() -> String {
    let refuse = async |headers: HeaderMap| (StatusCode::FORBIDDEN, format!("{headers:?}"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(refuse)).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_shows_no_secret_either() {
    let secrets = Secrets::new();
    let folder = tempfile::tempdir().unwrap();
    let (store, url) = store(&secrets, &folder);
    let storage = refusing_storage().await;
    let brokers = broker::settings().brokers;
    let program = Program::new(&unique("crowd"), &url);
    let settings = |name: &str, line: &str| {
        let path = program.folder().join(name);
        fs::write(&path, line).unwrap();
        path.display().to_string()
    };
    let Secrets { kafka, clickhouse, token, .. } = &secrets;
    let fails = |words: &[&str], expected: &[&str]| {
        let mut command = program.command(&brokers);
        command.env("AWS_ENDPOINT", &storage);
        let output = secrets.tell(&mut command).args(words).output().unwrap();
        assert_refused(&secrets, &output, words, expected);
    };
    let mistyped = settings("mistyped", &format!("sasl.pasword={kafka}"));
    let broken = settings("broken", &format!("\n{kafka}"));
    let empty = settings("empty", "");
    let wrong = settings("wrong", kafka);

    // Where a secret does not belong.
    let from_file = "--kafka-settings";
    let of = |secret: &str| format!("sasl.password={secret}");
    fails(&["--kafka", &of(kafka)], &["sasl.password", "may list processes", from_file]);
    fails(&["--kafka", kafka], &["--kafka takes key=value"]);
    fails(&[&format!("--password={clickhouse}")], &["--password"]);
    fails(&["--token", token], &["--token"]);
    let with_user = format!("http://default:{clickhouse}@127.0.0.1:9");
    let other = Program::new("other", &with_user);
    let output = secrets.tell(&mut other.command(&brokers)).output().unwrap();
    let words = ["--clickhouse with a password"];
    assert_refused(&secrets, &output, &words, &["http://127.0.0.1:9 would", "--password-file"]);
    let bucket = format!("s3://key:{kafka}@bucket/path");
    fails(&["--snapshots", &bucket], &["cannot keep snapshots at s3://bucket/path", "environment"]);

    // Where it belongs, but something is wrong.
    fails(&[from_file, &mistyped], &["sasl.pasword"]);
    fails(&[from_file, &broken], &["broken:2: expected key=value"]);
    fails(&["--password-file", &empty], &["empty holds no secret"]);
    fails(&["--password-file", &wrong], &[&url, "password is incorrect"]);
    fails(&["--token-file", "nowhere"], &["cannot read the secret in nowhere"]);
    fails(&["--snapshots", "s3://bucket/path"], &["cannot", "403"]);
    if let Some(listener) = Listener::find() {
        let right = listener.setting("sasl.password");
        let wrong = settings("wrong", &listener.settings.replace(right, kafka));
        let mut command = program.command(&listener.address);
        secrets.tell(&mut command).args([from_file, &wrong, "--kafka", "debug=all"]);
        let words = ["a wrong password for Kafka"];
        assert_refused(&secrets, &command.output().unwrap(), &words, &["SASL auth"]);
    }
    secrets.are_not_in("the store's log", &store.said());
}

#[test]
fn commands_that_need_no_secret_show_none() {
    let secrets = Secrets::new();
    let program = Program::new("crowd", "http://127.0.0.1:9");
    for words in [vec!["plan", "crowd.yaml"], vec!["plan", "--json", "."], vec!["check", "."]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
        let output = secrets.tell(&mut command).current_dir(program.folder()).args(&words).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        secrets.are_not_in(&words.join(" "), &[output.stdout, output.stderr].concat());
    }
}

#[test]
fn an_address_that_others_reach_is_refused_without_token_or_password() {
    let program = Program::new("crowd", "http://127.0.0.1:9");
    let mut command = program.command("127.0.0.1:9");
    let output = command.args(["--listen", "0.0.0.0:0"]).env_remove("CITYCELL_TOKEN").output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("0.0.0.0:0") && said.contains("--token-file"), "{said}");

    let secrets = Secrets::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
    secrets.tell(&mut command).env_remove("CITYCELL_READER_PASSWORD");
    let data = program.folder().join("data");
    command.args(["store", "--listen", "0.0.0.0:0", "--data"]).arg(&data);
    let words = ["a store that others reach"];
    let expected = ["the user \"reader\" has no password"];
    assert_refused(&secrets, &command.output().unwrap(), &words, &expected);
    assert!(!data.exists());
}

/// It failed, said why, and no more than that.
fn assert_refused(secrets: &Secrets, output: &Output, words: &[&str], expected: &[&str]) {
    let what = words[0];
    assert!(!output.status.success(), "{what}: {output:?}");
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    secrets.are_not_in(what, &said);
    let text = String::from_utf8_lossy(&said);
    for part in expected {
        assert!(text.contains(part), "{what}: {part} is not in\n{text}");
    }
}
