//! The table and the views of one version of a pipeline.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field};
use citycell_operators::plan::{Plan, Window};
use citycell_schemas::{Grid, Level, tables};

use super::{
    ClickHouse, ClickHouseError,
    placement::Placement,
    sql::{identifier, literal},
};

/// One version of a pipeline as ClickHouse sees it.
#[derive(Clone, Debug)]
pub struct PipelineTable {
    /// The pipeline's name and the name of its view.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// The group columns with their Arrow types.
    pub groups: Vec<Field>,
    /// The published columns.
    pub measures: Vec<String>,
    /// Whether rows have a window.
    pub windowed: bool,
    /// The grid's version.
    pub grid: String,
}

impl PipelineTable {
    /// The table of this plan; `groups` are its group columns as the schema types them.
    #[must_use]
    pub fn new(plan: &Plan, version: &str, groups: Vec<Field>, grid: &Grid) -> Self {
        Self {
            pipeline: plan.name.clone(),
            version: version.to_owned(),
            groups,
            measures: plan.measures.iter().map(|measure| measure.name.clone()).collect(),
            windowed: matches!(plan.window, Window::Tumbling { .. }),
            grid: grid.version().to_owned(),
        }
    }

    /// The name of the table that holds every change.
    #[must_use]
    pub fn history(&self) -> String {
        format!("{}_history_{}", self.pipeline, self.version)
    }

    /// The group columns, each after a comma.
    pub(super) fn group_names(&self) -> String {
        self.groups.iter().fold(String::new(), |mut names, field| {
            let _ = write!(names, ", {}", identifier(field.name()));
            names
        })
    }

    /// The columns of the history table and ClickHouse's types for them.
    #[must_use]
    pub fn columns(&self) -> Vec<(String, &'static str)> {
        let fixed = [
            ("window_start", "DateTime64(3, 'UTC')"),
            ("level", "LowCardinality(String)"),
            ("cell", "String"),
            ("epoch", "UInt64"),
            ("is_deleted", "UInt8"),
            ("events", "UInt64"),
        ];
        let mut columns: Vec<_> =
            fixed.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        let groups = self.groups.iter();
        columns.extend(groups.map(|field| (field.name().clone(), column_type(field.data_type()))));
        for measure in &self.measures {
            columns.push((measure.clone(), "Float64"));
            columns.push((format!("{measure}_valid"), "UInt8"));
        }
        columns
    }

    /// What makes the table that holds every change.
    #[must_use]
    pub fn create_history(&self, placement: &Placement) -> String {
        let columns = self.columns().iter().fold(String::new(), |mut list, (name, kind)| {
            let _ = write!(list, "{} {kind}, ", identifier(name));
            list
        });
        let groups = self.group_names();
        format!(
            "CREATE TABLE IF NOT EXISTS {table}{on_cluster} ({columns}\
             PROJECTION by_cell (SELECT * ORDER BY level, cell, window_start{groups}, epoch)) \
             ENGINE = {engine} PARTITION BY toYYYYMM(window_start) \
             ORDER BY (level, window_start, cell{groups}, epoch) \
             SETTINGS fsync_after_insert = 1, deduplicate_merge_projection_mode = 'rebuild'",
            table = identifier(&self.history()),
            on_cluster = placement.on_cluster(),
            engine = placement.engine("MergeTree"),
        )
    }

    /// Creates what is missing.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn create(&self, clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
        let sql = self.create_history(clickhouse.placement());
        clickhouse.execute("create a pipeline's table", &sql).await
    }
}

/// ClickHouse's type for an Arrow column of a group.
pub(super) fn column_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "Bool",
        DataType::Int64 => "Int64",
        DataType::Float64 => "Float64",
        DataType::Timestamp(..) => "DateTime64(3, 'UTC')",
        _ => "LowCardinality(String)",
    }
}

/// Columns that the table `rejects` of an earlier program lacks.
const ADDED_TO_REJECTS: [(&str, &str); 2] =
    [("broker_time", "DateTime64(3, 'UTC')"), ("sealed", "String")];

/// The same of `versions`.
const ADDED_TO_VERSIONS: [(&str, &str); 2] =
    [("recorded_at", "DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')"), ("definition", "String")];

/// Creates the tables and views that all pipelines share, and adds the columns that are missing.
///
/// # Errors
/// ClickHouse's.
pub async fn create_shared(clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
    clickhouse.create_database().await?;
    for (action, sql) in shared_statements(clickhouse.placement()) {
        clickhouse.execute(&action, &sql).await?;
    }
    add_missing(clickhouse, "rejects", &ADDED_TO_REJECTS).await?;
    add_missing(clickhouse, "versions", &ADDED_TO_VERSIONS).await?;
    refuse_uncopied(clickhouse).await
}

