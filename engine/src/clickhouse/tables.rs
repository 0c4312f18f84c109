//! The table and the views of one version of a pipeline.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field};
use citycell_operators::plan::{Plan, Window};
use citycell_schemas::{Grid, Level, tables};

use super::{ClickHouse, ClickHouseError};

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
            let _ = write!(names, ", `{}`", field.name());
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
            let _ = write!(list, "`{name}` {kind}, ");
            list
        });
        let groups = self.group_names();
        format!(
            "CREATE TABLE IF NOT EXISTS `{table}` ({columns}\
             PROJECTION by_cell (SELECT * ORDER BY level, cell, window_start{groups}, epoch)) \
             ENGINE = MergeTree PARTITION BY toYYYYMM(window_start) \
             ORDER BY (level, window_start, cell{groups}, epoch) \
             SETTINGS fsync_after_insert = 1, deduplicate_merge_projection_mode = 'rebuild'",
            table = self.history(),
        )
    }

    /// The newest version of each row up to the last epoch that the pipeline had marked when the
    /// city was shown at the epoch that `epoch` yields: of a pipeline that was stale then, what
    /// readers saw.
    ///
    /// `LIMIT 1 BY` takes whole rows, so a null never falls back to an older value, and a user's
    /// condition on the window or the cell reaches the primary key or the projection.
    fn select(&self, epoch: &str) -> String {
        let (pipeline, version) = (&self.pipeline, &self.version);
        let epoch = format!(
            "(SELECT max(epoch) FROM epochs WHERE pipeline = '{pipeline}' AND version = '{version}' \
             AND epoch <= {epoch} AND committed_at <= \
             (SELECT max(committed_at) FROM moments WHERE epoch <= {epoch}))"
        );
        let groups = self.group_names();
        let values = self.measures.iter().fold(String::new(), |mut values, measure| {
            let _ = write!(values, ", if(`{measure}_valid` = 1, `{measure}`, NULL) AS `{measure}`");
            values
        });
        format!(
            "SELECT window_start, level, cell, name, community, street, district, area_m2{groups}, \
             events{values}, epoch \
             FROM (SELECT * FROM `{table}` WHERE epoch <= {epoch}{since} \
             ORDER BY level DESC, window_start DESC, cell DESC{groups}, epoch DESC \
             LIMIT 1 BY level, window_start, cell{groups}) AS newest \
             LEFT ANY JOIN (SELECT level, cell, name, community, street, district, area_m2 \
             FROM cells WHERE grid = '{grid}') AS places USING (level, cell) \
             WHERE is_deleted = 0",
            table = self.history(),
            since = self.since_keyframe(&epoch),
            grid = self.grid,
        )
    }

    /// Without windows a read starts at the newest keyframe: all live rows are written again there.
    fn since_keyframe(&self, epoch: &str) -> String {
        if self.windowed {
            return String::new();
        }
        format!(
            " AND epoch >= (SELECT max(epoch) FROM epochs WHERE pipeline = '{}' \
             AND version = '{}' AND keyframe = 1 AND epoch <= {epoch})",
            self.pipeline, self.version
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
        let history = self.history();
        [
            format!("CREATE OR REPLACE VIEW `{name}` AS {now}"),
            format!("CREATE OR REPLACE VIEW `{name}_as_of` AS {as_of}"),
            format!("CREATE OR REPLACE VIEW `{name}_history` AS SELECT * FROM `{history}`"),
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

/// Creates the tables and views that all pipelines share.
///
/// # Errors
/// ClickHouse's.
pub async fn create_shared(clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
    clickhouse.create_database().await?;
    for (name, sql) in tables::SHARED {
        clickhouse.execute(&format!("create the table {name}"), sql).await?;
    }
    clickhouse.execute("create the view city_moment", tables::MOMENT).await
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
