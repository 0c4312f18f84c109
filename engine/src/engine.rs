//! One engine: readers, binder, workers and writers, started together and stopped together.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use citycell_operators::{lateness::Horizon, locate::LocatedGrid};
use citycell_schemas::Epoch;
use crossbeam_channel::Sender;
use rdkafka::error::KafkaError;
use timely::{CommunicationConfig, Config, WorkerConfig};
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};

use crate::{
    alarm::Alarm,
    binder::{Binder, BinderLimits, BoundPipeline, HandOut, Notice, SnapshotPace},
    clickhouse::{
        ClickHouse, ClickHouseError, ClickHouseSettings,
        archive::{self, ARCHIVE},
        backlog::{Backlog, BacklogLimits},
        cells,
        marks::{self, Mark, MarkingParts},
        moments::Moments,
        serving::{self, Candidate, Marked},
        tables::{self, PipelineTable},
        writer::{self, TaskParts},
    },
    dataflow::{self, source::Waker},
    http::Readiness,
    kafka::{
        KafkaSettings, Unreachable,
        binding_log::{BindingLog, BindingLogError},
        partitions::PartitionFinder,
        reader::Reader,
    },
    metrics::Metrics,
    pipeline::Pipeline,
    snapshot::{
        self, KeeperNotice, KeeperParts, KeptPipeline, RestoreError, SnapshotError,
        SnapshotSettings, StartingPoint, Storage, Wanted, WantedPipeline,
    },
};

/// Everything an engine needs to know.
#[derive(Clone)]
pub struct EngineConfig {
    /// Names the deployment: engines of one name take over from each other.
    pub deployment: String,
    /// Where events come from.
    pub kafka: KafkaSettings,
    /// Where rows go.
    pub clickhouse: ClickHouseSettings,
    /// What is computed.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// The places.
    pub grid: Arc<LocatedGrid>,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// The processes that share the work; none for one process alone.
    pub cluster: Option<Cluster>,
    /// Tick, idleness and how far writing may fall behind.
    pub limits: BinderLimits,
    /// Payload bytes that each worker may read ahead.
    pub buffer_bytes_max: usize,
    /// How rows wait for ClickHouse.
    pub writing: WritingLimits,
    /// Where snapshots go, and how often. Without, a restart reads everything from Kafka again.
    pub snapshots: Option<SnapshotSettings>,
    /// How long records are kept in the archive; without, they are not.
    pub archive: Option<Duration>,
}

/// How rows wait for ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritingLimits {
    /// How much may wait.
    pub backlog: BacklogLimits,
    /// A pipeline that marks nothing for this long while others do no longer holds them back.
    pub stale_after: Duration,
}

impl Default for WritingLimits {
    /// 64 MiB in memory and 4 GiB in all; stale after 10 s.
    fn default() -> Self {
        let folder = std::env::temp_dir();
        let backlog = BacklogLimits { memory_bytes_max: 64 << 20, bytes_max: 4 << 30, folder };
        Self { backlog, stale_after: Duration::from_secs(10) }
    }
}

/// One process among several. All are started with the same pipelines, grid and worker count;
/// process 0 binds epochs and writes marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This process's number.
    pub process: usize,
    /// The address of each process, host:port, by number.
    pub addresses: Vec<String>,
}

