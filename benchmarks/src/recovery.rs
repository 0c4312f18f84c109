//! How long a crashed engine takes to its first new mark, by live keys and by history.
//!
//! The engine itself, with librdkafka's embedded broker and the embedded ClickHouse. Every cell has one
//! event in every minute of the city's time; windows stay open for ten minutes, so equally many keys
//! are alive however long it went on. Keys are (window, cell), a count and one sum.

use std::{
    error::Error,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use citycell::{
    binder::{BinderLimits, OnLostOffsets},
    clickhouse::{ClickHouse, ClickHouseSettings, placement::Placement},
    config::parse_pipeline,
    engine::{self, EngineConfig, RunningEngine, WritingLimits},
    kafka::{BrokerKind, KafkaSettings, binding_log::topic_of},
    snapshot::SnapshotSettings,
};
use citycell_operators::{locate::LocatedGrid, plan::Crs};
use citycell_schemas::{Grid, event::shipped};
use citycell_store::{Store, StoreConfig, User};
use rand::{SeedableRng, rngs::StdRng};
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::city::{entry, payload_by_code};
use crate::clock::median;

/// Minutes for which a window can change.
const OPEN_WINDOWS: usize = 10;
/// The embedded broker keeps 5 MB of each.
const PARTITIONS: usize = 32;
const TOPIC: &str = "recovery";
const PIPELINE: &str = "
pipeline: recovery
source:
  topic: recovery
  schema: crowd_flow
  event_time: dateObserved
  location: {cell: gridCode}
  late: {allow: 9m}
  identity: none
window: {tumbling: 1m}
aggregate:
  reports: count(*)
  people: sum(peopleCount)
";
/// Nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Cells; ten times as many keys are alive.
    pub cells: usize,
    /// Minutes of the city's time, at least ten.
    pub minutes: usize,
    /// How often it crashes and starts again.
    pub rounds: usize,
}

/// What recovery takes.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// Keys alive at each crash.
    pub keys: usize,
    /// Events before it.
    pub events: u64,
    /// Seconds from the start of an engine to its first new mark, the median of all rounds.
    pub recovery_s: f64,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
}

/// Feeds an engine, lets it crash and measures.
///
/// # Errors
/// Whatever does not start or cannot be asked.
pub async fn measure(size: Size) -> Result<Recovery, Box<dyn Error>> {
    // The engine's clients want one, even over plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let user = |name: &str| User { name: name.to_owned(), password: "".into() };
    let store = Store::start(StoreConfig {
        listen: "127.0.0.1:0".parse()?,
        data: folder.path().join("store"),
        writer: user("default"),
        reader: user("reader"),
    })
    .await?;
    let clickhouse = ClickHouseSettings {
        url: format!("http://{}", store.local_addr()),
        user: "default".to_owned(),
        password: String::new(),
        database: "city".to_owned(),
        tls: None,
        placement: Placement::OneServer,
    };
    let measured = with_store(size, clickhouse, folder.path()).await;
    // The library must be closed before the process ends.
    store.shutdown().await;
    measured
}

async fn with_store(
    size: Size,
    clickhouse: ClickHouseSettings,
    folder: &Path,
) -> Result<Recovery, Box<dyn Error>> {
    let broker: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1)?;
    broker.create_topic(TOPIC, PARTITIONS as i32, 1)?;
    broker.create_topic(&topic_of("recovery"), 1, 1)?;
    let kafka = KafkaSettings {
        broker: BrokerKind::Embedded,
        ..KafkaSettings::new(broker.bootstrap_servers())
    };
    let config = config(size, kafka, clickhouse.clone(), folder)?;
    let mut running = engine::start(config.clone()).await?;
    let mut city = City::new(size, &broker.bootstrap_servers())?;
    for minute in 0..size.minutes {
        city.send(minute)?;
        let counted = r#"citycell_records_total{pipeline="recovery",outcome="counted"}"#;
        until(&running, counted, |value| value >= city.sent).await;
    }
    let keys = size.cells * OPEN_WINDOWS;
    let live = r#"citycell_live_keys{pipeline="recovery"}"#;
    until(&running, live, |value| value <= keys as u64).await;

    let mut took = Vec::new();
    let mut snapshot_bytes = 0;
    for _ in 0..size.rounds {
        let marked = until(&running, MARKED, |epoch| epoch > 0).await;
        let kept = r#"citycell_snapshot_epoch_ms{pipeline="recovery"}"#;
        until(&running, kept, |epoch| epoch > marked).await;
        let bytes = r#"citycell_snapshot_bytes{pipeline="recovery"}"#;
        snapshot_bytes = until(&running, bytes, |bytes| bytes > 0).await;
        running.abandon();
        tokio::task::spawn_blocking(|| running.wait()).await??;
        let started = Instant::now();
        running = engine::start(config.clone()).await?;
        assert_eq!(running.started_at.len(), 1, "there was no snapshot to go on from");
        until(&running, MARKED, |epoch| epoch > marked).await;
        took.push(started.elapsed().as_secs_f64());
    }
    until(&running, live, |value| value == keys as u64).await;
    running.stop();
    tokio::task::spawn_blocking(|| running.wait()).await??;
    everything_is_counted(&clickhouse, city.sent).await?;
    Ok(Recovery { keys, events: city.sent, recovery_s: median(took), snapshot_bytes })
}

