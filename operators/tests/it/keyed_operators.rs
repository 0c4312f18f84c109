//! The keyed operators do what the model does, over the same records and bindings, with one worker
//! and with two.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use citycell_operators::duplicates::{DistinctEvents, duplicates};
use citycell_operators::entity::{EntityValues, entity};
use citycell_operators::events::{EventId, Observation, Outcome, Position, Withdrawal};
use citycell_operators::keys::Key;
use citycell_operators::lateness::{Horizon, Timeliness};
use citycell_operators::latest::{LatestValues, Silence, latest};
use citycell_operators::plan::{Location, Per, Plan, Window};
use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, EventTime, Offset, Place};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use smallvec::smallvec;
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::{Input, Inspect};
use timely::progress::Stamp;

use crate::model::city::{Durable, Habits, live};
use crate::model::machine::Machine;
use crate::model::{
    At, Binding, Books, Closed, Event, Grouping, Log, Numbers, PARTITIONS, Record, Rules, changes,
};
use crate::time_model::rules;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn operators_equal_the_model(rules in rules(), seed: u64, differ in 0..20_000i64) {
        let habits = Habits { epochs: 40, kill: 0.0, copies_differ_by: differ };
        let durable = Arc::new(live(rules, habits, &mut StdRng::seed_from_u64(seed), |_| {}));
        let mut machine = Machine::new(rules);
        let expected: Vec<Closed> = durable
            .bindings
            .iter()
            .map(|binding| machine.process(&durable.log, binding))
            .collect();
        for workers in [1, 2] {
            prop_assert_eq!(&run(rules, &durable, workers), &expected, "{} workers", workers);
        }
    }
}

/// What the workers sent, in no order.
#[derive(Default)]
struct Outputs {
    updates: Vec<(u64, Observation, isize)>,
    books: Vec<(u64, Outcome, u64)>,
}

/// Runs the operators over the city's bindings.
fn run(rules: Rules, durable: &Arc<Durable>, workers: usize) -> Vec<Closed> {
    let outputs = Arc::new(Mutex::new(Outputs::default()));
    let (collected, durable_of_all) = (outputs.clone(), durable.clone());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut source = Source::build(worker, &plan(&rules), &rules, collected.clone());
        let (index, peers) = (worker.index(), worker.peers());
        let mine = |partition: usize| partition % peers == index;
        for binding in &durable_of_all.bindings {
            source.send(&durable_of_all.log, binding, mine);
        }
    });
    for worker in guards.expect("two threads can be started").join() {
        worker.expect("no worker panics");
    }
    let outputs = std::mem::take(&mut *outputs.lock().expect("no worker panicked"));
    closed(durable, outputs)
}

/// One worker's inputs, and what is decided on the left of the exchange.
struct Source {
    horizon: Horizon,
    events: InputHandleVec<u64, Observation>,
    withdrawals: InputHandleVec<u64, Withdrawal>,
    ticks: InputHandleVec<u64, Tick>,
    outputs: Arc<Mutex<Outputs>>,
}

impl Source {
    fn build(
        worker: &mut timely::worker::Worker,
        plan: &Plan,
        rules: &Rules,
        outputs: Arc<Mutex<Outputs>>,
    ) -> Self {
        let horizon = Horizon::of(plan);
        let grouping = rules.grouping;
        let (updates_to, books_to) = (outputs.clone(), outputs.clone());
        worker.dataflow(|scope| {
            let (events, observations) = scope.new_input();
            let (withdrawals, withdrawn) = scope.new_input();
            let (ticks, ticking) = scope.new_input();
            let distinct =
                duplicates(observations, withdrawn, ticking.clone(), DistinctEvents::new(horizon));
            let updates = match grouping {
                Grouping::Events { .. } => distinct.updates,
                Grouping::PerEntity { take, .. } => {
                    let entities = EntityValues::new(horizon, take);
                    entity(distinct.updates, ticking, entities).contributions
                }
                Grouping::Latest { expire, forget } => {
                    let silence = Silence { expire_ms: expire, forget_ms: forget };
                    let entities = LatestValues::new(horizon, silence);
                    latest(distinct.updates, ticking, entities).contributions
                }
            };
            updates.inspect_core(each(move |epoch, (observation, diff): &(Observation, isize)| {
                let update = (epoch, observation.clone(), *diff);
                updates_to.lock().expect("no worker panicked").updates.push(update);
            }));
            distinct.books.inspect_core(each(move |epoch, (outcome, count): &(Outcome, u64)| {
                let book = (epoch, *outcome, *count);
                books_to.lock().expect("no worker panicked").books.push(book);
            }));
            Self { horizon, events, withdrawals, ticks, outputs }
        })
    }

