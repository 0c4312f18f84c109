//! The right-hand side of the dataflow against plain recomputation of everything in every epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use citycell_operators::accumulators::{Accumulators, Change, State};
use citycell_operators::aggregate::{Aggregation, aggregate, arranged};
use citycell_operators::changes::{Publish, Publisher, Version, publish};
use citycell_operators::combine::{Extremes, combine};
use citycell_operators::events::{Observation, Position};
use citycell_operators::keys::Key;
use citycell_operators::lateness::Horizon;
use citycell_operators::live::Live;
use citycell_operators::plan::{Plan, Slot, Window};
use citycell_operators::roll_up::{Levels, roll_up};
use citycell_operators::saved::{Keeping, Recording};
use citycell_operators::tick::Tick;
use citycell_schemas::{Level, Place};
use differential_dataflow::AsCollection;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};

use crate::city::{Event, Happening, WINDOW_MS, grid, happenings, is_closed, plan};

const SLOTS: [Slot; 6] =
    [Slot::Count, Slot::Sum(0), Slot::Min(0), Slot::Mean(1), Slot::Max(1), Slot::Max(0)];

/// What the dataflow said, in one order.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    cells: BTreeSet<(u64, Change)>,
    levels: BTreeSet<(u64, Change)>,
    versions: BTreeSet<(u64, Version)>,
    /// How many came out, copies included.
    count: usize,
}

/// How a case is run.
#[derive(Clone, Copy, Debug)]
struct Case {
    workers: usize,
    in_flight: usize,
    every_ms: i64,
    keyframe_every_ms: Option<i64>,
    windowed: bool,
    /// Whether sums are kept in arrangements also where a map would do.
    arranged: bool,
}

impl Case {
    fn plan(&self, slots: &[Slot]) -> Plan {
        let window = if self.windowed {
            Window::Tumbling { size_ms: WINDOW_MS }
        } else {
            Window::Latest { by: Vec::new(), expire_ms: 0, forget_ms: 0 }
        };
        plan(slots.to_vec(), window)
    }
}

fn run(case: Case, slots: &[Slot], all: &[Happening]) -> (Seen, i64) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let live = Arc::new(Live::default());
    let (all, plan) = (all.to_vec(), case.plan(slots));
    let (shared, counted) = (Arc::clone(&seen), Arc::clone(&live));
    let guards = timely::execute(timely::Config::process(case.workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let horizon = Horizon::of(&plan);
        let (mut observations, mut ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let mut observations =
                InputHandle::<u64, CapacityContainerBuilder<Vec<(Observation, u64, isize)>>>::new();
            let (ticks_handle, ticks) = scope.new_input::<Tick>();
            let stream = observations.to_stream(scope);
            let settings = |name: &str| Aggregation {
                name: name.to_owned(),
                horizon,
                extremes: Extremes::of(&plan.slots),
                retire_keys_max: 3,
                keeping: Keeping { recording: Recording::Off, live: Arc::clone(&counted) },
            };
            let add_up = if case.arranged { arranged } else { aggregate };
            let contributions = combine(stream.as_collection(), &plan);
            let cells = add_up(contributions, ticks.clone(), settings("cells")).changes;
            let levels = Levels::of(&grid(), &[Level::Community, Level::Street]);
            let contributions = roll_up(cells.clone(), levels, &plan);
            let levels = add_up(contributions, ticks.clone(), settings("levels")).changes;
            let settings = Publish {
                horizon,
                every_ms: case.every_ms,
                keyframe_every_ms: case.keyframe_every_ms,
            };
            let versions = publish(cells.clone(), ticks, Publisher::new(settings)).versions;
            see(cells, &shared, |seen, row| seen.cells.insert(row));
            let levels = see(levels, &shared, |seen, row| seen.levels.insert(row));
            let versions = see(versions, &shared, |seen, row| seen.versions.insert(row));
            let (probe, _) = versions.probe();
            levels.probe_with(&probe);
            (observations, ticks_handle, probe)
        });
        let mut pending = std::collections::VecDeque::new();
        for happening in &all {
            let epoch = happening.tick.epoch.0;
            observations.advance_to(epoch);
            ticks.advance_to(epoch);
            ticks.send(happening.tick);
            for (number, event) in happening.events.iter().enumerate() {
                if number % peers == index {
                    observations.send((observation(event), epoch, event.count));
                }
            }
            pending.push_back(epoch);
            if pending.len() > case.in_flight
                && let Some(epoch) = pending.pop_front()
            {
                observations.flush();
                ticks.flush();
                worker.step_while(|| probe.less_than(&epoch));
            }
        }
    })
    .expect("the workers start");
    for result in guards.join() {
        result.expect("no worker panics");
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, live.keys())
}

/// Notes what flows by, with its epoch.
fn see<'scope, D: Clone + 'static>(
    stream: StreamVec<'scope, u64, D>,
    seen: &Arc<Mutex<Seen>>,
    insert: impl Fn(&mut Seen, (u64, D)) -> bool + 'static,
) -> StreamVec<'scope, u64, D> {
    let seen = Arc::clone(seen);
    stream.inspect_core(move |event| {
        if let Ok((stamp, rows)) = event {
            let mut seen = seen.lock().unwrap();
            for row in rows {
                let epoch = *stamp.least().expect("rows travel under a capability");
                seen.count += 1;
                insert(&mut seen, (epoch, row.clone()));
            }
        }
    })
}

fn observation(event: &Event) -> Observation {
    Observation {
        id: None,
        time: event.key.window_start,
        position: Position::default(),
        key: event.key.clone(),
        entity: Box::default(),
        values: event.values.clone(),
    }
}

