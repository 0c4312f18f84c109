//! Backups: tables, a snapshot and the bindings, taken and put back as one.
//!
//! ```text
//! newest whole snapshot      -> runs/, as they are
//! moments, then marks, then rows, all up to one epoch -> tables/
//! log of bindings to its end -> bindings
//! what there is, with checksums -> backup, the last file
//! ```
//!
//! Each is read after the one it depends on, so the engine need not stop: rows are written before
//! their mark, a mark before the moment and a snapshot after its mark, and an epoch is bound before
//! anything of it. Put back, the engine finds itself after a crash: it goes on from the snapshot and
//! replays what was bound since, for which Kafka must still have the records.

mod restore;
mod take;

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    clickhouse::{ClickHouse, ClickHouseError},
    kafka::{KafkaSettings, binding_log::BindingLogError},
    snapshot::{Manifest, SnapshotError, Storage, checksum},
};

pub use restore::restore;
pub use take::take;

const FORMAT: u32 = 1;
/// What a backup says of itself: a line with the SHA-256 of the rest, and JSON.
const CONTENTS: &str = "backup";
/// One binding per line, with its offset in the log it was copied from.
const BINDINGS: &str = "bindings";

/// A deployment: what is backed up, or where a backup is put back.
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// Where its tables are.
    pub clickhouse: ClickHouse,
    /// Where its bindings are.
    pub kafka: KafkaSettings,
    /// Where its snapshots are; none if it takes none.
    pub snapshots: Option<Storage>,
}

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Contents {
    /// The format of this file.
    pub format: u32,
    /// The program's version that wrote it.
    pub program: String,
    /// The deployment.
    pub deployment: String,
    /// The database of its tables.
    pub database: String,
    /// Nothing later is in its tables.
    pub epoch: u64,
    /// Its tables and views.
    pub tables: Vec<Table>,
    /// Its snapshot; none if there was none.
    pub snapshot: Option<Manifest>,
    /// The log of bindings.
    pub bindings: File,
    /// How many bindings.
    pub bound: u64,
}

/// A table or a view.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The statement that creates it.
    pub create: String,
    /// Its rows in ClickHouse's Native format; none of a view.
    pub rows: Option<File>,
}

/// A file of a backup.
#[derive(Debug, Serialize, Deserialize)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// Why a backup cannot be taken or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something where nothing may be.
    #[error("{0}: nothing is written over what exists")]
    Exists(String),
    /// The place holds no backup of this deployment and database.
    #[error("{0}")]
    Another(String),
    /// The place of the backup or of the snapshots.
    #[error(transparent)]
    Storage(#[from] SnapshotError),
    /// ClickHouse.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    /// The log of bindings.
    #[error(transparent)]
    Bindings(#[from] BindingLogError),
    /// Kafka.
    #[error("cannot look for the topic of bindings")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// A file on this machine.
    #[error("cannot keep {name} in a file while it is copied")]
    File {
        /// What.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Contents {
    async fn write(&self, to: &Storage) -> Result<(), BackupError> {
        let json = serde_json::to_string_pretty(self).expect("lists and text are always JSON");
        let text = format!("{}\n{json}\n", checksum(json.as_bytes()));
        Ok(to.put(CONTENTS, Bytes::from(text)).await?)
    }

    async fn read(from: &Storage) -> Result<Self, BackupError> {
        let bytes = from.get(CONTENTS).await?;
        let damaged = |reason: String| SnapshotError::Damaged { file: CONTENTS.into(), reason };
        let text = std::str::from_utf8(&bytes).map_err(|error| damaged(error.to_string()))?;
        let (sum, json) = text.split_once('\n').unwrap_or_default();
        if sum != checksum(json.trim_end().as_bytes()) {
            return Err(damaged("its checksum is another".into()).into());
        }
        let contents: Self =
            serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
        match contents.format {
            FORMAT => Ok(contents),
            other => Err(damaged(format!("it has format {other}")).into()),
        }
    }

    /// The files of tables and bindings.
    fn files(&self) -> impl Iterator<Item = &File> {
        self.tables.iter().filter_map(|table| table.rows.as_ref()).chain([&self.bindings])
    }
}

fn file_failed(name: &str) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::File { name: name.to_owned(), source }
}
