//! One pipeline's dataflow, from decoded batches to the rows that are published.
//!
//! ```text
//! batches -> prepare -> [duplicates] -> [entity | latest] -> combine -> aggregate -> publish -> rows
//!               |                                                          |            ^
//!               +-> rejects, late, books, event times reached              +-> roll_up -+
//! ```
//!
//! Each operator that keeps state starts with what a snapshot knew of it and writes down, where a
//! tick asks for it, what changed since the last. What a plan does not ask for is not built. Where events are neither told apart nor reduced,
//! `prepare` and `combine` are one operator, and no event becomes a record of its own.

use std::sync::Arc;

use citycell_schemas::{EventTime, Grid};
use differential_dataflow::{AsCollection, VecCollection};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::Pipeline as Local,
        operators::{
            Concat, Concatenate, OkErr,
            generic::{Operator, OutputBuilder, builder_rc::OperatorBuilder},
            vec::Map,
        },
    },
};

use crate::{
    accumulators::Change,
    aggregate::{Aggregation, aggregate},
    changes::{Publish, Published, Publisher, Version, crosses, publish},
    combine::{Combiner, Contributions, Extremes, combine, combine_with},
    duplicates::{DistinctEvents, DistinctStreams, duplicates},
    entity::{EntityStreams, EntityValues, entity},
    events::{Observation, Outcome, Reject, Withdrawal},
    lateness::Horizon,
    latest::{LatestValues, Silence, latest},
    live::Live,
    plan::{Plan, Window},
    prepare::{Aside, Batch, Late, Prepare},
    restored::Restored,
    roll_up::{Levels, roll_up},
    saved::{Keeping, Recording, Saved},
    tick::Tick,
};

/// Everything that leaves a pipeline's dataflow.
pub struct Streams<'scope> {
    /// The rows to publish, each at its epoch.
    pub rows: StreamVec<'scope, u64, Version>,
    /// Records that cannot be counted.
    pub rejects: StreamVec<'scope, u64, Reject>,
    /// Events that came too late.
    pub late: StreamVec<'scope, u64, Late>,
    /// Records by outcome; an epoch's entries add up to the records read.
    pub books: StreamVec<'scope, u64, (Outcome, u64)>,
    /// The newest event time seen of a partition, as (topic, partition, time).
    pub reached: StreamVec<'scope, u64, (u16, i32, EventTime)>,
    /// What snapshots keep, at the epochs whose ticks ask for one.
    pub saved: StreamVec<'scope, u64, Saved>,
}

/// What a pipeline keeps from epoch to epoch.
#[derive(Debug)]
pub struct Memory {
    /// This worker's part of the state to start with. Ticks and batches begin after its epoch.
    pub restored: Option<Restored>,
    /// Whether snapshots are taken.
    pub recording: Recording,
    /// Counts what is kept.
    pub live: Arc<Live>,
}

impl Default for Memory {
    /// Starts with nothing and is never written down.
    fn default() -> Self {
        Self { restored: None, recording: Recording::Off, live: Arc::default() }
    }
}

/// Builds the dataflow of `plan`. Each epoch needs its tick on every worker.
#[expect(
    clippy::too_many_arguments,
    reason = "what a pipeline is made of, each told apart by its type"
)]
pub fn build<'scope>(
    plan: &Plan,
    prepare: Prepare,
    grid: &Grid,
    batches: StreamVec<'scope, u64, Batch>,
    ticks: StreamVec<'scope, u64, Tick>,
    memory: Memory,
) -> Streams<'scope> {
    let Memory { restored, recording, live } = memory;
    let mut keyed = Keyed {
        plan,
        ticks,
        known: restored.unwrap_or_else(Restored::nothing),
        keeping: Keeping { recording, live },
        saved: Vec::new(),
    };
    let (contributions, notes) = contributions(prepare, batches, &mut keyed);
    let Notes { rejects, late, books, reached, .. } = notes;
    let cells = keyed.cells(contributions);
    let changes = if plan.roll_up.is_empty() {
        cells
    } else {
        let contributions = roll_up(cells.clone(), Levels::of(grid, &plan.roll_up), plan);
        cells.concat(keyed.levels(contributions))
    };
    let rows = keyed.published(changes);
    let saved = keyed.ticks.scope().concatenate(keyed.saved);
    Streams { rows, rejects, late, books, reached, saved }
}

