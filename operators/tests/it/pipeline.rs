//! A pipeline without ids and entities, bytes to rows, against plain addition.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use citycell_operators::accumulators::{Accumulators, State};
use citycell_operators::changes::Version;
use citycell_operators::decode::{DecodeOptions, Decoder};
use citycell_operators::events::Outcome;
use citycell_operators::keys::Key;
use citycell_operators::locate::LocatedGrid;
use citycell_operators::pipeline::{self, Memory};
use citycell_operators::plan::{Argument, Crs, Location, Plan, Slot, Window};
use citycell_operators::prepare::{Batch, Prepare};
use citycell_operators::records::Records;
use citycell_operators::tick::Tick;
use citycell_schemas::event::shipped;
use citycell_schemas::{Epoch, EventTime, Offset, Place};
use proptest::prelude::*;
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};

use crate::city::{ALLOW_MS, WINDOW_MS, grid, is_closed};

/// 2026-03-01T00:00:00Z, 08:00 in Changsha.
const START_MS: i64 = 1_772_323_200_000;
const EPOCH_MS: i64 = 1_000;

/// One record: where, how many people, and how many ms it comes after it happened.
type Event = (Place, Option<i64>, i64);

fn people() -> Plan {
    let argument = Argument { expression: "peopleCount".to_owned(), scale: 0 };
    Plan {
        topics: vec!["people".to_owned()],
        schema: "crowd_flow".to_owned(),
        event_time: "dateObserved".to_owned(),
        location: Location::Cell { column: "gridCode".to_owned() },
        identified: false,
        filter: Some("peopleCount <> 5".to_owned()),
        group_by: vec!["category".to_owned()],
        arguments: vec![argument],
        ..crate::city::plan(vec![Slot::Sum(0)], Window::Tumbling { size_ms: WINDOW_MS })
    }
}

fn tick(number: i64) -> Tick {
    let now = START_MS + number * EPOCH_MS;
    Tick {
        epoch: Epoch(number.unsigned_abs() + 1),
        bound_time_ms: now,
        previous_bound_time_ms: now - EPOCH_MS,
        watermark: EventTime(now - EPOCH_MS),
        snapshot: false,
    }
}

/// What came out.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    rows: BTreeSet<(u64, Version)>,
    books: BTreeMap<(u64, Outcome), u64>,
    late: usize,
    rejects: usize,
}

fn run(epochs: Vec<Vec<Event>>) -> Seen {
    timely::execute_directly(move |worker| {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let schema = shipped().into_iter().find(|schema| schema.name == "crowd_flow");
        let fields = ["dateObserved", "gridCode", "category", "peopleCount"];
        let schema = schema.expect("shipped");
        let mut decoder =
            Decoder::new(&schema, &fields, DecodeOptions::default()).expect("its own fields");
        let located = LocatedGrid::new(Arc::new(grid()), Crs::Wgs84, Vec::new());
        let prepare = Prepare::new(&people(), decoder.columns(), Arc::new(located));
        let (mut batches, mut ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (batches_handle, batches) = scope.new_input::<Batch>();
            let (ticks_handle, ticks) = scope.new_input::<Tick>();
            let prepare = prepare.expect("a good plan");
            let streams =
                pipeline::build(&people(), prepare, &grid(), batches, ticks, Memory::default());
            let note = Rc::clone(&seen);
            streams.books.inspect_core(move |event| {
                if let Ok((stamp, books)) = event {
                    let epoch = *stamp.least().expect("books have an epoch");
                    for (outcome, count) in books {
                        *note.borrow_mut().books.entry((epoch, *outcome)).or_default() += count;
                    }
                }
            });
            let note = Rc::clone(&seen);
            streams.late.inspect(move |_| note.borrow_mut().late += 1);
            let note = Rc::clone(&seen);
            streams.rejects.inspect(move |_| note.borrow_mut().rejects += 1);
            let note = Rc::clone(&seen);
            let rows = streams.rows.inspect_core(move |event| {
                if let Ok((stamp, rows)) = event {
                    let epoch = *stamp.least().expect("rows have an epoch");
                    let rows = rows.iter().map(|row| (epoch, row.clone()));
                    note.borrow_mut().rows.extend(rows);
                }
            });
            (batches_handle, ticks_handle, rows.probe().0)
        });
        for (number, events) in (0..).zip(&epochs) {
            let tick = tick(number);
            let epoch = tick.epoch.0;
            batches.advance_to(epoch);
            ticks.advance_to(epoch);
            ticks.send(tick);
            // Two batches, so that the same keys come from both.
            for part in events.chunks(events.len().div_ceil(2).max(1)) {
                let records = Rc::new(records(part, &tick));
                let decoded = Rc::new(decoder.decode(0, &records));
                batches.send(Batch { tick, records, decoded });
            }
        }
        drop((batches, ticks));
        worker.step_while(|| !probe.done());
        seen.take()
    })
}

