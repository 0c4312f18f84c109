//! The books of a pipeline: what became of every record it read.

use citycell_operators::events::Outcome;
use serde::{Deserialize, Serialize};

/// Records by outcome; their sum is what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Events in the numbers, also those withdrawn later.
    pub counted: u64,
    /// Events that the pipeline's `where` does not want.
    pub filtered: u64,
    /// Records in `rejects`.
    pub rejected: u64,
    /// Events in `late`.
    pub diverted: u64,
    /// Copies of events already counted.
    pub duplicates: u64,
    /// Records that take an event back.
    pub withdrawals: u64,
}

impl Books {
    /// Enters `count` records with this outcome.
    pub fn enter(&mut self, outcome: Outcome, count: u64) {
        let entry = match outcome {
            Outcome::Counted => &mut self.counted,
            Outcome::Filtered => &mut self.filtered,
            Outcome::Rejected => &mut self.rejected,
            Outcome::Diverted => &mut self.diverted,
            Outcome::Duplicate => &mut self.duplicates,
            Outcome::Withdrawal => &mut self.withdrawals,
        };
        *entry += count;
    }

    /// All records that were read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.counted
            + self.filtered
            + self.rejected
            + self.diverted
            + self.duplicates
            + self.withdrawals
    }
}
