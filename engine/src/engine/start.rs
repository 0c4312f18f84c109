//! Starts all parts of an engine in the order in which they need each other.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use citycell_operators::restored::Restored;
use citycell_schemas::Epoch;
use rdkafka::error::KafkaError;
use timely::{CommunicationConfig, WorkerConfig};
use tokio::runtime::Handle;

use crate::{
    alarm::Alarm,
    binder::{Binder, oldest},
    clickhouse::{
        ClickHouse,
        archive::{self, ARCHIVE},
        backlog::Backlog,
        marks,
        versions::Marked,
        writer::{self, TaskParts},
    },
    dataflow,
    follower::Follower,
    http::Readiness,
    kafka::partitions::PartitionFinder,
    metrics::Metrics,
    personal::{self, KeyRing, KeySettings, Keys, Sealing},
    snapshot::{self, PipelineState, StartingPoint},
};

use super::{
    Cluster, EngineConfig, EngineError, RunningEngine,
    beginning::{self, Beginning},
    binding::{bound_pipelines, start_binding},
    cluster::{self, CutIfStopped, Greeting},
    deployed::Deployed,
    line::{Line, LineParts},
    marking::{Listeners, marking},
    snapshots::{Snapshots, kept_pipelines, start_snapshots},
};

/// Starts an engine on the current tokio runtime.
///
/// # Errors
/// When Kafka or ClickHouse cannot be used, or a pipeline cannot be built.
pub async fn start(config: EngineConfig) -> Result<RunningEngine, EngineError> {
    // Before anything is taken over, as all that may be wrong with what was asked for.
    sealing(&config).await?;
    // Before the deployment is taken over: if this very process runs already, it goes on.
    let listener = config.cluster.as_ref().map(cluster::listen).transpose()?;
    reach_kafka(&config)?;
    let clickhouse = ClickHouse::for_writing(&config.clickhouse).await?;
    let Beginning { config, deployed, marked, log, storage, start } =
        beginning::take_over(config, &clickhouse).await?;
    let topics = config.topics();
    let sealing = sealing(&config).await?;
    let (notices, heard) = crossbeam_channel::unbounded();
    let (to_follower, heard_by_follower) = crossbeam_channel::unbounded();
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    // Whether epochs are marked in time only the first process knows; the others just work.
    readiness.set(!config.is_first());
    let alarm = Alarm::new(notices.clone());
    let writing = TaskParts {
        runtime: Handle::current(),
        clickhouse,
        metrics: metrics.clone(),
        alarm: alarm.clone(),
    };

    let (started_at, manifest) = (start.epochs(), start.manifest);
    let (known, restored) = by_index(&deployed, start);
    let Snapshots { work: snapshots, pace, keeper } = start_snapshots(
        &config,
        (storage, manifest),
        kept_pipelines(&deployed, &known, &marked),
        &writing,
        [&notices, &to_follower],
    );
    let backlog = Backlog::new(config.writing.backlog.clone(), metrics.clone());
    let listeners = Listeners { binder: &notices, follower: &to_follower, keeper };
    let marking = marking(&config, &writing, (&deployed, &marked), listeners).await?;
    let stale = marking.moments.stale_indices().collect();
    let greeting = greeting(&config, &started_at, (&deployed, &marked));
    let connected = Arc::new(AtomicBool::new(config.cluster.is_none()));
    let archive = start_archive(&config, &marked, (&writing, &backlog)).await?;

    let lines = LineParts {
        config: &config,
        topics: &topics,
        marks: marks::start(marking),
        sealing,
        snapshots,
        alarm: &alarm,
        metrics: &metrics,
        started_at: &started_at,
    };
    let mut serving = start_writers(&deployed, (&marked, restored), (&writing, &backlog));
    let building = serving.split_off(deployed.serving);
    let serving = lines.line(serving, archive, &notices)?;
    let building = match building.is_empty() {
        true => None,
        false => Some(lines.line(building, None, &to_follower)?),
    };
    drop(lines);

    let mut works = vec![serving.work];
    let mut known = known;
    let built = known.split_off(&deployed.serving);
    let pipelines = bound_pipelines(&config, &topics);
    let binding = match log {
        None => {
            works.extend(building.map(|line| line.work));
            None
        }
        Some(log) => {
            let follower = match building {
                None => None,
                Some(Line { work, hand_out }) => {
                    let follower = Follower {
                        log: log.follow(oldest(&built, work.pipelines.len()))?,
                        topics: Arc::clone(&topics),
                        pipelines: (0..).zip(pipelines.clone()).skip(deployed.serving).collect(),
                        unmarked_max: config.limits.unmarked_max,
                        notices: heard_by_follower,
                        binder: notices.clone(),
                        hand_out,
                        snapshots: pace.clone(),
                        started_at: Arc::clone(&work.started_at),
                        known: built,
                        alarm: alarm.clone(),
                    };
                    works.push(work);
                    Some(follower)
                }
            };
            let binder = Binder {
                log,
                pipelines,
                serving: deployed.serving,
                follower: follower.is_some().then_some(to_follower),
                topics,
                grid: config.grid.grid().version().to_owned(),
                limits: config.limits,
                workers: config.all_workers(),
                readers: works[0].readers.clone(),
                notices: heard,
                hand_out: serving.hand_out,
                metrics: metrics.clone(),
                readiness: readiness.clone(),
                snapshots: pace,
                backlog,
                stale,
                started_at: Arc::clone(&works[0].started_at),
                known,
            };
            Some(start_binding(&config, binder, follower, &notices, &alarm)?)
        }
    };
    let works: Vec<_> = works.into_iter().map(Arc::new).collect();
    let (workers_alarm, is_connected) = (alarm.clone(), Arc::clone(&connected));
    let workers = move || {
        let cluster = config.cluster.as_ref().zip(listener.as_ref());
        let meeting = (&greeting, &*is_connected, &workers_alarm);
        run_workers(config.workers.get(), cluster, meeting, works)
    };
    Ok(RunningEngine {
        workers: spawn("workers", workers)?,
        connected,
        binding,
        notices,
        alarm,
        metrics,
        readiness,
        started_at,
    })
}

