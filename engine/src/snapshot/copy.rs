//! A snapshot in another place: for a backup, and back.

use std::io::Seek;

use super::{
    SnapshotError,
    manifest::{self, Manifest},
    restore::is_unusable,
    storage::{Storage, local_failed},
};

/// How often a snapshot is looked for: the engine goes on and deletes old runs meanwhile.
const TRIES: usize = 5;

/// Copies the runs of the newest manifest that is whole; none if there is none.
///
/// # Errors
/// The storages'.
pub async fn copy_newest(from: &Storage, to: &Storage) -> Result<Option<Manifest>, SnapshotError> {
    for _ in 0..TRIES {
        for file in manifest::list(from).await? {
            let copied = match Manifest::read(from, &file).await {
                Ok(manifest) => copy_runs(&manifest, from, to).await.map(|()| manifest),
                Err(error) => Err(error),
            };
            match copied {
                Ok(manifest) => return Ok(Some(manifest)),
                Err(error) if is_unusable(&error) => {
                    tracing::warn!(file, %error, "a snapshot is not whole, trying another");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// Copies the runs that `manifest` names, each only if it is what was written.
///
/// # Errors
/// [`SnapshotError::Damaged`] if one is not, or the storages'.
pub async fn copy_runs(
    manifest: &Manifest,
    from: &Storage,
    to: &Storage,
) -> Result<(), SnapshotError> {
    for run in manifest.pipelines.values().flat_map(|pipeline| &pipeline.runs) {
        let mut local = from.open_file(&run.file).await?;
        run.check(&mut local)?;
        local.rewind().map_err(local_failed("read", &run.file))?;
        to.put_file(&run.file, local).await?;
    }
    Ok(())
}
