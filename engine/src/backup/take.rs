//! Takes a backup beside an engine at work.

use std::io::{self, BufWriter, Write};

use citycell_schemas::Epoch;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    clickhouse::{ClickHouse, sql::identifier},
    kafka::binding_log::{BindingLogError, read_records_beside, topic_of},
    snapshot::{self, Manifest, Storage, hexadecimal},
};

use super::{BINDINGS, BackupError, Contents, Deployment, FORMAT, File, Table, file_failed};

/// What there is in the database. Marks and moments first: whatever a mark counts was written before
/// it, so it is among the rows that are read after the mark.
const TABLES: &str = "
    SELECT name, create_table_query AS create, engine LIKE '%MergeTree' AS has_rows,
           database AS in_database,
           has((SELECT groupArray(table) FROM system.columns
                WHERE database = currentDatabase() AND name = 'epoch'), name) AS has_epoch
    FROM system.tables
    WHERE database = currentDatabase()
    ORDER BY name = 'moments' DESC, name = 'epochs' DESC, name";

#[derive(Deserialize)]
struct Found {
    name: String,
    create: String,
    has_rows: u8,
    has_epoch: u8,
    in_database: String,
}

/// Writes a backup of `deployment` to an empty place, and says what it holds.
///
/// # Errors
/// [`BackupError::Exists`] if the place is not empty; those of what is read or written.
pub async fn take(deployment: &Deployment, to: &Storage) -> Result<Contents, BackupError> {
    if let Some(file) = to.list("").await?.first() {
        return Err(BackupError::Exists(format!("the place of the backup has {file}")));
    }
    let snapshot = match &deployment.snapshots {
        Some(snapshots) => snapshot::copy_newest(snapshots, to).await?,
        None => None,
    };
    let epoch = last_epoch(&deployment.clickhouse, snapshot.as_ref()).await?;
    let lines = deployment.clickhouse.query("list the tables", TABLES, "JSONEachRow").await?;
    let found = serde_json::Deserializer::from_slice(&lines).into_iter::<Found>();
    let found: Vec<Found> = found.collect::<Result<_, _>>().map_err(|error| {
        BackupError::Another(format!("ClickHouse's list of tables is not readable: {error}"))
    })?;
    let database = found.first().map(|table| table.in_database.clone()).unwrap_or_default();
    let mut tables = Vec::new();
    for table in found {
        let rows = match table.has_rows {
            0 => None,
            _ => Some(copy_rows(&deployment.clickhouse, &table, epoch, to).await?),
        };
        tables.push(Table { name: table.name, create: table.create, rows });
    }
    let (bindings, bound) = copy_bindings(deployment, to).await?;
    let contents = Contents {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        deployment: deployment.name.clone(),
        database,
        epoch: epoch.0,
        tables,
        snapshot,
        bindings,
        bound,
    };
    contents.write(to).await?;
    Ok(contents)
}

/// The city's moment, or the snapshot's epoch if one pipeline was ahead of it: a snapshot takes for
/// written what was marked before it.
async fn last_epoch(
    clickhouse: &ClickHouse,
    snapshot: Option<&Manifest>,
) -> Result<Epoch, BackupError> {
    let moment = "SELECT max(epoch) FROM moments";
    let moment = clickhouse.query("read the city's moment", moment, "TabSeparated").await?;
    let moment = String::from_utf8_lossy(&moment).trim().parse().unwrap_or_default();
    let states = snapshot.into_iter().flat_map(|manifest| manifest.pipelines.values());
    Ok(states.map(|state| state.epoch).fold(Epoch(moment), Ord::max))
}

async fn copy_rows(
    clickhouse: &ClickHouse,
    table: &Found,
    epoch: Epoch,
    to: &Storage,
) -> Result<File, BackupError> {
    let Found { name, has_epoch, .. } = table;
    let mut sql = format!("SELECT * FROM {}", identifier(name));
    if *has_epoch != 0 {
        sql += &format!(" WHERE epoch <= {}", epoch.0);
    }
    let mut copy = Copy::new(name)?;
    let mut written = Ok(());
    let each = |piece: &[u8]| {
        if written.is_ok() {
            written = copy.write(piece);
        }
    };
    clickhouse.query_each(&format!("read the table {name}"), &sql, "Native", each).await?;
    written.map_err(file_failed(name))?;
    copy.put(&format!("tables/{name}"), to).await
}

async fn copy_bindings(deployment: &Deployment, to: &Storage) -> Result<(File, u64), BackupError> {
    let mut copy = Copy::new(BINDINGS)?;
    let mut bound = 0;
    for (offset, payload) in read_records_beside(&deployment.kafka, &deployment.name)? {
        let binding: serde_json::Value = serde_json::from_slice(&payload).map_err(|source| {
            let topic = topic_of(&deployment.name);
            BindingLogError::Unreadable { topic, offset, source }
        })?;
        let line = format!("{}\n", serde_json::json!({ "offset": offset, "binding": binding }));
        copy.write(line.as_bytes()).map_err(file_failed(BINDINGS))?;
        bound += 1;
    }
    Ok((copy.put(BINDINGS, to).await?, bound))
}

/// What is copied, in a file without a name until all of it is there.
struct Copy {
    local: BufWriter<std::fs::File>,
    hash: Sha256,
    bytes: u64,
}

impl Copy {
    fn new(name: &str) -> Result<Self, BackupError> {
        let local = BufWriter::new(tempfile::tempfile().map_err(file_failed(name))?);
        Ok(Self { local, hash: Sha256::new(), bytes: 0 })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        self.local.write_all(piece)
    }

    async fn put(self, name: &str, to: &Storage) -> Result<File, BackupError> {
        let local = self.local.into_inner().map_err(io::IntoInnerError::into_error);
        to.put_file(name, local.map_err(file_failed(name))?).await?;
        Ok(File { name: name.to_owned(), bytes: self.bytes, sha256: hexadecimal(self.hash) })
    }
}
