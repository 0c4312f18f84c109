//! What every operator that holds state learns of each epoch, from the epoch's binding.

use citycell_schemas::{Epoch, EventTime};
use serde::{Deserialize, Serialize};

/// The decisions of one epoch's binding. Each worker sends one per pipeline and epoch, at exactly
/// that epoch, whether or not it has rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tick {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// The time for timers: min(epoch, broker time of the oldest unread record), never going back.
    pub bound_time_ms: i64,
    /// The bound time of the epoch before; `i64::MIN` at the first.
    pub previous_bound_time_ms: i64,
    /// The event time that all epochs *before* this one reached: what lateness is judged by.
    pub watermark: EventTime,
    /// Whether operators write down, at the end of this epoch, what they touched since they last
    /// did. Not part of the binding: it changes no number.
    pub snapshot: bool,
}
