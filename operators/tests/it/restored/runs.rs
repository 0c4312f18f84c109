//! Runs a city's pipeline, from its beginning or from what a run before wrote down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};

use citycell_operators::changes::Version;
use citycell_operators::decode::{DecodeOptions, Decoder, IdSource};
use citycell_operators::events::{Outcome, Reject};
use citycell_operators::lateness::Horizon;
use citycell_operators::live::Live;
use citycell_operators::locate::LocatedGrid;
use citycell_operators::pipeline::{self, Memory, Streams};
use citycell_operators::plan::Crs;
use citycell_operators::prepare::{Batch, Late, Prepare};
use citycell_operators::restored::{Reading, Restored, route};
use citycell_operators::saved::{Part, Recording, Saved};
use citycell_operators::tick::Tick;
use citycell_schemas::event::shipped;
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle};
use timely::worker::Worker;

use super::city::{City, FIELDS};
use crate::city::grid;
use crate::keyed_operators::each;

/// How a city is run.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) workers: usize,
    /// How many epochs are sent before the oldest of them must be complete.
    pub(super) in_flight: usize,
    /// The epochs at whose end a snapshot is taken.
    pub(super) snapshots: BTreeSet<u64>,
}

/// What a run made.
#[derive(Default)]
pub(super) struct Ran {
    /// What left the pipeline in each epoch in which anything did.
    pub(super) made: BTreeMap<u64, Made>,
    /// What its snapshots wrote.
    pub(super) written: Written,
    /// What it keeps in the end.
    pub(super) live: Arc<Live>,
}

/// What left a pipeline in one epoch, sorted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Made {
    pub(super) rows: Vec<Version>,
    pub(super) books: BTreeMap<Outcome, u64>,
    pub(super) late: Vec<Late>,
    rejects: Vec<Reject>,
}

/// By epoch, each entry's content.
pub(super) type Written = BTreeMap<u64, Entries<Option<Box<[u8]>>>>;

/// By part and key.
pub(super) type Entries<Content> = BTreeMap<(Part, Box<[u8]>), Content>;

/// The state to start with: of each key the newest entry, unless it is over.
pub(super) fn state(city: &City, written: &Written, as_of: Tick) -> Entries<Box<[u8]>> {
    let reading = Reading { horizon: Horizon::of(&city.plan), watermark: as_of.watermark };
    let mut newest = Entries::new();
    for (_, entries) in written.range(..=as_of.epoch.0) {
        newest.extend(entries.clone());
    }
    let mut state = Entries::new();
    for ((part, key), content) in newest {
        let Some(content) = content else { continue };
        if !reading.is_over(part, &key, &content).expect("an entry that was written") {
            state.insert((part, key), content);
        }
    }
    state
}

/// Runs the whole city.
pub(super) fn run(city: &Arc<City>, manner: &Manner) -> Ran {
    on_workers(city, manner, (0..manner.workers).map(|_| None).collect())
}

/// Runs what comes after the epoch of `as_of`, starting with `state`.
pub(super) fn restart(
    city: &Arc<City>,
    manner: &Manner,
    (as_of, state): (Tick, &Entries<Box<[u8]>>),
) -> Ran {
    let mut restored: Vec<_> = (0..manner.workers).map(|_| Restored::new(as_of)).collect();
    for ((part, key), content) in state {
        let route = route(*part, key).expect("an entry that was written");
        let worker = &mut restored[(route % manner.workers as u64) as usize];
        worker.add(*part, key, content).expect("an entry that was written");
    }
    on_workers(city, manner, restored.into_iter().map(Some).collect())
}

fn on_workers(city: &Arc<City>, manner: &Manner, restored: Vec<Option<Restored>>) -> Ran {
    let ran = Arc::new(Mutex::new(Ran::default()));
    let (city, manner, restored) = (Arc::clone(city), manner.clone(), Mutex::new(restored));
    let shared = Arc::clone(&ran);
    let guards = timely::execute(timely::Config::process(manner.workers), move |worker| {
        let restored = restored.lock().expect("no worker panicked")[worker.index()].take();
        on_worker(worker, (&city, &manner), restored, &shared);
    });
    for worker in guards.expect("the workers start").join() {
        worker.expect("no worker panics");
    }
    let mut ran = std::mem::take(&mut *lock(&ran));
    for made in ran.made.values_mut() {
        made.rows.sort();
        made.late.sort();
        made.rejects.sort();
    }
    ran
}

