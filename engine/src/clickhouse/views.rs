//! The views of a pipeline: what its rows are now, and as they were known at an epoch.
//!
//! While a pipeline has had one version only, its views read that version's table. Once it has had
//! several, each is a branch of the view, and a branch yields rows only if its version served at the
//! moment that is asked for: so a swap is the row in `versions`, and what was shown before it is shown
//! again as of then.

use super::{
    placement::Placement,
    sql::{identifier, literal},
    tables::{PipelineTable, column_type},
};

/// The epoch of a view of what is known now.
const NOW: &str = "(SELECT epoch FROM city_moment)";
/// The epoch of a view of what was known at an epoch.
const AS_OF: &str = "{epoch:UInt64}";

/// The views of the pipeline with this version's columns, over `others` of its versions too.
#[must_use]
pub fn views(
    table: &PipelineTable,
    others: &[PipelineTable],
    placement: &Placement,
) -> [String; 3] {
    let name = &table.pipeline;
    let history = format!("SELECT * FROM {}", identifier(&table.history()));
    [
        now(table, others, placement),
        view(&format!("{name}_as_of"), &over(table, others, AS_OF), placement),
        view(&format!("{name}_history"), &history, placement),
    ]
}

/// The view of what is known now.
pub(super) fn now(
    table: &PipelineTable,
    others: &[PipelineTable],
    placement: &Placement,
) -> String {
    view(&table.pipeline, &over(table, others, NOW), placement)
}

fn view(name: &str, select: &str, placement: &Placement) -> String {
    format!("CREATE OR REPLACE VIEW {}{} AS {select}", identifier(name), placement.on_cluster())
}

fn over(table: &PipelineTable, others: &[PipelineTable], epoch: &str) -> String {
    if others.is_empty() {
        return table.select(&columns(&[table]), epoch, "");
    }
    let all: Vec<&PipelineTable> = std::iter::once(table).chain(others).collect();
    let columns = columns(&all);
    let branches: Vec<String> =
        all.iter().map(|table| table.select(&columns, epoch, &table.serves_at(epoch))).collect();
    branches.join(" UNION ALL ")
}

/// A column that not every version has.
#[derive(Clone, Copy, PartialEq)]
struct Column<'a> {
    name: &'a str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Of ClickHouse's type.
    Group(&'static str),
    Measure,
}

/// The groups and then the measures of all, those of the first where names are the same.
fn columns<'a>(tables: &[&'a PipelineTable]) -> (Vec<Column<'a>>, Vec<Column<'a>>) {
    let mut all: Vec<Column<'a>> = Vec::new();
    for column in tables.iter().flat_map(|table| table.own_columns()) {
        if all.iter().all(|known| known.name != column.name) {
            all.push(column);
        }
    }
    all.into_iter().partition(|column| column.kind != Kind::Measure)
}

impl PipelineTable {
    fn own_columns(&self) -> impl Iterator<Item = Column<'_>> {
        let groups = self.groups.iter().map(|field| Column {
            name: field.name(),
            kind: Kind::Group(column_type(field.data_type())),
        });
        groups.chain(self.measures.iter().map(|name| Column { name, kind: Kind::Measure }))
    }

    /// This version's values of a view's column.
    fn value(&self, column: Column<'_>) -> String {
        let own = self.own_columns().find(|own| own.name == column.name);
        let name = identifier(column.name);
        let value = match (own.map(|own| own.kind), column.kind) {
            (None, _) => "NULL".to_owned(),
            (Some(Kind::Measure), _) => {
                let flag = identifier(&format!("{}_valid", column.name));
                let value = format!("if({flag} = 1, {name}, NULL)");
                match column.kind {
                    Kind::Measure => value,
                    Kind::Group(kind) => as_type(&value, kind),
                }
            }
            (Some(own), kind) if own == kind => return name,
            (Some(_), Kind::Group(kind)) => as_type(&name, kind),
            (Some(_), Kind::Measure) => as_type(&name, "Float64"),
        };
        format!("{value} AS {name}")
    }

    /// The newest version of each row up to the last epoch that the pipeline had marked when the
    /// city was shown at the epoch that `epoch` yields: of a pipeline that was stale then, what
    /// readers saw. `condition` is one more that must hold.
    ///
    /// `LIMIT 1 BY` takes whole rows, so a null never falls back to an older value, and a user's
    /// condition on the window or the cell reaches the primary key or the projection.
    fn select(
        &self,
        (group_columns, measures): &(Vec<Column<'_>>, Vec<Column<'_>>),
        epoch: &str,
        condition: &str,
    ) -> String {
        let (pipeline, version) = (literal(&self.pipeline), literal(&self.version));
        let epoch = format!(
            "(SELECT max(epoch) FROM epochs WHERE pipeline = {pipeline} AND version = {version} \
             AND epoch <= {epoch} AND committed_at <= \
             (SELECT max(committed_at) FROM moments WHERE epoch <= {epoch}))"
        );
        let groups = self.group_names();
        let list = |columns: &[Column<'_>]| -> String {
            columns.iter().map(|column| format!(", {}", self.value(*column))).collect()
        };
        format!(
            "SELECT window_start, level, cell, name, community, street, district, \
             area_m2{group_columns}, events{values}, epoch \
             FROM (SELECT * FROM {table} WHERE epoch <= {epoch}{since}{condition} \
             ORDER BY level DESC, window_start DESC, cell DESC{groups}, epoch DESC \
             LIMIT 1 BY level, window_start, cell{groups}) AS newest \
             LEFT ANY JOIN (SELECT level, cell, name, community, street, district, area_m2 \
             FROM cells WHERE grid = {grid}) AS places USING (level, cell) \
             WHERE is_deleted = 0",
            group_columns = list(group_columns),
            values = list(measures),
            table = identifier(&self.history()),
            since = self.since_keyframe(&epoch),
            grid = literal(&self.grid),
        )
    }

    /// Whether this version served at the newest moment up to an epoch.
    fn serves_at(&self, epoch: &str) -> String {
        let (pipeline, version) = (literal(&self.pipeline), literal(&self.version));
        format!(
            " AND {version} = (SELECT argMax(version, (from_epoch, recorded_at)) FROM versions \
             WHERE pipeline = {pipeline} AND version != '' AND from_epoch <= \
             (SELECT max(epoch) FROM moments WHERE epoch <= {epoch}))"
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
}

fn as_type(value: &str, kind: &str) -> String {
    format!("accurateCastOrNull({value}, {})", literal(kind))
}
