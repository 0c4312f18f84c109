//! The demo: a simulated district, an embedded broker, the engine and an embedded ClickHouse in one
//! process.
//!
//! ```text
//! city -> feeder -> broker -> engine -> ClickHouse <- screen, curl, Grafana
//!            +------- raw records ---------^ +-> oracle -> report
//! ```

mod broker;
mod display;
mod feeder;
mod kept;
mod oracle;
mod report;
mod screen;
mod snapshot;

use std::{
    net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration, time::Instant,
};

use citycell_schemas::event::shipped;
use citycell_simulator::{City, SimulatorConfig};
use citycell_store::{RunningStore, Store, StoreConfig, StoreError, User};
use rdkafka::error::KafkaError;
use tokio::{sync::mpsc::unbounded_channel, task::JoinHandle};

use crate::{
    binder::{BinderLimits, OnLostOffsets},
    clickhouse::{ClickHouse, ClickHouseError, ClickHouseSettings, placement::Placement},
    clock::now_ms,
    commands::store::interrupted,
    config::{ConfigErrors, parse_pipeline},
    engine::{self, EngineConfig, EngineError, RunningEngine, WritingLimits},
    grid::load::{self, GridError},
    kafka::{KafkaSettings, binding_log},
    pipeline::Pipeline,
};

use broker::EmbeddedBroker;
use display::Display;
use feeder::{Feeder, FeederParts};
use snapshot::Snapshots;

pub use display::DisplayKind;
pub use report::Report;

const DEPLOYMENT: &str = "demo";
const DATABASE: &str = "city";

/// The port of ClickHouse's HTTP interface where nobody else listens on it.
const USUAL_PORT: u16 = 8123;

/// The pipelines that come with the program.
const PIPELINES: [(&str, &str); 4] = [
    ("crowd_flow.yaml", include_str!("../../../pipelines/crowd_flow.yaml")),
    ("environment.yaml", include_str!("../../../pipelines/environment.yaml")),
    ("parking.yaml", include_str!("../../../pipelines/parking.yaml")),
    ("traffic.yaml", include_str!("../../../pipelines/traffic.yaml")),
];

/// How a demo runs.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// The seed of the city.
    pub seed: u64,
    /// Events a second over all streams.
    pub events_per_second: f64,
    /// How long it feeds, and then compares everything; until stopped if not said.
    pub duration: Option<Duration>,
    /// Where ClickHouse listens; the usual port if not said, or a free one.
    pub listen: Option<SocketAddr>,
    /// The folder of ClickHouse's data, new or empty; a temporary one if not said.
    pub data: Option<PathBuf>,
    /// How it shows itself.
    pub display: DisplayKind,
}

