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

#[cfg(test)]
mod tests {
    use citycell_schemas::EventTime;

    use super::*;

    fn row(place: &str, columns: Value) -> Row {
        let columns = columns.as_object().expect("columns").clone();
        let (window_start, level) = (Some(EventTime(0)), Level::Cell);
        Row { window_start, level, place: place.to_owned(), columns }
    }

    fn expected(line: u64, place: &str, columns: Value) -> ExpectedRow {
        let Row { window_start, level, place, columns } = row(place, columns);
        ExpectedRow { line, window_start, level, place, columns }
    }

    fn differences_of(rows: &[Row], expect: &[ExpectedRow]) -> Vec<Mismatch> {
        compare(rows.to_vec(), expect, &["group".to_owned()])
    }

    #[test]
    fn a_row_that_says_little_does_not_take_the_row_of_one_that_says_more() {
        let rows = [
            row("a", json!({"group": "x", "people": 1})),
            row("a", json!({"group": "y", "people": 1})),
        ];
        let vague = expected(1, "a", json!({"people": 1}));
        let exact = expected(2, "a", json!({"people": 1, "group": "x"}));
        assert_eq!(differences_of(&rows, &[vague.clone(), exact.clone()]), []);
        let surplus = [vague.clone(), exact.clone(), vague];
        assert!(matches!(differences_of(&rows, &surplus)[..], [Mismatch::Missing { .. }]));
        assert!(matches!(differences_of(&rows, &[exact])[..], [Mismatch::Surplus { .. }]));
    }

    #[test]
    fn a_difference_is_told_of_the_row_of_the_same_group() {
        let rows = [
            row("a", json!({"group": null, "people": 1})),
            row("a", json!({"group": "y", "people": 2})),
        ];
        let expect = [
            expected(1, "a", json!({"group": "y", "people": 3})),
            expected(2, "a", json!({"group": null, "people": 1})),
        ];
        let mismatches = differences_of(&rows, &expect);
        let [Mismatch::Different { line: 1, columns, .. }] = &mismatches[..] else {
            panic!("{mismatches:?}");
        };
        assert_eq!((&columns[0].expected, &columns[0].actual), (&json!(3), &json!(2)));
    }

    #[test]
    fn values_are_equal_as_numbers_and_as_moments() {
        assert!(same(&json!(10), &json!(10.0)));
        assert!(same(&json!(0.1 + 0.2), &json!(0.3)));
        assert!(!same(&json!(0.300_001), &json!(0.3)));
        assert!(!same(&json!("10"), &json!(10)) && !same(&json!(0), &Value::Null));
        assert!(same(&json!("2026-03-01T08:00:00+08:00"), &json!("2026-03-01T00:00:00Z")));
        assert!(!same(&json!("a"), &json!("b")));
    }
}
