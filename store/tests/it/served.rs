//! A store in a child process: this test binary, started again to serve.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use citycell_store::{Store, StoreConfig, User};
use tempfile::TempDir;

const DATA_VARIABLE: &str = "CITYCELL_STORE_TEST_DATA";
const LISTENING: &str = "listening on ";

pub(crate) const WRITER: (&str, &str) = ("writer", "w-secret");
pub(crate) const READER: (&str, &str) = ("reader", "r-secret");

/// A store that serves in a child process, until stopped or killed.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    child: Mutex<Child>,
    // Kept open: what the child prints must have somewhere to go.
    _stdout: BufReader<ChildStdout>,
}

impl Served {
    /// Starts a store on `data`.
    pub(crate) fn start(data: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "served::child_serves", "--nocapture", "--quiet"])
            .env(DATA_VARIABLE, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the store did not start");
            if let Some((_, address)) = line.trim().split_once(LISTENING) {
                break address.parse().unwrap();
            }
        };
        Self { address, child: Mutex::new(child), _stdout: stdout }
    }

    /// Starts a store on a new folder.
    pub(crate) fn fresh() -> (Self, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Self::start(folder.path()), folder)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A client of the `clickhouse` crate.
    pub(crate) fn client(&self, (name, password): (&str, &str)) -> clickhouse::Client {
        clickhouse::Client::default()
            .with_url(self.url())
            .with_user(name)
            .with_password(password)
            .with_compression(clickhouse::Compression::None)
    }

    /// Sends a request to `/` with `parameters` in the URL and waits for the whole answer.
    pub(crate) async fn post(
        &self,
        user: (&str, &str),
        parameters: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let url = reqwest::Url::parse_with_params(&self.url(), parameters).unwrap();
        let request = http_client().post(url).basic_auth(user.0, Some(user.1)).body(body);
        Answer::of(request.send().await.unwrap()).await
    }

    /// Runs a statement that must succeed, and returns what it printed.
    pub(crate) async fn run(&self, user: (&str, &str), sql: &str) -> String {
        let answer = self.post(user, &[], sql.to_owned()).await;
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text);
        answer.text
    }

    /// Kills the store as nothing can prepare for: SIGKILL.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the store cleanly; its process must end well.
    pub(crate) fn stop(self) {
        let mut child = self.child.lock().unwrap();
        drop(child.stdin.take());
        let status = child.wait().unwrap();
        assert!(status.success(), "the store's process ended with {status}");
    }
}

/// A client of plain HTTP; it asks for a provider of TLS all the same when it is made.
pub(crate) fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After stop or kill there is nothing left to kill.
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The child: serves until its standard input closes. Without the variable there is nothing to do.
#[test]
fn child_serves() {
    let Some(data) = std::env::var_os(DATA_VARIABLE) else {
        return;
    };
    let user =
        |(name, password): (&str, &str)| User { name: name.to_owned(), password: password.into() };
    let config = StoreConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: data.into(),
        writer: user(WRITER),
        reader: user(READER),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::start(config).await.unwrap_or_else(|error| panic!("{error}"));
        println!("{LISTENING}{}", store.local_addr());
        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        closed.await.unwrap().unwrap();
        store.shutdown().await;
    });
}
