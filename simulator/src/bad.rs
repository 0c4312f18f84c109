//! Records that cannot be counted: one way of being bad per kind.

use serde_json::{Value, json};

use crate::record::{Planted, SimulatedRecord};
use crate::sensor::local;
use crate::stream::Stream;

const DAY_MS: i64 = 86_400_000;

/// How a record is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadKind {
    /// Bytes that are no JSON.
    NotJson,
    /// JSON cut short.
    Truncated,
    /// A measurement of the wrong type.
    WrongType,
    /// A number outside its range (a word outside its list, for a parking space).
    OutOfRange,
    /// `NaN` for a number, which JSON does not have.
    NotANumber,
    /// One key twice.
    RepeatedKey,
    /// A very long text instead of an object.
    Oversized,
    /// A thousand arrays in each other.
    DeeplyNested,
    /// A text that is not UTF-8.
    InvalidUtf8,
    /// Neither coordinates nor a cell, of a sensor that nobody knows.
    MissingPlace,
    /// Coordinates and a cell outside the district, of a sensor that nobody knows.
    OutsideGrid,
    /// An event of tomorrow.
    FarFuture,
    /// A time without a zone.
    TimeWithoutZone,
    /// A CloudEvents type that no schema has.
    UnknownSchema,
    /// No bytes at all.
    Empty,
    /// A null value that names no event.
    TombstoneWithoutId,
}

impl BadKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::NotJson,
        Self::Truncated,
        Self::WrongType,
        Self::OutOfRange,
        Self::NotANumber,
        Self::RepeatedKey,
        Self::Oversized,
        Self::DeeplyNested,
        Self::InvalidUtf8,
        Self::MissingPlace,
        Self::OutsideGrid,
        Self::FarFuture,
        Self::TimeWithoutZone,
        Self::UnknownSchema,
        Self::Empty,
        Self::TombstoneWithoutId,
    ];
}

/// A good event, to be spoiled.
pub(crate) struct Event {
    pub(crate) stream: Stream,
    pub(crate) record: SimulatedRecord,
    pub(crate) payload: Value,
    pub(crate) event_time_ms: i64,
    pub(crate) oversized_bytes: usize,
}

/// The event's record, bad in one way and good in all others.
pub(crate) fn spoil(kind: BadKind, event: Event) -> SimulatedRecord {
    let mut record = spoil_envelope(kind, event.record.clone());
    record.planted = Planted::Bad(kind);
    record.payload = match kind {
        BadKind::TombstoneWithoutId => None,
        BadKind::UnknownSchema => record.payload,
        _ => Some(spoil_payload(kind, event)),
    };
    record
}

fn spoil_envelope(kind: BadKind, mut record: SimulatedRecord) -> SimulatedRecord {
    match kind {
        BadKind::UnknownSchema => set_header(&mut record, "ce_type", "city.nobody.knows"),
        BadKind::TombstoneWithoutId => record.headers.clear(),
        _ => {}
    }
    record
}

fn set_header(record: &mut SimulatedRecord, name: &str, value: &str) {
    for header in record.headers.iter_mut().filter(|(key, _)| *key == name) {
        header.1 = value.to_owned();
    }
}

fn spoil_payload(kind: BadKind, event: Event) -> Vec<u8> {
    let text = event.payload.to_string();
    match kind {
        BadKind::NotJson => format!("<event>{}</event>", event.record.key).into_bytes(),
        BadKind::Truncated => text[..text.len() / 2].to_owned().into_bytes(),
        BadKind::NotANumber => text.replacen(&longitude(&event), "\"lon\":NaN", 1).into_bytes(),
        BadKind::RepeatedKey => {
            let measured = event.stream.measured_field();
            let repeated = json!({ measured: event.payload[measured] }).to_string();
            format!("{},{}", text.trim_end_matches('}'), &repeated[1..]).into_bytes()
        }
        BadKind::Oversized => format!("\"{}\"", "x".repeat(event.oversized_bytes)).into_bytes(),
        BadKind::DeeplyNested => format!("{}{}", "[".repeat(1_000), "]".repeat(1_000)).into_bytes(),
        BadKind::InvalidUtf8 => {
            let mut bytes = text.into_bytes();
            bytes.splice(2..3, [0xff, 0xfe]);
            bytes
        }
        BadKind::Empty => Vec::new(),
        _ => spoil_fields(kind, event).to_string().into_bytes(),
    }
}

fn longitude(event: &Event) -> String {
    format!("\"lon\":{}", event.payload["lon"])
}

/// JSON that parses, with a field that cannot be.
fn spoil_fields(kind: BadKind, event: Event) -> Value {
    let Event { stream, mut payload, event_time_ms, .. } = event;
    match kind {
        BadKind::WrongType => payload[stream.measured_field()] = json!({ "is": "no value" }),
        BadKind::OutOfRange if stream == Stream::Parking => payload["status"] = json!("on fire"),
        BadKind::OutOfRange => payload[stream.measured_field()] = json!(-5),
        BadKind::FarFuture => payload["dateObserved"] = json!(local(event_time_ms + DAY_MS)),
        BadKind::TimeWithoutZone => {
            let zoned = local(event_time_ms);
            payload["dateObserved"] = json!(zoned.trim_end_matches("+08:00"));
        }
        BadKind::MissingPlace => {
            payload[stream.sensor_field()] = json!("nobody-knows");
            for field in ["lon", "lat", "gridCode"] {
                payload[field] = Value::Null;
            }
        }
        BadKind::OutsideGrid => {
            payload[stream.sensor_field()] = json!("nobody-knows");
            payload["lon"] = json!(115.0);
            payload["gridCode"] = json!("430199999999999");
        }
        _ => {}
    }
    payload
}