type States = BTreeMap<Key, State>;

/// Values and how often they count.
type Counted = (Vec<Option<i128>>, isize);

/// Everything from the raw events up to and including one epoch.
fn recompute(slots: &[Slot], all: &[Happening], places: impl Fn(Place) -> Vec<Place>) -> States {
    let mut values: BTreeMap<Key, Vec<Counted>> = BTreeMap::new();
    for event in all.iter().flat_map(|happening| &happening.events) {
        for place in places(event.key.place) {
            let key = Key { place, ..event.key.clone() };
            values.entry(key).or_default().push((event.values.to_vec(), event.count));
        }
    }
    let states = values.into_iter().filter_map(|(key, events)| {
        let mut left: BTreeMap<Vec<Option<i128>>, isize> = BTreeMap::new();
        for (values, count) in events {
            *left.entry(values).or_default() += count;
        }
        left.retain(|_, count| *count != 0);
        let mut totals = Accumulators::none(2);
        for (values, count) in &left {
            totals.contribute(values, *count as i64);
        }
        let extreme = |slot: &Slot| match *slot {
            Slot::Min(argument) => Some(left.keys().filter_map(|values| values[argument]).min()),
            Slot::Max(argument) => Some(left.keys().filter_map(|values| values[argument]).max()),
            _ => None,
        };
        let extremes = slots.iter().filter_map(extreme).collect();
        (!left.is_empty()).then_some((key, State { totals, extremes }))
    });
    states.collect()
}

fn differences(old: &States, new: &States) -> Vec<Change> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |key: &Key| Change {
        key: key.clone(),
        old: old.get(key).cloned(),
        new: new.get(key).cloned(),
    };
    let changes = keys.into_iter().map(change);
    changes.filter(|change| change.old != change.new).collect()
}

fn expected(case: Case, slots: &[Slot], all: &[Happening]) -> Seen {
    let grid = grid();
    let above = |place: Place| {
        let levels = [Level::Community, Level::Street];
        levels.iter().filter_map(|level| grid.at_level(place, *level)).collect()
    };
    let mut seen = Seen::default();
    let (mut cells, mut levels) = (States::new(), States::new());
    let mut published = States::new();
    for (number, happening) in all.iter().enumerate() {
        let epoch = happening.tick.epoch.0;
        let so_far = &all[..=number];
        let now = recompute(slots, so_far, |place| vec![place]);
        let now_levels = recompute(slots, so_far, above);
        seen.cells.extend(differences(&cells, &now).into_iter().map(|c| (epoch, c)));
        seen.levels.extend(differences(&levels, &now_levels).into_iter().map(|c| (epoch, c)));
        let crosses = |every_ms: i64| {
            every_ms == 0
                || (happening.tick.previous_bound_time_ms + 1..=happening.tick.bound_time_ms)
                    .any(|time| time % every_ms == 0)
        };
        let due = crosses(case.every_ms);
        let keyframe = case.keyframe_every_ms.is_some_and(crosses);
        let mut versions: BTreeMap<Key, Option<State>> = BTreeMap::new();
        for change in differences(&published, &now) {
            let closed = case.windowed && is_closed(change.key.window_start, &happening.tick);
            if due || closed {
                versions.insert(change.key.clone(), change.new.clone());
                match change.new {
                    Some(state) => published.insert(change.key, state),
                    None => published.remove(&change.key),
                };
            }
        }
        if keyframe {
            for (key, state) in &published {
                versions.insert(key.clone(), Some(state.clone()));
            }
        }
        let version = |(key, state)| (epoch, Version { key, state, keyframe });
        seen.versions.extend(versions.into_iter().map(version));
        (cells, levels) = (now, now_levels);
    }
    seen.count = seen.cells.len() + seen.levels.len() + seen.versions.len();
    seen
}

fn check(case: Case, slots: &[Slot], seed: u64, epochs: u64) {
    let all = happenings(&mut StdRng::seed_from_u64(seed), epochs, case.windowed);
    let (seen, _) = run(case, slots, &all);
    let wanted = expected(case, slots, &all);
    assert_eq!(seen.cells, wanted.cells, "cells");
    assert_eq!(seen.levels, wanted.levels, "levels");
    assert_eq!(seen.versions, wanted.versions, "versions");
    assert_eq!(seen.count, wanted.count, "something came out twice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn windows_equal_recomputation(
        seed: u64,
        workers in 1usize..3,
        in_flight in prop_oneof![Just(0), Just(3), Just(1_000)],
        every_ms in prop_oneof![Just(0), Just(1_000), Just(20_000)],
        extremes: bool,
        arranged: bool,
    ) {
        let (keyframe_every_ms, windowed) = (None, true);
        let case = Case { workers, in_flight, every_ms, keyframe_every_ms, windowed, arranged };
        check(case, if extremes { &SLOTS } else { &SLOTS[..2] }, seed, 40);
    }

    #[test]
    fn the_latest_equals_recomputation_and_keyframes_repeat_it(
        seed: u64,
        workers in 1usize..3,
        in_flight in prop_oneof![Just(0), Just(3), Just(1_000)],
        every_ms in prop_oneof![Just(0), Just(1_000)],
        extremes: bool,
    ) {
        let (keyframe_every_ms, windowed) = (Some(3_000), false);
        let case =
            Case { workers, in_flight, every_ms, keyframe_every_ms, windowed, arranged: false };
        check(case, if extremes { &SLOTS } else { &SLOTS[..2] }, seed, 30);
    }
}
