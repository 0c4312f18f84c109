//! From bindings to records: the only place where the dataflow meets Kafka.
//!
//! A binding enters at worker 0 and reaches every worker at its own epoch. Each worker's source
//! holds the epoch open until it has handed over all records that the binding names of its
//! partitions, so the frontier says exactly which epochs were read.

use std::{
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use citycell_operators::records::Records;
use crossbeam_channel::{Receiver, TryRecvError};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        Scope, StreamVec,
        channels::pact::Pipeline,
        operators::{
            Capability,
            generic::{Operator, operator::source},
            vec::Broadcast,
        },
    },
    scheduling::SyncActivator,
};

use crate::{
    binder::owner,
    binding::{Binding, PartitionRange},
    kafka::{
        TopicPartition,
        reader::{ReadFailure, Reader},
    },
};

/// Wakes an operator from another thread, once the dataflow is built.
#[derive(Clone, Default)]
pub struct Waker(Arc<Mutex<Option<SyncActivator>>>);

impl Waker {
    /// Schedules the operator; nothing before it exists and after it is gone.
    pub fn wake(&self) {
        let activator = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(activator) = activator.as_ref() {
            // Fails only when the worker is gone, and then nobody waits.
            let _ = activator.activate();
        }
    }

    pub(super) fn attach(&self, activator: SyncActivator) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(activator);
    }
}

/// The bindings, on every worker, each at its epoch. The stream ends when the sender goes.
pub fn bindings<'scope>(
    scope: Scope<'scope, u64>,
    received: Option<Receiver<Binding>>,
    waker: &Waker,
) -> StreamVec<'scope, u64, Binding> {
    let stream = source::<_, CapacityContainerBuilder<Vec<Binding>>, _, _>(
        scope,
        "bindings",
        |capability, info| {
            if received.is_some() {
                // Only the worker that receives: another's activator would wake nobody who reads.
                waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            }
            let mut open = received.map(|received| (capability, received));
            move |output| {
                let Some((capability, received)) = open.as_mut() else { return };
                loop {
                    match received.try_recv() {
                        Ok(binding) => {
                            let epoch = binding.epoch.0;
                            capability.downgrade(&epoch);
                            output.session(&*capability).give(binding);
                            capability.downgrade(&(epoch + 1));
                        }
                        Err(TryRecvError::Empty) => return,
                        Err(TryRecvError::Disconnected) => {
                            open = None;
                            return;
                        }
                    }
                }
            }
        },
    );
    stream.broadcast()
}

/// Records of one partition and the binding they belong to.
#[derive(Clone)]
pub struct BoundRecords {
    /// The epoch's binding.
    pub binding: Rc<Binding>,
    /// The topic's number.
    pub topic: u16,
    /// The records.
    pub records: Rc<Records>,
}

/// Everything that a source needs besides bindings.
pub struct SourceParts {
    /// Reads this worker's partitions.
    pub reader: Arc<Reader>,
    /// Wakes this source when records arrive.
    pub waker: Waker,
    /// Told when a partition cannot be read any further.
    pub failed: Box<dyn Fn(ReadFailure)>,
}

/// The records that each binding names, at its epoch.
pub fn records<'scope>(
    bindings: StreamVec<'scope, u64, Binding>,
    parts: SourceParts,
) -> StreamVec<'scope, u64, BoundRecords> {
    let scope = bindings.scope();
    let (index, peers) = (scope.index(), scope.peers());
    bindings.unary_frontier::<CapacityContainerBuilder<Vec<BoundRecords>>, _, _, _>(
        Pipeline,
        "records",
        move |_, info| {
            parts.waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut open: VecDeque<(Capability<u64>, OpenEpoch)> = VecDeque::new();
            move |(input, _frontier), output| {
                input.for_each(|capability, bindings| {
                    for binding in bindings.drain(..) {
                        let capability = capability.delayed(&binding.epoch.0, 0);
                        open.push_back((capability, OpenEpoch::new(binding, index, peers)));
                    }
                });
                while let Some((capability, epoch)) = open.front_mut() {
                    let mut session = output.session(&*capability);
                    match epoch.advance(&parts.reader, |message| session.give(message)) {
                        Ok(true) => {
                            drop(session);
                            open.pop_front();
                        }
                        Ok(false) => return,
                        Err(failure) => {
                            (parts.failed)(failure);
                            return;
                        }
                    }
                }
            }
        },
    )
}

/// An epoch of which not all records have been handed over.
struct OpenEpoch {
    binding: Rc<Binding>,
    missing: Vec<(TopicPartition, PartitionRange)>,
}

impl OpenEpoch {
    fn new(binding: Binding, index: usize, peers: usize) -> Self {
        let missing = binding
            .partitions
            .iter()
            .filter(|(partition, _)| owner(**partition, peers) == index)
            .map(|(partition, range)| (*partition, *range))
            .collect();
        Self { binding: Rc::new(binding), missing }
    }

    /// Hands over what has arrived; true once nothing is missing.
    fn advance(
        &mut self,
        reader: &Reader,
        mut give: impl FnMut(BoundRecords),
    ) -> Result<bool, ReadFailure> {
        let Self { binding, missing } = self;
        let mut outcome = Ok(());
        missing.retain(|(partition, range)| {
            reader.assign(*partition, range.from_offset, &binding.topic_ids);
            match reader.take(*partition, range.next_offset) {
                Ok((taken, complete)) => {
                    for records in taken {
                        let (binding, records) = (Rc::clone(binding), Rc::new(records));
                        give(BoundRecords { binding, topic: partition.topic, records });
                    }
                    !complete
                }
                Err(failure) => {
                    outcome = Err(failure);
                    true
                }
            }
        });
        outcome.map(|()| missing.is_empty())
    }
}