/// What makes the tables and views that all pipelines share, each with what it does.
#[must_use]
pub fn shared_statements(placement: &Placement) -> Vec<(String, String)> {
    let tables = tables::SHARED.into_iter();
    let tables = tables.map(|(name, sql)| (format!("create the table {name}"), sql));
    let view = ("create the view city_moment".to_owned(), tables::MOMENT);
    tables.chain([view]).map(|(action, sql)| (action, placement.fill(sql))).collect()
}

/// Refuses tables that are there already and are not replicated, if they are to be.
///
/// # Errors
/// ClickHouse's, also when there is such a table.
pub async fn refuse_uncopied(clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
    if !clickhouse.placement().is_replicated() {
        return Ok(());
    }
    let names: Vec<String> = tables::SHARED.iter().map(|(name, _)| literal(name)).collect();
    // It is ClickHouse who says so, by an error of its own, as it does of all it does not like.
    let sql = format!(
        "SELECT throwIf(engine NOT LIKE 'Replicated%', 'a table is there already and is not \
         replicated: convert it, or take another database') FROM system.tables \
         WHERE database = currentDatabase() AND name IN ({})",
        names.join(", ")
    );
    clickhouse.query("use replicated tables", &sql, "Null").await.map(drop)
}

/// Adds the columns (name and type) that a table of an earlier program lacks: ClickHouse passes over
/// values for which it has no column.
pub(super) async fn add_missing(
    clickhouse: &ClickHouse,
    table: &str,
    columns: &[(&str, &str)],
) -> Result<(), ClickHouseError> {
    let describe = format!("DESCRIBE TABLE {}", identifier(table));
    let described = clickhouse.query("look at a table", &describe, "TabSeparated").await?;
    let described = String::from_utf8_lossy(&described);
    let is_there = |name: &str| described.lines().any(|line| line.split('\t').next() == Some(name));
    for (name, kind) in columns.iter().filter(|(name, _)| !is_there(name)) {
        let (table, column) = (identifier(table), identifier(name));
        let on_cluster = clickhouse.placement().on_cluster();
        let alter =
            format!("ALTER TABLE {table}{on_cluster} ADD COLUMN IF NOT EXISTS {column} {kind}");
        clickhouse.execute(&format!("add the column {name} to {table}"), &alter).await?;
    }
    Ok(())
}

/// The name of a level in ClickHouse.
#[must_use]
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::Cell => "cell",
        Level::Community => "community",
        Level::Street => "street",
        Level::District => "district",
        Level::City => "city",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{
        super::{
            archive,
            placement::Copying,
            sql::tokens::{Token, hostile, tokens},
            views::views,
        },
        *,
    };

    /// Tables whose every name is made of `name`, with a window and without.
    fn statements(name: &str) -> Vec<String> {
        let table = |windowed| PipelineTable {
            pipeline: name.to_owned(),
            version: name.to_owned(),
            groups: vec![Field::new(name, DataType::Utf8, true)],
            measures: vec![format!("m{name}")],
            windowed,
            grid: name.to_owned(),
        };
        let alone = Placement::OneServer;
        let cluster = Placement::Cluster { name: name.to_owned(), copying: Copying::Replicated };
        let mut all = archive::statements(&cluster, Duration::from_secs(3600)).to_vec();
        for placement in [alone, cluster] {
            all.extend(shared_statements(&placement).into_iter().map(|(_, sql)| sql));
            let (windowed, latest) = (table(true), table(false));
            all.push(windowed.create_history(&placement));
            all.push(latest.create_history(&placement));
            all.extend(views(&windowed, &[], &placement));
            all.extend(views(&latest, &[windowed], &placement));
        }
        all.iter().map(|sql| without_comment(sql).to_owned()).collect()
    }

    /// Without the lines that stand before a statement of `schemas/tables`.
    fn without_comment(mut sql: &str) -> &str {
        while let Some((_, rest)) = sql.split_once('\n').filter(|(line, _)| line.starts_with("--"))
        {
            sql = rest;
        }
        sql
    }

    /// Without what names and values say.
    fn shape(sql: &str) -> Vec<Token> {
        let blank = |token| match token {
            Token::Identifier(_) => Token::Identifier(String::new()),
            Token::Literal(_) => Token::Literal(String::new()),
            other => other,
        };
        tokens(sql).into_iter().map(blank).collect()
    }

    proptest! {
        // Also of names that the config refuses: the second wall must hold by itself.
        #[test]
        fn no_name_changes_what_a_statement_does(name in hostile()) {
            for (plain, sql) in statements("x").iter().zip(statements(&name)) {
                prop_assert_eq!(shape(plain), shape(&sql), "{}", sql);
            }
        }
    }
}
