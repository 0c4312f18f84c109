//! The three times, which never mix.
//!
//! [`Offset`] counts records in a Kafka partition, [`EventTime`] is when something happened in the
//! city, [`Epoch`] is the tick of the dataflow at which the engine knew of it.

use serde::{Deserialize, Serialize};

/// A record's place in a Kafka partition. "Resume here" is always called `next_offset`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub i64);

/// Milliseconds since 1970-01-01T00:00:00Z at which something happened, as the event says.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every event: the watermark of a stream that has shown nothing yet.
    pub const MIN: Self = Self(i64::MIN);

    /// This moment moved by `ms`; the ends of time stay where they are.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Dataflow time: the tick's wall clock in milliseconds since 1970, strictly increasing within one
/// deployment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);
