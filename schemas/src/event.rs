//! Event schemas: what the events of one stream look like.
//!
//! A schema is a YAML file that lists the fields of an event: type, unit, meaning, range, decimals.
//! Everything downstream follows from it: how decoding reads a field, the scale of its sums, what
//! `citycell schema` prints, the JSON Schema for producers. A schema is flat: an event is one JSON
//! object of scalars.
//!
//! Limits: at most [`FIELDS_MAX`] fields, at most [`DECIMALS_MAX`] decimals.

mod json_schema;
mod parse;
mod shipped;

use serde::{Deserialize, Serialize};

pub use parse::{DECIMALS_MAX, FIELDS_MAX, SchemaError};
pub use shipped::{shipped, shipped_yaml};

/// What the events of one stream look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventSchema {
    /// The name that pipelines use, for example `crowd_flow`.
    pub name: String,
    /// Raised by one with every change that old events do not meet.
    pub version: u32,
    /// What one event says.
    pub description: String,
    /// The CloudEvents `type` of these events; none where they are never CloudEvents.
    pub cloudevents_type: Option<String>,
    /// The fields in the order of the file.
    pub fields: Vec<Field>,
}

/// One field of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its key in the JSON object, also the name of its column.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// The unit of its values, for example `Cel`; empty where it has none.
    pub unit: String,
    /// What it says.
    pub meaning: String,
    /// Whether an event without it is a reject.
    pub required: bool,
    /// The smallest and largest value of an integer or a number.
    pub range: Option<Range>,
    /// Of a number: how many decimals sums keep. 0 for every other type.
    pub decimals: u8,
    /// Of a text: the only values it may have; any where empty.
    pub values: Vec<String>,
    /// Of a time: how it is written.
    pub time_format: TimeFormat,
    /// Whether it is about a person, and how plainly; none where it is not.
    pub personal: Option<Personal>,
}

/// How plainly a field speaks of a person. Wherever records are kept, its values are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Personal {
    /// It says who it is, or something about them: a name, a number, an age. No pipeline may publish
    /// it or know entities by it.
    Direct,
    /// A name that only its maker can undo, such as a keyed hash. Pipelines may use it as any other
    /// field; so it stands in tables and in snapshots.
    Pseudonym,
}

impl Personal {
    /// The word of the YAML file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pseudonym => "pseudonym",
        }
    }
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// A JSON string.
    Text,
    /// A JSON number without fraction and exponent that fits 64 bits.
    Integer,
    /// Any JSON number; kept as 64-bit float.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A moment; kept as milliseconds since 1970 in UTC.
    Time,
}

impl FieldType {
    /// The word of the YAML file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Time => "time",
        }
    }
}

/// How a moment is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// A string after RFC 3339, zone included: `2026-03-01T08:00:00+08:00`.
    #[default]
    Rfc3339,
    /// An integer: milliseconds since 1970-01-01T00:00:00Z.
    EpochMs,
}

/// A closed range; a side without limit is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The smallest value allowed.
    #[serde(default)]
    pub min: Option<f64>,
    /// The largest value allowed.
    #[serde(default)]
    pub max: Option<f64>,
}

impl Range {
    /// Whether `value` is inside. Not a number never is.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min)
            && self.max.is_none_or(|max| value <= max)
            && !value.is_nan()
    }
}

impl EventSchema {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The fields about a person.
    pub fn personal_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.personal.is_some())
    }
}
