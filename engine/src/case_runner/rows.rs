//! The rows at the end of a case, as ClickHouse would show them.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType, UInt8Type},
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use citycell_operators::{changes::Version, expression::ExpressionError, keys::Key};
use citycell_schemas::{Epoch, EventTime, Grid, Level};
use serde_json::{Map, Value, json};

use crate::{
    clickhouse::{rows::RowEncoder, tables::PipelineTable},
    pipeline::Pipeline,
};

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The start of its window; none without windows.
    pub(super) window_start: Option<EventTime>,
    /// Its place's level.
    pub(super) level: Level,
    /// Its place's code.
    pub(super) place: String,
    /// Groups and numbers.
    pub(super) columns: Map<String, Value>,
}

/// The rows of these versions, encoded exactly as they would be written.
pub(super) fn rows(
    pipeline: &Pipeline,
    grid: &Arc<Grid>,
    newest: BTreeMap<Key, Version>,
) -> Result<Vec<Row>, ExpressionError> {
    let versions: Vec<Version> =
        newest.into_values().filter(|version| version.state.is_some()).collect();
    let table = Arc::new(PipelineTable::new(&pipeline.plan, "", pipeline.groups.clone(), grid));
    let encoder = RowEncoder::new(Arc::clone(&table), &pipeline.plan, Arc::clone(grid))?;
    let batch = encoder.rows(Epoch(0), &versions);
    let row = |(index, version): (usize, &Version)| {
        let entry = grid.entry(version.key.place);
        Row {
            window_start: table.windowed.then_some(version.key.window_start),
            level: entry.level,
            place: entry.code.clone(),
            columns: columns(&table, &batch, index),
        }
    };
    Ok(versions.iter().enumerate().map(row).collect())
}

fn columns(table: &PipelineTable, batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let value = |name: &str| batch.column_by_name(name).map_or(Value::Null, |it| text(it, row));
    let groups = table.groups.iter().map(|field| (field.name().clone(), value(field.name())));
    let measures = table.measures.iter().map(|name| {
        let has_value = value(&format!("{name}_valid")) == json!(1);
        (name.clone(), if has_value { value(name) } else { Value::Null })
    });
    groups.chain(measures).collect()
}

/// One value as JSON: numbers and truth values as such, everything else as text.
fn text(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => json!(column.as_primitive::<UInt8Type>().value(row)),
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            json!(time_text(column.as_primitive::<TimestampMillisecondType>().value(row)))
        }
        _ => {
            let shown = ArrayFormatter::try_new(column, &FormatOptions::default());
            shown.map_or(Value::Null, |shown| json!(shown.value(row).to_string()))
        }
    }
}

/// A number as one would write it: a whole one without decimals.
fn number(value: f64) -> Value {
    /// All whole numbers up to here are exact.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    let whole = value.fract() == 0.0 && value.abs() <= WHOLE_MAX;
    if whole { json!(value as i64) } else { json!(value) }
}

/// A moment after RFC 3339, in UTC.
pub(super) fn time_text(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
