//! What the engine shows of itself to Prometheus.

use std::{
    fmt::Write,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use citycell_operators::live::Live;
use citycell_schemas::Epoch;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{books::Books, clickhouse::marks::Mark};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pipeline {
    pipeline: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    pipeline: String,
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PipelineOutcome {
    pipeline: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Partition {
    topic: String,
    partition: i32,
}

/// All metrics; cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    records: Family<PipelineOutcome, Counter>,
    rows: Family<Pipeline, Counter>,
    watermark: Family<Pipeline, Gauge>,
    marked_epoch: Family<Pipeline, Gauge<u64, AtomicU64>>,
    building_epoch: Family<Version, Gauge<u64, AtomicU64>>,
    live_keys: Family<Pipeline, Gauge>,
    live_bytes: Family<Pipeline, Gauge>,
    insert_seconds: Family<Pipeline, Histogram>,
    insert_failures: Family<Pipeline, Counter>,
    lag: Family<Partition, Gauge>,
    skipped: Family<Partition, Counter>,
    buffered_bytes: Gauge,
    bound_epochs: Counter,
    stale: Family<Pipeline, Gauge>,
    backlog_memory: Gauge,
    backlog_disk: Gauge,
    snapshot_epoch: Family<Pipeline, Gauge<u64, AtomicU64>>,
    snapshot_bytes: Family<Pipeline, Gauge<u64, AtomicU64>>,
    snapshot_failures: Counter,
    unmarked_epochs: Gauge,
    epoch_seconds: Histogram,
}

/// What one pipeline has done since the engine started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// What became of the records of marked epochs.
    pub books: Books,
    /// Rows written.
    pub rows: u64,
    /// Event time reached, ms since 1970.
    pub watermark_ms: i64,
    /// The last marked epoch; 0 before the first.
    pub marked_epoch: u64,
    /// Keys in memory.
    pub live_keys: i64,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("citycell");
        let metrics = Self {
            registry: Arc::default(),
            records: Family::default(),
            rows: Family::default(),
            watermark: Family::default(),
            marked_epoch: Family::default(),
            building_epoch: Family::default(),
            live_keys: Family::default(),
            live_bytes: Family::default(),
            insert_seconds: Family::new_with_constructor(seconds),
            insert_failures: Family::default(),
            lag: Family::default(),
            skipped: Family::default(),
            buffered_bytes: Gauge::default(),
            bound_epochs: Counter::default(),
            stale: Family::default(),
            backlog_memory: Gauge::default(),
            backlog_disk: Gauge::default(),
            snapshot_epoch: Family::default(),
            snapshot_bytes: Family::default(),
            snapshot_failures: Counter::default(),
            unmarked_epochs: Gauge::default(),
            epoch_seconds: seconds(),
        };
        let m = &metrics;
        registry.register("records", "Records read, by what became of them", m.records.clone());
        registry.register("rows", "Rows written to the pipeline's table", m.rows.clone());
        registry.register("watermark_ms", "Event time reached, ms since 1970", m.watermark.clone());
        registry.register("marked_epoch_ms", "Last marked epoch", m.marked_epoch.clone());
        registry.register(
            "building_epoch_ms",
            "Last marked epoch of a version that is built beside the one that serves",
            m.building_epoch.clone(),
        );
        registry.register("live_keys", "Keys that the pipeline keeps", m.live_keys.clone());
        registry.register("insert_failures", "Inserts not taken", m.insert_failures.clone());
        registry.register("lag_records", "Records that are not bound yet", m.lag.clone());
        registry.register("skipped_offsets", "Lost before they were read", m.skipped.clone());
        registry.register("bound_epochs", "Epochs bound", m.bound_epochs.clone());
        registry.register("unmarked_epochs", "Bound and not marked", m.unmarked_epochs.clone());
        registry.register("stale", "1 if the pipeline holds nobody back", m.stale.clone());
        for (name, help, gauge) in [
            ("backlog_memory", "Rows that wait for ClickHouse in memory", &m.backlog_memory),
            ("backlog_disk", "Rows that wait for ClickHouse on disk", &m.backlog_disk),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        registry.register(
            "snapshot_epoch_ms",
            "Epoch that a restart would go on from",
            m.snapshot_epoch.clone(),
        );
        registry.register(
            "snapshot_failures",
            "Snapshot files not written at once",
            m.snapshot_failures.clone(),
        );
        registry.register_with_unit(
            "snapshot",
            "Files that a restart would read",
            Unit::Bytes,
            m.snapshot_bytes.clone(),
        );
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "insert",
            "Time of one insert",
            seconds.clone(),
            m.insert_seconds.clone(),
        );
        registry.register_with_unit(
            "epoch",
            "From binding an epoch to its last mark",
            seconds,
            m.epoch_seconds.clone(),
        );
        registry.register_with_unit(
            "buffered",
            "Payload bytes read ahead",
            Unit::Bytes,
            m.buffered_bytes.clone(),
        );
        registry.register_with_unit(
            "live",
            "What keys, sums, open events and entities take, without the containers around them",
            Unit::Bytes,
            m.live_bytes.clone(),
        );
        Self { registry: Arc::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Everything in the text format of OpenMetrics.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.registry) {
            let _ = writeln!(text, "# {error}");
        }
        text
    }

    /// What a pipeline has done so far.
    #[must_use]
    pub fn figures(&self, pipeline: &str) -> Figures {
        let label = Pipeline { pipeline: pipeline.to_owned() };
        let records = |outcome| {
            let label = PipelineOutcome { pipeline: pipeline.to_owned(), outcome };
            self.records.get_or_create(&label).get()
        };
        Figures {
            books: Books {
                counted: records("counted"),
                filtered: records("filtered"),
                rejected: records("rejected"),
                diverted: records("diverted"),
                duplicates: records("duplicate"),
                withdrawals: records("withdrawal"),
            },
            rows: self.rows.get_or_create(&label).get(),
            watermark_ms: self.watermark.get_or_create(&label).get(),
            marked_epoch: self.marked_epoch.get_or_create(&label).get(),
            live_keys: self.live_keys.get_or_create(&label).get(),
        }
    }

    pub(crate) fn inserted(&self, pipeline: &str, took: Duration) {
        let label = Pipeline { pipeline: pipeline.to_owned() };
        self.insert_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    pub(crate) fn insert_failed(&self, pipeline: &str) {
        self.insert_failures.get_or_create(&Pipeline { pipeline: pipeline.to_owned() }).inc();
    }

    pub(crate) fn marked(&self, mark: &Mark) {
        let label = Pipeline { pipeline: mark.pipeline.clone() };
        self.rows.get_or_create(&label).inc_by(mark.rows);
        self.watermark.get_or_create(&label).set(mark.tick.watermark.0);
        self.marked_epoch.get_or_create(&label).set(mark.tick.epoch.0);
        for (outcome, count) in outcomes(&mark.books) {
            let label = PipelineOutcome { pipeline: mark.pipeline.clone(), outcome };
            self.records.get_or_create(&label).inc_by(count);
        }
    }

    /// A version that does not serve yet has marked an epoch.
    pub(crate) fn built(&self, mark: &Mark) {
        let label = Version { pipeline: mark.pipeline.clone(), version: mark.version.clone() };
        self.building_epoch.get_or_create(&label).set(mark.tick.epoch.0);
    }

    pub(crate) fn live(&self, pipeline: &str, live: &Live) {
        let label = Pipeline { pipeline: pipeline.to_owned() };
        self.live_keys.get_or_create(&label).set(live.keys());
        self.live_bytes.get_or_create(&label).set(live.bytes());
    }

    pub(crate) fn bound(&self, unmarked: usize) {
        self.bound_epochs.inc();
        self.unmarked_epochs.set(i64::try_from(unmarked).unwrap_or(i64::MAX));
    }

    pub(crate) fn epoch_marked(&self, took: Duration, unmarked: usize) {
        self.epoch_seconds.observe(took.as_secs_f64());
        self.unmarked_epochs.set(i64::try_from(unmarked).unwrap_or(i64::MAX));
    }

    pub(crate) fn stale(&self, pipeline: &str, stale: bool) {
        let label = Pipeline { pipeline: pipeline.to_owned() };
        self.stale.get_or_create(&label).set(i64::from(stale));
    }

    pub(crate) fn backlog(&self, in_memory: u64, on_disk: u64) {
        self.backlog_memory.set(i64::try_from(in_memory).unwrap_or(i64::MAX));
        self.backlog_disk.set(i64::try_from(on_disk).unwrap_or(i64::MAX));
    }

    pub(crate) fn snapshot_kept(&self, pipeline: &str, epoch: Epoch, bytes: u64) {
        let label = Pipeline { pipeline: pipeline.to_owned() };
        self.snapshot_epoch.get_or_create(&label).set(epoch.0);
        self.snapshot_bytes.get_or_create(&label).set(bytes);
    }

    pub(crate) fn snapshot_failed(&self) {
        self.snapshot_failures.inc();
    }

    pub(crate) fn lag(&self, topic: &str, partition: i32, records: i64) {
        let label = Partition { topic: topic.to_owned(), partition };
        self.lag.get_or_create(&label).set(records);
    }

    pub(crate) fn skipped(&self, topic: &str, partition: i32, offsets: u64) {
        let label = Partition { topic: topic.to_owned(), partition };
        self.skipped.get_or_create(&label).inc_by(offsets);
    }

    pub(crate) fn buffered(&self, bytes: usize) {
        self.buffered_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

fn outcomes(books: &Books) -> [(&'static str, u64); 6] {
    [
        ("counted", books.counted),
        ("filtered", books.filtered),
        ("rejected", books.rejected),
        ("diverted", books.diverted),
        ("duplicate", books.duplicates),
        ("withdrawal", books.withdrawals),
    ]
}