/// Why an engine did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Kafka's settings are wrong.
    #[error("cannot use Kafka at {brokers}")]
    Kafka {
        /// The brokers as configured.
        brokers: String,
        /// Why not.
        #[source]
        source: KafkaError,
    },
    /// No broker answers, or none lets us in.
    #[error("cannot use Kafka at {brokers}")]
    Unreachable {
        /// The brokers as configured.
        brokers: String,
        /// What a broker's connection says.
        #[source]
        source: Unreachable,
    },
    /// Bindings cannot be kept.
    #[error(transparent)]
    Bindings(#[from] BindingLogError),
    /// ClickHouse cannot be reached or refuses.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    /// Snapshots' place cannot be used.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// No state can be read.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Process 0 started with another state than this process.
    #[error("process 0 started from another snapshot than this process: start all of them again")]
    OtherStart,
    /// Records that a binding names are no longer in Kafka.
    #[error("records that belong to a bound epoch cannot be read: {0}")]
    Unreadable(#[from] crate::kafka::reader::ReadFailure),
    /// A thread could not be started.
    #[error("cannot start the {0} thread")]
    Thread(&'static str, #[source] std::io::Error),
    /// The dataflow could not be built; none for pipelines that were checked.
    #[error("a worker cannot build its dataflow: {0}")]
    Worker(String),
    /// A defect of ours; the panic's message is in the log.
    #[error("a part of the engine panicked")]
    Panicked,
}

/// An engine at work.
pub struct RunningEngine {
    notices: Sender<Notice>,
    /// In process 0 only.
    binding: Option<BindingThreads>,
    workers: JoinHandle<Result<(), String>>,
    alarm: Alarm,
    /// What it shows of itself.
    pub metrics: Metrics,
    /// Whether it keeps up.
    pub readiness: Readiness,
    /// The epoch of each pipeline's state that it started with; none of one that started anew.
    pub started_at: BTreeMap<String, Epoch>,
}

struct BindingThreads {
    binder: JoinHandle<Result<(), BindingLogError>>,
    finder: JoinHandle<()>,
}

impl EngineConfig {
    /// Whether this process binds epochs and writes marks.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.process == 0)
    }

    /// The names of all topics, sorted: a topic's number is its index.
    #[must_use]
    pub fn topics(&self) -> Arc<[Arc<str>]> {
        let names: BTreeSet<&String> =
            self.pipelines.iter().flat_map(|pipeline| &pipeline.plan.topics).collect();
        names.into_iter().map(|name| Arc::from(name.as_str())).collect()
    }
}

/// Starts an engine on the current tokio runtime.
///
/// # Errors
/// When Kafka or ClickHouse cannot be used, or a pipeline cannot be built.
pub async fn start(config: EngineConfig) -> Result<RunningEngine, EngineError> {
    let topics = config.topics();
    reach_kafka(&config)?;
    let clickhouse = ClickHouse::new(&config.clickhouse);
    let (tables, mut marked) = prepare_tables(&config, &clickhouse).await?;
    let storage = config.snapshots.as_ref();
    let storage = storage.map(|settings| Storage::open(&settings.location, &config.deployment));
    let storage = storage.transpose()?;
    let log = match config.is_first() {
        // The deployment is ours from here on: who held it before binds no more.
        true => {
            let names = topics.iter().map(ToString::to_string).collect();
            Some(BindingLog::take_over(&config.kafka, &config.deployment, names).await?)
        }
        false => None,
    };
    let mut start = starting_point(&config, storage.as_ref(), &tables, &clickhouse).await?;
    start.raise(&mut marked);
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
    let snapshots = storage.map(|storage| {
        let keeper = config.is_first().then(|| {
            let kept = kept_pipelines(&config, &tables, &known, &marked);
            start_keeper(kept, (storage.clone(), start.manifest), &writing, &notices)
        });
        let queue =
            snapshot::start_writer(&writing.runtime, storage, metrics.clone(), alarm.clone());
        dataflow::SnapshotWork { queue, keeper }
    });
    let keeper = snapshots.as_ref().and_then(|snapshots| snapshots.keeper.clone());
    let pace = keeper.clone().zip(config.snapshots.as_ref());
    let pace = pace.map(|(keeper, settings)| SnapshotPace { every: settings.every, keeper });

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

impl RunningEngine {
    /// Ends once everything in the topics is bound, marked and published.
    pub fn drain(&self) {
        let _ = self.notices.send(Notice::Drain);
    }

    /// Ends as soon as what is bound is marked.
    pub fn stop(&self) {
        let _ = self.notices.send(Notice::Stop);
    }

    /// Ends at once, as a crash would: what is bound and not marked is done at the next start.
    pub fn abandon(&self) {
        self.alarm.stop();
    }

    /// Whether it is still at work.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let binding = self.binding.as_ref();
        !binding.is_some_and(|threads| threads.binder.is_finished()) && !self.workers.is_finished()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// What ended it, if nobody asked it to.
    pub fn wait(self) -> Result<(), EngineError> {
        let (bound, finder) = match self.binding {
            Some(threads) => (threads.binder.join(), Some(threads.finder)),
            None => (Ok(Ok(())), None),
        };
        let worked = self.workers.join();
        self.alarm.stop();
        // A finder that panicked has found nothing more; what it found stands.
        let _ = finder.map(JoinHandle::join);
        if let Some(failure) = self.alarm.take_failure() {
            return Err(failure);
        }
        bound.map_err(|_| EngineError::Panicked)??;
        worked.map_err(|_| EngineError::Panicked)?.map_err(EngineError::Worker)
    }
}

/// Creates what is missing in ClickHouse and reads what was marked.
async fn prepare_tables(
    config: &EngineConfig,
    clickhouse: &ClickHouse,
) -> Result<(Vec<Arc<PipelineTable>>, Marked), EngineError> {
    let grid = config.grid.grid();
    tables::create_shared(clickhouse).await?;
    cells::write(clickhouse, grid).await?;
    serving::retire_others(clickhouse, &config.pipelines).await?;
    let marked = marks::last_marked(clickhouse).await?;
    let mut tables = Vec::new();
    for pipeline in &config.pipelines {
        let version = pipeline.version(grid);
        let groups = pipeline.groups.clone();
        let table = Arc::new(PipelineTable::new(&pipeline.plan, &version, groups, grid));
        table.create(clickhouse).await?;
        let candidate = Candidate { pipeline: Arc::clone(pipeline), table: Arc::clone(&table) };
        serving::serve_when_complete(clickhouse, candidate, &marked).await?;
        tables.push(table);
    }
    Ok((tables, marked))
}

/// The newest state that is of use to this process.
async fn starting_point(
    config: &EngineConfig,
    storage: Option<&Storage>,
    tables: &[Arc<PipelineTable>],
    clickhouse: &ClickHouse,
) -> Result<StartingPoint, EngineError> {
    let Some(storage) = storage else { return Ok(StartingPoint::default()) };
    let wanted = |(pipeline, table): (&Arc<Pipeline>, &Arc<PipelineTable>)| WantedPipeline {
        pipeline: Arc::clone(pipeline),
        version: table.version.clone(),
    };
    let pipelines: Vec<_> = config.pipelines.iter().zip(tables).map(wanted).collect();
    let (process, processes) =
        config.cluster.as_ref().map_or((0, 1), |all| (all.process, all.addresses.len()));
    let workers = config.workers.get();
    let wanted = Wanted {
        pipelines: &pipelines,
        first_worker: process * workers,
        workers,
        peers: processes * workers,
        is_first: config.is_first(),
        clickhouse,
    };
    let started = std::time::Instant::now();
    let start = snapshot::restore(storage, wanted).await?;
    for (pipeline, epoch) in start.epochs() {
        let took_ms = started.elapsed().as_millis();
        tracing::info!(pipeline, epoch = epoch.0, took_ms, "going on from a snapshot");
    }
    Ok(start)
}

fn kept_pipelines(
    config: &EngineConfig,
    tables: &[Arc<PipelineTable>],
    known: &[Option<snapshot::PipelineState>],
    marked: &Marked,
) -> Vec<KeptPipeline> {
    let pipelines = config.pipelines.iter().zip(tables).zip(known);
    let kept = |((pipeline, table), state): ((&Arc<Pipeline>, &Arc<PipelineTable>), &Option<_>)| {
        KeptPipeline {
            name: table.pipeline.clone(),
            version: table.version.clone(),
            horizon: Horizon::of(&pipeline.plan),
            state: state.clone(),
            marked: marked.get(&(table.pipeline.clone(), table.version.clone())).copied(),
        }
    };
    pipelines.map(kept).collect()
}

fn start_keeper(
    pipelines: Vec<KeptPipeline>,
    (storage, manifest): (Storage, u64),
    parts: &TaskParts,
    notices: &Sender<Notice>,
) -> UnboundedSender<KeeperNotice> {
    let keeper = KeeperParts {
        runtime: parts.runtime.clone(),
        storage,
        metrics: parts.metrics.clone(),
        alarm: parts.alarm.clone(),
        manifest,
        pipelines,
    };
    let notices = notices.clone();
    snapshot::start_keeper(keeper, move |epoch| {
        // Nobody listens once the binder is gone.
        let _ = notices.send(Notice::SnapshotWritten(epoch));
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
    let readers = wakers.iter().map(start).collect::<Result<_, _>>()?;
    Ok((wakers, readers))
}

/// Marks, the city's moments, and who hears of them.
async fn marking(
    config: &EngineConfig,
    parts: &TaskParts,
    (tables, marked): (&[Arc<PipelineTable>], &Marked),
    notices: &Sender<Notice>,
    keeper: Option<UnboundedSender<KeeperNotice>>,
) -> Result<MarkingParts, EngineError> {
    let (moment, last_committed_ms) = marks::last_moment(&parts.clickhouse).await?;
    let names: Vec<String> = tables.iter().map(|table| table.pipeline.clone()).collect();
    let standing = tables.iter().map(|table| {
        let key = (table.pipeline.clone(), table.version.clone());
        (table.pipeline.clone(), marked.get(&key).copied())
    });
    let moments = Moments::new(standing, moment, config.writing.stale_after);
    let (metrics, of_marks, of_turns) = (parts.metrics.clone(), notices.clone(), notices.clone());
    let written = move |mark: &Mark| {
        metrics.marked(mark);
        let Some(index) = names.iter().position(|name| *name == mark.pipeline) else { return };
        // Nobody listens once the binder is gone, and then nothing depends on it.
        let _ = of_marks.send(Notice::Marked(mark.tick.epoch, index));
        if let Some(keeper) = &keeper {
            let epoch = mark.tick.epoch;
            // A keeper that is gone was fenced out.
            let _ = keeper.send(KeeperNotice::Marked { pipeline: index, epoch });
        }
    };
    let turned = move |turn| {
        let _ = of_turns.send(Notice::Turned(turn));
    };
    Ok(MarkingParts {
        parts: parts.clone(),
        moments,
        last_committed_ms,
        written: Box::new(written),
        turned: Box::new(turned),
    })
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

fn bound_pipelines(config: &EngineConfig, topics: &[Arc<str>]) -> Vec<BoundPipeline> {
    let bound = |pipeline: &Arc<Pipeline>| BoundPipeline {
        name: pipeline.plan.name.clone(),
        version: pipeline.version(config.grid.grid()),
        topics: pipeline.topic_numbers(topics).collect(),
        publish_every_ms: pipeline.plan.publish_every_ms,
    };
    config.pipelines.iter().map(bound).collect()
}

/// Fails here, with the address, where every later call would only wait.
fn reach_kafka(config: &EngineConfig) -> Result<(), EngineError> {
    let finder =
        PartitionFinder::new(&config.kafka).map_err(|source| kafka_error(config, source))?;
    let brokers = || config.kafka.brokers.clone();
    finder.reach().map_err(|source| EngineError::Unreachable { brokers: brokers(), source })
}

/// Looks for partitions again and again: a topic may be created, or grow, at any time.
fn find_partitions(
    config: &EngineConfig,
    names: Vec<String>,
    notices: Sender<Notice>,
    alarm: Alarm,
) -> Result<JoinHandle<()>, EngineError> {
    let finder =
        PartitionFinder::new(&config.kafka).map_err(|source| kafka_error(config, source))?;
    spawn("partition-finder", move || {
        let mut missing = BTreeSet::new();
        while !alarm.is_stopped() {
            match finder.find(&names) {
                Ok(found) => {
                    for (index, topic) in (0u16..).zip(&names) {
                        if found.keys().any(|partition| partition.topic == index) {
                            missing.remove(topic);
                        } else if missing.insert(topic.clone()) {
                            tracing::warn!(topic, "the topic does not exist yet, waiting for it");
                        }
                    }
                    let _ = notices.send(Notice::Found(found));
                }
                Err(error) => tracing::warn!(%error, "no broker answers, trying again"),
            }
            for _ in 0..50 {
                if !alarm.is_stopped() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    })
}

/// Starts the binder and the search for partitions.
fn start_binding(
    config: &EngineConfig,
    binder: Binder,
    notices: &Sender<Notice>,
    alarm: &Alarm,
) -> Result<BindingThreads, EngineError> {
    let names: Vec<String> = config.topics().iter().map(ToString::to_string).collect();
    let finder = find_partitions(config, names, notices.clone(), alarm.clone())?;
    Ok(BindingThreads { binder: spawn("binder", move || binder.run())?, finder })
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

fn spawn<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, EngineError> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(body).map_err(|source| EngineError::Thread(name, source))
}

fn kafka_error(config: &EngineConfig, source: KafkaError) -> EngineError {
    EngineError::Kafka { brokers: config.kafka.brokers.clone(), source }
}
