//! A real ClickHouse in a child process: `citycell store`.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use citycell::clickhouse::{ClickHouse, ClickHouseSettings, placement::Placement};
use clickhouse::{Client, Compression};
use tempfile::TempDir;

/// A store with a folder of its own; both are gone when this is dropped.
pub(crate) struct TestStore {
    child: Child,
    url: String,
    folder: TempDir,
    options: Vec<String>,
}

impl TestStore {
    pub(crate) fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// With further options of `citycell store`.
    pub(crate) fn start_with(options: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (child, url) = serve("127.0.0.1:0", &folder, &options);
        Self { child, url, folder, options }
    }

    /// Kills it as a crash would, and starts it again on the same data and address.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same data and address.
    pub(crate) fn restart(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        (self.child, self.url) = serve(&address, &self.folder, &self.options);
    }

    /// Where its files lie.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn settings(&self) -> ClickHouseSettings {
        ClickHouseSettings {
            url: self.url.clone(),
            user: "default".into(),
            password: String::new(),
            database: "city".into(),
            tls: None,
            placement: Placement::OneServer,
        }
    }

    /// Creates the database and runs a statement in it.
    pub(crate) async fn execute(&self, sql: &str) {
        let clickhouse = ClickHouse::new(&self.settings());
        clickhouse.create_database().await.unwrap();
        let done = clickhouse.execute(sql, sql).await;
        done.unwrap_or_else(|error| panic!("{error}: {}", error.source));
    }

    /// Inserts data in one of ClickHouse's formats.
    pub(crate) async fn insert(&self, table: &str, format: &str, data: Vec<u8>) {
        let settings = self.settings();
        let client = Client::default()
            .with_url(settings.url)
            .with_user(settings.user)
            .with_database(settings.database)
            .with_compression(Compression::None);
        let mut insert =
            client.insert_formatted_with(format!("INSERT INTO {table} FORMAT {format}"));
        insert.send(data.into()).await.unwrap();
        insert.end().await.unwrap();
    }

    /// The rows of a query as tab-separated lines.
    pub(crate) async fn lines(&self, sql: &str) -> Vec<String> {
        let clickhouse = ClickHouse::new(&self.settings());
        let answer = clickhouse.query(sql, sql, "TabSeparated").await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", error.source));
        String::from_utf8(answer.to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits until a table is there.
    pub(crate) async fn until_there(&self, table: &str) {
        let there = "SELECT count() FROM system.tables WHERE database = 'city' AND name = ";
        let started = Instant::now();
        let elsewhere = ClickHouseSettings { database: "system".into(), ..self.settings() };
        let clickhouse = ClickHouse::new(&elsewhere);
        let sql = format!("{there}'{table}'");
        while clickhouse.query("look", &sql, "TabSeparated").await.unwrap() != "1\n" {
            assert!(started.elapsed() < Duration::from_secs(30), "there is no {table}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until a query answers one line, this one.
    pub(crate) async fn until(&self, sql: &str, expected: &str) {
        let started = Instant::now();
        while self.lines(sql).await != [expected] {
            assert!(started.elapsed() < Duration::from_secs(30), "{sql} is not {expected}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        // Gone already is fine; a test's outcome does not depend on it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(listen: &str, folder: &TempDir, options: &[String]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_citycell"))
        .args(["store", "--listen", listen, "--data"])
        .arg(folder.path())
        .args(options)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = lines
        .by_ref()
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("answers on ")?.1.to_owned()))
        .expect("the store did not start; `npm ci` in store/ installs its library");
    std::thread::spawn(move || lines.for_each(drop));
    (child, url)
}