/// Why a demo did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The city's settings make no city.
    #[error("cannot simulate this city")]
    City(#[source] citycell_simulator::ConfigError),
    /// A shipped pipeline is not good: our defect.
    #[error("a pipeline that comes with the program is not good")]
    Pipeline(#[from] ConfigErrors),
    /// The drawn district is no good grid: our defect.
    #[error("the simulated district is no good grid")]
    Grid(#[from] GridError),
    /// A folder cannot be used.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds something already.
    #[error("the folder {} is not empty: the demo begins anew each time", .0.display())]
    FolderInUse(PathBuf),
    /// The embedded broker failed.
    #[error("the embedded broker failed")]
    Broker(#[source] KafkaError),
    /// The embedded ClickHouse did not start.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The embedded ClickHouse failed.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// A thread of ours panicked.
    #[error("the {0} panicked")]
    Panicked(&'static str),
    /// The terminal cannot be used.
    #[error("cannot use the terminal")]
    Terminal(#[source] std::io::Error),
}

/// Runs a demo to its end; with a duration, reports what the oracle found.
///
/// # Errors
/// Whatever kept a part from starting, or ended it.
pub async fn run(config: DemoConfig) -> Result<Option<Report>, DemoError> {
    let folder =
        tempfile::tempdir().map_err(|source| folder_error(std::env::temp_dir(), source))?;
    let data = config.data.clone().unwrap_or_else(|| folder.path().join("data"));
    refuse_used(&data)?;
    let store = start_store(config.listen, data).await?;
    let demo = Demo::start(&config, &store, folder.path().join("grid.geojson")).await;
    let outcome = match demo {
        Ok(demo) => demo.run(&config).await,
        Err(error) => Err(error),
    };
    // The library must be closed before the process ends, whatever happened.
    store.shutdown().await;
    outcome
}

/// A demo at work.
struct Demo {
    /// Last to go: everything else talks to it.
    _broker: EmbeddedBroker,
    url: String,
    clickhouse: ClickHouse,
    pipelines: Vec<Arc<Pipeline>>,
    engine: RunningEngine,
    feeder: Feeder,
    keeper: JoinHandle<Result<(), ClickHouseError>>,
}

impl Demo {
    async fn start(
        config: &DemoConfig,
        store: &RunningStore,
        grid_path: PathBuf,
    ) -> Result<Self, DemoError> {
        let partitions = SimulatorConfig::default().partitions;
        let geojson = city_of_now(config)?.district().to_geojson().to_string();
        std::fs::write(&grid_path, geojson)
            .map_err(|source| folder_error(grid_path.clone(), source))?;
        let grid = Arc::clone(&load::load(&grid_path)?.located);
        let pipelines = shipped_pipelines()?;

        let url = format!("http://{}", store.local_addr());
        let clickhouse_settings = ClickHouseSettings {
            url: url.clone(),
            user: "default".into(),
            password: String::new(),
            database: DATABASE.into(),
            tls: None,
            placement: Placement::OneServer,
        };
        let clickhouse = ClickHouse::new(&clickhouse_settings);
        kept::create(&clickhouse).await?;

        let bindings_topic = binding_log::topic_of(DEPLOYMENT);
        let topics = pipelines.iter().flat_map(|pipeline| &pipeline.plan.topics);
        let broker = EmbeddedBroker::start(
            topics.map(|topic| (topic.as_str(), partitions)).chain([(bindings_topic.as_str(), 1)]),
        )
        .map_err(DemoError::Broker)?;
        let kafka = broker.settings();
        let engine_config =
            engine_config(kafka.clone(), clickhouse_settings, pipelines.clone(), grid);
        let engine = engine::start(engine_config).await?;
        oracle::create_records(&clickhouse, &pipelines).await?;

        let (delivered, records) = unbounded_channel();
        let readers = pipelines.iter().flat_map(|pipeline| {
            let plan = &pipeline.plan;
            plan.topics.iter().map(|topic| (topic.clone(), plan.name.clone()))
        });
        let feeder = Feeder::start(FeederParts {
            // Its clock starts when it begins to report, not while the engine starts.
            city: city_of_now(config)?,
            kafka,
            delivered,
            metrics: engine.metrics.clone(),
            readers: readers.collect(),
        })?;
        let keeper = kept::keep(clickhouse.clone(), records);
        Ok(Self { _broker: broker, url, clickhouse, pipelines, engine, feeder, keeper })
    }

    async fn run(self, config: &DemoConfig) -> Result<Option<Report>, DemoError> {
        let mut display = Display::open(config.display).map_err(DemoError::Terminal)?;
        let shown = self.watch(config.duration, &mut display).await;
        drop(display);
        let Self { _broker, clickhouse, pipelines, engine, feeder, keeper, .. } = self;
        let fed = tokio::task::spawn_blocking(|| feeder.stop()).await;
        if config.duration.is_some() {
            // Whatever was sent is counted and published before it is compared.
            engine.drain();
        } else {
            engine.stop();
        }
        joined("engine", tokio::task::spawn_blocking(|| engine.wait()).await)??;
        joined("feeder", fed)??;
        joined("keeper of records", keeper.await)??;
        shown.map_err(DemoError::Terminal)?;
        if config.duration.is_none() {
            return Ok(None);
        }
        Ok(Some(report::report(&clickhouse, &pipelines).await?))
    }

    /// Shows what happens until the time is over or somebody stops it.
    async fn watch(
        &self,
        duration: Option<Duration>,
        display: &mut Display,
    ) -> Result<(), std::io::Error> {
        let started = Instant::now();
        let mut snapshots = Snapshots::new(self.url.clone(), &self.pipelines);
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let stopped = interrupted();
        tokio::pin!(over, stopped);
        let mut step = tokio::time::interval(display.interval());
        while self.engine.is_running() && !display.is_closed()? {
            tokio::select! {
                () = &mut over => break,
                () = &mut stopped => break,
                _ = step.tick() => {
                    let sent = self.feeder.sent();
                    snapshots.take(&self.clickhouse, &self.engine.metrics, sent, started).await;
                    display.show(snapshots.last())?;
                }
            }
        }
        Ok(())
    }
}

/// The city of the seed, at this moment of the clock.
fn city_of_now(config: &DemoConfig) -> Result<City, DemoError> {
    let settings = SimulatorConfig {
        events_per_second: config.events_per_second,
        start_time_ms: now_ms(),
        ..SimulatorConfig::default()
    };
    City::new(config.seed, settings).map_err(DemoError::City)
}

fn engine_config(
    kafka: KafkaSettings,
    clickhouse: ClickHouseSettings,
    pipelines: Vec<Arc<Pipeline>>,
    grid: Arc<citycell_operators::locate::LocatedGrid>,
) -> EngineConfig {
    EngineConfig {
        deployment: DEPLOYMENT.into(),
        kafka,
        clickhouse,
        pipelines,
        grid,
        workers: NonZeroUsize::MIN,
        cluster: None,
        limits: BinderLimits {
            tick: Duration::from_millis(500),
            idle_after: Duration::from_secs(10),
            unmarked_max: 8,
            on_lost_offsets: OnLostOffsets::Stop,
        },
        buffer_bytes_max: 16 << 20,
        writing: WritingLimits::default(),
        // An earlier demo's state means nothing to this one.
        snapshots: None,
        archive: None,
        keys: None,
    }
}

/// The pipelines that come with the program, read as any file is.
fn shipped_pipelines() -> Result<Vec<Arc<Pipeline>>, DemoError> {
    let schemas = shipped();
    let read = |(file, text): &(&str, &str)| {
        Ok(Arc::new(Pipeline::from(parse_pipeline(file, text, &schemas)?)))
    };
    PIPELINES.iter().map(read).collect()
}

/// Offsets and epochs of an earlier demo's broker mean nothing to this one's.
fn refuse_used(data: &std::path::Path) -> Result<(), DemoError> {
    match std::fs::read_dir(data).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(DemoError::FolderInUse(data.to_owned())),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(folder_error(data.to_owned(), error))
        }
        _ => Ok(()),
    }
}

async fn start_store(
    listen: Option<SocketAddr>,
    data: PathBuf,
) -> Result<RunningStore, StoreError> {
    let user = |name: &str| User { name: name.into(), password: "".into() };
    let start = |listen: SocketAddr| {
        let (writer, reader) = (user("default"), user("reader"));
        Store::start(StoreConfig { listen, data: data.clone(), writer, reader })
    };
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    match listen {
        Some(listen) => start(listen).await,
        None => match start(local(USUAL_PORT)).await {
            Err(StoreError::Listen { .. }) => start(local(0)).await,
            started => started,
        },
    }
}

fn folder_error(path: PathBuf, source: std::io::Error) -> DemoError {
    DemoError::Folder { path, source }
}

/// The outcome of a task that may have panicked.
fn joined<T>(
    what: &'static str,
    outcome: Result<T, tokio::task::JoinError>,
) -> Result<T, DemoError> {
    outcome.map_err(|_| DemoError::Panicked(what))
}
