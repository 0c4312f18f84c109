//! Snapshots: what operators keep, written down so that a restart need not read history again.
//!
//! ```text
//! tick asks -> operators' entries -> one run per pipeline and worker (writer)
//!                                         +-> manifest, once the epoch is marked (keeper)
//! manifest -> its runs, newest entry of a key first (merge) -> operators' state (restore)
//! ```
//!
//! A *run* holds what was touched between two snapshots, sorted by key. All runs of a pipeline
//! together are its state; the keeper merges them into one when they outgrow the last merged one,
//! so the worker threads never write more than what changed. A *manifest* names, for each pipeline,
//! its runs with their checksums and the binding they are as of. Two manifests are kept. Where one
//! cannot be used, the one before is; where none can, everything is computed from Kafka again.

mod copy;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keeper;
mod manifest;
mod merge;
mod restore;
mod run;
mod storage;
mod writer;

use std::time::Duration;

use object_store::Error as StorageError;

pub use copy::{copy_newest, copy_runs};
pub use keeper::{KeeperNotice, KeeperParts, KeptPipeline, start as start_keeper};
pub use manifest::{Manifest, PipelineState, Reached, Written};
pub(crate) use manifest::{checksum, key};
pub use restore::{
    RestoreError, RestoredPipeline, StartingPoint, Wanted, WantedPipeline, claim, newest,
};
pub(crate) use run::hexadecimal;
pub use run::{Run, check};
pub use storage::Storage;
pub use writer::{SnapshotJob, SnapshotQueue, start as start_writer};

/// Where snapshots go, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// A folder, or the URL of an object store, for example `s3://bucket/path`.
    pub location: String,
    /// From one snapshot to the next.
    pub every: Duration,
}

/// What went wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The location is no folder and no URL that we can use.
    #[error("cannot keep snapshots at {location}: {reason}")]
    Location {
        /// As configured, without credentials.
        location: String,
        /// Why not.
        reason: String,
    },
    /// The storage did not do it.
    #[error("cannot {action} {file}")]
    Storage {
        /// What we tried.
        action: &'static str,
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: Box<StorageError>,
    },
    /// A file cannot be read or written on this machine.
    #[error("cannot {action} {file}")]
    File {
        /// What we tried.
        action: &'static str,
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what was written.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// How it shows.
        reason: String,
    },
}
