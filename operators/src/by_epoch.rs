//! Runs a state machine epoch by epoch: the frame around every keyed operator.
//!
//! Rows are exchanged to the worker that keeps their key. Once no worker can send rows of an epoch
//! any more, the epoch's rows are handed over together, epochs in order, also those without rows.
//! The order of the rows within an epoch is arbitrary: the state machine sorts.
//!
//! An epoch whose tick never came is not applied. It occurs only when a worker shuts down in the
//! middle of an epoch, and half an epoch must not reach the numbers.

use std::collections::BTreeMap;

use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Capability, InputCapability};
use timely::progress::frontier::MutableAntichain;

use crate::tick::Tick;

/// What has arrived of one epoch.
struct Pending<D> {
    capability: Capability<u64>,
    tick: Option<Tick>,
    rows: Vec<D>,
}

/// What an operator is given.
pub(crate) struct Inputs<'scope, D> {
    pub(crate) rows: StreamVec<'scope, u64, D>,
    pub(crate) ticks: StreamVec<'scope, u64, Tick>,
}

/// Calls `apply` once per epoch with its tick and all its rows that `route` sends to this worker.
pub(crate) fn by_epoch<'scope, D, O>(
    name: &str,
    inputs: Inputs<'scope, D>,
    route: impl Fn(&D) -> u64 + 'static,
    mut apply: impl FnMut(&Tick, Vec<D>) -> Vec<O> + 'static,
) -> StreamVec<'scope, u64, O>
where
    D: timely::ExchangeData,
    O: Clone + 'static,
{
    let exchange = Exchange::new(move |row: &D| route(row));
    inputs.rows.binary_frontier(
        inputs.ticks,
        exchange,
        Pipeline,
        name,
        move |_capability, _info| {
            let mut pending = BTreeMap::new();
            move |(rows, rows_frontier), (ticks, ticks_frontier), output| {
                // 1. Set aside what arrives, by epoch.
                rows.for_each(|capability, arrived| {
                    if let Some(epoch) = pending_epoch(&mut pending, &capability) {
                        epoch.rows.append(arrived);
                    }
                });
                ticks.for_each(|capability, arrived| {
                    if let Some(epoch) = pending_epoch(&mut pending, &capability) {
                        epoch.tick = arrived.pop();
                    }
                });
                // 2. Apply the epochs that are complete, oldest first.
                while let Some(entry) = pending.first_entry() {
                    let time = *entry.key();
                    if can_receive(rows_frontier, time) || can_receive(ticks_frontier, time) {
                        break;
                    }
                    let Pending { capability, tick, rows } = entry.remove();
                    if let Some(tick) = tick {
                        output.session(&capability).give_iterator(apply(&tick, rows).into_iter());
                    }
                }
            }
        },
    )
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
        capability: capability.delayed(&time, 0),
        tick: None,
        rows: Vec::new(),
    }))
}