/// From batches to what their events contribute.
fn contributions<'scope>(
    prepare: Prepare,
    batches: StreamVec<'scope, u64, Batch>,
    keyed: &mut Keyed<'_, 'scope>,
) -> (Contributions<'scope>, Notes<'scope>) {
    let plan = keyed.plan;
    let reduces = plan.per.is_some() || matches!(plan.window, Window::Latest { .. });
    if !plan.identified && !reduces {
        let batches = at_its_epoch(batches.map(|batch| (batch, 1)));
        let add = move |combiner: &mut Combiner, batch: Batch, sign: isize| {
            let aside = prepare.each(&batch, |row| {
                let key = (row.window_start, row.place, row.group());
                combiner.add(key, &row.values(), sign as i64);
            });
            noted(&batch, aside)
        };
        let name = format!("{}: prepare and combine", plan.name);
        let (contributions, notes) = combine_with(&name, batches, plan, add);
        return (contributions, split(notes));
    }
    let (observations, notes) = prepared(batches, prepare, &plan.name);
    let mut notes = split(notes);
    let observations = if plan.identified {
        let events = observations.map(|(observation, _)| observation);
        let distinct = keyed.distinct(events, notes.withdrawals.clone());
        notes.books = notes.books.concat(distinct.books);
        distinct.updates
    } else {
        observations
    };
    (combine(at_its_epoch(keyed.reduced(observations)), plan), notes)
}

/// Keys of closed windows that leave memory per epoch and worker: enough to keep up with 100,000
/// cells by the minute at ticks of a second, few enough to keep the tick.
const RETIRE_KEYS_MAX: usize = 20_000;

/// How often a pipeline without windows writes all live rows again, so that a read of "now" never
/// starts further back than this.
const KEYFRAME_EVERY_MS: i64 = 10 * 60 * 1000;

fn keyframe_every_ms(plan: &Plan) -> Option<i64> {
    matches!(plan.window, Window::Latest { .. }).then_some(KEYFRAME_EVERY_MS)
}

/// Whether all live rows of `plan` are written again in this epoch.
#[must_use]
pub fn is_keyframe(plan: &Plan, tick: &Tick) -> bool {
    keyframe_every_ms(plan).is_some_and(|every_ms| crosses(tick, every_ms))
}

/// Builds what keeps state, with what is known of it already.
struct Keyed<'a, 'scope> {
    plan: &'a Plan,
    ticks: StreamVec<'scope, u64, Tick>,
    known: Restored,
    keeping: Keeping,
    saved: Vec<StreamVec<'scope, u64, Saved>>,
}

impl<'scope> Keyed<'_, 'scope> {
    /// Each event once.
    fn distinct(
        &mut self,
        events: StreamVec<'scope, u64, Observation>,
        withdrawals: StreamVec<'scope, u64, Withdrawal>,
    ) -> DistinctStreams<'scope> {
        let known = std::mem::take(&mut self.known.events);
        let keeping = self.keeping.clone();
        let ids = DistinctEvents::restored(Horizon::of(self.plan), keeping, known);
        let distinct = duplicates(events, withdrawals, self.ticks.clone(), ids);
        self.saved.push(distinct.saved.clone());
        distinct
    }

    /// One contribution per entity, where the plan has entities.
    fn reduced(&mut self, observations: Updates<'scope>) -> Updates<'scope> {
        let (horizon, keeping) = (Horizon::of(self.plan), self.keeping.clone());
        let ticks = self.ticks.clone();
        let EntityStreams { contributions, saved } = match (&self.plan.window, &self.plan.per) {
            (Window::Latest { expire_ms, forget_ms, .. }, _) => {
                let silence = Silence { expire_ms: *expire_ms, forget_ms: *forget_ms };
                let known = std::mem::take(&mut self.known.latest);
                let known = (self.known.tick.bound_time_ms, known);
                let entities = LatestValues::restored((horizon, silence), keeping, known);
                latest(observations, ticks, entities)
            }
            (Window::Tumbling { .. }, Some(per)) => {
                let known = std::mem::take(&mut self.known.entities);
                let entities = EntityValues::restored((horizon, per.take), keeping, known);
                entity(observations, ticks, entities)
            }
            (Window::Tumbling { .. }, None) => return observations,
        };
        self.saved.push(saved);
        contributions
    }

    /// What changes in the cells.
    fn cells(&mut self, contributions: Contributions<'scope>) -> StreamVec<'scope, u64, Change> {
        let known = self.known.contributions(self.ticks.scope());
        let aggregation = self.aggregation("cells", self.keeping.clone());
        let cells = aggregate(contributions.concat(known), self.ticks.clone(), aggregation);
        self.saved.push(cells.saved);
        cells.changes
    }

    /// What changes above the cells. This follows from the cells, also after a restart.
    fn levels(&self, contributions: Contributions<'scope>) -> StreamVec<'scope, u64, Change> {
        let keeping = Keeping { recording: Recording::Off, ..self.keeping.clone() };
        let aggregation = self.aggregation("levels", keeping);
        aggregate(contributions, self.ticks.clone(), aggregation).changes
    }

    /// The versions to write.
    fn published(
        &mut self,
        changes: StreamVec<'scope, u64, Change>,
    ) -> StreamVec<'scope, u64, Version> {
        let timing = Publish {
            horizon: Horizon::of(self.plan),
            every_ms: self.plan.publish_every_ms,
            keyframe_every_ms: keyframe_every_ms(self.plan),
        };
        let publisher = Publisher::restored(timing, std::mem::take(&mut self.known.held));
        let Published { versions, saved } = publish(changes, self.ticks.clone(), publisher);
        self.saved.push(saved);
        versions
    }

    fn aggregation(&self, name: &str, keeping: Keeping) -> Aggregation {
        Aggregation {
            name: format!("{}: {name}", self.plan.name),
            horizon: Horizon::of(self.plan),
            extremes: Extremes::of(&self.plan.slots),
            retire_keys_max: RETIRE_KEYS_MAX,
            keeping,
        }
    }
}

type Updates<'scope> = StreamVec<'scope, u64, (Observation, isize)>;

/// What a batch became apart from observations, one thing each.
#[derive(Clone)]
enum Note {
    Withdrawal(Withdrawal),
    Reject(Reject),
    Late(Late),
    Books(Outcome, u64),
    Reached(u16, i32, EventTime),
}

fn prepared<'scope>(
    batches: StreamVec<'scope, u64, Batch>,
    prepare: Prepare,
    name: &str,
) -> (Updates<'scope>, StreamVec<'scope, u64, Note>) {
    let mut builder = OperatorBuilder::new(format!("{name}: prepare"), batches.scope());
    let mut input = builder.new_input(batches, Local);
    let (output, observations) = builder.new_output();
    let mut observations_output =
        OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(output);
    let (output, notes) = builder.new_output();
    let mut notes_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(output);
    builder.build(move |_| {
        move |_frontiers| {
            let mut observations = observations_output.activate();
            let mut notes = notes_output.activate();
            input.for_each(|capability, batches| {
                let mut observations = observations.session(&capability);
                let mut notes = notes.session(&capability);
                for batch in batches.drain(..) {
                    let aside =
                        prepare.prepare(&batch, |observation| observations.give((observation, 1)));
                    notes.give_iterator(noted(&batch, aside));
                }
            });
        }
    });
    (observations, notes)
}

