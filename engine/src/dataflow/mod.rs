//! The worker loop: the operators of all pipelines between Kafka and ClickHouse.
//!
//! ```text
//! bindings -> records -> archive, if records are kept; pipelines' marks wait for it
//!                +-> decode (once per topic and schema)
//!                          +-> pipeline (operators::pipeline) -> sink -> marks
//!                          |     +-> what it keeps -> snapshots
//!                          +-> pipeline ...
//! ```

mod archive;
mod at_worker_0;
mod decoding;
mod sink;
mod snapshots;
pub mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use citycell_operators::{
    events::Outcome,
    live::Live,
    locate::LocatedGrid,
    pipeline::{self, Memory, Streams},
    prepare::{Batch, Prepare},
    restored::Restored,
    saved::{Recording, Saved},
};
use citycell_schemas::{Epoch, EventTime};
use crossbeam_channel::{Receiver, Sender};
use timely::{
    dataflow::{
        Scope, StreamVec,
        operators::{
            Concat,
            vec::{Filter, Map},
        },
    },
    worker::Worker,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    alarm::Alarm,
    binder::Notice,
    binding::Binding,
    books::Books,
    clickhouse::{
        marks::{Mark, MarkedRange},
        rows::RowEncoder,
        tables::PipelineTable,
        writer::WriteQueue,
    },
    engine::EngineError,
    kafka::{
        TopicPartition,
        reader::{Fetched, Reader},
    },
    metrics::Metrics,
    personal::Sealing,
    pipeline::Pipeline,
    snapshot::{KeeperNotice, Run, SnapshotQueue},
};

pub use archive::ArchiveWork;
use decoding::DecodedStream;
pub use sink::Output;
use sink::SinkParts;
use source::{SourceParts, Waker};

/// Everything that the workers share of one dataflow: that of the versions that serve, or that of the
/// versions that are built beside them.
pub struct Work {
    /// The topics' names, sorted.
    pub topics: Arc<[Arc<str>]>,
    /// The places.
    pub grid: Arc<LocatedGrid>,
    /// The pipelines.
    pub pipelines: Vec<PipelineWork>,
    /// One reader per worker.
    pub readers: Vec<Arc<Reader>>,
    /// Wakes each worker's source.
    pub record_wakers: Vec<Waker>,
    /// The bindings, for worker 0 to take.
    pub bindings: Mutex<Option<Receiver<Binding>>>,
    /// Whether other processes share the work.
    pub is_cluster: bool,
    /// Wakes the source of bindings.
    pub bindings_waker: Waker,
    /// To whoever hands bindings out.
    pub notices: Sender<Notice>,
    /// To the task that writes marks.
    pub marks: UnboundedSender<Mark>,
    /// Ends the engine when a worker cannot go on.
    pub alarm: Alarm,
    /// What we show of ourselves.
    pub metrics: Metrics,
    /// Where records are kept, if they are.
    pub archive: Option<ArchiveWork>,
    /// Seals what is personal in records that are kept; none if no topic has that.
    pub sealing: Option<Arc<Sealing>>,
    /// Where snapshots go, if any are taken.
    pub snapshots: Option<SnapshotWork>,
    /// The epoch of each version's state that this process starts with.
    pub started_at: Arc<BTreeMap<String, Epoch>>,
}

/// Where snapshots go.
#[derive(Clone)]
pub struct SnapshotWork {
    /// To the task that writes runs.
    pub queue: SnapshotQueue,
    /// To the task that makes manifests; in process 0 only.
    pub keeper: Option<UnboundedSender<KeeperNotice>>,
}

/// One pipeline of the workers.
pub struct PipelineWork {
    /// Its index among all versions that run.
    pub number: usize,
    /// What metrics call it.
    pub label: String,
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Its table.
    pub table: Arc<PipelineTable>,
    /// The way to its writing task.
    pub queue: WriteQueue,
    /// The last epoch that is marked already.
    pub marked: Option<Epoch>,
    /// What this process keeps in memory of it.
    pub live: Arc<Live>,
    /// The state that each worker of this process starts with; taken when it does.
    pub restored: Mutex<Vec<Option<Restored>>>,
}

/// Builds one worker's dataflows and works until the bindings end.
///
/// # Errors
/// When a pipeline cannot be built.
pub fn run(worker: &mut Worker, works: &[Arc<Work>], alarm: &Alarm) -> Result<(), String> {
    for work in works {
        let local = worker.index() % work.readers.len();
        worker.dataflow::<u64, _, _>(|scope| build(scope, local, work))?;
    }
    while worker.has_dataflows() && !alarm.is_stopped() {
        worker.step_or_park(Some(Duration::from_millis(100)));
    }
    // An engine that ends at once does not wait for rows that may never be acknowledged.
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
    Ok(())
}

