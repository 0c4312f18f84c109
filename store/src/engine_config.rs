//! The configuration files that the engine starts with.
//!
//! The engine knows one user, `default`, whose grants, unless the caller says less, leave out
//! everything that touches the world outside the data folder: `READ`/`WRITE ON FILE`, `URL`, `S3`, `REMOTE` and the other sources,
//! their table engines, `BACKUP`, users and `SYSTEM SHUTDOWN`. So `file()`, `url()`, a database
//! over a folder or a table over S3 are refused by the engine itself, wherever in a query they stand.
//!
//! A part is acknowledged after fsync of its files and its folder, and a merged part is too before
//! its sources go: by default MergeTree leaves that to the kernel.
//!
//! The engine would log to a terminal it finds on standard input or error; that is ours to write on.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::grants::Grants;

/// Writes the engine's configuration into `folder` and returns the main file.
pub(crate) fn write(folder: &Path, grants: &Grants) -> Result<PathBuf, StoreError> {
    let users = folder.join("users.xml");
    let config = folder.join("config.xml");
    save(&users, &users_xml(grants))?;
    save(&config, &config_xml(&users))?;
    Ok(config)
}

fn save(path: &Path, text: &str) -> Result<(), StoreError> {
    fs::write(path, text).map_err(|source| StoreError::DataFolder { path: path.to_owned(), source })
}

fn config_xml(users: &Path) -> String {
    format!(
        "<clickhouse>
  <users_config>{}</users_config>
  <logger><console>0</console></logger>
  <log-level>fatal</log-level>
  <merge_tree>
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <min_rows_to_fsync_after_merge>1</min_rows_to_fsync_after_merge>
  </merge_tree>
</clickhouse>
",
        escaped(&users.display().to_string())
    )
}

fn users_xml(grants: &Grants) -> String {
    let grants: String = grants
        .statements()
        .iter()
        .map(|grant| format!("        <query>{}</query>\n", escaped(grant)))
        .collect();
    format!(
        "<clickhouse>
  <profiles><default></default></profiles>
  <quotas><default></default></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
{grants}      </grants>
    </default>
  </users>
</clickhouse>
"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
