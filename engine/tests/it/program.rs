//! `citycell run` on the small city's grid and pipeline.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::city::{grid_file, text};

/// The program with its files.
pub(crate) struct Program {
    folder: TempDir,
    topic: String,
    clickhouse: String,
    idle_after: String,
}

impl Program {
    /// It reads `topic`, which also names its deployment, and writes to `clickhouse`.
    pub(crate) fn new(topic: &str, clickhouse: &str) -> Self {
        Self::of(topic, clickhouse, &text("crowd_flow", topic), "2s")
    }

    /// The same with this pipeline file and this `--idle-after`.
    pub(crate) fn of(topic: &str, clickhouse: &str, pipeline: &str, idle_after: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("grid.geojson"), grid_file()).unwrap();
        std::fs::write(folder.path().join("crowd.yaml"), pipeline).unwrap();
        let (topic, clickhouse) = (topic.to_owned(), clickhouse.to_owned());
        Self { folder, topic, clickhouse, idle_after: idle_after.to_owned() }
    }

    /// Where it runs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command on these brokers.
    pub(crate) fn command(&self, brokers: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
        command
            .current_dir(&self.folder)
            .args(["run", "crowd.yaml", "--grid", "grid.geojson"])
            .args(["--tick", "100ms", "--idle-after", &self.idle_after])
            .args(["--deployment", &self.topic])
            .args(["--clickhouse", &self.clickhouse, "--brokers", brokers]);
        command
    }
}