const MARKED: &str = r#"citycell_marked_epoch_ms{pipeline="recovery"}"#;

/// Waits until a metric is as wanted; its value.
async fn until(running: &RunningEngine, name: &str, holds: impl Fn(u64) -> bool) -> u64 {
    let started = Instant::now();
    loop {
        let text = running.metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        match value {
            Some(value) if holds(value) => return value,
            _ => assert!(started.elapsed() < PATIENCE && running.is_running(), "{name}: {value:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn everything_is_counted(
    clickhouse: &ClickHouseSettings,
    sent: u64,
) -> Result<(), Box<dyn Error>> {
    let sql = "SELECT sum(reports) FROM recovery";
    let sum = ClickHouse::new(clickhouse).query("add up", sql, "TabSeparated").await?;
    assert_eq!(String::from_utf8_lossy(&sum).trim(), sent.to_string());
    Ok(())
}

fn config(
    size: Size,
    kafka: KafkaSettings,
    clickhouse: ClickHouseSettings,
    folder: &Path,
) -> Result<EngineConfig, Box<dyn Error>> {
    let pipeline = parse_pipeline("recovery.yaml", PIPELINE, &shipped())?;
    let grid = Grid::new("recovery".to_owned(), (0..size.cells).map(entry).collect());
    let mut writing = WritingLimits::default();
    writing.backlog.folder = folder.to_owned();
    Ok(EngineConfig {
        deployment: "recovery".to_owned(),
        kafka,
        clickhouse,
        pipelines: vec![Arc::new(pipeline.into())],
        grid: Arc::new(LocatedGrid::new(Arc::new(grid), Crs::Wgs84, Vec::new())),
        workers: NonZeroUsize::MIN,
        cluster: None,
        limits: BinderLimits {
            tick: Duration::from_millis(100),
            idle_after: Duration::from_secs(10),
            unmarked_max: 600,
            on_lost_offsets: OnLostOffsets::Stop,
        },
        buffer_bytes_max: 64 << 20,
        writing,
        snapshots: Some(SnapshotSettings {
            location: folder.join("snapshots").display().to_string(),
            every: Duration::from_secs(5),
        }),
        archive: None,
        keys: None,
    })
}

/// Sends one event of each cell and minute.
struct City {
    cells: usize,
    producer: ThreadedProducer<DefaultProducerContext>,
    random: StdRng,
    sent: u64,
}

impl City {
    fn new(size: Size, brokers: &str) -> Result<Self, Box<dyn Error>> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("queue.buffering.max.messages", "1000000")
            .set("linger.ms", "20")
            .create()?;
        Ok(Self { cells: size.cells, producer, random: StdRng::seed_from_u64(17), sent: 0 })
    }

    fn send(&mut self, minute: usize) -> Result<(), Box<dyn Error>> {
        let second = 60 * i64::try_from(minute)? + 30;
        for cell in 0..self.cells {
            let code = format!("430102{cell:09}");
            let payload = payload_by_code(&mut self.random, cell % 100_000, second, &code);
            let partition = i32::try_from(cell % PARTITIONS)?;
            let record = BaseRecord::<(), str>::to(TOPIC).partition(partition).payload(&payload);
            self.producer.send(record).map_err(|(error, _)| error)?;
            self.sent += 1;
        }
        Ok(self.producer.flush(PATIENCE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crashed_engine_goes_on_with_as_many_keys() {
        let size = Size { cells: 200, minutes: 13, rounds: 1 };
        let recovery = measure(size).await.unwrap();
        assert_eq!((recovery.keys, recovery.events), (2_000, 2_600));
        assert!(recovery.snapshot_bytes > 2_000, "{recovery:?}");
    }
}