fn build(scope: Scope<'_, u64>, local: usize, work: &Arc<Work>) -> Result<(), String> {
    let received = if scope.index() == 0 {
        work.bindings.lock().unwrap_or_else(PoisonError::into_inner).take()
    } else {
        None
    };
    let bindings = source::bindings(scope, received, &work.bindings_waker);
    let parts = SourceParts {
        reader: Arc::clone(&work.readers[local]),
        waker: work.record_wakers[local].clone(),
        failed: {
            let alarm = work.alarm.clone();
            Box::new(move |failure| alarm.ring(EngineError::from(failure)))
        },
    };
    let records = source::records(bindings.clone(), parts);
    let archived = archive::archive(bindings.clone(), records.clone(), work);
    let decoded = decoding::decode(&records, work).map_err(|error| error.to_string())?;
    let mut reports = read_ahead(&bindings, local, work);
    for pipeline in &work.pipelines {
        let mine = decoded[&decoding::sharing(&pipeline.pipeline)].clone();
        let here = Here { pipeline, local, archived: archived.as_ref() };
        let stream = build_pipeline(bindings.clone(), mine, here, work)?;
        reports = reports.concat(stream.map(Report::Reached));
    }
    let notices = work.notices.clone();
    at_worker_0::per_epoch("decoded", bindings, reports, move |binding, reports| {
        let (mut reached, mut fetched) = (Vec::new(), Vec::new());
        for report in reports {
            match report {
                Report::Reached(entry) => reached.push(entry),
                Report::Fetched(entry) => fetched.push(entry),
            }
        }
        let _ = notices.send(Notice::Decoded { epoch: binding.epoch, reached, fetched });
    });
    Ok(())
}

/// What each worker tells the binder of an epoch.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
enum Report {
    /// The newest event time of a partition as one pipeline sees it.
    Reached(Reached),
    /// How far a partition is read ahead.
    Fetched((TopicPartition, Fetched)),
}

/// How far this worker has read ahead, with every epoch: a binder in another process knows of it
/// by this only. Ends the engine if that process started with another state than this one.
fn read_ahead<'scope>(
    bindings: &StreamVec<'scope, u64, Binding>,
    local: usize,
    work: &Arc<Work>,
) -> StreamVec<'scope, u64, Report> {
    let (reader, work) = (Arc::clone(&work.readers[local]), Arc::clone(work));
    bindings.clone().flat_map(move |binding| {
        if binding.started_at != work.started_at {
            work.alarm.ring(EngineError::OtherStart);
        }
        let fetched = if work.is_cluster { reader.fetched() } else { Vec::new() };
        fetched.into_iter().map(Report::Fetched)
    })
}

/// A pipeline on this worker.
#[derive(Clone, Copy)]
struct Here<'a, 'scope> {
    pipeline: &'a PipelineWork,
    /// The worker's number in its process.
    local: usize,
    /// Passes an epoch once it is archived.
    archived: Option<&'a StreamVec<'scope, u64, Entry>>,
}

/// The newest event time of a partition as one pipeline sees it.
type Reached = (usize, TopicPartition, EventTime);

fn build_pipeline<'scope>(
    bindings: StreamVec<'scope, u64, Binding>,
    decoded: DecodedStream<'scope>,
    here: Here<'_, 'scope>,
    shared: &Arc<Work>,
) -> Result<StreamVec<'scope, u64, Reached>, String> {
    let work = here.pipeline;
    let (plan, number) = (&work.pipeline.plan, work.number);
    let memory = here.memory(shared);
    // What its state holds already is not for it.
    let since = memory.restored.as_ref().map(|restored| restored.tick.epoch);
    let is_new =
        move |binding: &Binding| Some(binding.epoch) > since && !binding.retired.contains(&number);
    let name = plan.name.clone();
    let new_bindings = bindings.clone().filter(is_new);
    let ticks = new_bindings.map(move |binding| binding.tick(&name));
    let name = plan.name.clone();
    let topics: BTreeSet<u16> = work.pipeline.topic_numbers(&shared.topics).collect();
    let batches = decoded
        .stream
        .filter(move |decoded| {
            topics.contains(&decoded.decoded.events.topic) && is_new(&decoded.binding)
        })
        .map(move |decoded| Batch {
            tick: decoded.binding.tick(&name),
            records: decoded.records,
            decoded: decoded.decoded,
        });
    let grid = Arc::clone(&shared.grid);
    let prepare =
        Prepare::new(plan, &decoded.columns, grid.clone()).map_err(|error| error.to_string())?;
    let encoder = RowEncoder::new(Arc::clone(&work.table), plan, Arc::clone(shared.grid.grid()))
        .map_err(|error| error.to_string())?
        .sealing(shared.sealing.clone());
    let Streams { rows, rejects, late, books, reached, saved } =
        pipeline::build(plan, prepare, shared.grid.grid(), batches, ticks, memory);
    let outputs =
        rows.map(Output::Row).concat(rejects.map(Output::Reject)).concat(late.map(Output::Late));
    let parts = SinkParts {
        encoder,
        queue: work.queue.clone(),
        marked: work.marked,
        alarm: shared.alarm.clone(),
    };
    let written = sink::sink(outputs, parts, &format!("{}: rows", plan.name));
    let mut entries = books.map(Entry::Record).concat(written.map(Entry::Rows));
    if let Some(archived) = here.archived {
        entries = entries.concat(archived.clone());
    }
    keep(bindings.clone(), saved, here, shared);
    mark(bindings, entries, work, shared);
    Ok(reached
        .map(move |(topic, partition, time)| (number, TopicPartition { topic, partition }, time)))
}

