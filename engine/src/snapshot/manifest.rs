//! Manifests: which runs are a pipeline's state, and as of which binding.
//!
//! The file is a line with the SHA-256 of the rest, and JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use citycell_schemas::{Epoch, EventTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    SnapshotError,
    run::{Run, hexadecimal},
    storage::Storage,
};

const FORMAT: u32 = 2;
const FOLDER: &str = "manifests";

/// The newest accepted event time of each partition, by topic.
pub type Reached = BTreeMap<String, Vec<(i32, EventTime)>>;

/// One moment of a deployment's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this file.
    pub format: u32,
    /// Its number: each manifest of a deployment has a greater one than those before.
    pub number: u64,
    /// The program's version that wrote it.
    pub program: String,
    /// Who wrote it: two engines may want to say the same under the same number.
    #[serde(default)]
    pub writer: u64,
    /// The state of each version of a pipeline, by `pipeline@version`.
    pub pipelines: BTreeMap<String, PipelineState>,
}

/// What there is under a manifest's number once it was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// This manifest.
    This,
    /// One that this writer wrote before, and did not hear of.
    Earlier,
    /// Another engine's.
    Another,
}

/// One pipeline's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineState {
    /// The version of the pipeline that it is the state of.
    pub version: String,
    /// The epoch at whose end it holds. Its rows are marked in ClickHouse.
    pub epoch: Epoch,
    /// Where the epoch's binding stands in the log of bindings.
    pub binding_offset: i64,
    /// That binding.
    pub binding: serde_json::Value,
    /// What its partitions had shown by then.
    pub reached: Reached,
    /// Its runs, oldest first.
    pub runs: Vec<Run>,
}

/// Names a version of a pipeline.
pub(crate) fn key(pipeline: &str, version: &str) -> String {
    format!("{pipeline}@{version}")
}

impl Manifest {
    /// A manifest of `writer` that comes after number `before`.
    #[must_use]
    pub fn after(before: u64, writer: u64, pipelines: BTreeMap<String, PipelineState>) -> Self {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, number: before + 1, program, writer, pipelines }
    }

    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let runs = self.pipelines.values().flat_map(|pipeline| &pipeline.runs);
        runs.map(|run| run.file.as_str())
    }

    /// Writes it, whole or not at all, unless there is one of this number.
    ///
    /// # Errors
    /// The storage's.
    pub async fn write(&self, storage: &Storage) -> Result<Written, SnapshotError> {
        let file = file_of(self.number);
        if storage.create(&file, Bytes::from(self.to_text())).await? {
            return Ok(Written::This);
        }
        Ok(match Self::read(storage, &file).await? {
            there if there == *self => Written::This,
            there if there.writer == self.writer => Written::Earlier,
            _ => Written::Another,
        })
    }

    /// Reads one.
    ///
    /// # Errors
    /// The storage's; [`SnapshotError::Damaged`] if it is no manifest that we know.
    pub async fn read(storage: &Storage, file: &str) -> Result<Self, SnapshotError> {
        Self::from_bytes(file, &storage.get(file).await?)
    }

    /// The content of its file.
    pub(super) fn to_text(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("maps with text keys are always JSON");
        format!("{}\n{json}\n", checksum(json.as_bytes()))
    }

    /// Reads the content of `file`.
    pub(super) fn from_bytes(file: &str, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |reason| SnapshotError::Damaged { file: file.to_owned(), reason };
        let text = std::str::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        let (sum, json) = text.split_once('\n').unwrap_or_default();
        let json = json.trim_end();
        if sum != checksum(json.as_bytes()) {
            return Err(damaged("its checksum is another".to_owned()));
        }
        let manifest: Self =
            serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(damaged(format!("it has format {}", manifest.format)));
        }
        Ok(manifest)
    }
}

/// The files of all manifests, newest first.
///
/// # Errors
/// The storage's.
pub(super) async fn list(storage: &Storage) -> Result<Vec<String>, SnapshotError> {
    let mut files = storage.list(FOLDER).await?;
    files.retain(|file| number_of(file).is_some());
    files.sort_unstable_by(|one, other| other.cmp(one));
    Ok(files)
}

/// The number of the manifest in this file.
pub(super) fn number_of(file: &str) -> Option<u64> {
    file.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".manifest")?.parse().ok()
}

pub(crate) fn checksum(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

fn file_of(number: u64) -> String {
    // As many digits as the greatest number has, so that names sort as numbers do.
    format!("{FOLDER}/{number:020}.manifest")
}
