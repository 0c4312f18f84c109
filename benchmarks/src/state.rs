//! What a million live keys cost to keep, to write down and to start from again, beside a plain hash
//! map of the same content.
//!
//! A key is a window and a place; its content a count and one sum. Memory is what the process grew
//! by, so each side runs in a process of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use ahash::AHashMap;
use citycell_operators::accumulators::Accumulators;
use citycell_operators::aggregate::{Aggregation, aggregate};
use citycell_operators::combine::{Contributions, Extremes, Ranked};
use citycell_operators::keys::Key;
use citycell_operators::lateness::Horizon;
use citycell_operators::restored::Restored;
use citycell_operators::saved::{Keeping, Recording, Saved};
use citycell_operators::tick::Tick;
use differential_dataflow::AsCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};

use crate::city::{PlacedBy, plan};
use crate::live_cells::{key_of, one, tick};

/// What one side takes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct State {
    /// Bytes of memory per key.
    pub bytes_per_key: f64,
    /// Seconds to write a million keys down.
    pub write_s_per_m: f64,
    /// Bytes written per key.
    pub written_per_key: f64,
    /// Seconds from bytes back to a million keys.
    pub read_s_per_m: f64,
}

/// The dataflow's keys.
#[must_use]
pub fn dataflow(keys: usize) -> State {
    let before = resident();
    let millions = keys as f64 / 1e6;
    let (saved, write_s, grown) = timely::execute_directly(move |worker| {
        let saved = Rc::new(RefCell::new(Saved::default()));
        let kept = Rc::clone(&saved);
        let (mut input, mut ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, totals) = scope.new_input::<(Key, u64, Accumulators)>();
            let (_, extremes) = scope.new_input::<((Key, Ranked), u64, isize)>();
            let (ticks_handle, ticks) = scope.new_input::<Tick>();
            let contributions = Contributions {
                totals: totals.as_collection(),
                extremes: extremes.as_collection(),
            };
            let aggregated = aggregate(contributions, ticks, aggregation());
            aggregated.saved.inspect(move |more| kept.borrow_mut().append(more));
            (input, ticks_handle, aggregated.changes.probe().0)
        });
        let mut run = |epoch: u64, updates: Vec<Key>, snapshot: bool| {
            let started = Instant::now();
            input.advance_to(epoch);
            ticks.advance_to(epoch);
            ticks.send(Tick { snapshot, ..tick(epoch) });
            updates.into_iter().for_each(|key| input.send((key, epoch, one())));
            input.advance_to(epoch + 1);
            ticks.advance_to(epoch + 1);
            worker.step_while(|| probe.less_than(&(epoch + 1)));
            started.elapsed().as_secs_f64()
        };
        for slice in (0..keys).collect::<Vec<_>>().chunks(100_000) {
            let epoch = 1 + slice[0] as u64;
            run(epoch, slice.iter().map(|number| key_of(*number)).collect(), false);
        }
        let grown = resident().saturating_sub(before);
        let write_s = run(2 + keys as u64, Vec::new(), true);
        (saved.take(), write_s, grown)
    });
    let started = Instant::now();
    let mut restored = Restored::new(tick(1));
    let (mut written, mut read) = (0, 0);
    for entry in saved.sorted() {
        let value = entry.value.expect("nothing is gone");
        restored.add(entry.part, entry.key, value).expect("what was written");
        written += entry.key.len() + value.len();
        read += 1;
    }
    assert_eq!(read, keys);
    timely::execute_directly(move |worker| {
        let (ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (ticks_handle, ticks) = scope.new_input::<Tick>();
            let contributions = restored.contributions(scope);
            let aggregated = aggregate(contributions, ticks, aggregation());
            (ticks_handle, aggregated.changes.probe().0)
        });
        drop(ticks);
        worker.step_while(|| !probe.done());
    });
    State {
        bytes_per_key: grown as f64 / keys as f64,
        write_s_per_m: write_s / millions,
        written_per_key: written as f64 / keys as f64,
        read_s_per_m: started.elapsed().as_secs_f64() / millions,
    }
}

/// A hash map's keys.
#[must_use]
pub fn hash_map(keys: usize) -> State {
    let before = resident();
    let millions = keys as f64 / 1e6;
    let mut map: AHashMap<(i64, u32), (i64, i128)> = AHashMap::new();
    for number in 0..keys {
        let key = key_of(number);
        let entry = map.entry((key.window_start.0, key.place.0)).or_default();
        entry.0 += 1;
        entry.1 += 7;
    }
    let grown = resident().saturating_sub(before);
    let started = Instant::now();
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable();
    let bytes = postcard::to_stdvec(&entries).expect("plain numbers");
    let write_s = started.elapsed().as_secs_f64();
    let started = Instant::now();
    type Entries = Vec<((i64, u32), (i64, i128))>;
    let entries: Entries = postcard::from_bytes(&bytes).expect("what was written");
    let again: AHashMap<_, _> = entries.into_iter().collect();
    assert_eq!(again, map);
    State {
        bytes_per_key: grown as f64 / keys as f64,
        write_s_per_m: write_s / millions,
        written_per_key: bytes.len() as f64 / keys as f64,
        read_s_per_m: started.elapsed().as_secs_f64() / millions,
    }
}

fn aggregation() -> Aggregation {
    Aggregation {
        name: "cells".to_owned(),
        horizon: Horizon::of(&plan(PlacedBy::Code)),
        extremes: Extremes::default(),
        retire_keys_max: 20_000,
        keeping: Keeping { recording: Recording::On, ..Keeping::default() },
    }
}

/// Bytes of memory that the process uses; 0 where the kernel does not tell.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_sides_write_and_read_what_they_keep() {
        for state in [super::dataflow(3_000), super::hash_map(3_000)] {
            assert!(state.written_per_key > 2.0, "{state:?}");
        }
    }
}
