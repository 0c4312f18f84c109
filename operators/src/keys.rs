//! What the right-hand side of the dataflow is keyed by, and what it adds up.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use citycell_schemas::{EventTime, Place};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The key of one aggregate. The window comes first, so that what expires is a prefix.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Key {
    /// The start of its window; 0 for a pipeline without windows.
    pub window_start: EventTime,
    /// The cell, or the place above it after a roll-up.
    pub place: Place,
    /// The group columns as an Arrow row; empty without `group_by`.
    pub group: Box<[u8]>,
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
            && self.window_start == other.window_start
            && compare_groups(&self.group, &other.group).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.window_start
            .cmp(&other.window_start)
            .then(self.place.cmp(&other.place))
            .then_with(|| compare_groups(&self.group, &other.group))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.window_start, self.place, &self.group).hash(state);
    }
}

/// The order of groups. Most pipelines have none, and to compare nothing with nothing needs no call:
/// sorting, merging and seeking compare keys more often than anything else.
#[inline]
pub(crate) fn compare_groups(one: &[u8], other: &[u8]) -> Ordering {
    if one.is_empty() || other.is_empty() { one.len().cmp(&other.len()) } else { one.cmp(other) }
}

/// One optional fixed-point number per argument of the plan, in units of 10^-scale.
pub type Values = SmallVec<[Option<i128>; 1]>;
