//! The keys of a pipeline file, as they are written.

use std::fmt;
use std::marker::PhantomData;

use citycell_operators::plan::{Crs, Take};
use citycell_schemas::Level;
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// A text and where it stands.
pub(super) type Text = Spanned<String>;

/// One pipeline: a stream of events and what is kept of it per cell.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PipelineFile {
    /// The pipeline's name, also that of its view in ClickHouse, for example `crowd_flow`.
    #[schemars(with = "String")]
    pub(super) pipeline: Text,
    /// What the numbers mean, for those who read them.
    #[serde(default)]
    pub(super) description: String,
    /// Where the events come from, when and where they happened.
    pub(super) source: SourceEntry,
    /// An SQL condition that events must meet, for example `peopleCount >= 0`.
    #[serde(default, rename = "where")]
    #[schemars(with = "Option<String>")]
    pub(super) filter: Option<Text>,
    /// Columns made from others, in order: name and SQL expression.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub(super) derive: Ordered<Text>,
    /// Windows in event time; either this or `latest`.
    #[serde(default)]
    #[schemars(with = "Option<WindowEntry>")]
    pub(super) window: Option<Spanned<WindowEntry>>,
    /// No windows: each entity counts with its latest event.
    #[serde(default)]
    #[schemars(with = "Option<LatestEntry>")]
    pub(super) latest: Option<Spanned<LatestEntry>>,
    /// One value per entity and window before the cell adds up.
    #[serde(default)]
    #[schemars(with = "Option<PerEntry>")]
    pub(super) per: Option<Spanned<PerEntry>>,
    /// Columns that split a cell's numbers, for example `[category]`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) group_by: Vec<Text>,
    /// The published numbers: name and SQL over count, sum, mean, min, max and `cell.area_m2`.
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub(super) aggregate: Ordered<Text>,
    /// The levels above the cell that are published too.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) roll_up: Vec<Spanned<Level>>,
    /// How often a number may be published.
    #[serde(default)]
    pub(super) publish: Option<PublishEntry>,
    /// Cases that `citycell test` runs.
    #[serde(default)]
    #[schemars(with = "Vec<CaseEntry>")]
    pub(super) tests: Vec<Spanned<CaseEntry>>,
}

/// Where the events come from, when and where they happened.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceEntry {
    /// The topic; either this or `topics`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) topic: Option<Text>,
    /// Several topics of one schema.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) topics: Vec<Text>,
    /// The event schema's name.
    #[schemars(with = "String")]
    pub(super) schema: Text,
    /// The field that says when the event happened.
    #[schemars(with = "String")]
    pub(super) event_time: Text,
    /// `{cell: field}`, or `{lon: field, lat: field, crs: wgs84 | gcj02 | bd09}`.
    #[schemars(with = "LocationEntry")]
    pub(super) location: Spanned<LocationEntry>,
    /// What counts as late.
    pub(super) late: LateEntry,
    /// An event further ahead of its broker timestamp is a reject; 5m where it is not said.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) future: Option<Text>,
    /// What names an event: `cloudevents` (source and id; the default), `{fields: [...]}` or `none`.
    #[serde(default)]
    #[schemars(with = "IdentityEntry")]
    pub(super) identity: Option<Spanned<IdentityEntry>>,
}

/// Where an event happened.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LocationEntry {
    /// The field with the cell's code.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) cell: Option<Text>,
    /// The field with the longitude, in degrees.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) lon: Option<Text>,
    /// The field with the latitude, in degrees.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) lat: Option<Text>,
    /// The coordinate system of both: `wgs84` (and cgcs2000), `gcj02` or `bd09`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) crs: Option<Crs>,
}

/// What counts as late.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LateEntry {
    /// How long after its window's end an event still corrects it, for example `10m`.
    #[schemars(with = "String")]
    pub(super) allow: Text,
}

/// What names an event.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum IdentityEntry {
    /// Nothing: copies count again and nothing can be withdrawn.
    None,
    /// The CloudEvents source and id.
    Cloudevents,
    /// These fields together.
    Fields(#[schemars(with = "Vec<String>")] Vec<Text>),
}

/// Windows in event time.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowEntry {
    /// The size of windows that follow each other, for example `1m`.
    #[schemars(with = "String")]
    pub(super) tumbling: Text,
}

/// Each entity counts with its latest event.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LatestEntry {
    /// The columns that name an entity.
    #[schemars(with = "Vec<String>")]
    pub(super) by: Vec<Text>,
    /// Silent longer than this, an entity is unknown: it counts, but has no values.
    #[schemars(with = "String")]
    pub(super) expire: Text,
    /// Silent longer than this, it is gone.
    #[schemars(with = "String")]
    pub(super) forget: Text,
}

/// One value per entity and window.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PerEntry {
    /// The columns that name an entity.
    #[schemars(with = "Vec<String>")]
    pub(super) by: Vec<Text>,
    /// Which of its values: `last`, `mean`, `max` or `sum`.
    #[schemars(with = "String")]
    pub(super) take: Take,
}

/// How often a number may be published.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishEntry {
    /// The shortest time between two versions of a row, for example `10s`.
    #[schemars(with = "String")]
    pub(super) every: Text,
}

/// One case: what comes in and what is published at the end.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseEntry {
    /// What the case shows, in a sentence.
    pub(super) name: String,
    /// The records, in the order in which they arrive.
    #[schemars(with = "Vec<GivenEntry>")]
    pub(super) given: Vec<Spanned<GivenEntry>>,
    /// All rows at the end: `window_start`, `cell` (or `level` and `place`), group columns, numbers.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub(super) expect: Vec<Spanned<Map<String, Value>>>,
}

/// One record of a case: exactly one of `event`, `withdraw` and `raw`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenEntry {
    /// The event's fields.
    #[serde(default)]
    pub(super) event: Option<Map<String, Value>>,
    /// The id of an earlier or later event that this record takes back.
    #[serde(default)]
    pub(super) withdraw: Option<String>,
    /// The record's text, for what is no JSON object.
    #[serde(default)]
    pub(super) raw: Option<String>,
    /// The event's CloudEvents id; its number in the case (from 0) where it is not said.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// The cell it lies in, instead of what `location` says: such a case needs no grid.
    #[serde(default)]
    pub(super) cell: Option<String>,
    /// When the broker got it, RFC 3339; the event's own time where it is not said.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) at: Option<Text>,
    /// Its partition; 0 where it is not said.
    #[serde(default)]
    pub(super) partition: i32,
}

/// A map whose order matters.
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("names and expressions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}
