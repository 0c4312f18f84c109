//! The cases inside a pipeline file: records that come in, rows that are there at the end.

use citycell_operators::decode::parse_rfc3339_ms;
use citycell_schemas::{EventTime, Level};
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};

use super::error::Faults;
use super::file::{CaseEntry, GivenEntry};

/// One case of `citycell test`.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    /// What it shows.
    pub name: String,
    /// The line of the file where it begins.
    pub line: u64,
    /// The records in the order in which they arrive.
    pub given: Vec<GivenEvent>,
    /// Every row that is there at the end, in any order.
    pub expect: Vec<ExpectedRow>,
}

/// One record that comes in.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenEvent {
    /// What it says.
    pub record: GivenRecord,
    /// The event's CloudEvents id: its own, or its number within the case.
    pub id: String,
    /// The cell it lies in, whatever the pipeline's `location` says.
    pub cell: Option<String>,
    /// The broker's timestamp, ms since 1970; the event's own time where the case does not say.
    pub broker_time_ms: Option<i64>,
    /// Its partition.
    pub partition: i32,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum GivenRecord {
    /// An event.
    Event(Map<String, Value>),
    /// The event of this id is taken back.
    Withdrawal {
        /// That event's id.
        id: String,
    },
    /// A payload as it stands.
    Raw(String),
}

/// One row that is there at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedRow {
    /// The line of the file where it stands.
    pub line: u64,
    /// The start of its window; none for a pipeline without windows.
    pub window_start: Option<EventTime>,
    /// Its place's level.
    pub level: Level,
    /// The code of its cell or place.
    pub place: String,
    /// The other columns, groups and numbers; null is no value. Columns not named are not compared.
    pub columns: Map<String, Value>,
}

pub(super) fn read(entries: &[Spanned<CaseEntry>], faults: &mut Faults<'_>) -> Vec<TestCase> {
    entries
        .iter()
        .map(|entry| TestCase {
            name: entry.value.name.clone(),
            line: entry.referenced.line(),
            given: (0_usize..)
                .zip(&entry.value.given)
                .filter_map(|(number, given)| given_event(number, given, faults))
                .collect(),
            expect: entry.value.expect.iter().filter_map(|row| expected(row, faults)).collect(),
        })
        .collect()
}

fn given_event(
    number: usize,
    entry: &Spanned<GivenEntry>,
    faults: &mut Faults<'_>,
) -> Option<GivenEvent> {
    let GivenEntry { event, withdraw, raw, id, cell, at, partition } = &entry.value;
    let record = match (event, withdraw, raw) {
        (Some(event), None, None) => GivenRecord::Event(event.clone()),
        (None, Some(id), None) => GivenRecord::Withdrawal { id: id.clone() },
        (None, None, Some(raw)) => GivenRecord::Raw(raw.clone()),
        _ => {
            let message = "a record is one of `event`, `withdraw` and `raw`";
            faults.at(entry.referenced, message, None);
            return None;
        }
    };
    let broker_time_ms = match at {
        Some(at) => Some(time(&at.value, at.referenced, faults)?),
        None => None,
    };
    Some(GivenEvent {
        record,
        id: id.clone().unwrap_or_else(|| number.to_string()),
        cell: cell.clone(),
        broker_time_ms,
        partition: *partition,
    })
}

fn expected(entry: &Spanned<Map<String, Value>>, faults: &mut Faults<'_>) -> Option<ExpectedRow> {
    let mut columns = entry.value.clone();
    let window_start = match columns.shift_remove("window_start") {
        Some(Value::String(text)) => Some(EventTime(time(&text, entry.referenced, faults)?)),
        _ => None,
    };
    let level = columns.shift_remove("level").map(serde_json::from_value).transpose();
    let place = columns.shift_remove("cell").or_else(|| columns.shift_remove("place"));
    match (level, place) {
        (Ok(level), Some(Value::String(place))) => Some(ExpectedRow {
            line: entry.referenced.line(),
            window_start,
            level: level.unwrap_or(Level::Cell),
            place,
            columns,
        }),
        _ => {
            let message = "a row has a cell's code as text, or a level and a place";
            let hint =
                "write {cell: \"430102001001001\", ...} or {level: city, place: \"4301\", ...}";
            faults.at(entry.referenced, message, Some(hint.to_owned()));
            None
        }
    }
}

fn time(text: &str, location: Location, faults: &mut Faults<'_>) -> Option<i64> {
    match parse_rfc3339_ms(text) {
        Some(ms) => Some(ms),
        None => {
            let hint = "write for example 2026-03-01T08:00:00+08:00; the zone is part of it";
            faults.at(location, format!("`{text}` is no time"), Some(hint.to_owned()));
            None
        }
    }
}
