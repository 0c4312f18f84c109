//! One engine: readers, binder, workers and writers, started together and stopped together.

mod beginning;
mod binding;
mod cluster;
mod coverage;
mod deployed;
mod line;
mod marking;
mod snapshots;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use citycell_operators::locate::LocatedGrid;
use citycell_schemas::Epoch;
use crossbeam_channel::Sender;
use rdkafka::error::KafkaError;

use crate::{
    alarm::Alarm,
    binder::{BinderLimits, LostOffsets, Notice},
    clickhouse::{ClickHouseError, ClickHouseSettings, backlog::BacklogLimits},
    http::Readiness,
    kafka::{
        KafkaSettings, Unreachable,
        binding_log::BindingLogError,
        reader::{ReadFailure, ReadFailureKind},
    },
    metrics::Metrics,
    personal::{KeySettings, KeysError},
    pipeline::Pipeline,
    snapshot::{RestoreError, SnapshotError, SnapshotSettings},
};

use binding::BindingThreads;
pub use coverage::{LostPartition, LostPipeline, LostRecords};
pub use start::start;

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
    /// The keys of personal fields, which are refused without; not touched while there is none.
    pub keys: Option<KeySettings>,
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
        source: Box<Unreachable>,
    },
    /// Kafka does not let our user read a topic.
    #[error(
        "Kafka at {brokers} does not let our user read the topic {topic}: it must be granted the \
         operations Describe and Read"
    )]
    Forbidden {
        /// The brokers as configured.
        brokers: String,
        /// The topic.
        topic: String,
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
    /// Personal fields would be kept as they are.
    #[error(
        "the schema {schema} has the personal field {field}: records that are kept need a master \
         key, from --master-key-file or CITYCELL_MASTER_KEY"
    )]
    NoMasterKey {
        /// The schema.
        schema: String,
        /// Its first personal field.
        field: String,
    },
    /// A key of personal fields cannot be had.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Process 0 started with another state than this process, or with other marks.
    #[error("process 0 started from another snapshot than this process: start all of them again")]
    OtherStart,
    /// Processes that share the work were started differently.
    #[error(
        "process {process} was started with another {what} than this process: start all of them with \
         the same pipelines, grid and options"
    )]
    OtherConfig {
        /// The other process.
        process: usize,
        /// What differs.
        what: &'static str,
    },
    /// Another process ended, or cannot be reached any more.
    #[error("process {0} is gone, so this one ends too: start all of them again")]
    ProcessGone(usize),
    /// The other processes cannot reach this one.
    #[error("cannot listen for the other processes on {address}")]
    Listen {
        /// This process's address of --peers.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Records that a binding names are no longer in Kafka.
    #[error("records that belong to a bound epoch cannot be read: {0}")]
    Unreadable(#[source] ReadFailure),
    /// A topic is not the one that was read before.
    #[error("{0}")]
    OtherTopic(ReadFailure),
    /// Records that no binding names are no longer in Kafka.
    #[error(transparent)]
    Lost(#[from] LostOffsets),
    /// Records that must be read again were removed from Kafka.
    #[error(transparent)]
    Uncovered(#[from] LostRecords),
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

impl From<ReadFailure> for EngineError {
    fn from(failure: ReadFailure) -> Self {
        match failure.kind {
            ReadFailureKind::OtherTopic => Self::OtherTopic(failure),
            ReadFailureKind::Unanswered | ReadFailureKind::Gone => Self::Unreadable(failure),
        }
    }
}

/// An engine at work.
pub struct RunningEngine {
    notices: Sender<Notice>,
    /// In process 0 only.
    binding: Option<BindingThreads>,
    workers: JoinHandle<Result<(), String>>,
    /// Whether the other processes are there.
    connected: Arc<AtomicBool>,
    alarm: Alarm,
    /// What it shows of itself.
    pub metrics: Metrics,
    /// Whether it keeps up.
    pub readiness: Readiness,
    /// The epoch of the state that each version started with, by `pipeline@version`; none of one that
    /// started anew.
    pub started_at: BTreeMap<String, Epoch>,
}

impl EngineConfig {
    /// Whether this process binds epochs and writes marks.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.process == 0)
    }

    /// The workers of all processes.
    pub(crate) fn all_workers(&self) -> usize {
        self.workers.get() * self.cluster.as_ref().map_or(1, |cluster| cluster.addresses.len())
    }

    /// The names of all topics, sorted: a topic's number is its index.
    #[must_use]
    pub fn topics(&self) -> Arc<[Arc<str>]> {
        let names: BTreeSet<&String> =
            self.pipelines.iter().flat_map(|pipeline| &pipeline.plan.topics).collect();
        names.into_iter().map(|name| Arc::from(name.as_str())).collect()
    }
}

impl RunningEngine {
    /// Ends once everything in the topics is bound, marked and published.
    pub fn drain(&self) {
        let _ = self.notices.send(Notice::Drain);
    }

    /// Ends as soon as what is bound is marked; at once if other processes are still waited for.
    /// Without process 0 the others do not end by this.
    pub fn stop(&self) {
        let _ = self.notices.send(Notice::Stop);
        if !self.connected.load(Ordering::Relaxed) {
            self.alarm.stop();
        }
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
        let (bound, finder, follower) = match self.binding {
            Some(threads) => (threads.binder.join(), Some(threads.finder), threads.follower),
            None => (Ok(Ok(())), None, None),
        };
        let followed = follower.map_or(Ok(()), JoinHandle::join);
        let worked = self.workers.join();
        let is_stopped = self.alarm.is_stopped();
        self.alarm.stop();
        // A finder that panicked has found nothing more; what it found stands.
        let _ = finder.map(JoinHandle::join);
        if let Some(failure) = self.alarm.take_failure() {
            return Err(failure);
        }
        if is_stopped {
            return Ok(());
        }
        bound.map_err(|_| EngineError::Panicked)??;
        followed.map_err(|_| EngineError::Panicked)?;
        worked.map_err(|_| EngineError::Panicked)?.map_err(EngineError::Worker)
    }
}