impl Here<'_, '_> {
    /// What the pipeline keeps on this worker.
    fn memory(&self, shared: &Work) -> Memory {
        let mut restored = self.pipeline.restored.lock().unwrap_or_else(PoisonError::into_inner);
        Memory {
            restored: restored.get_mut(self.local).and_then(Option::take),
            recording: if shared.snapshots.is_some() { Recording::On } else { Recording::Off },
            live: Arc::clone(&self.pipeline.live),
        }
    }
}

/// Writes down what a pipeline keeps, and tells the keeper once all workers' runs are durable.
fn keep<'scope>(
    bindings: StreamVec<'scope, u64, Binding>,
    saved: StreamVec<'scope, u64, Saved>,
    here: Here<'_, '_>,
    shared: &Arc<Work>,
) {
    let Some(SnapshotWork { queue, keeper }) = &shared.snapshots else { return };
    let table = &here.pipeline.table;
    let runs = snapshots::runs(saved, queue.clone(), table);
    let (keeper, pipeline) = (keeper.clone(), here.pipeline.number);
    let name = format!("{}: snapshots", table.pipeline);
    at_worker_0::per_epoch(&name, bindings, runs, move |binding, runs: Vec<Run>| {
        if let Some(keeper) = keeper.as_ref().filter(|_| binding.snapshot) {
            // A keeper that is gone was fenced out.
            let _ = keeper.send(KeeperNotice::Written { pipeline, epoch: binding.epoch, runs });
        }
    });
}

/// A line of a pipeline's books.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
enum Entry {
    /// Records with this outcome.
    Record((Outcome, u64)),
    /// Rows written.
    Rows(u64),
}

/// Marks each epoch of a pipeline once all workers' rows of it are acknowledged.
fn mark<'scope>(
    bindings: StreamVec<'scope, u64, Binding>,
    entries: StreamVec<'scope, u64, Entry>,
    work: &PipelineWork,
    shared: &Arc<Work>,
) {
    let (pipeline, version) = (work.table.pipeline.clone(), work.table.version.clone());
    let (number, label) = (work.number, work.label.clone());
    let (marked, marks) = (work.marked, shared.marks.clone());
    let (notices, metrics) = (shared.notices.clone(), shared.metrics.clone());
    let numbers = work.pipeline.topic_numbers(&shared.topics);
    let topics: BTreeMap<u16, Arc<str>> =
        numbers.map(|number| (number, Arc::clone(&shared.topics[usize::from(number)]))).collect();
    let (plan, live) = (work.pipeline.plan.clone(), Arc::clone(&work.live));
    at_worker_0::per_epoch(
        &format!("{pipeline}: marks"),
        bindings,
        entries,
        move |binding, entries| {
            let retired = binding.retired.contains(&number);
            if retired || marked.is_some_and(|marked| binding.epoch <= marked) {
                let _ = notices.send(Notice::Marked(binding.epoch, number));
                return;
            }
            let (mut books, mut rows) = (Books::default(), 0);
            for entry in entries {
                match entry {
                    Entry::Record((outcome, count)) => books.enter(outcome, count),
                    Entry::Rows(count) => rows += count,
                }
            }
            metrics.live(&label, &live);
            let tick = binding.tick(&pipeline);
            let mark = Mark {
                pipeline: pipeline.clone(),
                version: version.clone(),
                tick,
                keyframe: pipeline::is_keyframe(&plan, &tick),
                rows,
                books,
                ranges: ranges(&binding, &topics),
            };
            // The task is gone only when the runtime is, and then the epoch stays unmarked.
            let _ = marks.send(mark);
        },
    );
}

/// The records of these topics that a binding names, and what it skips.
fn ranges(binding: &Binding, topics: &BTreeMap<u16, Arc<str>>) -> Vec<MarkedRange> {
    let partitions = binding.partitions.iter();
    partitions
        .filter(|(_, range)| range.next_offset > range.from_offset || range.skipped_from.is_some())
        .filter_map(|(partition, range)| {
            let topic = Arc::clone(topics.get(&partition.topic)?);
            Some(MarkedRange { topic, partition: partition.partition, range: *range })
        })
        .collect()
}
