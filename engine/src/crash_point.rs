//! Places at which a test may have the engine end as if it were killed.
//!
//! `CITYCELL_CRASH_AT=before_mark:3` ends the process the third time it comes to that place.

use std::sync::{
    OnceLock,
    atomic::{AtomicI64, Ordering},
};

/// The places, in the order in which an epoch meets them.
pub const CRASH_POINTS: [&str; 10] = [
    "before_binding",
    "after_binding",
    "before_rows",
    "after_rows",
    "before_mark",
    "after_mark",
    "after_moment",
    "after_snapshot_file",
    "before_manifest",
    "after_manifest",
];

/// Those that a new version of a pipeline meets when it takes its place.
pub const SWAP_CRASH_POINTS: [&str; 2] = ["before_version", "after_version"];

static WANTED: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();

/// Ends the process here, if that is wanted.
pub(crate) fn crash_point(name: &'static str) {
    let mut listed = CRASH_POINTS.iter().chain(&SWAP_CRASH_POINTS);
    debug_assert!(listed.any(|point| *point == name), "{name} is not listed");
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("CITYCELL_CRASH_AT").ok()?;
        let (name, times) = text.split_once(':')?;
        Some((name.to_owned(), AtomicI64::new(times.parse().ok()?)))
    });
    if let Some((wanted, left)) = wanted
        && wanted == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // Nothing is cleaned up, as after `kill -9`.
        std::process::abort();
    }
}
