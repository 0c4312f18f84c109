//! Runs the cases inside a pipeline file through the same decoder and dataflow as the engine.
//!
//! A case needs neither Kafka nor a grid file, and reads no clock:
//!
//! - Each given record is an epoch of its own, in the order of the file. Its offset is its number
//!   in the case, from 0.
//! - The broker got it `at` the time given; without, at the event's own time; without that, when it
//!   got the record before. Timers (`latest`) run on the newest of these times so far.
//! - The watermark that lateness is judged by is, as in the engine, what all partitions reached in
//!   the epochs before; a partition that the case names holds it back until its first event.
//! - Changes are published at every record, whatever `publish` says: what is compared are the rows
//!   at the end, and those are the same.
//! - The city is made of the cells that the case names; `city.rs` says how.

mod city;
mod compare;
mod records;
mod rows;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use citycell_operators::{
    changes::Version,
    decode::DecoderError,
    events::{Outcome, Reject},
    expression::ExpressionError,
    keys::Key,
    locate::LocatedGrid,
    pipeline::{self, Memory, Streams},
    prepare::{Batch, Late, Prepare},
    records::Records,
    tick::Tick,
};
use citycell_schemas::{Epoch, EventTime};
use serde::Serialize;
use timely::{
    dataflow::{
        InputHandleVec, ProbeHandle, StreamVec,
        operators::{Concat, Input, Inspect, Probe, vec::Map},
    },
    worker::Worker,
};

use crate::{config::TestCase, pipeline::Pipeline};

use city::City;
pub use compare::{ColumnDifference, Mismatch, RowText};

/// What a case showed.
#[derive(Debug, Serialize)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// The line of the file where it begins.
    pub line: u64,
    /// How the rows differ from what is expected; the case passes where they do not.
    pub mismatches: Vec<Mismatch>,
    /// The records that are not in the numbers.
    pub not_counted: Vec<NotCounted>,
}

/// A record that is not in the numbers.
#[derive(Debug, Serialize)]
pub struct NotCounted {
    /// Its number in the case, from 0.
    pub record: usize,
    /// Why not.
    pub why: String,
}

impl CaseResult {
    /// Whether the rows are as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// A case that cannot be run: the pipeline's fault, and none where the pipeline was checked.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The schema cannot be decoded with.
    #[error("cannot decode the pipeline's events")]
    Decoder(#[from] DecoderError),
    /// An expression does not fit the schema.
    #[error("cannot build the pipeline's dataflow")]
    Expression(#[from] ExpressionError),
}

/// Runs one case of `pipeline`.
///
/// # Errors
/// When the pipeline cannot be built; never for one that was checked.
pub fn run_case(pipeline: &Arc<Pipeline>, case: &TestCase) -> Result<CaseResult, CaseError> {
    let city = City::of(pipeline, case);
    let mut decoder = pipeline.decoder()?;
    let records = records::records(pipeline, case, &city, &mut decoder);
    let (grid, shared) = (Arc::clone(&city.grid), Arc::clone(pipeline));
    let outputs = timely::execute_directly(move |worker| run(worker, &shared, &grid, records))?;
    let rows = rows::rows(pipeline, city.grid.grid(), outputs.newest)?;
    Ok(CaseResult {
        name: case.name.clone(),
        line: case.line,
        mismatches: compare::compare(rows, &case.expect, &pipeline.plan.group_by),
        not_counted: outputs.not_counted,
    })
}

/// What left the dataflow.
#[derive(Default)]
struct Outputs {
    newest: BTreeMap<Key, Version>,
    not_counted: Vec<NotCounted>,
    reached: BTreeMap<i32, EventTime>,
}

/// What leaves the dataflow.
#[derive(Clone)]
enum Output {
    Row(Version),
    Reject(Reject),
    Late(Late),
    Book(Outcome),
    Reached(i32, EventTime),
}

fn run(
    worker: &mut Worker,
    pipeline: &Pipeline,
    grid: &Arc<LocatedGrid>,
    records: Vec<Records>,
) -> Result<Outputs, CaseError> {
    let mut decoder = pipeline.decoder()?;
    let mut plan = pipeline.plan.clone();
    plan.publish_every_ms = 0;
    let prepare = Prepare::new(&plan, decoder.columns(), Arc::clone(grid))?;
    let received = Rc::new(RefCell::new(Vec::new()));
    let collected = Rc::clone(&received);
    let probe = ProbeHandle::new();
    let (mut batches, mut ticks) = worker.dataflow::<u64, _, _>(|scope| {
        let (batches, batch_stream): (InputHandleVec<u64, Batch>, _) = scope.new_input();
        let (ticks, tick_stream): (InputHandleVec<u64, Tick>, _) = scope.new_input();
        let memory = Memory::default();
        let streams =
            pipeline::build(&plan, prepare, grid.grid(), batch_stream, tick_stream, memory);
        outputs(streams)
            .inspect(move |output| collected.borrow_mut().push(output.clone()))
            .probe_with(&probe);
        (batches, ticks)
    });
    let mut outputs = Outputs::default();
    let mut bindings = Bindings::new(&records);
    for (number, records) in (0..).zip(records) {
        let tick = bindings.tick(records.broker_times_ms[0], &outputs.reached);
        let epoch = tick.epoch.0;
        batches.advance_to(epoch);
        ticks.advance_to(epoch);
        let decoded = Rc::new(decoder.decode(0, &records));
        batches.send(Batch { tick, records: Rc::new(records), decoded });
        ticks.send(tick);
        batches.advance_to(epoch + 1);
        ticks.advance_to(epoch + 1);
        worker.step_while(|| probe.less_equal(&epoch));
        received.borrow_mut().drain(..).for_each(|output| outputs.take(number, output));
    }
    Ok(outputs)
}

/// Everything that leaves the pipeline, in one stream.
fn outputs<'scope>(streams: Streams<'scope>) -> StreamVec<'scope, u64, Output> {
    let Streams { rows, rejects, late, books, reached, .. } = streams;
    rows.map(Output::Row)
        .concat(rejects.map(Output::Reject))
        .concat(late.map(Output::Late))
        .concat(books.map(|(outcome, _)| Output::Book(outcome)))
        .concat(reached.map(|(_, partition, time)| Output::Reached(partition, time)))
}

