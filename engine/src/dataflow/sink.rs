//! From rows to ClickHouse: an epoch stays open until its rows are acknowledged.

use std::collections::BTreeMap;

use citycell_operators::{changes::Version, events::Reject, prepare::Late};
use citycell_schemas::Epoch;
use crossbeam_channel::Receiver;
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::Pipeline,
        operators::{Capability, generic::operator::Operator},
    },
};

use crate::{
    alarm::Alarm,
    clickhouse::{
        rows::RowEncoder,
        writer::{WriteJob, WriteQueue},
    },
    engine::EngineError,
};

use super::source::Waker;

/// What one worker writes of one pipeline.
#[derive(Clone, Debug)]
pub enum Output {
    /// A row of the pipeline's table.
    Row(Version),
    /// A row of `rejects`.
    Reject(Reject),
    /// A row of `late`.
    Late(Late),
}

/// Everything that a sink needs besides rows.
pub(super) struct SinkParts {
    /// Turns rows into batches.
    pub(super) encoder: RowEncoder,
    /// The way to the pipeline's writing task.
    pub(super) queue: WriteQueue,
    /// Epochs up to this one are marked: their rows are in ClickHouse already.
    pub(super) marked: Option<Epoch>,
    /// Ends the engine if rows cannot be made.
    pub(super) alarm: Alarm,
}

/// Writes each epoch's outputs once all of them are here, and says how many rows of the pipeline's
/// table these were once ClickHouse has acknowledged them.
pub(super) fn sink<'scope>(
    outputs: StreamVec<'scope, u64, Output>,
    parts: SinkParts,
    name: &str,
) -> StreamVec<'scope, u64, u64> {
    let scope = outputs.scope();
    outputs.unary_frontier::<CapacityContainerBuilder<Vec<u64>>, _, _, _>(
        Pipeline,
        name,
        move |_, info| {
            let waker = Waker::default();
            waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            let (acknowledge, acknowledged) = crossbeam_channel::unbounded();
            let mut open: BTreeMap<u64, (Capability<u64>, Vec<Output>)> = BTreeMap::new();
            let mut writing: BTreeMap<u64, (Capability<u64>, u64)> = BTreeMap::new();
            move |(input, frontier), output| {
                // 1. Set aside what arrives, by epoch.
                input.for_each(|capability, outputs| {
                    if let Some(capability) = capability.retain_least(0) {
                        let entry = open.entry(*capability.time());
                        entry.or_insert_with(|| (capability, Vec::new())).1.append(outputs);
                    }
                });
                // 2. Write the epochs that are complete, oldest first.
                while let Some(entry) = open.first_entry() {
                    if frontier.less_equal(entry.key()) {
                        break;
                    }
                    let (epoch, (capability, outputs)) = entry.remove_entry();
                    if parts.marked.is_some_and(|marked| epoch <= marked.0) {
                        continue;
                    }
                    let rows = outputs.iter().filter(|output| matches!(output, Output::Row(_)));
                    writing.insert(epoch, (capability, rows.count() as u64));
                    // Without its rows the epoch stays unmarked.
                    let batches = match parts.encoder.encode(Epoch(epoch), outputs) {
                        Ok(batches) => batches,
                        Err(error) => return parts.alarm.ring(EngineError::Keys(error)),
                    };
                    let (acknowledge, waker) = (acknowledge.clone(), waker.clone());
                    let job = WriteJob {
                        batches,
                        done: Box::new(move || {
                            // The sink is gone only when the engine is stopping.
                            let _ = acknowledge.send(epoch);
                            waker.wake();
                        }),
                    };
                    parts.queue.send(job);
                }
                // 3. Let go of the epochs that ClickHouse has.
                for (capability, rows) in finished(&acknowledged, &mut writing) {
                    output.session(&capability).give(rows);
                }
            }
        },
    )
}

fn finished(
    acknowledged: &Receiver<u64>,
    writing: &mut BTreeMap<u64, (Capability<u64>, u64)>,
) -> Vec<(Capability<u64>, u64)> {
    acknowledged.try_iter().filter_map(|epoch| writing.remove(&epoch)).collect()
}
