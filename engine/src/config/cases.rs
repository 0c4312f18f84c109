//! The cases inside a pipeline file: records that come in, rows that are there at the end.

use citycell_operators::decode::parse_rfc3339_ms;
use citycell_operators::expression::closest;
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

/// What the cases of a pipeline may say.
pub(super) struct CaseRules<'a> {
    /// The group columns and the numbers.
    pub(super) columns: Vec<&'a str>,
    /// Whether rows have a window.
    pub(super) windowed: bool,
    /// Whether a record can take an event back.
    pub(super) withdrawable: bool,
}

pub(super) fn read(
    entries: &[Spanned<CaseEntry>],
    rules: &CaseRules<'_>,
    faults: &mut Faults<'_>,
) -> Vec<TestCase> {
    entries
        .iter()
        .map(|entry| TestCase {
            name: entry.value.name.clone(),
            line: entry.referenced.line(),
            given: (0_usize..)
                .zip(&entry.value.given)
                .filter_map(|(number, given)| {
                    if given.value.withdraw.is_some() && !rules.withdrawable {
                        let message = "only events with CloudEvents ids can be withdrawn";
                        let hint = "write identity: cloudevents".to_owned();
                        faults.at(given.referenced, message, Some(hint));
                    }
                    given_event(number, given, faults)
                })
                .collect(),
            expect: entry
                .value
                .expect
                .iter()
                .filter_map(|row| expected(row, rules, faults))
                .collect(),
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

fn expected(
    entry: &Spanned<Map<String, Value>>,
    rules: &CaseRules<'_>,
    faults: &mut Faults<'_>,
) -> Option<ExpectedRow> {
    let mut columns = entry.value.clone();
    let window_start = match (columns.shift_remove("window_start"), rules.windowed) {
        (Some(Value::String(text)), true) => {
            Some(EventTime(time(&text, entry.referenced, faults)?))
        }
        (None, false) => None,
        (_, windowed) => {
            let (message, hint) = window_fault(windowed);
            faults.at(entry.referenced, message, hint.map(str::to_owned));
            return None;
        }
    };
    let level = columns.shift_remove("level").map(serde_json::from_value).transpose();
    let place = columns.shift_remove("cell").or_else(|| columns.shift_remove("place"));
    for name in columns.keys().filter(|name| !rules.columns.contains(&name.as_str())) {
        let hint = match closest(name, rules.columns.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there is {}", rules.columns.join(", ")),
        };
        faults.at(entry.referenced, format!("rows have no column `{name}`"), Some(hint));
    }
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

fn window_fault(windowed: bool) -> (&'static str, Option<&'static str>) {
    if windowed {
        let hint = "write window_start: \"2026-03-01T08:00:00+08:00\"";
        ("a row names the start of its window, as text", Some(hint))
    } else {
        ("a pipeline without windows has no `window_start`", None)
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
