//! Closed windows leave memory: what `Live` says, and what the arrangements hold.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use citycell_operators::aggregate::{Aggregation, aggregate};
use citycell_operators::combine::{Extremes, combine};
use citycell_operators::events::{Observation, Position};
use citycell_operators::keys::Key;
use citycell_operators::lateness::Horizon;
use citycell_operators::live::Live;
use citycell_operators::plan::{Slot, Window};
use citycell_operators::saved::{Keeping, Recording};
use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, EventTime, Place};
use differential_dataflow::AsCollection;
use differential_dataflow::logging::{
    DifferentialEvent, DifferentialEventBuilder, DropEvent, MergeEvent,
};
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};
use timely::worker::Worker;
use timely::{CommunicationConfig, Config, WorkerConfig};

use crate::city::{ALLOW_MS, WINDOW_MS, plan};

const KEYS_PER_WINDOW: u32 = 300;
const WINDOWS: i64 = 30;
/// An epoch begins with each window, and windows close this many epochs later.
const EPOCHS_OPEN: i64 = (WINDOW_MS + ALLOW_MS + WINDOW_MS - 1) / WINDOW_MS;

/// What was seen after each epoch: live keys, updates held by the arrangements, changes so far.
type Levels = Vec<(i64, i64, usize)>;

/// One window after the other, each with the same keys, until all are closed.
fn run(retire_keys_max: usize) -> Levels {
    let mut worker_config = WorkerConfig::default();
    let merging = differential_dataflow::Config::default().idle_merge_effort(Some(1000));
    differential_dataflow::configure(&mut worker_config, &merging);
    let config = Config { communication: CommunicationConfig::Thread, worker: worker_config };
    let guards = timely::execute(config, move |worker| on_worker(worker, retire_keys_max))
        .expect("the worker starts");
    let mut results = guards.join();
    results.pop().expect("one worker").expect("it does not panic")
}

fn on_worker(worker: &mut Worker, retire_keys_max: usize) -> Levels {
    let held = count_held_updates(worker);
    let (live, changes) = (Arc::new(Live::default()), Rc::new(RefCell::new(0)));
    let slots = vec![Slot::Count, Slot::Sum(0), Slot::Max(0)];
    let plan = plan(slots, Window::Tumbling { size_ms: WINDOW_MS });
    let aggregation = Aggregation {
        name: "cells".to_owned(),
        horizon: Horizon::of(&plan),
        extremes: Extremes::of(&plan.slots),
        retire_keys_max,
        keeping: Keeping { recording: Recording::Off, live: Arc::clone(&live) },
    };
    let seen = Rc::clone(&changes);
    let (mut observations, mut ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (observations, stream) = scope.new_input::<(Observation, u64, isize)>();
        let (ticks_handle, ticks) = scope.new_input::<Tick>();
        let changes = aggregate(combine(stream.as_collection(), &plan), ticks, aggregation);
        let changes = changes.changes.inspect(move |_| *seen.borrow_mut() += 1);
        (observations, ticks_handle, changes.probe().0)
    });
    let mut levels = Levels::new();
    for number in 0..WINDOWS + EPOCHS_OPEN + 1 {
        let tick = tick(number);
        let epoch = tick.epoch.0;
        ticks.send(tick);
        if number < WINDOWS {
            let all = (0..KEYS_PER_WINDOW).map(|place| observation(number, place));
            all.for_each(|observation| observations.send((observation, epoch, 1)));
        }
        observations.advance_to(epoch + 1);
        ticks.advance_to(epoch + 1);
        worker.step_while(|| probe.less_than(&(epoch + 1)));
        // As between two ticks of the engine: nothing to do but to merge.
        (0..20).for_each(|_| {
            worker.step();
        });
        levels.push((live.keys(), *held.borrow(), *changes.borrow()));
    }
    levels
}

/// Updates in all batches of this worker's arrangements, from differential's own log.
fn count_held_updates(worker: &mut Worker) -> Rc<RefCell<i64>> {
    let held = Rc::new(RefCell::new(0));
    let count = Rc::clone(&held);
    let signed = |length: usize| i64::try_from(length).expect("a small number");
    let mut register = worker.log_register().expect("logging is compiled in");
    register.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
        for (_, event) in events.iter().flatten() {
            *count.borrow_mut() += match event {
                DifferentialEvent::Batch(batch) => signed(batch.length),
                DifferentialEvent::Merge(MergeEvent {
                    length1,
                    length2,
                    complete: Some(length),
                    ..
                }) => signed(*length) - signed(*length1) - signed(*length2),
                DifferentialEvent::Drop(DropEvent { length, .. }) => -signed(*length),
                _ => 0,
            };
        }
    });
    held
}

fn tick(number: i64) -> Tick {
    Tick {
        epoch: Epoch(number.unsigned_abs() + 1),
        bound_time_ms: (number + 1) * WINDOW_MS,
        previous_bound_time_ms: number * WINDOW_MS,
        watermark: EventTime(number * WINDOW_MS),
        snapshot: false,
    }
}

fn observation(window: i64, place: u32) -> Observation {
    let window_start = EventTime(window * WINDOW_MS);
    Observation {
        id: None,
        time: window_start,
        position: Position::default(),
        key: Key { window_start, place: Place(place), group: Box::default() },
        entity: Box::default(),
        values: [Some(i128::from(place)), None].into_iter().collect(),
    }
}

#[test]
fn live_keys_are_those_of_open_windows() {
    let levels = run(usize::MAX);
    for (number, (live, _, changes)) in (0..).zip(&levels) {
        let open = (0..WINDOWS.min(number + 1)).filter(|window| number < window + EPOCHS_OPEN);
        let keys = i64::from(KEYS_PER_WINDOW);
        assert_eq!(*live, open.count() as i64 * keys, "after epoch {number}");
        assert_eq!(*changes as i64, WINDOWS.min(number + 1) * keys, "retirement is no change");
    }
    assert_eq!(levels.last().map(|(live, ..)| *live), Some(0));
}

#[test]
fn memory_follows_the_open_windows_and_returns() {
    let levels = run(usize::MAX);
    // Two arrangements, and until batches merge what leaves stands there twice.
    let open = 2 * i64::from(KEYS_PER_WINDOW) * EPOCHS_OPEN;
    let most = levels.iter().map(|(_, held, _)| *held).max();
    assert!(most.is_some_and(|most| (open / 2..=2 * open).contains(&most)), "{most:?} of {open}");
    assert_eq!(levels.last().map(|(_, held, _)| *held), Some(0), "{levels:?}");
}

#[test]
fn windows_leave_in_slices() {
    // Fewer leave per epoch than come, so they pile up, but none sooner than its turn.
    let slice = 100;
    let levels = run(slice as usize);
    let live: Vec<i64> = levels.iter().map(|(live, ..)| *live).collect();
    let first = usize::try_from(EPOCHS_OPEN).expect("a small number");
    for (number, pair) in live.windows(2).enumerate().skip(first) {
        let came = if number + 1 < WINDOWS as usize { i64::from(KEYS_PER_WINDOW) } else { 0 };
        assert_eq!(pair[1], pair[0] + came - slice, "after epoch {}", number + 1);
    }
}
