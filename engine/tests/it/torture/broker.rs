//! A real broker of our own, which nobody minds being killed.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{proxy::Proxy, signal};

pub(crate) struct OwnBroker {
    port: u16,
    folder: TempDir,
    /// The way on which it can be disturbed: whoever connects to this stays on it.
    pub(super) proxy: Proxy,
}

impl OwnBroker {
    pub(crate) async fn start() -> Self {
        let port = free_ports();
        let proxy = Proxy::start(format!("127.0.0.1:{}", port + 3)).await;
        let broker = Self { port, folder: tempfile::tempdir().unwrap(), proxy };
        broker.script("start");
        broker
    }

    /// The straight way.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill_and_restart(&self, away: Duration) {
        signal(self.pid(), "KILL");
        std::thread::sleep(away);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.address()).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.script("start");
    }

    pub(crate) fn freeze(&self, away: Duration) {
        signal(self.pid(), "STOP");
        std::thread::sleep(away);
        signal(self.pid(), "CONT");
    }

    fn pid(&self) -> u32 {
        let file = self.folder.path().join("broker.pid");
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    fn script(&self, name: &str) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka");
        let done = Command::new(scripts.join(name))
            .env("KAFKA_PORT", self.port.to_string())
            .env("KAFKA_DATA", self.folder.path())
            .env("KAFKA_PROXY", self.proxy.address.to_string())
            .stdout(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "scripts/kafka/{name} failed");
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.script("stop");
    }
}

/// A port that is free with the few after it, which the broker takes too.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if first < 65_000 && (first..first + 4).all(free) {
            return first;
        }
    }
}
