//! Starts all parts of an engine in the order in which they need each other.

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use rdkafka::error::KafkaError;
use timely::{CommunicationConfig, Config, WorkerConfig};
use tokio::runtime::Handle;

use crate::{
    alarm::Alarm,
    binder::{Binder, HandOut},
    clickhouse::{
        ClickHouse,
        archive::{self, ARCHIVE},
        backlog::Backlog,
        marks,
        serving::Marked,
        tables::PipelineTable,
        writer::{self, TaskParts},
    },
    dataflow::{self, source::Waker},
    http::Readiness,
    kafka::{partitions::PartitionFinder, reader::Reader, witness},
    metrics::Metrics,
    pipeline::Pipeline,
    snapshot::StartingPoint,
};

use super::{
    Cluster, EngineConfig, EngineError, RunningEngine,
    beginning::{self, Beginning},
    binding::{bound_pipelines, start_binding},
    marking::marking,
    snapshots::{Snapshots, kept_pipelines, start_snapshots},
};

/// Starts an engine on the current tokio runtime.
///
/// # Errors
/// When Kafka or ClickHouse cannot be used, or a pipeline cannot be built.
pub async fn start(config: EngineConfig) -> Result<RunningEngine, EngineError> {
    let topics = config.topics();
    reach_kafka(&config)?;
    let clickhouse = ClickHouse::new(&config.clickhouse);
    let beginning = beginning::take_over(&config, &clickhouse).await?;
    let Beginning { tables, marked, log, storage, mut start } = beginning;
    let started_at = start.epochs();
    let (notices, heard) = crossbeam_channel::unbounded();
    let (handed_out, bindings) = crossbeam_channel::unbounded();
    let bindings_waker = Waker::default();
    let (record_wakers, readers) = start_readers(&config, &topics)?;
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    let alarm = Alarm::new(notices.clone());

    let writing = TaskParts {
        runtime: Handle::current(),
        clickhouse,
        metrics: metrics.clone(),
        alarm: alarm.clone(),
    };

    let known: Vec<_> = config
        .pipelines
        .iter()
        .map(|pipeline| start.pipelines.get(&pipeline.plan.name))
        .map(|restored| restored.map(|restored| restored.state.clone()))
        .collect();
    let kept = kept_pipelines(&config, &tables, &known, &marked);
    let Snapshots { work: snapshots, pace, keeper } =
        start_snapshots(&config, (storage, start.manifest), kept, &writing, &notices);
    let backlog = Backlog::new(config.writing.backlog.clone(), metrics.clone());
    let marking = marking(&config, &writing, (&tables, &marked), &notices, keeper).await?;
    let stale = marking.moments.stale_indices().collect();

    let archive = start_archive(&config, &marked, (&writing, &backlog)).await?;
    let work = dataflow::Work {
        topics: Arc::clone(&topics),
        grid: Arc::clone(&config.grid),
        marks: marks::start(marking),
        pipelines: start_writers(&config, tables, (&marked, &mut start), (&writing, &backlog)),
        archive,
        snapshots,
        started_at: started_at.clone(),
        readers: readers.clone(),
        record_wakers,
        bindings: Mutex::new(config.is_first().then_some(bindings)),
        is_cluster: config.cluster.is_some(),
        bindings_waker: bindings_waker.clone(),
        notices: notices.clone(),
        alarm: alarm.clone(),
        metrics: metrics.clone(),
    };
    let hand_out = HandOut { bindings: Some(handed_out), waker: bindings_waker };
    let binder = |log| Binder {
        log,
        pipelines: bound_pipelines(&config, &topics),
        topics,
        grid: config.grid.grid().version().to_owned(),
        limits: config.limits,
        workers: config.workers.get()
            * config.cluster.as_ref().map_or(1, |all| all.addresses.len()),
        readers,
        notices: heard,
        hand_out,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        snapshots: pace,
        backlog,
        stale,
        known: (0..).zip(known).filter_map(|(index, state)| Some((index, state?))).collect(),
    };
    let binding = match log {
        Some(log) => Some(start_binding(&config, binder(log), &notices, &alarm)?),
        None => None,
    };
    Ok(RunningEngine {
        workers: spawn("workers", move || run_workers(&config, work))?,
        binding,
        notices,
        alarm,
        metrics,
        readiness,
        started_at,
    })
}

