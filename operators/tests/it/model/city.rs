//! A city whose sensors write to the log while an engine reads it, step by durable step, and is
//! killed between any two.

use rand::Rng;
use rand::rngs::StdRng;

use super::binder::{Cut, bind};
use super::machine::Machine;
use super::reader::Sent;
use super::sensors::Sensors;
use super::{Binding, Books, Closed, Key, Log, PARTITIONS, Row, Rules};

/// What survives a kill.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    pub(crate) log: Log,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) marks: Vec<(u64, Books)>,
}

/// What kind of city this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How many epochs to live.
    pub(crate) epochs: usize,
    /// How likely a kill is before each step.
    pub(crate) kill: f64,
    /// How much the event times of copies may differ.
    pub(crate) copies_differ_by: i64,
}

/// What the engine does next; gone when it is killed.
enum Step {
    Process,
    Bind(Binding),
    Publish(Vec<(Key, Option<Row>)>, Books),
    Mark(Books),
}

struct Engine {
    rules: Rules,
    machine: Machine,
    processed: usize,
    step: Step,
}

impl Engine {
    /// Takes the marked epochs' bindings again; what they sent is not sent again.
    fn start(rules: Rules, durable: &Durable) -> Self {
        let mut machine = Machine::new(rules);
        let processed = durable.marks.len();
        for binding in &durable.bindings[..processed] {
            machine.process(&durable.log, binding);
        }
        Self { rules, machine, processed, step: Step::Process }
    }
}

/// Lets the city live, and shows what is durable after every step.
pub(crate) fn live(
    rules: Rules,
    habits: Habits,
    random: &mut StdRng,
    mut observe: impl FnMut(&Durable),
) -> Durable {
    let mut durable = Durable::default();
    let mut engine = Engine::start(rules, &durable);
    let mut sensors = Sensors::new(rules, habits.copies_differ_by);
    let mut now = 1_000_000;
    loop {
        if random.random_bool(habits.kill) {
            engine = Engine::start(rules, &durable);
        }
        if random.random_bool(0.4) {
            now += random.random_range(1..1_500);
            sensors.write(&mut durable.log, now, random);
        }
        if durable.marks.len() == habits.epochs {
            return durable;
        }
        now += 1;
        step(&mut engine, &mut durable, now, random);
        observe(&durable);
    }
}

fn step(engine: &mut Engine, durable: &mut Durable, now: i64, random: &mut StdRng) {
    engine.step = match std::mem::replace(&mut engine.step, Step::Process) {
        Step::Process => match durable.bindings.get(engine.processed) {
            Some(binding) => {
                let Closed { changes, books } = engine.machine.process(&durable.log, binding);
                engine.processed += 1;
                Step::Publish(changes.into_iter().collect(), books)
            }
            None => {
                let cut = cut(durable, now, random);
                Step::Bind(bind(&engine.rules, &durable.log, &durable.bindings, &cut))
            }
        },
        Step::Bind(binding) => {
            durable.bindings.push(binding);
            Step::Process
        }
        Step::Publish(mut rows, books) => match rows.pop() {
            Some((key, row)) => {
                let epoch = durable.bindings[engine.processed - 1].epoch;
                durable.sent.push(Sent { epoch, key, row });
                Step::Publish(rows, books)
            }
            None => Step::Mark(books),
        },
        Step::Mark(books) => {
            durable.marks.push((durable.bindings[engine.processed - 1].epoch, books));
            Step::Process
        }
    };
}

fn cut(durable: &Durable, now: i64, random: &mut StdRng) -> Cut {
    let from = durable.bindings.last().map_or([0; PARTITIONS], |last| last.next_offset);
    let next_offset = std::array::from_fn(|partition| {
        let end = durable.log[partition].len();
        if random.random_bool(0.7) { end } else { random.random_range(from[partition]..=end) }
    });
    Cut { epoch: now as u64, next_offset }
}
