//! The engine as a process, and the memory it takes.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    city::{grid_file, text},
    processes::free_addresses,
    torture::signal,
};

use super::Settings;

const MIB: u64 = 1 << 20;
const PIPELINES: u64 = 3;
const WORKERS: u64 = 2;
const BUFFER_BYTES: u64 = 4 * MIB;
const BACKLOG_MEMORY_BYTES: u64 = 4 * MIB;

/// Three pipelines: one that takes late events, one that takes none, so that a watermark that jumps
/// would show, and one that declares sensors silent.
fn files(topic: &str, settings: &Settings) -> [(&'static str, String); PIPELINES as usize] {
    let latest = format!(
        "
pipeline: latest
source:
  topic: {topic}
  schema: crowd_flow
  event_time: dateObserved
  location: {{lon: lon, lat: lat, crs: wgs84}}
  late: {{allow: 1s}}
latest: {{by: [sensorId], expire: {}s, forget: 1d}}
aggregate:
  sensors: count()
  known: count(peopleCount)
  people: sum(peopleCount)
roll_up: [city]
",
        settings.expire.as_secs()
    );
    let strict = text("strict", topic).replace("allow: 10m", "allow: 1s");
    [("crowd.yaml", text("crowd_flow", topic)), ("strict.yaml", strict), ("latest.yaml", latest)]
}

pub(super) struct Process {
    child: Child,
    _folder: TempDir,
    address: String,
    client: reqwest::Client,
    peak_kib: Arc<AtomicU64>,
    live_bytes: u64,
    ended: Arc<AtomicBool>,
    interrupted: bool,
    /// Seconds and number of inserts when they were last looked at.
    inserts: (f64, f64),
}

impl Process {
    pub(super) fn start(
        settings: &Settings,
        topic: &str,
        (brokers, clickhouse): (&str, &str),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("grid.geojson"), grid_file()).unwrap();
        let files = files(topic, settings);
        for (name, text) in &files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let address = free_addresses(1).remove(0);
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let child = Command::new(env!("CARGO_BIN_EXE_citycell"))
            .current_dir(&folder)
            .arg("run")
            .args(files.map(|(name, _)| name))
            .args(["--grid", "grid.geojson", "--deployment", topic, "--brokers", brokers])
            .args(["--clickhouse", clickhouse, "--listen", &address])
            .args(["--tick", &ms(settings.tick), "--idle-after", &ms(settings.idle_after)])
            .args(["--workers", &WORKERS.to_string()])
            .args(["--buffer-bytes", &BUFFER_BYTES.to_string()])
            .args(["--backlog-memory-bytes", &BACKLOG_MEMORY_BYTES.to_string()])
            .args(["--unmarked-max", &settings.unmarked_max().to_string()])
            .args(["--snapshot-every", "10s"])
            .stdout(Stdio::null())
            .stderr(File::create(log()).unwrap())
            .spawn()
            .unwrap();
        // Plain HTTP, but the client asks for a provider of TLS when it is made.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (client, peak_kib) = (reqwest::Client::new(), Arc::<AtomicU64>::default());
        let ended = Arc::new(AtomicBool::new(false));
        tokio::spawn(watch(
            format!("/proc/{}/status", child.id()),
            Arc::clone(&peak_kib),
            Arc::clone(&ended),
        ));
        Self {
            child,
            _folder: folder,
            address,
            client,
            peak_kib,
            live_bytes: 0,
            ended,
            interrupted: false,
            inserts: (0.0, 0.0),
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to write what is bound and end.
    pub(super) fn stop_once(&mut self) {
        if !std::mem::replace(&mut self.interrupted, true) {
            signal(self.child.id(), "INT");
        }
    }

    /// What it said last.
    pub(super) fn said(&self) -> String {
        let said = std::fs::read_to_string(log()).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The most memory it took since this was last asked, MiB.
    pub(super) fn peak_mib(&self) -> u64 {
        self.peak_kib.swap(0, Ordering::Relaxed) / 1024
    }

    /// The most that the engine may take, MiB: docs/guide/operating.md says why.
    pub(super) fn bound_mib(&self) -> u64 {
        let program = 150 * MIB;
        let fetched = WORKERS * 40 * MIB;
        let on_its_way = WORKERS * BUFFER_BYTES * (2 + 6 * PIPELINES);
        (program + fetched + on_its_way + 2 * BACKLOG_MEMORY_BYTES + 2 * self.live_bytes) / MIB
    }

    /// Takes note of how much the pipelines keep.
    pub(super) async fn look_at_state(&mut self) {
        self.live_bytes = self.live_bytes.max(self.metric("citycell_live_bytes").await as u64);
    }

    /// The mean time of an insert since this was last asked.
    pub(super) async fn insert_seconds(&mut self) -> f64 {
        let sum = self.metric("citycell_insert_seconds_sum").await;
        let count = self.metric("citycell_insert_seconds_count").await;
        let before = std::mem::replace(&mut self.inserts, (sum, count));
        (sum - before.0) / (count - before.1).max(1.0)
    }

    /// Over all pipelines.
    async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.address);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let of_metric = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        let values = text.lines().filter(of_metric).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the engine says. It outlives the test.
fn log() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pressure.log")
}

async fn watch(status: String, peak_kib: Arc<AtomicU64>, ended: Arc<AtomicBool>) {
    while !ended.load(Ordering::Relaxed) {
        if let Ok(text) = std::fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
            peak_kib.fetch_max(kib.unwrap_or_default(), Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