impl Outputs {
    /// Takes what came out while the record of this number was at work.
    fn take(&mut self, record: usize, output: Output) {
        let why = match output {
            Output::Row(row) => {
                self.newest.insert(row.key.clone(), row);
                return;
            }
            Output::Reached(partition, time) => {
                let newest = self.reached.entry(partition).or_insert(EventTime::MIN);
                *newest = time.max(*newest);
                return;
            }
            Output::Reject(Reject { reason, field, detail, .. }) => {
                let field = if field.is_empty() { "the record" } else { &field };
                format!("rejected as {}: {field}: {detail}", reason.as_str())
            }
            Output::Late(late) => {
                format!("late: the watermark is {}", rows::time_text(late.watermark.0))
            }
            Output::Book(Outcome::Filtered) => "filtered by `where`".to_owned(),
            Output::Book(Outcome::Duplicate) => "a copy of an event that is counted".to_owned(),
            // Those of rejects and late events come with them; the others are in the numbers.
            Output::Book(
                Outcome::Counted | Outcome::Withdrawal | Outcome::Rejected | Outcome::Diverted,
            ) => return,
        };
        self.not_counted.push(NotCounted { record, why });
    }
}

/// What each record's epoch is judged by.
struct Bindings {
    partitions: Vec<i32>,
    last: Tick,
}

impl Bindings {
    fn new(records: &[Records]) -> Self {
        Self {
            partitions: records.iter().map(|records| records.partition).collect(),
            last: Tick {
                epoch: Epoch(0),
                bound_time_ms: i64::MIN,
                previous_bound_time_ms: i64::MIN,
                watermark: EventTime::MIN,
                snapshot: false,
            },
        }
    }

    /// The tick of the next epoch, whose record the broker got at this time.
    fn tick(&mut self, broker_time_ms: i64, reached: &BTreeMap<i32, EventTime>) -> Tick {
        let newest = |partition| reached.get(partition).copied().unwrap_or(EventTime::MIN);
        let watermark = self.partitions.iter().map(newest).min().unwrap_or(EventTime::MIN);
        let last = self.last;
        self.last = Tick {
            epoch: Epoch(last.epoch.0 + 1),
            bound_time_ms: last.bound_time_ms.max(broker_time_ms),
            previous_bound_time_ms: last.bound_time_ms,
            watermark: watermark.max(last.watermark),
            snapshot: false,
        };
        self.last
    }
}
