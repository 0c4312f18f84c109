//! How much a pipeline keeps in memory at worst.
//!
//! An upper estimate: every cell, group and entity is active in every open window. Bytes are those
//! of the values and the maps around them, reckoned from their types and not yet measured.

use citycell_operators::plan::{Plan, Slot, Take, Window};
use serde::Serialize;

/// The size of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume {
    pub(super) cells: u64,
    pub(super) groups: u64,
    pub(super) entities: u64,
    pub(super) events_per_second: u64,
}

/// One kind of record that is kept.
#[derive(Debug, Serialize)]
pub(super) struct State {
    /// Of what.
    pub(super) what: &'static str,
    /// How many at worst.
    pub(super) count: u64,
    /// The bytes of each.
    pub(super) bytes_each: u64,
    /// How the count comes about.
    pub(super) formula: String,
}

impl State {
    pub(super) fn megabytes(&self) -> u64 {
        self.count.saturating_mul(self.bytes_each).div_ceil(1_000_000)
    }
}

/// Window, place, group and the entry of the map that holds them.
const KEY_BYTES: u64 = 64;
/// A sum or a count of one argument.
const ACCUMULATOR_BYTES: u64 = 32;
/// An id and its place in time.
const ID_BYTES: u64 = 48;

pub(super) fn worst_case(plan: &Plan, volume: Volume) -> Vec<State> {
    let windows = open_windows(plan);
    let groups = if plan.group_by.is_empty() { 1 } else { volume.groups };
    let slots = plan.slots.len() as u64;
    let mut state = vec![State {
        what: "totals",
        count: volume.cells * groups * windows,
        bytes_each: KEY_BYTES + ACCUMULATOR_BYTES * (1 + slots),
        formula: format!("{} cells x {groups} groups x {windows} open windows", volume.cells),
    }];
    let value_bytes = KEY_BYTES + ACCUMULATOR_BYTES * plan.arguments.len() as u64;
    let seconds = horizon_ms(plan).div_ceil(1_000);
    let events = volume.events_per_second.saturating_mul(seconds);
    let per_second = volume.events_per_second;
    let stream = format!("{per_second} events/s x {seconds} s of lateness");
    match (&plan.per, &plan.window) {
        (Some(per), _) if per.take != Take::Sum => state.push(State {
            what: "entities",
            count: events,
            bytes_each: value_bytes,
            formula: format!("{stream}, so that the one before comes back"),
        }),
        (Some(_), _) => state.push(State {
            what: "entities",
            count: volume.entities * windows,
            bytes_each: value_bytes,
            formula: format!("{} entities x {windows} open windows", volume.entities),
        }),
        (None, Window::Latest { .. }) => state.push(State {
            what: "entities",
            count: volume.entities.saturating_add(events),
            bytes_each: value_bytes,
            formula: format!("{} entities + {stream}", volume.entities),
        }),
        (None, Window::Tumbling { .. }) => {}
    }
    if plan.slots.iter().any(|slot| matches!(slot, Slot::Min(_) | Slot::Max(_))) {
        state.push(State {
            what: "extremes",
            count: events,
            bytes_each: value_bytes,
            formula: format!("{stream}: min and max keep every value"),
        });
    }
    if plan.identified {
        state.push(State {
            what: "ids",
            count: events,
            bytes_each: ID_BYTES + value_bytes,
            formula: format!("{stream}: copies are counted once, withdrawals undo"),
        });
    }
    state
}

/// How far back an event may still arrive.
fn horizon_ms(plan: &Plan) -> u64 {
    let size_ms = match plan.window {
        Window::Tumbling { size_ms } => size_ms,
        Window::Latest { .. } => 0,
    };
    u64::try_from(plan.allow_ms.saturating_add(size_ms).saturating_add(plan.future_ms)).unwrap_or(0)
}

/// How many windows can be open at once: those that may still be corrected, and those ahead.
fn open_windows(plan: &Plan) -> u64 {
    match plan.window {
        Window::Tumbling { size_ms } => {
            horizon_ms(plan).div_ceil(u64::try_from(size_ms).unwrap_or(1).max(1)) + 1
        }
        Window::Latest { .. } => 1,
    }
}

#[cfg(test)]
mod tests {
    use citycell_schemas::event::shipped;

    use super::*;
    use crate::config::parse_pipeline;

    #[test]
    fn windows_that_may_still_be_corrected_are_counted() {
        let text = "{pipeline: p, source: {topic: t, schema: traffic, event_time: dateObserved, \
            location: {cell: gridCode}, late: {allow: 10m}, future: 1m, identity: none}, \
            window: {tumbling: 1m}, group_by: [vehicleType], aggregate: {n: count()}}";
        let plan = parse_pipeline("p.yaml", text, &shipped()).expect("good").plan;
        let volume = Volume { cells: 100, groups: 4, entities: 1, events_per_second: 1 };
        let state = worst_case(&plan, volume);
        // Ten minutes of lateness, the minute itself, one ahead, and one cut by the edges.
        assert_eq!((state.len(), state[0].count), (1, 100 * 4 * 13));
    }
}
