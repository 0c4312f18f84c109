//! Rows at the end against rows expected.
//!
//! Every cell row must be expected, and so must every row of the other levels that the case names;
//! of levels that it does not name, nothing is said. Only the columns that an expected row names
//! are compared. Numbers are equal if they differ by less than a billionth of them.

use std::fmt;

use citycell_operators::decode::parse_rfc3339_ms;
use citycell_schemas::Level;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{clickhouse::tables::level_name, config::ExpectedRow};

use super::rows::{Row, time_text};

/// One way in which the rows differ from what is expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Mismatch {
    /// The row is there and has other values.
    Different {
        /// The line of the expected row.
        line: u64,
        /// The row as it is.
        row: RowText,
        /// The columns that differ.
        columns: Vec<ColumnDifference>,
    },
    /// There is no such row.
    Missing {
        /// The line of the expected row.
        line: u64,
        /// The row as it is expected.
        row: RowText,
    },
    /// There is a row that nobody expects.
    Surplus {
        /// The row as it is.
        row: RowText,
    },
}

/// A column that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnDifference {
    /// Its name.
    pub column: String,
    /// What the case says.
    pub expected: Value,
    /// What there is.
    pub actual: Value,
}

/// A row in the words of a pipeline file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RowText(pub Map<String, Value>);

impl fmt::Display for RowText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(|(name, value)| format!("{name}: {value}"));
        write!(out, "{{{}}}", columns.collect::<Vec<_>>().join(", "))
    }
}

/// How `rows` differ from `expect`; `groups` are the pipeline's group columns.
pub(super) fn compare(
    mut rows: Vec<Row>,
    expect: &[ExpectedRow],
    groups: &[String],
) -> Vec<Mismatch> {
    let named = |level| level == Level::Cell || expect.iter().any(|row| row.level == level);
    rows.retain(|row| named(row.level));
    let mut expect: Vec<&ExpectedRow> = expect.iter().collect();
    // Those that say the most choose first, so that one that says little does not take their row.
    expect.sort_by_key(|row| std::cmp::Reverse(row.columns.len()));
    expect.retain(|expected| {
        let is_it = |row: &Row| same_key(expected, row) && differences(expected, row).is_empty();
        rows.iter().position(is_it).map(|index| rows.remove(index)).is_none()
    });
    expect.sort_by_key(|row| row.line);
    let mut mismatches = Vec::new();
    for expected in expect {
        let in_group = |row: &Row| {
            let differs = |name: &String| {
                expected.columns.get(name).is_some_and(|value| !same(value, &row.columns[name]))
            };
            same_key(expected, row) && !groups.iter().any(differs)
        };
        let line = expected.line;
        mismatches.push(match rows.iter().position(in_group) {
            Some(index) => {
                let row = rows.remove(index);
                let columns = differences(expected, &row);
                Mismatch::Different { line, columns, row: actual_text(&row) }
            }
            None => Mismatch::Missing { line, row: expected_text(expected) },
        });
    }
    mismatches.extend(rows.iter().map(|row| Mismatch::Surplus { row: actual_text(row) }));
    mismatches
}

fn same_key(expected: &ExpectedRow, row: &Row) -> bool {
    expected.level == row.level
        && expected.place == row.place
        && expected.window_start == row.window_start
}

fn differences(expected: &ExpectedRow, row: &Row) -> Vec<ColumnDifference> {
    let columns = expected.columns.iter();
    columns
        .filter_map(|(name, expected)| {
            let actual = row.columns.get(name).unwrap_or(&Value::Null);
            (!same(expected, actual)).then(|| ColumnDifference {
                column: name.clone(),
                expected: expected.clone(),
                actual: actual.clone(),
            })
        })
        .collect()
}

fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(expected), Value::Number(actual)) => {
            let (expected, actual) = (expected.as_f64(), actual.as_f64());
            expected.zip(actual).is_some_and(|(expected, actual)| {
                (expected - actual).abs() <= 1e-9 * expected.abs().max(actual.abs())
            })
        }
        (Value::String(expected), Value::String(actual)) if expected != actual => {
            // A moment is the same in every zone.
            let time = parse_rfc3339_ms(expected);
            time.is_some() && time == parse_rfc3339_ms(actual)
        }
        _ => expected == actual,
    }
}

fn actual_text(row: &Row) -> RowText {
    let expected = ExpectedRow {
        line: 0,
        window_start: row.window_start,
        level: row.level,
        place: row.place.clone(),
        columns: row.columns.clone(),
    };
    expected_text(&expected)
}

fn expected_text(row: &ExpectedRow) -> RowText {
    let mut text = Map::new();
    if let Some(start) = row.window_start {
        text.insert("window_start".to_owned(), json!(time_text(start.0)));
    }
    if row.level == Level::Cell {
        text.insert("cell".to_owned(), json!(row.place));
    } else {
        text.insert("level".to_owned(), json!(level_name(row.level)));
        text.insert("place".to_owned(), json!(row.place));
    }
    text.extend(row.columns.clone());
    RowText(text)
}