    /// Sends what this worker's partitions have in an epoch, last record first.
    fn send(&mut self, log: &Log, binding: &Binding, mine: impl Fn(usize) -> bool) {
        self.events.advance_to(binding.epoch);
        self.withdrawals.advance_to(binding.epoch);
        self.ticks.advance_to(binding.epoch);
        self.ticks.send(tick(binding));
        let mut records: Vec<_> = binding.records(log).collect();
        records.reverse();
        for (at, stored) in records.into_iter().filter(|((partition, _), _)| mine(*partition)) {
            match &stored.record {
                Record::Bad => self.book(binding, Outcome::Rejected),
                Record::Withdrawal(id) => self.withdrawals.send(Withdrawal {
                    id: EventId(*id),
                    position: position(at),
                    broker_time_ms: stored.broker_time,
                }),
                Record::Event(event) => {
                    let time = EventTime(event.time);
                    let tick = tick(binding);
                    match self.horizon.classify(time, stored.broker_time, &tick) {
                        Timeliness::Future => self.book(binding, Outcome::Rejected),
                        _ if !event.wanted => self.book(binding, Outcome::Filtered),
                        Timeliness::Late => self.book(binding, Outcome::Diverted),
                        Timeliness::InTime(window) => {
                            self.events.send(observation(at, event, window));
                        }
                    }
                }
            }
        }
    }

    fn book(&self, binding: &Binding, outcome: Outcome) {
        let mut outputs = self.outputs.lock().expect("no worker panicked");
        outputs.books.push((binding.epoch, outcome, 1));
    }
}

/// What `inspect_core` sees: rows, or how far the frontier is.
pub(crate) type Seen<'s, 'r, 'f, D> = Result<(&'s Stamp<u64>, &'r Vec<D>), &'f [u64]>;

/// Shows each row with its epoch.
pub(crate) fn each<D: 'static>(
    mut show: impl FnMut(u64, &D) + 'static,
) -> impl FnMut(Seen<'_, '_, '_, D>) + 'static {
    move |event| {
        let Ok((stamp, rows)) = event else { return };
        let epoch = *stamp.least().expect("every row has an epoch");
        rows.iter().for_each(|row| show(epoch, row));
    }
}

/// Adds up what the workers sent, epoch by epoch.
fn closed(durable: &Durable, outputs: Outputs) -> Vec<Closed> {
    let mut books: BTreeMap<u64, Books> = BTreeMap::new();
    for (epoch, outcome, count) in outputs.books {
        *books.entry(epoch).or_default().entry(outcome).or_default() += count;
    }
    let mut updates: BTreeMap<u64, Vec<(Observation, isize)>> = BTreeMap::new();
    for (epoch, observation, diff) in outputs.updates {
        updates.entry(epoch).or_default().push((observation, diff));
    }
    let mut numbers = Numbers::new();
    let close = |binding: &Binding| {
        let before = numbers.clone();
        for (observation, diff) in updates.remove(&binding.epoch).unwrap_or_default() {
            add(&mut numbers, &observation, diff as i64);
        }
        numbers.retain(|_, row| row.count != 0);
        Closed {
            changes: changes(&before, &numbers),
            books: books.remove(&binding.epoch).unwrap_or_default(),
        }
    };
    durable.bindings.iter().map(close).collect()
}

fn add(numbers: &mut Numbers, observation: &Observation, diff: i64) {
    let key = (observation.key.window_start.0, observation.key.place.0);
    let row = numbers.entry(key).or_default();
    row.count += diff;
    row.not_null += diff * i64::from(observation.values[0].is_some());
    row.sum += i128::from(diff) * observation.values[0].unwrap_or(0);
}

pub(crate) fn tick(binding: &Binding) -> Tick {
    Tick {
        epoch: Epoch(binding.epoch),
        bound_time_ms: binding.bound_time,
        previous_bound_time_ms: binding.previous_bound_time,
        watermark: EventTime(binding.watermark),
        snapshot: false,
    }
}

fn observation(at: At, event: &Event, window_start: EventTime) -> Observation {
    Observation {
        id: Some(EventId(event.id)),
        time: EventTime(event.time),
        position: position(at),
        key: Key { window_start, place: Place(event.place), group: Box::default() },
        entity: Box::from([event.entity]),
        values: smallvec![event.value],
    }
}

fn position((partition, offset): At) -> Position {
    assert!(partition < PARTITIONS);
    Position { topic: 0, partition: partition as i32, offset: Offset(offset as i64) }
}

/// A plan that states the rules' horizon and nothing else of interest.
pub(crate) fn plan(rules: &Rules) -> Plan {
    let by = vec!["sensorId".to_owned()];
    let (window, per) = match rules.grouping {
        Grouping::Events { window } => (Window::Tumbling { size_ms: window }, None),
        Grouping::PerEntity { window, take } => {
            (Window::Tumbling { size_ms: window }, Some(Per { by, take }))
        }
        Grouping::Latest { expire, forget } => {
            (Window::Latest { by, expire_ms: expire, forget_ms: forget }, None)
        }
    };
    Plan {
        name: "model".to_owned(),
        topics: vec!["city".to_owned()],
        schema: "model".to_owned(),
        event_time: "time".to_owned(),
        location: Location::Cell { column: "place".to_owned() },
        allow_ms: rules.allow,
        future_ms: rules.future,
        identified: true,
        filter: None,
        derive: Vec::new(),
        window,
        per,
        group_by: Vec::new(),
        arguments: Vec::new(),
        slots: Vec::new(),
        measures: Vec::new(),
        roll_up: Vec::new(),
        publish_every_ms: 0,
    }
}