/// Sends one worker's batches and all ticks of the epochs that the state does not have yet.
fn on_worker(
    worker: &mut Worker,
    (city, manner): (&City, &Manner),
    restored: Option<Restored>,
    ran: &Arc<Mutex<Ran>>,
) {
    let done = restored.as_ref().map(|restored| restored.tick.epoch);
    let (index, peers) = (worker.index(), worker.peers());
    let mut source = Source::build(worker, city, restored, ran);
    let mut in_flight = VecDeque::new();
    for (tick, records) in city.epochs.iter().filter(|(tick, _)| Some(tick.epoch) > done) {
        let epoch = tick.epoch.0;
        let tick = Tick { snapshot: manner.snapshots.contains(&epoch), ..*tick };
        let mine = |partition: i32| partition as usize % peers == index;
        source.batches.advance_to(epoch);
        source.ticks.advance_to(epoch);
        source.ticks.send(tick);
        for records in records.iter().filter(|records| mine(records.partition)) {
            let decoded = Rc::new(source.decoder.decode(0, records));
            source.batches.send(Batch { tick, records: Rc::new(records.clone()), decoded });
        }
        in_flight.push_back(epoch);
        if in_flight.len() > manner.in_flight
            && let Some(epoch) = in_flight.pop_front()
        {
            source.batches.flush();
            source.ticks.flush();
            worker.step_or_park_while(None, || source.probe.less_than(&epoch));
        }
    }
}

/// One worker's inputs.
struct Source {
    decoder: Decoder,
    batches: InputHandleVec<u64, Batch>,
    ticks: InputHandleVec<u64, Tick>,
    probe: ProbeHandle<u64>,
}

impl Source {
    fn build(
        worker: &mut Worker,
        city: &City,
        restored: Option<Restored>,
        ran: &Arc<Mutex<Ran>>,
    ) -> Self {
        let plan = &city.plan;
        let schema = shipped().into_iter().find(|schema| schema.name == plan.schema);
        let ids = if plan.identified { IdSource::CloudEvents } else { IdSource::None };
        let options = DecodeOptions { ids, ..DecodeOptions::default() };
        let decoder = Decoder::new(&schema.expect("shipped"), &FIELDS, options);
        let decoder = decoder.expect("its own fields");
        let located = Arc::new(LocatedGrid::new(Arc::new(grid()), Crs::Wgs84, Vec::new()));
        let prepare = Prepare::new(plan, decoder.columns(), located).expect("a good plan");
        let live = Arc::clone(&lock(ran).live);
        let memory = Memory { restored, recording: Recording::On, live };
        worker.dataflow(|scope| {
            let (batches, batches_stream) = scope.new_input();
            let (ticks, ticks_stream) = scope.new_input();
            let streams =
                pipeline::build(plan, prepare, &grid(), batches_stream, ticks_stream, memory);
            Self { decoder, batches, ticks, probe: collect(streams, ran) }
        })
    }
}

/// Notes everything that leaves the pipeline.
fn collect(streams: Streams<'_>, ran: &Arc<Mutex<Ran>>) -> ProbeHandle<u64> {
    let Streams { rows, rejects, late, books, saved, .. } = streams;
    let to = Arc::clone(ran);
    let rows = rows.inspect_core(each(move |epoch, row: &Version| {
        lock(&to).made.entry(epoch).or_default().rows.push(row.clone());
    }));
    let to = Arc::clone(ran);
    rejects.inspect_core(each(move |epoch, reject: &Reject| {
        lock(&to).made.entry(epoch).or_default().rejects.push(reject.clone());
    }));
    let to = Arc::clone(ran);
    late.inspect_core(each(move |epoch, late: &Late| {
        lock(&to).made.entry(epoch).or_default().late.push(late.clone());
    }));
    let to = Arc::clone(ran);
    books.inspect_core(each(move |epoch, (outcome, count): &(Outcome, u64)| {
        *lock(&to).made.entry(epoch).or_default().books.entry(*outcome).or_default() += count;
    }));
    let to = Arc::clone(ran);
    let saved = saved.inspect_core(each(move |epoch, saved: &Saved| {
        write(lock(&to).written.entry(epoch).or_default(), saved);
    }));
    let (probe, _) = rows.probe();
    saved.probe_with(&probe);
    probe
}

fn write(entries: &mut Entries<Option<Box<[u8]>>>, saved: &Saved) {
    for entry in saved.sorted() {
        let key = (entry.part, Box::from(entry.key));
        let before = entries.insert(key, entry.value.map(Box::from));
        assert!(before.is_none(), "two entries of one key in an epoch: {entry:?}");
    }
}

fn lock(ran: &Arc<Mutex<Ran>>) -> MutexGuard<'_, Ran> {
    ran.lock().expect("no worker panicked")
}
