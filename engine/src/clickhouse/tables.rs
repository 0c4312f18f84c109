//! The table and the views of one version of a pipeline.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field};
use citycell_operators::plan::{Plan, Window};
use citycell_schemas::{Grid, Level, tables};

use super::{
    ClickHouse, ClickHouseError,
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

    fn group_names(&self) -> String {
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

    fn create_history(&self) -> String {
        let columns = self.columns().iter().fold(String::new(), |mut list, (name, kind)| {
            let _ = write!(list, "{} {kind}, ", identifier(name));
            list
        });
        let groups = self.group_names();
        format!(
            "CREATE TABLE IF NOT EXISTS {table} ({columns}\
             PROJECTION by_cell (SELECT * ORDER BY level, cell, window_start{groups}, epoch)) \
             ENGINE = MergeTree PARTITION BY toYYYYMM(window_start) \
             ORDER BY (level, window_start, cell{groups}, epoch) \
             SETTINGS fsync_after_insert = 1, deduplicate_merge_projection_mode = 'rebuild'",
            table = identifier(&self.history()),
        )
    }

    /// The newest version of each row up to the last epoch that the pipeline had marked when the
    /// city was shown at the epoch that `epoch` yields: of a pipeline that was stale then, what
    /// readers saw.
    ///
    /// `LIMIT 1 BY` takes whole rows, so a null never falls back to an older value, and a user's
    /// condition on the window or the cell reaches the primary key or the projection.
    fn select(&self, epoch: &str) -> String {
        let (pipeline, version) = (literal(&self.pipeline), literal(&self.version));
        let epoch = format!(
            "(SELECT max(epoch) FROM epochs WHERE pipeline = {pipeline} AND version = {version} \
             AND epoch <= {epoch} AND committed_at <= \
             (SELECT max(committed_at) FROM moments WHERE epoch <= {epoch}))"
        );
        let groups = self.group_names();
        let values = self.measures.iter().fold(String::new(), |mut values, measure| {
            let (name, flag) = (identifier(measure), identifier(&format!("{measure}_valid")));
            let _ = write!(values, ", if({flag} = 1, {name}, NULL) AS {name}");
            values
        });
        format!(
            "SELECT window_start, level, cell, name, community, street, district, area_m2{groups}, \
             events{values}, epoch \
             FROM (SELECT * FROM {table} WHERE epoch <= {epoch}{since} \
             ORDER BY level DESC, window_start DESC, cell DESC{groups}, epoch DESC \
             LIMIT 1 BY level, window_start, cell{groups}) AS newest \
             LEFT ANY JOIN (SELECT level, cell, name, community, street, district, area_m2 \
             FROM cells WHERE grid = {grid}) AS places USING (level, cell) \
             WHERE is_deleted = 0",
            table = identifier(&self.history()),
            since = self.since_keyframe(&epoch),
            grid = literal(&self.grid),
        )
    }

    /// Without windows a read starts at the newest keyframe: all live rows are written again there.
    fn since_keyframe(&self, epoch: &str) -> String {
        if self.windowed {
            return String::new();
        }
        format!(
            " AND epoch >= (SELECT max(epoch) FROM epochs WHERE pipeline = {} \
             AND version = {} AND keyframe = 1 AND epoch <= {epoch})",
            literal(&self.pipeline),
            literal(&self.version),
        )
    }

    /// Creates what is missing.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn create(&self, clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
        clickhouse.execute("create a pipeline's table", &self.create_history()).await
    }

    /// The views of the pipeline over this version.
    #[must_use]
    pub fn views(&self) -> [String; 3] {
        let name = &self.pipeline;
        let now = self.select("(SELECT epoch FROM city_moment)");
        let as_of = self.select("{epoch:UInt64}");
        let history = format!("SELECT * FROM {}", identifier(&self.history()));
        let view = |name: &str, select: &str| {
            format!("CREATE OR REPLACE VIEW {} AS {select}", identifier(name))
        };
        [
            view(name, &now),
            view(&format!("{name}_as_of"), &as_of),
            view(&format!("{name}_history"), &history),
        ]
    }
}

/// ClickHouse's type for an Arrow column of a group.
fn column_type(data_type: &DataType) -> &'static str {
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

/// Creates the tables and views that all pipelines share, and adds the columns that are missing.
///
/// # Errors
/// ClickHouse's.
pub async fn create_shared(clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
    clickhouse.create_database().await?;
    for (name, sql) in tables::SHARED {
        clickhouse.execute(&format!("create the table {name}"), sql).await?;
    }
    add_missing(clickhouse, "rejects", &ADDED_TO_REJECTS).await?;
    clickhouse.execute("create the view city_moment", tables::MOMENT).await
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
        let alter = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {kind}");
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
    use proptest::prelude::*;

    use super::{
        super::sql::tokens::{Token, hostile, tokens},
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
        let of = |table: PipelineTable| [vec![table.create_history()], table.views().to_vec()];
        [of(table(true)), of(table(false))].concat().concat()
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
