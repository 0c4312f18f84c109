//! The model is right: kills change nothing, books balance, and what a reader sees is what a naive
//! recomputation over the raw records says.

use std::collections::BTreeMap;

use citycell_operators::events::Outcome;
use citycell_operators::plan::Take;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::model::binder::{Cut, bind};
use crate::model::city::{Durable, Habits, live};
use crate::model::machine::Machine;
use crate::model::{Binding, Closed, Event, Grouping, Log, Record, Rules, Stored, oracle, reader};

/// Pipelines of every kind, with horizons a few epochs long.
pub(crate) fn rules() -> impl Strategy<Value = Rules> {
    let take = prop_oneof![Just(Take::Last), Just(Take::Mean), Just(Take::Max), Just(Take::Sum)];
    let grouping = prop_oneof![
        Just(Grouping::Events { window: 10_000 }),
        take.prop_map(|take| Grouping::PerEntity { window: 10_000, take }),
        Just(Grouping::Latest { expire: 3_000, forget: 15_000 }),
    ];
    rules_of(grouping)
}

/// Pipelines of this kind.
pub(crate) fn rules_of(grouping: impl Strategy<Value = Grouping>) -> impl Strategy<Value = Rules> {
    (grouping, 0..8_000i64).prop_map(|(grouping, allow)| Rules {
        grouping,
        allow,
        future: 2_000,
        idle_after: 4_000,
    })
}

const UNDISTURBED: Habits = Habits { epochs: 40, kill: 0.0, copies_differ_by: 0 };

fn replay(rules: Rules, durable: &Durable) -> BTreeMap<u64, Closed> {
    let mut machine = Machine::new(rules);
    let process = |binding: &Binding| (binding.epoch, machine.process(&durable.log, binding));
    durable.bindings.iter().map(process).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn kills_change_nothing(rules in rules(), seed: u64, kill in 0.0..0.1f64, differ in 0..20_000i64) {
        let habits = Habits { epochs: 25, kill, copies_differ_by: differ };
        let durable = live(rules, habits, &mut StdRng::seed_from_u64(seed), |_| {});
        let undisturbed = replay(rules, &durable);
        let mut sent: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for row in &durable.sent {
            let before = sent.entry(row.epoch).or_default().insert(row.key, row.row);
            prop_assert!(before.is_none_or(|before| before == row.row), "a row sent twice differs");
        }
        prop_assert_eq!(durable.marks.len(), habits.epochs);
        for ((epoch, books), binding) in durable.marks.iter().zip(&durable.bindings) {
            prop_assert_eq!(*epoch, binding.epoch);
            prop_assert_eq!(books, &undisturbed[epoch].books);
            prop_assert_eq!(&sent.remove(epoch).unwrap_or_default(), &undisturbed[epoch].changes);
        }
    }

    #[test]
    fn at_every_moment_a_reader_sees_the_recomputed_numbers(rules in rules(), seed: u64) {
        let habits = Habits { kill: 0.05, ..UNDISTURBED };
        let mut looks = 0;
        live(rules, habits, &mut StdRng::seed_from_u64(seed), |durable| {
            looks += 1;
            let Some((marked, _)) = durable.marks.last() else { return };
            if looks % 10 == 0 {
                let bindings = &durable.bindings[..durable.marks.len()];
                let expected = oracle::numbers(&rules, &durable.log, bindings);
                assert_eq!(reader::as_of(&durable.sent, *marked), expected, "{rules:?}");
            }
        });
    }

    #[test]
    fn the_past_stays_as_it_was_known(rules in rules(), seed: u64) {
        let durable = live(rules, UNDISTURBED, &mut StdRng::seed_from_u64(seed), |_| {});
        for known in (0..durable.marks.len()).step_by(7) {
            let expected = oracle::numbers(&rules, &durable.log, &durable.bindings[..=known]);
            prop_assert_eq!(reader::as_of(&durable.sent, durable.marks[known].0), expected);
        }
    }

    #[test]
    fn books_balance(rules in rules(), seed: u64, differ in 0..20_000i64) {
        let habits = Habits { kill: 0.05, copies_differ_by: differ, ..UNDISTURBED };
        let durable = live(rules, habits, &mut StdRng::seed_from_u64(seed), |_| {});
        for ((_, books), binding) in durable.marks.iter().zip(&durable.bindings) {
            let read: usize =
                binding.from.iter().zip(binding.next_offset).map(|(from, next)| next - from).sum();
            prop_assert_eq!(books.values().sum::<u64>(), read as u64);
        }
    }

    #[test]
    fn what_bindings_fix_never_goes_back(rules in rules(), seed: u64) {
        let durable = live(rules, UNDISTURBED, &mut StdRng::seed_from_u64(seed), |_| {});
        for pair in durable.bindings.windows(2) {
            prop_assert!(pair[0].epoch < pair[1].epoch);
            prop_assert!(pair[0].watermark <= pair[1].watermark);
            prop_assert!(pair[0].bound_time <= pair[1].bound_time);
            prop_assert_eq!(pair[0].next_offset, pair[1].from);
        }
    }
}

#[test]
fn the_random_cities_meet_every_outcome() {
    let grouping = Grouping::Events { window: 10_000 };
    let rules = Rules { grouping, allow: 3_000, future: 2_000, idle_after: 4_000 };
    let durable = live(rules, UNDISTURBED, &mut StdRng::seed_from_u64(1), |_| {});
    let mut totals: BTreeMap<Outcome, u64> = BTreeMap::new();
    for (outcome, count) in durable.marks.iter().flat_map(|(_, books)| books) {
        *totals.entry(*outcome).or_default() += count;
    }
    assert_eq!(totals.len(), 6, "{totals:?}");
    assert!(totals.values().all(|count| *count > 5), "{totals:?}");
}