fn records(events: &[Event], tick: &Tick) -> Records {
    let mut records = Records::new(Arc::from("people"), 0);
    for (offset, (place, people, age_ms)) in (0..).zip(events) {
        let since_seven = tick.bound_time_ms - age_ms - START_MS + 3_600_000;
        let people = people.map_or("null".to_owned(), |people| people.to_string());
        let payload = format!(
            "{{\"dateObserved\":\"2026-03-01T{:02}:{:02}:{:02}.{:03}+08:00\",\"gridCode\":\"{}\",\
             \"category\":\"mall\",\"peopleCount\":{people}}}",
            7 + since_seven / 3_600_000,
            since_seven / 60_000 % 60,
            since_seven / 1_000 % 60,
            since_seven % 1_000,
            place.0
        );
        records.push(Offset(offset), tick.bound_time_ms, Some(payload.as_bytes()), None);
    }
    records
}

fn expected(epochs: &[Vec<Event>], group: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let mut sums: BTreeMap<Key, Accumulators> = BTreeMap::new();
    for (number, events) in (0..).zip(epochs) {
        let tick = tick(number);
        let mut changed = BTreeSet::new();
        for (place, people, age_ms) in events {
            let time = tick.bound_time_ms - age_ms;
            let window_start = EventTime(time.div_euclid(WINDOW_MS) * WINDOW_MS);
            let outcome = match people {
                None => Outcome::Rejected,
                Some(5) => Outcome::Filtered,
                Some(_) if place.0 > 5 => Outcome::Rejected,
                Some(_) if is_closed(window_start, &tick) => Outcome::Diverted,
                Some(people) => {
                    let key = Key { window_start, place: *place, group: group.into() };
                    let sum = sums.entry(key.clone()).or_insert_with(|| Accumulators::none(1));
                    sum.contribute(&[Some(i128::from(*people))], 1);
                    changed.insert(key);
                    Outcome::Counted
                }
            };
            *seen.books.entry((tick.epoch.0, outcome)).or_default() += 1;
            seen.late += usize::from(outcome == Outcome::Diverted);
            seen.rejects += usize::from(outcome == Outcome::Rejected);
        }
        for key in changed {
            let totals = sums[&key].clone();
            let state = Some(State { totals, extremes: std::iter::empty().collect() });
            seen.rows.insert((tick.epoch.0, Version { key, state, keyframe: false }));
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_and_books_equal_plain_addition(epochs in proptest::collection::vec(
        proptest::collection::vec(
            ((0u32..8).prop_map(Place), proptest::option::weighted(0.9, 0i64..10), 0..ALLOW_MS * 3),
            0..20,
        ),
        1..12,
    )) {
        let seen = run(epochs.clone());
        let group = seen.rows.first().map(|(_, row)| row.key.group.clone()).unwrap_or_default();
        prop_assert_eq!(expected(&epochs, &group), seen);
    }
}
