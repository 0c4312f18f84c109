//! The place where snapshots lie: a local folder or an object store.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{Seek, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::{
    Error as StorageError, GetResultPayload, ObjectStore, ObjectStoreExt, ObjectStoreScheme,
    PutMode, RetryConfig, aws::AmazonS3Builder, buffered::BufWriter, local::LocalFileSystem,
    path::Path, prefix::PrefixStore,
};
use tokio::io::AsyncWriteExt;

use super::SnapshotError;
use crate::secret::{has_credentials, without_credentials};

/// How often a request to an object store is repeated, and for how long: those who ask try again
/// themselves, and say so.
const RETRIES_MAX: usize = 3;
const RETRY_FOR: Duration = Duration::from_secs(10);

/// The files of one deployment, as one engine sees them.
#[derive(Clone, Debug)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    writer: u64,
}

impl Storage {
    /// The storage of `deployment` at `location`: a folder, which is created and whose files are
    /// synced to the disk, or the URL of an S3 bucket, whose settings come from the usual environment
    /// variables, for example `AWS_ENDPOINT`.
    ///
    /// # Errors
    /// When the location cannot be used.
    pub fn open(location: &str, deployment: &str) -> Result<Self, SnapshotError> {
        let store: Arc<dyn ObjectStore> =
            if location.contains("://") { remote(location)? } else { Arc::new(local(location)?) };
        let store = PrefixStore::new(store, Path::from(deployment));
        let writer = RandomState::new().hash_one(std::process::id());
        Ok(Self { store: Arc::new(store), writer })
    }

    /// Tells apart those who opened a deployment's storage.
    #[must_use]
    pub fn writer(&self) -> u64 {
        self.writer
    }

    /// Puts a small file, whole or not at all.
    ///
    /// # Errors
    /// The storage's.
    pub async fn put(&self, file: &str, data: Bytes) -> Result<(), SnapshotError> {
        let put = self.store.put(&Path::from(file), data.into()).await;
        put.map(drop).map_err(failed("write", file))
    }

    /// Puts a small file, whole or not at all, unless there is one of this name: says whether it
    /// did. Where an answer was lost, the one that is there may be this one.
    ///
    /// # Errors
    /// The storage's.
    pub async fn create(&self, file: &str, data: Bytes) -> Result<bool, SnapshotError> {
        let put = self.store.put_opts(&Path::from(file), data.into(), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(true),
            Err(StorageError::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(failed("write", file)(source)),
        }
    }

    /// Puts a large file from a local one, whole or not at all.
    ///
    /// # Errors
    /// The storage's, or those of the local file.
    pub async fn put_file(&self, file: &str, mut local: File) -> Result<(), SnapshotError> {
        local.rewind().map_err(local_failed("read", file))?;
        let mut reader = tokio::fs::File::from_std(local);
        let mut writer = BufWriter::new(Arc::clone(&self.store), Path::from(file));
        tokio::io::copy(&mut reader, &mut writer).await.map_err(local_failed("write", file))?;
        writer.shutdown().await.map_err(local_failed("write", file))
    }

    /// A small file's content.
    ///
    /// # Errors
    /// The storage's.
    pub async fn get(&self, file: &str) -> Result<Bytes, SnapshotError> {
        let found = self.store.get(&Path::from(file)).await.map_err(failed("read", file))?;
        found.bytes().await.map_err(failed("read", file))
    }

    /// A file on this machine with this content: the file itself, or a copy without a name.
    ///
    /// # Errors
    /// The storage's, or those of the local copy.
    pub async fn open_file(&self, file: &str) -> Result<File, SnapshotError> {
        let found = self.store.get(&Path::from(file)).await.map_err(failed("read", file))?;
        match found.payload {
            GetResultPayload::File(local, _) => Ok(local),
            GetResultPayload::Stream(mut parts) => {
                let mut copy = tempfile::tempfile().map_err(local_failed("copy", file))?;
                while let Some(part) = parts.next().await {
                    let part = part.map_err(failed("read", file))?;
                    copy.write_all(&part).map_err(local_failed("copy", file))?;
                }
                copy.rewind().map_err(local_failed("copy", file))?;
                Ok(copy)
            }
        }
    }

    /// The names of the files under `folder`.
    ///
    /// # Errors
    /// The storage's.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, SnapshotError> {
        let found = self.store.list(Some(&Path::from(folder)));
        let names = found.map_ok(|meta| meta.location.to_string());
        names.try_collect().await.map_err(failed("list", folder))
    }

    /// Deletes a file; one that is gone already is deleted.
    ///
    /// # Errors
    /// The storage's.
    pub async fn delete(&self, file: &str) -> Result<(), SnapshotError> {
        match self.store.delete(&Path::from(file)).await {
            Err(StorageError::NotFound { .. }) => Ok(()),
            outcome => outcome.map_err(failed("delete", file)),
        }
    }
}

fn local(folder: &str) -> Result<LocalFileSystem, SnapshotError> {
    std::fs::create_dir_all(folder).map_err(local_failed("create the folder", folder))?;
    let store = LocalFileSystem::new_with_prefix(folder);
    Ok(store.map_err(failed("use the folder", folder))?.with_fsync(true))
}

fn remote(location: &str) -> Result<Arc<dyn ObjectStore>, SnapshotError> {
    // Several providers may be linked in; the first one to be installed is used by all.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |reason: String| SnapshotError::Location {
        location: without_credentials(location),
        reason,
    };
    if has_credentials(location) {
        let reason = "a command line is no place for credentials, the environment is";
        return Err(failed(reason.into()));
    }
    let url = reqwest::Url::parse(location).map_err(|error| failed(error.to_string()))?;
    let prefix = match ObjectStoreScheme::parse(&url) {
        Ok((ObjectStoreScheme::AmazonS3, prefix)) => prefix,
        _ => return Err(failed("only folders and s3:// are known".into())),
    };
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_FOR,
        ..RetryConfig::default()
    };
    let store = AmazonS3Builder::from_env().with_url(url).with_retry(retry).build();
    let store = store.map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

fn failed(action: &'static str, file: &str) -> impl FnOnce(StorageError) -> SnapshotError + use<> {
    let file = file.to_owned();
    move |source| SnapshotError::Storage { action, file, source: Box::new(source) }
}

pub(super) fn local_failed(
    action: &'static str,
    file: &str,
) -> impl FnOnce(std::io::Error) -> SnapshotError + use<> {
    let file = file.to_owned();
    move |source| SnapshotError::File { action, file, source }
}
