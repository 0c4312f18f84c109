//! Runs a state machine epoch by epoch: the frame around every keyed operator.
//!
//! Rows are exchanged to the worker that keeps their key, or stay where they are if they are there
//! already. Once no worker can send rows of an epoch any more, the epoch's rows are handed over
//! together, epochs in order, also those without rows.
//! The order of the rows within an epoch is arbitrary: the state machine sorts.
//!
//! An epoch whose tick never came is not stepped through. It occurs when a state is being restored,
//! and when a worker shuts down in the middle of an epoch: half an epoch must not reach the numbers.
//!
//! Where a tick asks for a snapshot, the machine's state after that epoch goes out beside its rows.

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, ParallelizationContract, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, InputCapability};
use timely::progress::frontier::MutableAntichain;

use crate::saved::Saved;
use crate::tick::Tick;

/// A state machine that takes one epoch at a time.
pub(crate) trait ByEpoch: 'static {
    /// What it is given.
    type Row: Clone + 'static;
    /// What it makes of it.
    type Output: Clone + 'static;

    /// Applies all rows of one epoch, in any order. Epochs come in order.
    fn step(&mut self, tick: &Tick, rows: Vec<Self::Row>) -> Vec<Self::Output>;

    /// Learns what there was in an epoch that no tick goes with: a state that is being restored.
    /// Machines that are restored before they start get no such rows.
    fn load(&mut self, rows: Vec<Self::Row>) -> Vec<Self::Output> {
        drop(rows);
        Vec::new()
    }

    /// What was touched since this was last asked.
    fn save(&mut self) -> Saved;
}

/// What has arrived of one epoch.
struct Pending<D> {
    /// For the rows and for what is saved.
    capabilities: (Capability<u64>, Capability<u64>),
    tick: Option<Tick>,
    rows: Vec<D>,
}

/// One whose rows may come from any worker.
pub(crate) trait Routed: ByEpoch<Row: timely::ExchangeData> {
    /// The number that decides which worker keeps a row's key.
    fn route(row: &Self::Row) -> u64;
}

/// What an operator is given.
pub(crate) struct Inputs<'scope, D> {
    pub(crate) rows: StreamVec<'scope, u64, D>,
    pub(crate) ticks: StreamVec<'scope, u64, Tick>,
}

/// What comes out of it.
pub(crate) struct Outputs<'scope, O> {
    pub(crate) rows: StreamVec<'scope, u64, O>,
    pub(crate) saved: StreamVec<'scope, u64, Saved>,
}

/// Applies each epoch's tick and all its rows that belong to this worker.
pub(crate) fn by_epoch<'scope, M: Routed>(
    name: &str,
    inputs: Inputs<'scope, M::Row>,
    machine: M,
) -> Outputs<'scope, M::Output> {
    framed(name, inputs, Exchange::new(M::route), machine)
}

/// Applies each epoch's tick and the rows that are on this worker.
pub(crate) fn by_epoch_in_place<'scope, M: ByEpoch>(
    name: &str,
    inputs: Inputs<'scope, M::Row>,
    machine: M,
) -> Outputs<'scope, M::Output> {
    framed(name, inputs, Pipeline, machine)
}

fn framed<'scope, M: ByEpoch>(
    name: &str,
    inputs: Inputs<'scope, M::Row>,
    contract: impl ParallelizationContract<u64, Vec<M::Row>> + 'static,
    mut machine: M,
) -> Outputs<'scope, M::Output> {
    let mut builder = OperatorBuilder::new(name.to_owned(), inputs.ticks.scope());
    let mut rows_input = builder.new_input(inputs.rows, contract);
    let mut ticks_input = builder.new_input(inputs.ticks, Pipeline);
    let (output, rows) = builder.new_output();
    let mut rows_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(output);
    let (output, saved) = builder.new_output();
    let mut saved_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(output);
    builder.build(move |_| {
        let mut pending = BTreeMap::new();
        move |frontiers| {
            let mut rows_output = rows_output.activate();
            let mut saved_output = saved_output.activate();
            // 1. Set aside what arrives, by epoch.
            rows_input.for_each(|capability, arrived| {
                if let Some(epoch) = pending_epoch(&mut pending, &capability) {
                    epoch.rows.append(arrived);
                }
            });
            ticks_input.for_each(|capability, arrived| {
                if let Some(epoch) = pending_epoch(&mut pending, &capability) {
                    epoch.tick = arrived.pop();
                }
            });
            // 2. Apply the epochs that are complete, oldest first.
            while let Some(entry) = pending.first_entry() {
                if frontiers.iter().any(|frontier| can_receive(frontier, *entry.key())) {
                    break;
                }
                let Pending { capabilities: (for_rows, for_saved), tick, rows } = entry.remove();
                let Some(tick) = tick else {
                    let made = machine.load(rows);
                    rows_output.session(&for_rows).give_iterator(made.into_iter());
                    continue;
                };
                let made = machine.step(&tick, rows);
                rows_output.session(&for_rows).give_iterator(made.into_iter());
                if tick.snapshot {
                    saved_output.session(&for_saved).give(machine.save());
                }
            }
        }
    });
    Outputs { rows, saved }
}

fn can_receive(frontier: &MutableAntichain<u64>, time: u64) -> bool {
    frontier.less_equal(&time)
}

/// The entry of a message's epoch; none for a message without a time, which no source here sends.
fn pending_epoch<'a, D>(
    pending: &'a mut BTreeMap<u64, Pending<D>>,
    capability: &InputCapability<u64>,
) -> Option<&'a mut Pending<D>> {
    let time = *capability.least()?;
    Some(pending.entry(time).or_insert_with(|| Pending {
        capabilities: (capability.delayed(&time, 0), capability.delayed(&time, 1)),
        tick: None,
        rows: Vec::new(),
    }))
}
