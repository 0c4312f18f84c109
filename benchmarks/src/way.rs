//! One pipeline's dataflow from bytes to changes on one worker, driven epoch by epoch.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use citycell_operators::changes::Version;
use citycell_operators::decode::{DecodeOptions, Decoder};
use citycell_operators::locate::LocatedGrid;
use citycell_operators::pipeline::{self, Memory};
use citycell_operators::plan::Plan;
use citycell_operators::prepare::{Batch, Prepare};
use citycell_operators::records::Records;
use citycell_operators::tick::Tick;
use citycell_schemas::event::shipped;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::vec::input::Handle;
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{ProbeHandle, StreamVec};
use timely::worker::Worker;

use crate::city::{Arrival, PlacedBy};
use crate::clock::Stopwatch;

type Arrived = (Tick, Rc<Records>);

/// A running dataflow.
pub(crate) struct Way {
    records: Handle<u64, Arrived>,
    ticks: Handle<u64, Tick>,
    probe: ProbeHandle<u64>,
    rows: Rc<RefCell<Vec<Version>>>,
    /// How many rows were published.
    pub(crate) count: u64,
    /// Over all of them; it does not depend on the order of an epoch's rows.
    pub(crate) hash: u64,
}

impl Way {
    /// Builds the dataflow of `plan`, whose events are all in time and good.
    pub(crate) fn new(
        worker: &mut Worker,
        grid: &Arc<LocatedGrid>,
        plan: &Plan,
        placed_by: PlacedBy,
    ) -> Self {
        let rows = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&rows);
        let (records, ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (records_handle, records) = scope.new_input::<Arrived>();
            let (ticks_handle, ticks) = scope.new_input::<Tick>();
            let decoder = decoder(placed_by);
            let prepare = Prepare::new(plan, decoder.columns(), Arc::clone(grid));
            let prepare = prepare.expect("a good plan");
            let batches = decoded(records, decoder);
            let streams =
                pipeline::build(plan, prepare, grid.grid(), batches, ticks, Memory::default());
            let rows = streams.rows.inspect_core(move |event| {
                if let Ok((_, rows)) = event {
                    seen.borrow_mut().append(&mut rows.clone());
                }
            });
            let probe = rows.probe().0;
            streams.rejects.inspect(|reject| panic!("our own event is refused: {reject:?}"));
            streams.late.inspect(|late| panic!("our own event is late: {late:?}"));
            (records_handle, ticks_handle, probe)
        });
        Self { records, ticks, probe, rows, count: 0, hash: 0 }
    }

    /// The seconds of computing from the epoch's bytes to its changes.
    pub(crate) fn run(&mut self, worker: &mut Worker, arrival: &Arrival) -> f64 {
        let batches: Vec<_> = arrival.batches.iter().map(|all| Rc::new(all.clone())).collect();
        let epoch = arrival.tick.epoch.0;
        let watch = Stopwatch::start();
        self.records.advance_to(epoch);
        self.ticks.advance_to(epoch);
        self.ticks.send(arrival.tick);
        batches.into_iter().for_each(|batch| self.records.send((arrival.tick, batch)));
        self.records.advance_to(epoch + 1);
        self.ticks.advance_to(epoch + 1);
        worker.step_while(|| self.probe.less_than(&(epoch + 1)));
        let seconds = watch.seconds();
        for row in self.rows.borrow_mut().drain(..) {
            self.count += 1;
            self.hash = mix(self.hash, epoch, &row);
        }
        seconds
    }
}

fn decoded(
    records: StreamVec<'_, u64, Arrived>,
    mut decoder: Decoder,
) -> StreamVec<'_, u64, Batch> {
    records.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "decode", |_, _| {
        move |input, output| {
            input.for_each(|capability, arrived| {
                let batch = |(tick, records): Arrived| {
                    let decoded = Rc::new(decoder.decode(0, &records));
                    Batch { tick, records, decoded }
                };
                output.session(&capability).give_iterator(arrived.drain(..).map(batch));
            });
        }
    })
}

/// A decoder of all fields, as the typed side reads them.
pub(crate) fn decoder(placed_by: PlacedBy) -> Decoder {
    let schema = shipped().into_iter().find(|schema| schema.name == "crowd_flow").expect("shipped");
    Decoder::new(&schema, placed_by.fields(), DecodeOptions::default()).expect("its own fields")
}

fn mix(hash: u64, epoch: u64, row: &Version) -> u64 {
    let mut hasher = DefaultHasher::new();
    (epoch, &row.key, &row.state).hash(&mut hasher);
    hash.wrapping_add(hasher.finish())
}
