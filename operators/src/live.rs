//! How much a pipeline keeps in memory, for the metrics.

use std::sync::atomic::{AtomicI64, Ordering};

/// Counts of one pipeline over all its operators and workers.
#[derive(Debug, Default)]
pub struct Live {
    keys: AtomicI64,
    bytes: AtomicI64,
}

impl Live {
    /// The aggregates' keys: one per window, place and group, on every level.
    #[must_use]
    pub fn keys(&self) -> i64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// What keys, sums, open events and entities take, without the containers around them.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, keys: i64, bytes: i64) {
        self.keys.fetch_add(keys, Ordering::Relaxed);
        self.add_bytes(bytes);
    }

    pub(crate) fn add_bytes(&self, bytes: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
