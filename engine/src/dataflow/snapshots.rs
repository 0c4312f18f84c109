//! From what operators write down to runs: an epoch stays open until its run is durable.
//!
//! Only this branch waits; rows and marks go on meanwhile.

use std::collections::BTreeMap;

use citycell_operators::saved::Saved;
use citycell_schemas::Epoch;
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::Pipeline,
        operators::{Capability, generic::operator::Operator},
    },
};

use crate::{
    clickhouse::tables::PipelineTable,
    snapshot::{Run, SnapshotJob, SnapshotQueue},
};

use super::source::Waker;

/// Writes what this worker's operators write down in an epoch as one run.
pub(super) fn runs<'scope>(
    saved: StreamVec<'scope, u64, Saved>,
    queue: SnapshotQueue,
    table: &PipelineTable,
) -> StreamVec<'scope, u64, Run> {
    let scope = saved.scope();
    let worker = scope.index();
    let (pipeline, version) = (table.pipeline.clone(), table.version.clone());
    saved.unary_frontier::<CapacityContainerBuilder<Vec<Run>>, _, _, _>(
        Pipeline,
        &format!("{pipeline}: runs"),
        move |_, info| {
            let waker = Waker::default();
            waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            let (written, durable) = crossbeam_channel::unbounded();
            let mut open: BTreeMap<u64, (Capability<u64>, Saved)> = BTreeMap::new();
            let mut writing: BTreeMap<u64, Capability<u64>> = BTreeMap::new();
            move |(input, frontier), output| {
                // 1. Set aside what arrives, by epoch.
                input.for_each(|capability, arrived| {
                    if let Some(capability) = capability.retain_least(0) {
                        let entry = open.entry(*capability.time());
                        let (_, saved) = entry.or_insert_with(|| (capability, Saved::default()));
                        arrived.drain(..).for_each(|more| saved.append(&more));
                    }
                });
                // 2. Write what is complete.
                while let Some(entry) = open.first_entry() {
                    if frontier.less_equal(entry.key()) {
                        break;
                    }
                    let (epoch, (capability, saved)) = entry.remove_entry();
                    writing.insert(epoch, capability);
                    let (written, waker) = (written.clone(), waker.clone());
                    let job = SnapshotJob {
                        pipeline: pipeline.clone(),
                        version: version.clone(),
                        epoch: Epoch(epoch),
                        worker,
                        saved,
                        done: Box::new(move |run| {
                            // The operator is gone only when the engine is stopping.
                            let _ = written.send((epoch, run));
                            waker.wake();
                        }),
                    };
                    // Without a writing task the snapshot is never complete, as it must be.
                    let _ = queue.send(job);
                }
                // 3. Say what is durable.
                for (epoch, run) in durable.try_iter() {
                    if let Some(capability) = writing.remove(&epoch) {
                        output.session(&capability).give_iterator(run.into_iter());
                    }
                }
            }
        },
    )
}