fn start_readers(
    config: &EngineConfig,
    topics: &Arc<[Arc<str>]>,
) -> Result<(Vec<Waker>, Vec<Arc<Reader>>), EngineError> {
    let wakers: Vec<Waker> = (0..config.workers.get()).map(|_| Waker::default()).collect();
    let start = |waker: &Waker| {
        let waker = waker.clone();
        let wake = move || waker.wake();
        let reader =
            Reader::start(&config.kafka, Arc::clone(topics), config.buffer_bytes_max, wake);
        reader.map(Arc::new).map_err(|source| kafka_error(config, source))
    };
    let readers: Vec<_> = wakers.iter().map(start).collect::<Result<_, _>>()?;
    witness::start(&config.kafka, &readers).map_err(|source| kafka_error(config, source))?;
    Ok((wakers, readers))
}

fn start_writers(
    config: &EngineConfig,
    tables: Vec<Arc<PipelineTable>>,
    (marked, start): (&Marked, &mut StartingPoint),
    (parts, backlog): (&TaskParts, &Backlog),
) -> Vec<dataflow::PipelineWork> {
    let start = |(pipeline, table): (&Arc<Pipeline>, Arc<PipelineTable>)| {
        let name = table.pipeline.clone();
        let restored = start.pipelines.remove(&name).map_or_else(Vec::new, |all| all.workers);
        dataflow::PipelineWork {
            pipeline: Arc::clone(pipeline),
            marked: marked.get(&(name.clone(), table.version.clone())).copied(),
            queue: writer::start(parts.clone(), name, backlog.clone()),
            table,
            live: Arc::default(),
            restored: Mutex::new(restored.into_iter().map(Some).collect()),
        }
    };
    config.pipelines.iter().zip(tables).map(start).collect()
}

/// Prepares the archive if records are kept.
async fn start_archive(
    config: &EngineConfig,
    marked: &Marked,
    (parts, backlog): (&TaskParts, &Backlog),
) -> Result<Option<dataflow::ArchiveWork>, EngineError> {
    let Some(keep) = config.archive else { return Ok(None) };
    archive::prepare(&parts.clickhouse, keep).await?;
    let deployment = config.deployment.clone();
    Ok(Some(dataflow::ArchiveWork {
        queue: writer::start(parts.clone(), ARCHIVE.to_owned(), backlog.clone()),
        marked: marked.get(&(ARCHIVE.to_owned(), deployment.clone())).copied(),
        deployment,
    }))
}

/// Fails here, with the address, where every later call would only wait.
fn reach_kafka(config: &EngineConfig) -> Result<(), EngineError> {
    let finder =
        PartitionFinder::new(&config.kafka).map_err(|source| kafka_error(config, source))?;
    let brokers = || config.kafka.brokers.clone();
    finder
        .reach()
        .map_err(|source| EngineError::Unreachable { brokers: brokers(), source: Box::new(source) })
}

fn run_workers(config: &EngineConfig, work: dataflow::Work) -> Result<(), String> {
    let threads = config.workers.get();
    let communication = match config.cluster.clone() {
        None => CommunicationConfig::Process(threads),
        Some(Cluster { process, addresses }) => CommunicationConfig::Cluster {
            threads,
            process,
            addresses,
            report: false,
            zerocopy: false,
        },
    };
    let mut timely = Config { communication, worker: WorkerConfig::default() };
    let work = Arc::new(work);
    // Without merging while idle, what expired would keep its memory.
    let idle_merging = differential_dataflow::Config::default().idle_merge_effort(Some(1000));
    differential_dataflow::configure(&mut timely.worker, &idle_merging);
    let guards = timely::execute(timely, move |worker| dataflow::run(worker, &work))?;
    guards.join().into_iter().try_for_each(|outcome| outcome?)
}

pub(super) fn spawn<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, EngineError> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(body).map_err(|source| EngineError::Thread(name, source))
}

pub(super) fn kafka_error(config: &EngineConfig, source: KafkaError) -> EngineError {
    EngineError::Kafka { brokers: config.kafka.brokers.clone(), source }
}
