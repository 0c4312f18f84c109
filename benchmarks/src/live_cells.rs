//! What an epoch costs when equally many keys change, but many more are alive.
//!
//! The dataflow from contributions to changes (`aggregate`), on one worker: all keys are loaded,
//! then each epoch adds one event to different keys, chosen at random.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use citycell_operators::accumulators::Accumulators;
use citycell_operators::aggregate::{Aggregation, aggregate};
use citycell_operators::combine::{Contributions, Extremes, Ranked};
use citycell_operators::keys::Key;
use citycell_operators::lateness::Horizon;
use citycell_operators::saved::Keeping;
use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, EventTime};
use differential_dataflow::AsCollection;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};

use crate::city::{PlacedBy, place, plan};
use crate::clock::{Stopwatch, median};

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The few live keys.
    pub few: usize,
    /// The many live keys.
    pub many: usize,
    /// Keys that change in every epoch.
    pub changed: usize,
    /// Epochs that are timed, after half as many that are not.
    pub epochs: u64,
    /// How often everything is timed, in turns.
    pub rounds: usize,
}

/// What the floor is stated for.
pub const FULL: Size =
    Size { few: 10_000, many: 1_000_000, changed: 10_000, epochs: 100, rounds: 3 };

/// What a test can afford.
pub const TINY: Size = Size { few: 50, many: 1_000, changed: 50, epochs: 8, rounds: 1 };

/// What an epoch costs.
#[derive(Clone, Copy, Debug)]
pub struct LiveCells {
    /// Seconds of computing per million changed keys (of the whole way: events), with few live.
    pub few_s_per_m: f64,
    /// The same with many.
    pub many_s_per_m: f64,
    /// The second by the first.
    pub ratio: f64,
    /// Over all changes.
    pub hash: u64,
}

/// Measures both.
#[must_use]
pub fn measure(size: Size) -> LiveCells {
    let changes = (size.changed as u64 * size.epochs) as f64 / 1e6;
    let (mut few, mut many, mut ratios, mut hash) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..size.rounds {
        let (few_s, few_hash) = run(size.few, size);
        let (many_s, many_hash) = run(size.many, size);
        few.push(few_s / changes);
        many.push(many_s / changes);
        ratios.push(many_s / few_s);
        hash = few_hash ^ many_hash;
    }
    LiveCells { few_s_per_m: median(few), many_s_per_m: median(many), ratio: median(ratios), hash }
}

fn run(live: usize, size: Size) -> (f64, u64) {
    timely::execute_directly(move |worker| {
        let changes = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&changes);
        let plan = plan(PlacedBy::Code);
        let (mut input, mut ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, totals) = scope.new_input::<(Key, u64, Accumulators)>();
            let (_, extremes) = scope.new_input::<((Key, Ranked), u64, isize)>();
            let (ticks_handle, ticks) = scope.new_input::<Tick>();
            let contributions = Contributions {
                totals: totals.as_collection(),
                extremes: extremes.as_collection(),
            };
            let aggregation = Aggregation {
                name: "cells".to_owned(),
                horizon: Horizon::of(&plan),
                extremes: Extremes::default(),
                retire_keys_max: 20_000,
                keeping: Keeping::default(),
            };
            let changes = aggregate(contributions, ticks, aggregation).changes;
            let changes = changes.inspect_core(move |event| {
                if let Ok((_, changes)) = event {
                    seen.borrow_mut().append(&mut changes.clone());
                }
            });
            (input, ticks_handle, changes.probe().0)
        });
        let mut random = StdRng::seed_from_u64(17);
        let (mut seconds, mut hash) = (0.0, 0u64);
        let warm_up = size.epochs / 2;
        for epoch in 1..=1 + warm_up + size.epochs {
            let keys = match epoch {
                1 => (0..live).collect(),
                _ => sample(&mut random, live, size.changed).into_vec(),
            };
            let updates: Vec<_> = keys.into_iter().map(|key| (key_of(key), epoch, one())).collect();
            let watch = Stopwatch::start();
            input.advance_to(epoch);
            ticks.advance_to(epoch);
            ticks.send(tick(epoch));
            updates.into_iter().for_each(|update| input.send(update));
            input.advance_to(epoch + 1);
            ticks.advance_to(epoch + 1);
            worker.step_while(|| probe.less_than(&(epoch + 1)));
            if epoch > 1 + warm_up {
                seconds += watch.seconds();
            }
            for change in changes.borrow_mut().drain(..) {
                let mut hasher = DefaultHasher::new();
                (epoch, change).hash(&mut hasher);
                hash = hash.wrapping_add(hasher.finish());
            }
        }
        (seconds, hash)
    })
}

/// A key of its own for each number.
pub(crate) fn key_of(number: usize) -> Key {
    Key { place: place(number), ..Key::default() }
}

/// One event of one key.
pub(crate) fn one() -> Accumulators {
    let mut one = Accumulators::none(1);
    one.contribute(&[Some(7)], 1);
    one
}

/// The watermark stays, so that nothing retires.
pub(crate) fn tick(epoch: u64) -> Tick {
    let now = i64::try_from(epoch).expect("a small number");
    Tick {
        epoch: Epoch(epoch),
        bound_time_ms: now,
        previous_bound_time_ms: now - 1,
        watermark: EventTime(0),
        snapshot: false,
    }
}

#[cfg(test)]
mod tests {
    use super::{TINY, measure};

    #[test]
    fn the_same_keys_change_every_time() {
        assert_eq!(measure(TINY).hash, measure(TINY).hash);
    }
}