/// Windows of 10 s, no lateness.
const STRICT: Rules = Rules {
    grouping: Grouping::Events { window: 10_000 },
    allow: 0,
    future: 2_000,
    idle_after: 4_000,
};

fn event(id: u128, time: i64) -> Stored {
    let event = Event { id, time, entity: 0, place: 0, value: Some(1), wanted: true };
    Stored { broker_time: time, record: Record::Event(event) }
}

fn bad(time: i64) -> Stored {
    Stored { broker_time: time, record: Record::Bad }
}

/// An event every second.
fn talking(partition: u128) -> Vec<Stored> {
    (1..40).map(|second| event(partition * 100 + second as u128, second * 1_000)).collect()
}

/// Reads everything at each of these epochs, a record being there from its broker time on.
fn read_all(rules: &Rules, log: &Log, epochs: impl IntoIterator<Item = u64>) -> Vec<Binding> {
    let mut bindings = Vec::new();
    for epoch in epochs {
        let there = log.clone().map(|mut records| {
            records.retain(|stored| stored.broker_time <= epoch as i64);
            records
        });
        let next_offset = std::array::from_fn(|partition| there[partition].len());
        bindings.push(bind(rules, &there, &bindings, &Cut { epoch, next_offset }));
    }
    bindings
}

#[test]
fn a_city_has_no_watermark_before_every_partition_has_spoken_or_is_idle() {
    let log = [vec![event(1, 1_000)], vec![event(2, 1_500)], Vec::new()];
    let bindings = read_all(&STRICT, &log, [1_000, 2_000, 3_000, 4_999, 5_000]);
    let watermarks: Vec<_> = bindings.iter().map(|binding| binding.watermark).collect();
    assert_eq!(watermarks, [i64::MIN, i64::MIN, i64::MIN, i64::MIN, 1_500]);
}

#[test]
fn the_watermark_of_an_epoch_is_what_the_epochs_before_it_reached() {
    let log = [vec![event(1, 1_000), event(2, 2_000)], vec![event(3, 1_500)], vec![event(4, 900)]];
    let bindings = read_all(&STRICT, &log, [1_000, 1_600, 2_000, 2_001]);
    let watermarks: Vec<_> = bindings.iter().map(|binding| binding.watermark).collect();
    assert_eq!(watermarks, [i64::MIN, i64::MIN, 900, 900]);
}

#[test]
fn an_idle_partition_does_not_hold_the_city_back_and_what_it_says_later_is_judged_alike() {
    let overdue = Stored { broker_time: 30_500, ..event(901, 5_000) };
    let log = [talking(0), talking(1), vec![event(900, 1_000), overdue]];
    let bindings = read_all(&STRICT, &log, (1..40).map(|second| second * 1_000));
    assert_eq!(bindings[28].watermark, 28_000);
    let mut machine = Machine::new(STRICT);
    let closed: Vec<_> = bindings.iter().map(|binding| machine.process(&log, binding)).collect();
    assert_eq!(closed[30].books[&Outcome::Diverted], 1);
}

#[test]
fn a_partition_of_rejects_does_not_hold_the_city_back() {
    let log = [talking(0), talking(1), (1..40).map(|second| bad(second * 1_000)).collect()];
    let bindings = read_all(&STRICT, &log, (1..40).map(|second| second * 1_000));
    assert_eq!(bindings[30].watermark, 30_000);
}

#[test]
fn one_future_event_moves_no_watermark() {
    // The first partition is the one that the watermark waits for.
    let calm = [vec![event(1, 1_000)], vec![event(2, 1_900)], vec![event(3, 1_950)]];
    let mut stormy = calm.clone();
    let clock = Event { id: 4, time: 4_000, entity: 0, place: 0, value: None, wanted: true };
    stormy[0].push(Stored { broker_time: 1_999, record: Record::Event(clock) });
    let bindings = |log| read_all(&STRICT, log, [2_000, 3_000, 20_000]);
    let watermarks = |log| bindings(log).iter().map(|of| of.watermark).collect::<Vec<_>>();
    assert_eq!(watermarks(&stormy), [i64::MIN, 1_000, 1_000]);
    assert_eq!(watermarks(&stormy), watermarks(&calm));
    let closed = Machine::new(STRICT).process(&stormy, &bindings(&stormy)[0]);
    assert_eq!(closed.books, [(Outcome::Counted, 3), (Outcome::Rejected, 1)].into());
}

#[test]
fn a_city_asleep_keeps_its_watermark() {
    let log = [vec![event(1, 1_000)], vec![event(2, 2_000)], vec![event(3, 1_500)]];
    let bindings = read_all(&STRICT, &log, [1_000, 2_000, 3_000, 60_000]);
    assert_eq!(bindings[3].idle, [true; 3]);
    assert_eq!(bindings[3].watermark, bindings[2].watermark);
}

#[test]
fn timers_wait_for_the_backlog() {
    let log = [vec![event(1, 1_000), event(2, 2_000)], Vec::new(), Vec::new()];
    let first = bind(&STRICT, &log, &[], &Cut { epoch: 90_000, next_offset: [1, 0, 0] });
    assert_eq!(first.bound_time, 2_000);
    let second = bind(&STRICT, &log, &[first], &Cut { epoch: 90_001, next_offset: [2, 0, 0] });
    assert_eq!(second.bound_time, 90_001);
}
