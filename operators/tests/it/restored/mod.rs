//! A pipeline that starts again from what it wrote down makes what it would have made undisturbed.

mod city;
mod runs;

use std::collections::BTreeSet;
use std::sync::Arc;

use citycell_operators::plan::Take;
use citycell_operators::saved::Part;
use citycell_operators::tick::Tick;
use citycell_schemas::EventTime;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};

use crate::model::Grouping;
use city::{Case, City, EPOCHS, cases};
use runs::{Entries, Manner, Written, restart, run, state};

fn events() -> impl Strategy<Value = Grouping> {
    Just(Grouping::Events { window: 10_000 })
}

fn per_entity() -> impl Strategy<Value = Grouping> {
    let take = prop_oneof![Just(Take::Last), Just(Take::Mean), Just(Take::Max), Just(Take::Sum)];
    take.prop_map(|take| Grouping::PerEntity { window: 10_000, take })
}

/// Entities that are soon silent, and some that live to see keyframes.
fn latest() -> impl Strategy<Value = Grouping> {
    prop_oneof![
        Just(Grouping::Latest { expire: 3_000, forget: 15_000 }),
        Just(Grouping::Latest { expire: 1_000_000, forget: 3_000_000 }),
    ]
}

fn of_each_kind() -> impl Strategy<Value = [Case; 3]> {
    (cases(events()), cases(per_entity()), cases(latest())).prop_map(<[Case; 3]>::from)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn restarts_change_nothing_of_events(case in cases(events())) {
        restarts_change_nothing(&case);
    }

    #[test]
    fn restarts_change_nothing_of_entities_in_windows(case in cases(per_entity())) {
        restarts_change_nothing(&case);
    }

    #[test]
    fn restarts_change_nothing_of_the_latest(case in cases(latest())) {
        restarts_change_nothing(&case);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn only_what_changed_is_written_again(cases in of_each_kind()) {
        cases.iter().for_each(only_what_changed_is_written);
    }

    #[test]
    fn what_is_over_leaves_nothing_behind(cases in of_each_kind()) {
        cases.iter().for_each(nothing_stays);
    }
}

/// The cities are of use only if all of this occurs in them.
#[test]
fn the_cities_meet_every_outcome_and_keep_every_part() {
    let mut runner = TestRunner::deterministic();
    let (mut outcomes, mut parts) = (BTreeSet::new(), BTreeSet::new());
    let (mut late, mut again) = (0, 0);
    let mut look = |case: &Case| {
        let city = Arc::new(City::of(case));
        let middle = city.epochs[EPOCHS / 2].0;
        let ran = run(&city, &manner(&city, &[middle], &mut StdRng::seed_from_u64(case.seed)));
        parts.extend(state(&city, &ran.written, middle).into_keys().map(|(part, _)| part));
        for made in ran.made.values() {
            outcomes.extend(made.books.keys().copied());
            late += made.late.len();
            again += made.rows.iter().filter(|row| row.keyframe).count();
        }
    };
    for _ in 0..5 {
        let cases = of_each_kind().new_tree(&mut runner).expect("some cases").current();
        cases.iter().for_each(&mut look);
    }
    assert_eq!(outcomes.len(), 6, "{outcomes:?}");
    assert_eq!(parts.len(), 6, "{parts:?}");
    assert!(late > 20 && again > 20, "{late} late, {again} rows of keyframes");
}

/// Two restarts, the second from what the first run and the one after it wrote.
fn restarts_change_nothing(case: &Case) {
    let city = Arc::new(City::of(case));
    let mut random = StdRng::seed_from_u64(case.seed);
    let first = random.random_range(0..EPOCHS - 2);
    let second = random.random_range(first + 1..EPOCHS - 1);
    let (first, second) = (city.epochs[first].0, city.epochs[second].0);

    let undisturbed = run(&city, &manner(&city, &[first, second], &mut random));
    let mut written = up_to(first, undisturbed.written.clone());
    let then = manner(&city, &[second], &mut random);
    let once = restart(&city, &then, (first, &state(&city, &written, first)));
    written.extend(up_to(second, once.written));
    let known = state(&city, &written, second);
    let then = manner(&city, &[], &mut random);
    let twice = restart(&city, &then, (second, &known));

    let expected = state(&city, &undisturbed.written, second);
    assert_eq!(decisive(&known), decisive(&expected), "what is kept");
    let mut made = undisturbed.made;
    let mut expected = made.split_off(&(first.epoch.0 + 1));
    assert_eq!(once.made, expected, "after one restart");
    assert_eq!(twice.made, expected.split_off(&(second.epoch.0 + 1)), "after two");
}

/// The state without what is of no consequence: a restart sets the timers of `latest` anew, and with
/// them the moment at which an entity's older observations leave.
fn decisive(state: &Entries<Box<[u8]>>) -> Entries<Option<&[u8]>> {
    let content = |part, content| (part != Part::Latest).then_some(content);
    let entries = state.iter();
    entries.map(|((part, key), value)| ((*part, key.clone()), content(*part, &**value))).collect()
}

/// What had been written when the engine was killed after an epoch.
fn up_to(last: Tick, mut written: Written) -> Written {
    written.split_off(&(last.epoch.0 + 1));
    written
}

/// Random, with snapshots at these epochs and at some others.
fn manner(city: &City, snapshots: &[Tick], random: &mut StdRng) -> Manner {
    let wanted = snapshots.iter().map(|tick| tick.epoch.0);
    let others = city.epochs.iter().map(|(tick, _)| tick.epoch.0);
    let others: Vec<u64> = others.filter(|_| random.random_bool(0.2)).collect();
    Manner {
        workers: random.random_range(1..4),
        in_flight: *[0, 3, 1_000].choose(random).expect("some"),
        snapshots: wanted.chain(others).collect(),
    }
}

fn only_what_changed_is_written(case: &Case) {
    let city = City::of(case);
    let busy = city.last_tick();
    let city = Arc::new(city.then(2, |last| last));
    let ticks: Vec<Tick> = city.epochs.iter().map(|(tick, _)| *tick).collect();
    let manner = manner(&city, &ticks, &mut StdRng::seed_from_u64(case.seed));
    let undisturbed = run(&city, &manner);
    let known = state(&city, &undisturbed.written, busy);
    let restarted = restart(&city, &manner, (busy, &known));
    let quiet = busy.epoch.0 + 1..;
    for (epoch, entries) in
        undisturbed.written.range(quiet.clone()).chain(restarted.written.range(quiet))
    {
        // `publish` writes all that it holds back: it leaves with the next interval anyway.
        let again: Vec<_> = entries.keys().filter(|(part, _)| *part != Part::Held).collect();
        assert!(again.is_empty(), "{again:?} in epoch {epoch}");
    }
}

/// Longer than any window is open and any entity is remembered.
const FOR_GOOD_MS: i64 = 10_000_000;

fn nothing_stays(case: &Case) {
    let city = City::of(case);
    let busy = city.last_tick();
    let for_good = |last: Tick| {
        let bound_time_ms = last.bound_time_ms + FOR_GOOD_MS;
        Tick { bound_time_ms, watermark: EventTime(bound_time_ms), ..last }
    };
    let city = Arc::new(city.then(4, for_good));
    let mut random = StdRng::seed_from_u64(case.seed);
    let ticks: Vec<Tick> = city.epochs.iter().map(|(tick, _)| *tick).collect();
    // Windows leave with the ticks after the one that closes them.
    let manner = Manner { in_flight: 0, ..manner(&city, &ticks, &mut random) };
    let undisturbed = run(&city, &manner);
    let known = state(&city, &undisturbed.written, busy);
    let restarted = restart(&city, &manner, (busy, &known));
    let last = city.last_tick();
    for ran in [undisturbed, restarted] {
        assert!(ran.written[&last.epoch.0].is_empty(), "{:?}", ran.written[&last.epoch.0]);
        let left = state(&city, &ran.written, last);
        assert!(left.is_empty(), "{left:?}");
        assert_eq!((ran.live.keys(), ran.live.bytes()), (0, 0));
    }
}
