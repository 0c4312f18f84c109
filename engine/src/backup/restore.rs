//! Puts a backup back where nothing is.
//!
//! Bindings come first and marks last: whatever ends half way leaves a deployment that an engine
//! computes from Kafka by its bindings, or refuses, and whose tables show nothing that is not marked.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Seek},
};

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    clickhouse::ClickHouse,
    kafka::{
        binding_log::{BindingLog, BindingLogError, topic_of},
        partitions::PartitionFinder,
    },
    snapshot::{self, Manifest, Storage, Written},
};

use super::{BINDINGS, BackupError, Contents, Deployment, Table, file_failed};

/// Bindings per transaction.
const BATCH: usize = 1000;
/// Bytes per piece of an insert.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Line {
    offset: i64,
    binding: serde_json::Value,
}

/// Puts the backup at `from` back as `deployment`, whose `database` it must be of; says what it held.
///
/// # Errors
/// [`BackupError::Exists`] before anything is written, if the database, the topic of bindings or the
/// place of the snapshots is not empty; [`BackupError::Storage`] likewise, if a file is not as it was
/// written.
pub async fn restore(
    deployment: &Deployment,
    database: &str,
    from: &Storage,
) -> Result<Contents, BackupError> {
    let contents = Contents::read(from).await?;
    for (what, held, wanted) in [
        ("deployment", &contents.deployment, deployment.name.as_str()),
        ("database", &contents.database, database),
    ] {
        if held != wanted {
            let text = format!("the backup is of the {what} {held}, not of {wanted}");
            return Err(BackupError::Another(text));
        }
    }
    check_files(&contents, from).await?;
    nothing_is_there(deployment).await?;

    let offsets = restore_bindings(deployment, from).await?;
    if let (Some(manifest), Some(snapshots)) = (&contents.snapshot, &deployment.snapshots) {
        restore_snapshot(manifest, &offsets, from, snapshots).await?;
    }
    restore_tables(&deployment.clickhouse, &contents.tables, from).await?;
    Ok(contents)
}

/// Reads all of the backup once: it is whole, or nothing of it is put back.
async fn check_files(contents: &Contents, from: &Storage) -> Result<(), BackupError> {
    for file in contents.files() {
        let mut local = from.open_file(&file.name).await?;
        snapshot::check(&mut local, &file.name, (file.bytes, &file.sha256))?;
    }
    let states = contents.snapshot.iter().flat_map(|manifest| manifest.pipelines.values());
    for run in states.flat_map(|state| &state.runs) {
        let mut local = from.open_file(&run.file).await?;
        snapshot::check(&mut local, &run.file, (run.bytes, &run.sha256))?;
    }
    Ok(())
}

async fn nothing_is_there(deployment: &Deployment) -> Result<(), BackupError> {
    deployment.clickhouse.create_database().await?;
    let tables = "SELECT name FROM system.tables WHERE database = currentDatabase() LIMIT 1";
    let tables = deployment.clickhouse.query("list the tables", tables, "TabSeparated").await?;
    if !tables.is_empty() {
        let name = String::from_utf8_lossy(&tables).trim().to_owned();
        return Err(BackupError::Exists(format!("the database has the table {name}")));
    }
    let topic = topic_of(&deployment.name);
    let found = PartitionFinder::new(&deployment.kafka)?.find(std::slice::from_ref(&topic))?;
    if found.partitions.values().any(|ends| ends.end_offset > 0) {
        return Err(BackupError::Exists(format!("the topic {topic} has bindings")));
    }
    if let Some(snapshots) = &deployment.snapshots
        && let Some(file) = snapshots.list("").await?.first()
    {
        return Err(BackupError::Exists(format!("the place of the snapshots has {file}")));
    }
    Ok(())
}

/// Yields where each binding stands now, by where it stood.
async fn restore_bindings(
    deployment: &Deployment,
    from: &Storage,
) -> Result<BTreeMap<i64, i64>, BackupError> {
    let log = BindingLog::take_over(&deployment.kafka, &deployment.name).await?;
    let local = from.open_file(BINDINGS).await?;
    let mut offsets = BTreeMap::new();
    let mut batch = Vec::new();
    let mut lines = BufReader::new(local).lines();
    loop {
        let line = lines.next().transpose().map_err(file_failed(BINDINGS))?;
        let is_last = line.is_none();
        if let Some(line) = line {
            let line: Line = serde_json::from_str(&line).map_err(|source| {
                BindingLogError::Unreadable { topic: BINDINGS.into(), offset: 0, source }
            })?;
            batch.push((line.offset, line.binding.to_string()));
        }
        if batch.len() == BATCH || (is_last && !batch.is_empty()) {
            let (old, payloads): (Vec<i64>, Vec<String>) =
                std::mem::take(&mut batch).into_iter().unzip();
            let last = log.append_all(&payloads)?;
            offsets.extend(old.into_iter().rev().zip((0..=last).rev()));
        }
        if is_last {
            return Ok(offsets);
        }
    }
}

async fn restore_snapshot(
    manifest: &Manifest,
    offsets: &BTreeMap<i64, i64>,
    from: &Storage,
    to: &Storage,
) -> Result<(), BackupError> {
    snapshot::copy_runs(manifest, from, to).await?;
    let mut pipelines = manifest.pipelines.clone();
    // The log was read after the snapshot, so it has its bindings.
    pipelines.retain(|_, state| {
        let offset = offsets.get(&state.binding_offset);
        offset.is_some_and(|offset| {
            state.binding_offset = *offset;
            true
        })
    });
    match Manifest::after(0, to.writer(), pipelines).write(to).await? {
        Written::This => Ok(()),
        _ => Err(BackupError::Exists("the place of the snapshots has a manifest".to_owned())),
    }
}

async fn restore_tables(
    clickhouse: &ClickHouse,
    tables: &[Table],
    from: &Storage,
) -> Result<(), BackupError> {
    let (with_rows, mut views): (Vec<&Table>, Vec<&Table>) =
        tables.iter().partition(|table| table.rows.is_some());
    // Marks and moments came first when they were read.
    for table in with_rows.into_iter().rev() {
        clickhouse.execute(&format!("create the table {}", table.name), &table.create).await?;
        if let Some(rows) = &table.rows
            && rows.bytes > 0
        {
            let mut local = from.open_file(&rows.name).await?;
            local.rewind().map_err(file_failed(&rows.name))?;
            let mut failed = None;
            clickhouse.insert_pieces(&table.name, "Native", pieces(local, &mut failed)).await?;
            failed.map_or(Ok(()), |error| Err(file_failed(&rows.name)(error)))?;
        }
    }
    // A view may read another that comes later.
    while !views.is_empty() {
        let (mut left, mut refused) = (Vec::new(), None);
        for view in &views {
            let action = format!("create the view {}", view.name);
            if let Err(error) = clickhouse.execute(&action, &view.create).await {
                refused = Some(error);
                left.push(*view);
            }
        }
        if let Some(error) = refused
            && left.len() == views.len()
        {
            return Err(error.into());
        }
        views = left;
    }
    Ok(())
}

/// A file's bytes; what goes wrong ends them and is told to `failed`.
fn pieces(
    mut file: std::fs::File,
    failed: &mut Option<std::io::Error>,
) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some(Bytes::from(piece))
            }
            Err(error) => {
                *failed = Some(error);
                None
            }
        }
    })
}
