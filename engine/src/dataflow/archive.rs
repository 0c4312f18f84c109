//! The archive: each record as it was read, once for all pipelines, by the worker that read it.
//!
//! An epoch is archived once ClickHouse has acknowledged its records of all workers. Then the
//! archive's own mark is sent, and only then does the stream made here pass the epoch, which the
//! pipelines' marks wait for: a marked epoch is an archived one, so a restart, which begins at an
//! epoch that all pipelines have marked, leaves no hole.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use citycell_operators::{events::Outcome, records::Records};
use citycell_schemas::Epoch;
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange, Pipeline},
        operators::{Capability, generic::Operator},
    },
};

use crate::{
    binding::Binding,
    books::Books,
    clickhouse::{
        archive::{ARCHIVE, encode},
        marks::Mark,
        writer::{WriteJob, WriteQueue},
    },
    engine::EngineError,
};

use super::{
    Entry, Work, ranges,
    source::{BoundRecords, Waker},
};

/// Where records are kept.
pub struct ArchiveWork {
    /// The way to the archive's writing task.
    pub queue: WriteQueue,
    /// The deployment, which is the version in the archive's marks.
    pub deployment: String,
    /// The last epoch that is archived already.
    pub marked: Option<Epoch>,
}

/// Archives the records; yields a stream of nothing that passes an epoch once it is archived.
pub(super) fn archive<'scope>(
    bindings: StreamVec<'scope, u64, Binding>,
    records: StreamVec<'scope, u64, BoundRecords>,
    work: &Arc<Work>,
) -> Option<StreamVec<'scope, u64, Entry>> {
    let archive = work.archive.as_ref()?;
    let written = write(records, archive, work);
    Some(mark(bindings, written, archive, work))
}

/// Writes each epoch's records once all of this worker are here, and says how many these were once
/// ClickHouse has acknowledged them.
fn write<'scope>(
    records: StreamVec<'scope, u64, BoundRecords>,
    archive: &ArchiveWork,
    work: &Arc<Work>,
) -> StreamVec<'scope, u64, u64> {
    let scope = records.scope();
    let (queue, marked) = (archive.queue.clone(), archive.marked);
    let (sealing, alarm) = (work.sealing.clone(), work.alarm.clone());
    records.unary_frontier::<CapacityContainerBuilder<Vec<u64>>, _, _, _>(
        Pipeline,
        "archive: records",
        move |_, info| {
            let waker = Waker::default();
            waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            let (acknowledge, acknowledged) = crossbeam_channel::unbounded();
            let mut open: BTreeMap<u64, (Capability<u64>, Vec<Rc<Records>>)> = BTreeMap::new();
            let mut writing: BTreeMap<u64, (Capability<u64>, u64)> = BTreeMap::new();
            move |(input, frontier), output| {
                // 1. Set aside what arrives and is not archived yet, by epoch.
                input.for_each(|capability, arrived| {
                    let Some(capability) = capability.retain_least(0) else { return };
                    let epoch = *capability.time();
                    if marked.is_none_or(|marked| epoch > marked.0) {
                        let entry = open.entry(epoch).or_insert_with(|| (capability, Vec::new()));
                        entry.1.extend(arrived.drain(..).map(|bound| bound.records));
                    }
                });
                // 2. Write the epochs that are complete, oldest first.
                while let Some(entry) = open.first_entry() {
                    if frontier.less_equal(entry.key()) {
                        break;
                    }
                    let (epoch, (capability, records)) = entry.remove_entry();
                    let count = records.iter().map(|records| records.len() as u64).sum();
                    writing.insert(epoch, (capability, count));
                    // Without its records the epoch stays unmarked.
                    let batches = match encode(Epoch(epoch), &records, sealing.as_deref()) {
                        Ok(batches) => batches,
                        Err(error) => return alarm.ring(EngineError::Keys(error)),
                    };
                    let (acknowledge, waker) = (acknowledge.clone(), waker.clone());
                    queue.send(WriteJob {
                        batches,
                        done: Box::new(move || {
                            // The operator is gone only when the engine is stopping.
                            let _ = acknowledge.send(epoch);
                            waker.wake();
                        }),
                    });
                }
                // 3. Let go of the epochs that ClickHouse has.
                for epoch in acknowledged.try_iter() {
                    if let Some((capability, count)) = writing.remove(&epoch) {
                        output.session(&capability).give(count);
                    }
                }
            }
        },
    )
}

/// Sends the archive's mark of each epoch from worker 0 and then lets go of the epoch.
fn mark<'scope>(
    bindings: StreamVec<'scope, u64, Binding>,
    written: StreamVec<'scope, u64, u64>,
    archive: &ArchiveWork,
    work: &Arc<Work>,
) -> StreamVec<'scope, u64, Entry> {
    let here = bindings.scope().index() == 0;
    let topics: BTreeMap<u16, Arc<str>> = (0..).zip(work.topics.iter().cloned()).collect();
    let (deployment, marked) = (archive.deployment.clone(), archive.marked);
    let marks = work.marks.clone();
    bindings.binary_frontier::<_, CapacityContainerBuilder<Vec<Entry>>, _, _, _, _>(
        written,
        Pipeline,
        Exchange::new(|_: &u64| 0),
        "archive: marks",
        move |_, _| {
            let mut open: BTreeMap<u64, (Capability<u64>, Binding)> = BTreeMap::new();
            let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
            move |(bindings, bound), (written, archived), _output| {
                bindings.for_each(|capability, bindings| {
                    for binding in bindings.drain(..) {
                        let epoch = binding.epoch.0;
                        open.insert(epoch, (capability.delayed(&epoch, 0), binding));
                    }
                });
                written.for_each(|capability, written| {
                    if let Some(epoch) = capability.least() {
                        *counts.entry(*epoch).or_default() += written.drain(..).sum::<u64>();
                    }
                });
                while let Some(entry) = open.first_entry() {
                    if bound.less_equal(entry.key()) || archived.less_equal(entry.key()) {
                        return;
                    }
                    let (epoch, (_capability, binding)) = entry.remove_entry();
                    let records = counts.remove(&epoch).unwrap_or_default();
                    if !here || marked.is_some_and(|marked| epoch <= marked.0) {
                        continue;
                    }
                    let mut books = Books::default();
                    books.enter(Outcome::Counted, records);
                    // Marks are written in the order in which they are sent: this one before those
                    // of the pipelines.
                    let _ = marks.send(Mark {
                        pipeline: ARCHIVE.to_owned(),
                        version: deployment.clone(),
                        tick: binding.tick(ARCHIVE),
                        keyframe: false,
                        rows: records,
                        books,
                        ranges: ranges(&binding, &topics),
                    });
                }
            }
        },
    )
}
