//! A store in a child process: this test binary, started again to serve.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use citycell_store::{Store, StoreConfig, User};
use tempfile::TempDir;

const DATA_VARIABLE: &str = "CITYCELL_STORE_TEST_DATA";
const LISTENING: &str = "listening on ";

pub(crate) const WRITER: (&str, &str) = ("writer", "w-secret");
pub(crate) const READER: (&str, &str) = ("reader", "r-secret");

/// A store that serves in a child process, until stopped or killed.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    child: Child,
    // Kept open: the child takes a closed pipe as the wish to end.
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
            assert_ne!(
                stdout.read_line(&mut line).unwrap(),
                0,
                "the store did not start"
            );
            if let Some((_, address)) = line.trim().split_once(LISTENING) {
                break address.parse().unwrap();
            }
        };
        Self {
            address,
            child,
            _stdout: stdout,
        }
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

    /// Ends the store cleanly; its process must end well.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the store's process ended with {status}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After stop or kill there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child: serves until its standard input closes. Without the variable there is nothing to do.
#[test]
fn child_serves() {
    let Some(data) = std::env::var_os(DATA_VARIABLE) else {
        return;
    };
    let user = |(name, password): (&str, &str)| User {
        name: name.to_owned(),
        password: password.into(),
    };
    let config = StoreConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: data.into(),
        writer: user(WRITER),
        reader: user(READER),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::start(config).await.unwrap();
        println!("{LISTENING}{}", store.local_addr());
        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        closed.await.unwrap().unwrap();
        store.shutdown().await;
    });
}
