//! What there is to audit: versions of pipelines that have marks, and their tables.

use std::collections::BTreeMap;

use crate::clickhouse::{
    ClickHouse, ClickHouseError,
    archive::ARCHIVE,
    marks::last_marked,
    sql::{identifier, literal},
};

/// A version of a pipeline with marks.
#[derive(Clone, Debug)]
pub struct AuditedVersion {
    /// The pipeline.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// The first epoch that is judged.
    pub first: u64,
    /// Its last mark when the audit began; nothing later is judged.
    pub last: u64,
    /// Its table.
    pub history: String,
    /// The columns that tell the table's rows apart; none if the table is not there.
    pub key: Option<String>,
}

/// All versions of pipelines that have marks.
pub(super) async fn audited(
    clickhouse: &ClickHouse,
) -> Result<Vec<AuditedVersion>, ClickHouseError> {
    let mut marked = last_marked(clickhouse).await?;
    // The archive forgets on purpose; it is verified by itself.
    marked.retain(|(pipeline, _), _| pipeline != ARCHIVE);
    let sql = "SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase()";
    let tables = clickhouse.query("read the tables' keys", sql, "TabSeparated").await?;
    let tables = String::from_utf8_lossy(&tables);
    let keys: BTreeMap<&str, &str> =
        tables.lines().filter_map(|line| line.split_once('\t')).collect();
    let audited = marked.into_iter().map(|((pipeline, version), last)| {
        let history = format!("{pipeline}_history_{version}");
        let key = keys.get(history.as_str()).map(|key| (*key).to_owned());
        AuditedVersion { pipeline, version, first: 0, last: last.0, history, key }
    });
    Ok(audited.collect())
}

impl AuditedVersion {
    /// Whether this epoch is judged.
    pub(super) fn judges(&self, epoch: u64) -> bool {
        (self.first..=self.last).contains(&epoch)
    }

    /// The condition on rows of `epochs`, `rejects` and `late`.
    pub(super) fn marks(&self) -> String {
        let (pipeline, version) = (literal(&self.pipeline), literal(&self.version));
        format!("pipeline = {pipeline} AND version = {version} AND {}", self.epochs())
    }

    /// The condition on the epochs that are judged.
    fn epochs(&self) -> String {
        let Self { first, last, .. } = self;
        format!("epoch >= {first} AND epoch <= {last}")
    }

    /// The query of a check for this version.
    pub(super) fn fill(&self, sql: &str) -> String {
        let key = self.key.as_deref().unwrap_or_default();
        sql.replace("{marks}", &self.marks())
            .replace("{table}", &identifier(&self.history))
            .replace("{history}", &literal(&self.history))
            .replace("{epochs}", &self.epochs())
            .replace("{key}", key)
    }
}