fn noted(batch: &Batch, aside: Aside) -> impl Iterator<Item = Note> + use<> {
    let Aside { rejects, late, books, reached } = aside;
    let (topic, partition) = (batch.decoded.events.topic, batch.records.partition);
    let withdrawals = batch.decoded.withdrawals.clone();
    let withdrawals = withdrawals.into_iter().map(Note::Withdrawal);
    let books = books.into_iter().filter(|(_, count)| *count > 0);
    withdrawals
        .chain(rejects.into_iter().map(Note::Reject))
        .chain(late.into_iter().map(Note::Late))
        .chain(books.map(|(outcome, count)| Note::Books(outcome, count)))
        .chain(reached.map(|time| Note::Reached(topic, partition, time)))
}

struct Notes<'scope> {
    withdrawals: StreamVec<'scope, u64, Withdrawal>,
    rejects: StreamVec<'scope, u64, Reject>,
    late: StreamVec<'scope, u64, Late>,
    books: StreamVec<'scope, u64, (Outcome, u64)>,
    reached: StreamVec<'scope, u64, (u16, i32, EventTime)>,
}

fn split(notes: StreamVec<'_, u64, Note>) -> Notes<'_> {
    let (withdrawals, notes) = divide(notes, |note| match note {
        Note::Withdrawal(withdrawal) => Ok(withdrawal),
        other => Err(other),
    });
    let (rejects, notes) = divide(notes, |note| match note {
        Note::Reject(reject) => Ok(reject),
        other => Err(other),
    });
    let (late, notes) = divide(notes, |note| match note {
        Note::Late(late) => Ok(late),
        other => Err(other),
    });
    let (books, notes) = divide(notes, |note| match note {
        Note::Books(outcome, count) => Ok((outcome, count)),
        other => Err(other),
    });
    let (reached, _none_left) = divide(notes, |note| match note {
        Note::Reached(topic, partition, time) => Ok((topic, partition, time)),
        other => Err(other),
    });
    Notes { withdrawals, rejects, late, books, reached }
}

/// The notes of one kind, and the others.
fn divide<'scope, T: Clone + 'static>(
    notes: StreamVec<'scope, u64, Note>,
    kind: impl Fn(Note) -> Result<T, Note> + 'static,
) -> (StreamVec<'scope, u64, T>, StreamVec<'scope, u64, Note>) {
    notes.ok_err(kind)
}

/// The updates as a differential collection: each carries the epoch it travels at.
fn at_its_epoch<D: Clone + 'static>(
    updates: StreamVec<'_, u64, (D, isize)>,
) -> VecCollection<'_, u64, D, isize> {
    let stream = updates.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
        Local,
        "at its epoch",
        |_, _| {
            |input, output| {
                input.for_each(|capability, updates| {
                    let Some(epoch) = capability.least().copied() else { return };
                    output.session(&capability).give_iterator(
                        updates.drain(..).map(|(record, diff)| (record, epoch, diff)),
                    );
                });
            }
        },
    );
    stream.as_collection()
}
