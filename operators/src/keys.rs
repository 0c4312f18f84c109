//! What the right-hand side of the dataflow is keyed by, and what it adds up.

use citycell_schemas::{EventTime, Place};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The key of one aggregate. The window comes first, so that what expires is a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The start of its window; 0 for a pipeline without windows.
    pub window_start: EventTime,
    /// The cell, or the place above it after a roll-up.
    pub place: Place,
    /// The group columns as an Arrow row; empty without `group_by`.
    pub group: Box<[u8]>,
}

/// One optional fixed-point number per argument of the plan, in units of 10^-scale.
pub type Values = SmallVec<[Option<i128>; 1]>;
