//! The engine as a process, started again whenever it ends.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::city::{grid_file, text};

use super::signal;

/// What every engine of the deployment is started with.
pub(super) struct Program {
    folder: TempDir,
    log: PathBuf,
    topic: String,
    brokers: String,
    clickhouse: String,
    snapshots: PathBuf,
    shim: Option<PathBuf>,
}

impl Program {
    /// It logs to a file of this name.
    pub(super) fn new(log: &str, topic: &str, brokers: String, clickhouse: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("grid.geojson"), grid_file()).unwrap();
        std::fs::write(folder.path().join("crowd.yaml"), text("crowd_flow", topic)).unwrap();
        std::fs::write(folder.path().join("other.yaml"), text("other", topic)).unwrap();
        std::fs::write(folder.path().join("clock"), "0").unwrap();
        let snapshots = folder.path().join("snapshots");
        std::fs::create_dir(&snapshots).unwrap();
        let shim = build_shim(folder.path());
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(log);
        File::create(&log).unwrap();
        Self { folder, log, topic: topic.to_owned(), brokers, clickhouse, snapshots, shim }
    }

    pub(super) fn snapshots(&self) -> &Path {
        &self.snapshots
    }

    /// What the engines say. It outlives the test.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Moves the engines' wall clock, if the C compiler made it possible.
    pub(super) fn step_clock(&self, ms: i64) -> bool {
        std::fs::write(self.folder.path().join("clock"), ms.to_string()).unwrap();
        self.shim.is_some()
    }

    pub(super) fn start(&self, life: &Life<'_>) -> Engine {
        let log = File::options().append(true).create(true).open(self.log()).unwrap();
        let mut command = self.command(life, "snapshots");
        if let Some(crash_at) = life.crash_at {
            command.env("CITYCELL_CRASH_AT", crash_at);
        }
        if let Some(shim) = &self.shim {
            command.env("LD_PRELOAD", shim).env("STEP_CLOCK", self.folder.path().join("clock"));
        }
        Engine(command.stderr(log).spawn().unwrap())
    }

    /// Reads everything, into this database, and ends. Without snapshots it is a fresh run.
    pub(super) fn run_to_the_end(&self, database: &str, snapshots: &str) {
        let log = File::options().append(true).create(true).open(self.log()).unwrap();
        let life = Life { workers: 1, tick: "100ms", crash_at: None };
        let mut command = self.command(&life, snapshots);
        command.args(["--until-end", "--database", database]);
        let ended = command.stderr(log).status().unwrap();
        assert!(ended.success(), "{ended}: {}", self.log().display());
    }

    fn command(&self, life: &Life<'_>, snapshots: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
        command
            .current_dir(&self.folder)
            .args(["run", "crowd.yaml", "other.yaml", "--grid", "grid.geojson"])
            .args(["--listen", "127.0.0.1:0", "--tick", life.tick, "--idle-after", "2s"])
            .args(["--snapshots", snapshots, "--snapshot-every", "700ms"])
            .args(["--workers", &life.workers.to_string(), "--stale-after", "2s"])
            .args(["--deployment", &self.topic, "--clickhouse", &self.clickhouse])
            .args(["--brokers", &self.brokers])
            .stdout(Stdio::null());
        command
    }
}

/// How one engine is run.
pub(super) struct Life<'a> {
    pub(super) workers: usize,
    /// From one epoch to the next.
    pub(super) tick: &'a str,
    /// The named point at which it crashes, and at which time.
    pub(super) crash_at: Option<&'a str>,
}

/// One engine.
pub(super) struct Engine(Child);

impl Engine {
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(super) fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    /// Whether it ends by itself in this time.
    pub(super) fn ends_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            if self.has_ended() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A library that moves the clock of the process that loads it.
fn build_shim(folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/torture/step_clock.c");
    let shim = folder.join("step_clock.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(source).status();
    built.is_ok_and(|status| status.success()).then_some(shim)
}