/// The states by the versions' indices, and the parts of each version's workers.
fn by_index(
    deployed: &Deployed,
    mut start: StartingPoint,
) -> (BTreeMap<usize, PipelineState>, BTreeMap<usize, Vec<Restored>>) {
    let (mut known, mut workers) = (BTreeMap::new(), BTreeMap::new());
    for (index, table) in deployed.tables.iter().enumerate() {
        let key = snapshot::key(&table.pipeline, &table.version);
        if let Some(restored) = start.pipelines.remove(&key) {
            known.insert(index, restored.state);
            workers.insert(index, restored.workers);
        }
    }
    (known, workers)
}

fn start_writers(
    deployed: &Deployed,
    (marked, mut restored): (&Marked, BTreeMap<usize, Vec<Restored>>),
    (parts, backlog): (&TaskParts, &Backlog),
) -> Vec<dataflow::PipelineWork> {
    let pipelines = deployed.pipelines.iter().zip(&deployed.tables).enumerate();
    let start = pipelines.map(|(number, (pipeline, table))| {
        let name = table.pipeline.clone();
        let label = match number < deployed.serving {
            true => name.clone(),
            false => snapshot::key(&name, &table.version),
        };
        let restored = restored.remove(&number).unwrap_or_default();
        dataflow::PipelineWork {
            number,
            pipeline: Arc::clone(pipeline),
            marked: marked.get(&(name, table.version.clone())).copied(),
            queue: writer::start(parts.clone(), label.clone(), backlog.clone()),
            label,
            table: Arc::clone(table),
            live: Arc::default(),
            restored: Mutex::new(restored.into_iter().map(Some).collect()),
        }
    });
    start.collect()
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

/// What seals personal fields, if any pipeline has some.
async fn sealing(config: &EngineConfig) -> Result<Option<Arc<Sealing>>, EngineError> {
    let Some((schema, field)) = personal::first_personal(&config.pipelines) else {
        return Ok(None);
    };
    let Some(KeySettings { location, master }) = &config.keys else {
        let (schema, field) = (schema.to_owned(), field.to_owned());
        return Err(EngineError::NoMasterKey { schema, field });
    };
    let keys = Keys::open(location, &config.deployment)?;
    let ring = KeyRing::open(keys, master.clone()).await?;
    Ok(Some(Arc::new(Sealing::new(personal::topic_rules(&config.pipelines), ring))))
}

/// Fails here, with the address, where every later call would only wait.
fn reach_kafka(config: &EngineConfig) -> Result<(), EngineError> {
    let finder =
        PartitionFinder::new(&config.kafka).map_err(|source| kafka_error(config, source))?;
    let brokers = || config.kafka.brokers.clone();
    finder.reach().map_err(|source| EngineError::Unreachable {
        brokers: brokers(),
        source: Box::new(source),
    })?;
    let topics = config.topics();
    let forbidden = finder.forbidden(topics.iter().map(|topic| &**topic));
    match forbidden.map_err(|source| kafka_error(config, source))? {
        Some(topic) => Err(EngineError::Forbidden { brokers: brokers(), topic: topic.to_owned() }),
        None => Ok(()),
    }
}

/// What this process says to the others that share its work.
fn greeting(
    config: &EngineConfig,
    started_at: &BTreeMap<String, Epoch>,
    (deployed, marked): (&Deployed, &Marked),
) -> Greeting {
    let versions = deployed.tables.iter();
    let versions = versions.map(|table| (table.pipeline.clone(), table.version.clone()));
    let archive = config.archive.map(|_| (ARCHIVE.to_owned(), config.deployment.clone()));
    let marked = versions.chain(archive).filter_map(|key| {
        let epoch = marked.get(&key).copied()?;
        Some((snapshot::key(&key.0, &key.1), epoch))
    });
    Greeting::new(config, started_at.clone(), marked.collect())
}

fn run_workers(
    threads: usize,
    cluster: Option<(&Cluster, &TcpListener)>,
    (greeting, connected, alarm): (&Greeting, &AtomicBool, &Alarm),
    works: Vec<Arc<dataflow::Work>>,
) -> Result<(), String> {
    let (builders, others, streams) = match cluster {
        None => {
            let (builders, others) = CommunicationConfig::Process(threads).try_build()?;
            (builders, others, None)
        }
        Some(cluster) => match cluster::connect(cluster, greeting, alarm) {
            Ok(Some(all)) => {
                let timely = all.into_timely(threads).map_err(|error| error.to_string())?;
                (timely.0, timely.1, Some(timely.2))
            }
            // Stopped before it began.
            Ok(None) => return Ok(()),
            Err(failure) => {
                alarm.ring(failure);
                return Ok(());
            }
        },
    };
    connected.store(true, Ordering::Relaxed);
    let mut settings = WorkerConfig::default();
    // Without merging while idle, what expired would keep its memory.
    let idle_merging = differential_dataflow::Config::default().idle_merge_effort(Some(1000));
    differential_dataflow::configure(&mut settings, &idle_merging);
    let alarm = alarm.clone();
    let guards = timely::execute::execute_from(builders, others, settings, move |worker| {
        let _cut = streams.as_ref().map(CutIfStopped);
        dataflow::run(worker, &works, &alarm)
    })?;
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
