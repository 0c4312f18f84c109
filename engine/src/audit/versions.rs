//! What there is to audit: versions of pipelines that have marks, and their tables.

use std::collections::BTreeMap;

use crate::clickhouse::{ClickHouse, ClickHouseError, marks::last_marked, sql::literal};

/// A version of a pipeline with marks.
#[derive(Clone, Debug)]
pub struct AuditedVersion {
    /// The pipeline.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// Its last mark when the audit began; nothing later is judged.
    pub last: u64,
    /// Its table.
    pub history: String,
    /// The columns that tell the table's rows apart; none if the table is not there.
    pub key: Option<String>,
}

/// All versions that have marks.
pub(super) async fn audited(
    clickhouse: &ClickHouse,
) -> Result<Vec<AuditedVersion>, ClickHouseError> {
    let marked = last_marked(clickhouse).await?;
    let sql = "SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase()";
    let tables = clickhouse.query("read the tables' keys", sql, "TabSeparated").await?;
    let tables = String::from_utf8_lossy(&tables);
    let keys: BTreeMap<&str, &str> =
        tables.lines().filter_map(|line| line.split_once('\t')).collect();
    let audited = marked.into_iter().map(|((pipeline, version), last)| {
        let history = format!("{pipeline}_history_{version}");
        let key = keys.get(history.as_str()).map(|key| (*key).to_owned());
        AuditedVersion { pipeline, version, last: last.0, history, key }
    });
    Ok(audited.collect())
}

impl AuditedVersion {
    /// The condition on rows of `epochs`, `rejects` and `late`.
    pub(super) fn marks(&self) -> String {
        let Self { pipeline, version, last, .. } = self;
        let (pipeline, version) = (literal(pipeline), literal(version));
        format!("pipeline = {pipeline} AND version = {version} AND epoch <= {last}")
    }

    /// The query of a check for this version.
    pub(super) fn fill(&self, sql: &str) -> String {
        let key = self.key.as_deref().unwrap_or_default();
        sql.replace("{marks}", &self.marks())
            .replace("{history}", &self.history)
            .replace("{last}", &self.last.to_string())
            .replace("{key}", key)
    }
}
