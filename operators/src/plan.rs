//! A pipeline after validation: everything the dataflow needs to know, and nothing of YAML.

use citycell_schemas::Level;
use serde::{Deserialize, Serialize};

/// One pipeline. All expressions are SQL over the columns of the schema and `derive`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The pipeline's name, also the name of its view.
    pub name: String,
    /// The topics it reads.
    pub topics: Vec<String>,
    /// The name of its event schema.
    pub schema: String,
    /// The field that says when the event happened.
    pub event_time: String,
    /// Where the event happened.
    pub location: Location,
    /// How long after its window's end an event still corrects it.
    pub allow_ms: i64,
    /// How far an event may be ahead of its broker timestamp before it is a reject.
    pub future_ms: i64,
    /// Whether events have ids, so that copies are counted once and withdrawals work.
    pub identified: bool,
    /// The condition that events must meet.
    pub filter: Option<String>,
    /// Columns made from others, in order.
    pub derive: Vec<Derived>,
    /// How events are grouped in time.
    pub window: Window,
    /// One value per entity and window before cells add up.
    pub per: Option<Per>,
    /// Columns that split a cell's aggregate.
    pub group_by: Vec<String>,
    /// The distinct arguments of the aggregates: what is evaluated per event.
    pub arguments: Vec<Argument>,
    /// The aggregates over the arguments that `measures` refer to.
    pub slots: Vec<Slot>,
    /// The published columns.
    pub measures: Vec<Measure>,
    /// The levels above the cell that are published too.
    pub roll_up: Vec<Level>,
    /// The shortest interval between two versions of a row; 0 publishes on every tick.
    pub publish_every_ms: i64,
}

/// How an event's place is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// A field holds the cell's code.
    Cell {
        /// That field.
        column: String,
    },
    /// Two fields hold coordinates in degrees.
    Point {
        /// The longitude's field.
        lon: String,
        /// The latitude's field.
        lat: String,
        /// Their coordinate system.
        crs: Crs,
    },
}

/// A coordinate system of points, in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crs {
    /// WGS 84, and CGCS2000 at our precision.
    Wgs84,
    /// GCJ-02, the shifted system of Chinese maps.
    Gcj02,
    /// BD-09, Baidu's shift on top of GCJ-02.
    Bd09,
}

/// A column made from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// The new column's name.
    pub name: String,
    /// Its expression.
    pub expression: String,
}

/// How events are grouped in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// Windows of one size, one after the other, aligned to 1970-01-01T00:00:00Z.
    Tumbling {
        /// Their size.
        size_ms: i64,
    },
    /// No window: each entity counts with its latest event.
    Latest {
        /// The columns that name an entity.
        by: Vec<String>,
        /// Silent longer than this, an entity is "unknown": it counts as an entity, without values.
        expire_ms: i64,
        /// Silent longer than this, an entity is gone.
        forget_ms: i64,
    },
}

/// One value per entity and window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Per {
    /// The columns that name an entity.
    pub by: Vec<String>,
    /// Which value.
    pub take: Take,
}

/// Which value of an entity within its window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The one of the newest event, by (event time, topic, partition, offset).
    Last,
    /// The mean, rounded to the argument's scale.
    Mean,
    /// The largest.
    Max,
    /// The sum.
    Sum,
}

/// What is evaluated per event: a number, kept in units of 10^-scale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// Its expression.
    pub expression: String,
    /// Decimals kept.
    pub scale: u8,
}

/// One aggregate over one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// The number of events (of entities, with `per` or `latest`).
    Count,
    /// The number of events whose argument of this index is not null.
    CountOf(usize),
    /// The sum of the argument of this index.
    Sum(usize),
    /// Its mean.
    Mean(usize),
    /// Its minimum.
    Min(usize),
    /// Its maximum.
    Max(usize),
}

/// A published column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// The column's name.
    pub name: String,
    /// An SQL expression over the columns `slot_0`, `slot_1`, ... and `cell_area_m2`, all Float64.
    pub expression: String,
}
