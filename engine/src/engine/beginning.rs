//! What an engine finds when it starts: tables, marks, the log of bindings and the newest state.

use std::time::Instant;

use crate::{
    clickhouse::{
        ClickHouse, cells, marks, tables,
        versions::{self, Marked},
    },
    kafka::binding_log::BindingLog,
    snapshot::{self, StartingPoint, Storage, Wanted, WantedPipeline},
};

use super::{EngineConfig, EngineError, coverage, deployed::Deployed};

/// What there is.
pub(super) struct Beginning {
    /// What was asked for, with the versions that run as its pipelines.
    pub(super) config: EngineConfig,
    /// The versions that run.
    pub(super) deployed: Deployed,
    /// What is marked.
    pub(super) marked: Marked,
    /// The log of bindings; in process 0 only, which holds the deployment from here on.
    pub(super) log: Option<BindingLog>,
    /// Where snapshots go, if any are taken.
    pub(super) storage: Option<Storage>,
    /// The state to go on from.
    pub(super) start: StartingPoint,
}

/// Takes the deployment over and reads what is there.
pub(super) async fn take_over(
    config: EngineConfig,
    clickhouse: &ClickHouse,
) -> Result<Beginning, EngineError> {
    tables::create_shared(clickhouse).await?;
    cells::write(clickhouse, config.grid.grid()).await?;
    let open = |location: &str| Storage::open(location, &config.deployment);
    let storage = config.snapshots.as_ref().map(|settings| open(&settings.location)).transpose()?;
    let log = match config.is_first() {
        // Who held it before binds no more.
        true => Some(BindingLog::take_over(&config.kafka, &config.deployment).await?),
        false => None,
    };
    let deployed = deploy(&config, clickhouse).await?;
    let config = EngineConfig { pipelines: deployed.pipelines.clone(), ..config };
    let names = config.topics().iter().map(ToString::to_string).collect();
    let log = log.map(|log| log.with_topics(names));
    let start = loop {
        let mut start = starting_point(&config, storage.as_ref(), &deployed, clickhouse).await?;
        let Some(log) = &log else { break start };
        coverage::check(&config, log, (&deployed, &start))?;
        // If there is a newer state by now, it is read.
        match &storage {
            Some(storage) if !snapshot::claim(storage, &mut start).await? => {}
            _ => break start,
        }
    };
    if config.is_first() {
        versions::retire_others(clickhouse, &config.pipelines).await?;
        for version in deployed.serving() {
            version.serve(clickhouse).await?;
        }
    }
    let mut marked = marks::last_marked(clickhouse).await?;
    start.raise(&mut marked);
    Ok(Beginning { config, deployed, marked, log, storage, start })
}

/// Decides which versions run and creates their tables.
async fn deploy(config: &EngineConfig, clickhouse: &ClickHouse) -> Result<Deployed, EngineError> {
    let served = versions::served(clickhouse).await?;
    let (moment, _) = marks::last_moment(clickhouse).await?;
    let deployed = Deployed::new(&config.pipelines, config.grid.grid(), served, moment);
    for table in &deployed.tables {
        table.create(clickhouse).await?;
    }
    Ok(deployed)
}

/// The newest state that is of use to this process.
async fn starting_point(
    config: &EngineConfig,
    storage: Option<&Storage>,
    deployed: &Deployed,
    clickhouse: &ClickHouse,
) -> Result<StartingPoint, EngineError> {
    let Some(storage) = storage else { return Ok(StartingPoint::default()) };
    let pipelines = deployed.pipelines.iter().zip(&deployed.tables);
    let pipelines: Vec<_> = pipelines
        .map(|(pipeline, table)| WantedPipeline {
            pipeline: pipeline.clone(),
            version: table.version.clone(),
        })
        .collect();
    let (process, processes) =
        config.cluster.as_ref().map_or((0, 1), |all| (all.process, all.addresses.len()));
    let workers = config.workers.get();
    let wanted = Wanted {
        pipelines: &pipelines,
        first_worker: process * workers,
        workers,
        peers: processes * workers,
        clickhouse,
    };
    let started = Instant::now();
    let start = snapshot::newest(storage, wanted).await?;
    for (version, epoch) in start.epochs() {
        let took_ms = started.elapsed().as_millis();
        tracing::info!(version, epoch = epoch.0, took_ms, "going on from a snapshot");
    }
    Ok(start)
}
