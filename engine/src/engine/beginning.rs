//! What an engine finds when it starts: tables, marks, the log of bindings and the newest state.

use std::{sync::Arc, time::Instant};

use crate::{
    clickhouse::{
        ClickHouse, cells, marks,
        serving::{self, Candidate, Marked},
        tables::{self, PipelineTable},
    },
    kafka::binding_log::BindingLog,
    pipeline::Pipeline,
    snapshot::{self, StartingPoint, Storage, Wanted, WantedPipeline},
};

use super::{EngineConfig, EngineError, coverage};

/// What there is.
pub(super) struct Beginning {
    /// Each pipeline's table.
    pub(super) tables: Vec<Arc<PipelineTable>>,
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
    config: &EngineConfig,
    clickhouse: &ClickHouse,
) -> Result<Beginning, EngineError> {
    let (tables, mut marked) = prepare_tables(config, clickhouse).await?;
    let open = |location: &str| Storage::open(location, &config.deployment);
    let storage = config.snapshots.as_ref().map(|settings| open(&settings.location)).transpose()?;
    let log = match config.is_first() {
        // Who held it before binds no more.
        true => {
            let names = config.topics().iter().map(ToString::to_string).collect();
            Some(BindingLog::take_over(&config.kafka, &config.deployment, names).await?)
        }
        false => None,
    };
    let start = loop {
        let mut start = starting_point(config, storage.as_ref(), &tables, clickhouse).await?;
        let Some(log) = &log else { break start };
        coverage::check(config, log, &start)?;
        // If there is a newer state by now, it is read.
        match &storage {
            Some(storage) if !snapshot::claim(storage, &mut start).await? => {}
            _ => break start,
        }
    };
    start.raise(&mut marked);
    Ok(Beginning { tables, marked, log, storage, start })
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
        clickhouse,
    };
    let started = Instant::now();
    let start = snapshot::newest(storage, wanted).await?;
    for (pipeline, epoch) in start.epochs() {
        let took_ms = started.elapsed().as_millis();
        tracing::info!(pipeline, epoch = epoch.0, took_ms, "going on from a snapshot");
    }
    Ok(start)
}
