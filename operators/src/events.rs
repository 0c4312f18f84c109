//! Events as columns, and everything that did not become one.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use citycell_schemas::{EventTime, Offset};
use serde::{Deserialize, Serialize};

/// Names one event for good: the first 16 bytes of a hash over its source and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub u128);

/// Where a record stands in Kafka. Its order decides between copies of one event.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The topic's index among the sorted topic names of the pipeline.
    pub topic: u16,
    /// The partition's number.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: Offset,
}

/// A batch of one partition's events: row `i` of `columns` came from `offsets[i]`.
#[derive(Clone, Debug)]
pub struct Events {
    /// The topic's index among the sorted topic names of the deployment.
    pub topic: u16,
    /// The partition's number.
    pub partition: i32,
    /// One column per field that some pipeline reads, named like the field.
    pub columns: RecordBatch,
    /// The offset of each row, ascending.
    pub offsets: Vec<Offset>,
    /// The broker's timestamp of each row, ms since 1970.
    pub broker_times_ms: Vec<i64>,
    /// Each row's identity; empty where the source names no ids.
    pub ids: Vec<EventId>,
}

/// A record that takes an event back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Withdrawal {
    /// The event it takes back.
    pub id: EventId,
    /// Where the withdrawal itself stands.
    pub position: Position,
    /// The broker's timestamp of the withdrawal, ms since 1970.
    pub broker_time_ms: i64,
}

/// A record that cannot be counted, with everything needed to repair it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reject {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The record's offset.
    pub offset: Offset,
    /// The broker's timestamp of the record, ms since 1970.
    pub broker_time_ms: i64,
    /// What is wrong, one word of a fixed list, for example `not_json` or `outside_grid`.
    pub reason: Reason,
    /// The field at fault; empty where the whole record is.
    pub field: String,
    /// A sentence for a human; no payload beyond the offending value, shortened.
    pub detail: String,
    /// The record's bytes as received.
    pub payload: Vec<u8>,
}

/// Why a record was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The payload is not JSON, or cut short.
    NotJson,
    /// The payload is not valid UTF-8.
    NotUtf8,
    /// JSON nested deeper than the limit.
    TooDeep,
    /// The payload is larger than the limit.
    TooLarge,
    /// The payload is empty, or null without an id to withdraw.
    Empty,
    /// A required field is missing or null.
    MissingField,
    /// A key occurs twice in one object.
    RepeatedField,
    /// A field has another type than its schema says.
    WrongType,
    /// A number outside its schema's range, or not finite.
    OutOfRange,
    /// A text outside its schema's list of values.
    UnknownValue,
    /// A time that cannot be read, or without a zone.
    BadTime,
    /// An event too far ahead of its broker timestamp.
    Future,
    /// No id where the source promises one.
    MissingId,
    /// A CloudEvent of another type or schema than the pipeline reads.
    UnknownSchema,
    /// No place: code, device or coordinates are missing.
    MissingPlace,
    /// A code that is no cell of the grid, or a point in no cell.
    OutsideGrid,
    /// An expression failed on this row, for example a division by zero or an overflow.
    Expression,
}

impl Reason {
    /// The word that `rejects` shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotUtf8 => "not_utf8",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::Empty => "empty",
            Self::MissingField => "missing_field",
            Self::RepeatedField => "repeated_field",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::UnknownValue => "unknown_value",
            Self::BadTime => "bad_time",
            Self::Future => "future",
            Self::MissingId => "missing_id",
            Self::UnknownSchema => "unknown_schema",
            Self::MissingPlace => "missing_place",
            Self::OutsideGrid => "outside_grid",
            Self::Expression => "expression",
        }
    }
}

/// What became of a record; the books count each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the numbers (and stays here when it is withdrawn later).
    Counted,
    /// The pipeline's `where` does not want it.
    Filtered,
    /// It is in `rejects`.
    Rejected,
    /// It came too late and is in `late`.
    Diverted,
    /// A copy of an event that is already counted.
    Duplicate,
    /// It takes another event back.
    Withdrawal,
}

/// One event in its window and place, its arguments evaluated: the unit of exact correction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Observation {
    /// Its identity, where the source names ids.
    pub id: Option<EventId>,
    /// When it happened.
    pub time: EventTime,
    /// Where it stands in Kafka; decides between copies and equal times.
    pub position: Position,
    /// The window, place and group it counts in.
    pub key: crate::keys::Key,
    /// The entity it speaks of (the `by` columns of `per` or `latest`, encoded); empty without.
    pub entity: Box<[u8]>,
    /// One value per argument of the plan.
    pub values: crate::keys::Values,
}
