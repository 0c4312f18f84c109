//! `citycell run` on the small city's grid and pipeline.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::city::{grid_file, text};

/// The program with its files.
pub(crate) struct Program {
    folder: TempDir,
    topic: String,
    clickhouse: String,
}

impl Program {
    /// It reads `topic`, which also names its deployment, and writes to `clickhouse`.
    pub(crate) fn new(topic: &str, clickhouse: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("grid.geojson"), grid_file()).unwrap();
        std::fs::write(folder.path().join("crowd.yaml"), text("crowd_flow", topic)).unwrap();
        Self { folder, topic: topic.to_owned(), clickhouse: clickhouse.to_owned() }
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
            .args(["--tick", "100ms", "--idle-after", "2s", "--deployment", &self.topic])
            .args(["--clickhouse", &self.clickhouse, "--brokers", brokers]);
        command
    }
}
